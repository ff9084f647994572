"""Texts of the goldens: chosen by hand for difficult inputs, and generated from a fixed seed.

``scripts/goldens.py`` turns them into token ids and model outputs.
"""

from __future__ import annotations

import random

ENGLISH = (
    "The quick brown fox jumps over the lazy dog, while a patient astronomer counts distant galaxies and writes every "
    "number into a small leather notebook that her grandfather carried across two oceans. "
)

PICKED = [
    "",
    " ",
    "\t\n\r ",
    "a",
    "Hello, world!",
    "  leading and trailing   spaces  ",
    "tabs\tand\nnew lines\r\nand\x0bothers\x0c.",
    "no-break\u00a0space, thin\u2009space, ideographic\u3000space, line\u2028separator, next\u0085line",
    "ALL CAPS, MiXeD cAsE",
    "don't can't won't it's they're I'd we've",
    "naïve café résumé coöperate Ångström Zürich fiancée",
    "nai\u0308ve cafe\u0301 A\u030angstro\u0308m (decomposed)",
    "\u0301\u0302 lone combining marks \u0308",
    "e\u0301\u0302\u0303\u0304\u0305\u0306 stacked marks",
    "Straße ẞ ß ſ ﬁ ﬂ ﬀ Ǆ ǅ ǆ Ǉ",
    "İstanbul ıIiİ Iğdır",
    "ΟΔΥΣΣΕΥΣ ΣΙΣΥΦΟΣ σοφός ς Σ",
    "Ελληνικά: Η γλώσσα μου έδωσαν ελληνική.",
    "Русский текст: Ёлка, ёж, Йод, подъезд",
    "Українська мова, її їжак",
    "日本語のテキスト、カタカナとひらがな。ｶﾞ半角",
    "中文文本，没有空格。繁體中文也一樣。",
    "混ざったmixed文字with英語English",
    "한국어 텍스트 각 \u1100\u1161\u11a8",
    "\U00020000\U0002070e rare han \U0002f800 and beside\U00020001letters",
    "ไทย ภาษาไทยไม่มีช่องว่าง",
    "हिन्दी में पाठ क्षत्रिय",
    "தமிழ் எழுத்து বাংলা ગુજરાતી",
    "العربية: مرحبا بالعالم، كيف الحال؟ مُحَمَّد",
    "עברית: שָׁלוֹם עולם",
    "\u202bright to left\u202c \u200fmarks\u200e",
    "emoji 😀 😃👍🏽 ❤️ ☺ 🇩🇪🇯🇵",
    "family 👨\u200d👩\u200d👧\u200d👦 flag 🏴\u200d☠\ufe0f rainbow 🏳\ufe0f\u200d🌈",
    "😀",
    "zero\u200bwidth\u200djoiner\u200cnon\u2060joiner\ufeffbom",
    "soft\u00adhyphen and non\u2011breaking hyphen — em – en ‒ figure − minus",
    "NUL \x00 inside, bell \x07, escape \x1b[31mred\x1b[0m, delete \x7f, C1 \x80\x9f",
    "\x00",
    "replacement \ufffd character \ufffd\ufffd",
    "private \ue000 use \uf8ff \U0010fffd",
    "noncharacter \uffff \ufdd0 unassigned \u0378",
    "x" * 100,
    "x" * 101,
    "x" * 3000,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism",
    "[UNK] [CLS] [SEP] [PAD] [MASK]",
    "The capital of France is [MASK].",
    "the [mask] in lower case, [ MASK ] apart, [MASK]glued[MASK] [MASK",
    "[SEP][SEP] text between [CLS]specials[CLS]",
    "[unused1] [unused42] ##ing ##s [PAD]",
    "https://example.org/path/to/page?query=a%20b&n=1#part-2 and mail@example.org",
    "C:\\Users\\me\\file.txt ~/notes/../x.md",
    'def f(x: int) -> str:\n    return f"{x!r:>10}"  # comment',
    "for (let i = 0; i < n; ++i) { a[i] ^= ~b[i] | (c << 3) && d; }",
    "SELECT * FROM t WHERE a >= 1.5e-10 AND b != 'x''y';",
    '<p class="a">&amp;&#x1F600;</p>',
    '{"json": [1, 2.5, null, true], "nested": {"key": "väl"}}',
    "0 1 12 123 1234 12345 123456 1234567890 0x1F 1e10 3.14159 -2 +3 1,000,000.00 50% $9.99 €5 £3 ¥100",
    "½ ¼ ² ³ ① ⅳ Ⅷ ㊗ ㌔ ℡ № ™ © ®",
    "2024-02-29T23:59:60Z 12:30 p.m. 24/7 1st 2nd 3rd",
    "!!! ??? ... ;;; ::: --- ___ *** ((( ))) [[[ ]]] {{{ }}} <<< >>>",
    "“curly” ‘quotes’ „low“ «guillemets» ‹single› 「corner」 ¿qué? ¡sí!",
    "a.b.c a-b-c a_b_c a/b/c a+b=c a'b\"c a`b´c",
    "∀x∈ℝ: ∑ᵢ xᵢ² ≥ 0 ⇒ √(x²+y²) ≤ |x|+|y| ± ∞ ≠ ∅",
    "→ ← ↑ ↓ ⇔ ■ □ ● ○ ★ ☆ ♥ ♠",
    "ａｂｃ ＡＢＣ １２３ ！？ full width",
    "𝕳𝖊𝖑𝖑𝖔 𝓦𝓸𝓻𝓵𝓭 𝟙𝟚𝟛 mathematical",
    "𐐀𐐁 𐐨𐐩 Deseret 𒀀𒁀 cuneiform 𓀀 hieroglyph",
    "ᚠᚢᚦ runes ⠓⠑⠇ braille ꙮ ꜳ",
    "Tiếng Việt: Nguyễn ở Đà Nẵng ướt đẫm",
    "Türkçe çğıöşü Polski zażółć gęślą jaźń Čeština příliš žluťoučký",
    "Ñandú, señor; pingüino — œuvre, Æsir, þorn, ðæt, Łódź, đ, ħ, ŋ",
    "K Å Ω (Kelvin, Ångström, Ohm signs)",
    "ʼn ŉ ǰ ΐ ΰ ẖ ẗ ẘ ẙ ẚ",
    "z\u0351\u036b\u0343a\u0321\u0339l\u0323\u0322g\u0358o\u0355 zalgo",
    "python : three years of Python and PyTorch in production",
    "machine learning : built machine learning pipelines for search",
    "A man is playing a guitar.",
    "A person plays an instrument.",
    "The company denied that it caused the outage.",
    "Heavy rain caused the river to flood in 1953.",
]

