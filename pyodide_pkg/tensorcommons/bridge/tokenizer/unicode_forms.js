// NFD, NFC, NFKD and NFKC with the changes for alignments, as reported by the crate unicode-normalization-alignments.
// The engine's normalize() gives decompositions, compositions and the order of marks,
// but not the origins of characters, so strings are processed here.

// A mark of each canonical combining class, in ascending order of the class.
const MARKS = [
  0x334, 0x16ff0, 0x93c, 0x3099, 0x94d, 0x5b0, 0x5b1, 0x5b2, 0x5b3, 0x5b4, 0x5b5, 0x5b6, 0x5b7, 0x5b8, 0x5b9, 0x5bb,
  0x5bc, 0x5bd, 0x5bf, 0x5c1, 0x5c2, 0xfb1e, 0x64b, 0x64c, 0x64d, 0x64e, 0x64f, 0x650, 0x651, 0x652, 0x670, 0x711,
  0xc55, 0xc56, 0xe38, 0xe48, 0xeb8, 0xec8, 0xf71, 0xf72, 0xf74, 0x321, 0x1dce, 0x31b, 0x1dfa, 0x316, 0x59a, 0x302e,
  0x1d16d, 0x5ae, 0x301, 0x315, 0x35c, 0x35d, 0x345,
].map((code) => String.fromCodePoint(code));
const ranks = new Map();

/** Return 0 for a starter, else a number that grows with the canonical combining class. */
function rankOf(char) {
  if (char < "\u0300") return 0;
  let rank = ranks.get(char);
  if (rank === undefined) {
    // `a` before `b` is exchanged if the class of `a` is greater and that of `b` is not 0.
    const exchanged = (a, b) => (a + b).normalize("NFD") === b + a;
    const [first, last] = [MARKS[0], MARKS[MARKS.length - 1]];
    rank = 0;
    if (char === first || exchanged(char, first) || exchanged(last, char) || char === last) {
      let [low, high] = [0, MARKS.length - 1];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (char !== MARKS[middle] && exchanged(char, MARKS[middle])) low = middle + 1;
        else high = middle;
      }
      rank = low + 1;
    }
    ranks.set(char, rank);
  }
  return rank;
}

/** Return [character, change, rank] of the decomposed text, with marks in canonical order. */
function decompose(text, form) {
  const parts = [];
  let run = 0; // beginning of the unsorted marks
  const sort = () => {
    if (parts.length - run > 1) for (const part of parts.splice(run).sort((a, b) => a[2] - b[2])) parts.push(part);
    run = parts.length;
  };
  for (const char of text) {
    let change = 0;
    for (const part of char < "\x80" ? char : char.normalize(form)) {
      const rank = rankOf(part);
      if (rank === 0) sort();
      parts.push([part, change, rank]);
      if (rank === 0) run = parts.length;
      change = 1;
    }
  }
  sort();
  return parts;
}

/** Return the composition of two characters, or "". */
function composed(first, second) {
  const pair = (first + second).normalize("NFC");
  return pair.length <= 2 && [...pair].length === 1 ? pair : "";
}

function recompose(parts) {
  const result = [];
  let starter = null; // the starter that marks compose with, in `result` already
  let last = -1; // rank of the last remaining mark after it
  for (const part of parts) {
    const [char, change, rank] = part;
    if (starter && (last < 0 || last < rank)) {
      const whole = composed(starter[0], char);
      if (whole) {
        starter[0] = whole;
        starter[1] += change - 1;
        continue;
      }
    }
    const copy = [char, change];
    result.push(copy);
    if (rank === 0) {
      starter = copy;
      last = -1;
    } else if (starter) {
      last = rank;
    }
  }
  return result;
}

/** Convert a NormalizedString to a form. */
export function toForm(normalized, form) {
  const { text } = normalized;
  if (text.normalize(form) === text && normalized.range()[0] === 0) return;
  const decomposed = decompose(text, form === "NFC" || form === "NFD" ? "NFD" : "NFKD");
  const parts = form === "NFC" || form === "NFKC" ? recompose(decomposed) : decomposed;
  normalized.transform(parts.map(([char]) => char), parts.map(([, change]) => change));
}
