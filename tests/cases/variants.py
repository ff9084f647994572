"""Less common configurations compared with `transformers`: tied and untied heads, heads of
decoders, and fields that are missing, null, or have unusual values.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import tensorcommons as tc
from tests.cases import Place, shows
from tests.cases.golden_models import INPUTS, checkpoint_of, load_goldens
from tests.cases.support import near, warnings_of

TIED = ("tied, both stored", "by default, both stored")


def _goldens(place: Place) -> tuple[dict[str, Any], dict[str, Any]]:
    return load_goldens(place.goldens, "variants")


def checkpoint(place: Place, name: str) -> dict[str, bytes]:
    """Make the files of the model of a golden."""
    return checkpoint_of(_goldens(place)[0][name])


def names_of(place: Place, model_type: str) -> list[str]:
    """Return the names of the goldens of a model type."""
    table = _goldens(place)[0]
    return [name for name in table if name != "fields" and table[name]["config"]["model_type"] == model_type]


async def _agree(place: Place, model_type: str) -> None:
    manager, arrays = place.manager(), _goldens(place)[1]
    names = names_of(place, model_type)
    assert names, model_type
    for name in names:
        with warnings_of("tensorcommons") as warned:
            model = await tc.from_pretrained(
                checkpoint(place, name), manager=manager, device=place.device, tokenizer=False
            )
        mine = {key.rpartition(".")[2]: array for key, array in arrays.items() if key.startswith(f"{name}.")}
        inputs = {key: mine.pop(key) for key in INPUTS if key in mine}
        try:
            config = _goldens(place)[0][name]["config"]
            tells = name.endswith(TIED) and not (
                model_type in ("llama", "qwen2", "qwen3", "mistral") and "by default" in name
            )
            tells |= name.endswith(("embeddings apart", "without shared"))
            assert bool(warned) == tells, f"{warned} of {config}"
            out = await model(**inputs, outputs=list(mine))
            counts = (
                inputs["attention_mask"] == 1
                if "attention_mask" in inputs and model_type not in ("t5", "bart")
                else None
            )
            for key, wanted in mine.items():
                given = await out[key].read()
                if counts is not None and wanted.shape[:2] == counts.shape:
                    given, wanted = given[counts], wanted[counts]  # values at padding are undefined
                near(given, wanted, 1e-4)
        except AssertionError as error:
            error.add_note(name)
            raise
        model.unload()


def _case(model_type: str) -> Callable[[Place], Coroutine[Any, Any, None]]:
    @shows(model_type, "heads tied, untied and stored twice; other values of fields; see variants.json", "variants.npz")
    async def case(place: Place) -> None:
        await _agree(place, model_type)

    return case


for _type in (
    *("albert", "bart", "bert", "clip", "clip_text_model", "clip_vision_model", "deit", "dinov2", "distilbert"),
    *("electra", "gemma3_text", "gpt2", "llama"),
    *("mistral", "modernbert", "mpnet", "qwen2", "qwen3", "roberta", "t5", "vit", "xlm-roberta"),
):
    globals()[_type.replace("-", "_")] = _case(_type)