PAIRS = [
    ("", ""),
    ("a", ""),
    ("", "b"),
    ("A man is playing a guitar.", "A person plays an instrument."),
    ("What is the capital of France?", "Paris is the capital and largest city of France."),
    ("日本語", "中文 and café"),
    ("[SEP]", "[CLS] [MASK]"),
    ("\x00", "\u200d"),
    (ENGLISH, "short"),
    ("short", ENGLISH),
    (ENGLISH, ENGLISH.upper()),
    (ENGLISH * 8, ENGLISH * 8),
    (ENGLISH * 30, "a few words"),
    ("a few words", ENGLISH * 30),
    (ENGLISH * 7, ENGLISH * 12),
]

LIMITS = (512, 16)
"""Every text and pair is encoded with each of these as ``max_length``."""

PAIR_LIMITS = (3, 4, 5, 6, 7, 15)
"""Limits that decide which text keeps an odd token, for the pairs only."""


def generated() -> list[str]:
    """Generate two hundred strings in many scripts, equal on every run."""
    rng = random.Random(20240229)  # noqa: S311 - reproducible, not secret
    words = [
        *ENGLISH.split(),
        "tokenization",
        "unbelievable",
        "GPU",
        "WebGPU",
        "naïve",
        "re-entrant",
        "U.S.A.",
        "[MASK]",
    ]
    blocks = [
        (0x20, 0x7E),
        (0xA1, 0x24F),
        (0x370, 0x3FF),
        (0x400, 0x52F),
        (0x5D0, 0x5EA),
        (0x621, 0x64A),
        (0x905, 0x939),
    ]
    blocks += [
        (0x3041, 0x30FF),
        (0x4E00, 0x9FA5),
        (0xAC00, 0xD7A3),
        (0x2010, 0x2046),
        (0x1F600, 0x1F64F),
        (0x300, 0x34F),
    ]
    texts = [" ".join(rng.choices(words, k=rng.randint(1, 30))) for _ in range(60)]
    for _ in range(140):
        pieces: list[str] = []
        for _ in range(rng.randint(1, 8)):
            if rng.random() < 0.4:
                pieces.append(rng.choice(words))
            else:
                low, high = rng.choice(blocks)
                pieces.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 6))))
        texts.append(rng.choice([" ", "", "-", "  "]).join(pieces))
    return texts


LONG = ENGLISH * 20
"""Over 512 tokens."""

SENTENCES = [
    "A man is playing a guitar on the street.",
    "Someone performs music outdoors.",
    "The stock market fell sharply after the announcement.",
    "Shares dropped when the news came out.",
    "Pasta with tomatoes and basil",
    "Ein Mann spielt auf der Straße Gitarre.",
    "東京は日本の首都です。",
    "",
    "😀",
    "Hello",
    "antidisestablishmentarianism " * 3,
    "WebGPU exposes the capabilities of modern graphics hardware to web pages, so that models run in a browser tab.",
]

STATEMENTS = [
    "Heavy rain caused the river to flood in 1953.",
    "The committee did not approve the proposal.",
    "It may have been built before the war.",
    "The museum stands next to the old harbour.",
    "She wore a bright red coat.",
    "Inflation rose because energy became more expensive.",
    "Nobody has ever seen the manuscript.",
    "The meeting takes place after lunch on Friday.",
]

CLAIMS = [
    ("A man is playing a guitar.", "A person plays an instrument."),
    ("A man is playing a guitar.", "Nobody is making music."),
    ("A man is playing a guitar.", "The weather in Paris is mild."),
    ("The film won three awards in 1999.", "The film never won an award."),
    ("Sales rose by ten percent.", "Sales increased."),
    ("The bridge was closed for repairs.", "The bridge is open to traffic."),
    ("Marie Curie discovered radium.", "Radium was discovered by Marie Curie."),
    ("", "An empty premise."),
]

SKILLS = [
    ("python", "built data pipelines in Python and maintained several Django services for the payments team"),
    ("python", "the zoo keeps a python, two cobras and a family of meerkats in its reptile house"),
    ("java", "we drank java on the beach while the children built castles"),
    ("machine learning", "five years of machine learning research with publications at major conferences"),
    ("excel", "our graduates excel in everything that they do"),
    ("project management", "responsible for project management, budgeting and reporting to the board"),
]

TOPICS = [
    "A man is playing a guitar on the street.",
    "Someone performs music outdoors.",
    "The orchestra rehearsed the symphony until midnight.",
    "She taught herself the piano in one winter.",
    "The stock market fell sharply after the announcement.",
    "Shares dropped when the news came out.",
    "The central bank raised interest rates again.",
    "Our company made a small profit this quarter.",
    "Boil the pasta and add tomatoes and basil.",
    "Bake the bread until the crust is golden.",
    "This soup needs more salt and a little lemon.",
    "The restaurant around the corner serves fish.",
    "Heavy rain flooded the valley last night.",
    "It will be sunny with a light wind tomorrow.",
    "The storm tore the roof off the barn.",
    "Snow fell for three days in the mountains.",
    "The striker scored twice in the final.",
    "Our team lost the match in the last minute.",
    "She ran the marathon in under three hours.",
    "A dog chased the ball across the park.",
    "The cat slept on the warm windowsill.",
    "Wolves hunt in packs over long distances.",
    "The new browser runs models on the graphics card.",
    "Programs that share memory load faster.",
    "The compiler found an error in the shader.",
]
"""25 sentences about five topics and others: 300 pairs, from nearly equal to unrelated."""
