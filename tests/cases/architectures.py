"""Every architecture and head against `transformers`: tiny checkpoints with weights made from their names."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import tensorcommons as tc
from tests.cases import Place, shows
from tests.cases.golden_models import INPUTS, checkpoint_of, load_goldens
from tests.cases.support import near

_HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
ARCHITECTURES = {
    **{
        family.lower().replace("xlmr", "xlm_r"): [f"{family}{head}" for head in _HEADS]
        for family in ("Bert", "DistilBert", "Roberta", "XLMRoberta", "MPNet", "Electra", "Albert")
    },
    "vit": ["ViTModel", "ViTForImageClassification"],
    "deit": ["DeiTModel", "DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"],
    "dinov2": ["Dinov2Model", "Dinov2ModelWide", "Dinov2ForImageClassification"],
    "dinov2_with_registers": ["Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"],
}


def _goldens(place: Place) -> tuple[dict[str, Any], dict[str, Any]]:
    return load_goldens(place.goldens, "architectures")


def checkpoint(place: Place, case: str) -> dict[str, bytes]:
    """Make the files of the model of a golden."""
    return checkpoint_of(_goldens(place)[0][case])


async def _agree(place: Place, *cases: str) -> None:
    """Compare every default output of `transformers`, by the same name, within 1e-4."""
    manager = place.manager()
    arrays = _goldens(place)[1]
    for case in cases:
        files = checkpoint(place, case.removesuffix("Wide"))
        model = await tc.from_pretrained(files, manager=manager, device=place.device, tokenizer=False)
        mine = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{case}.")}
        inputs = {name: mine.pop(name) for name in INPUTS if name in mine}
        out = await model(**inputs)
        assert set(out) == set(mine), f"{case}: {sorted(out)} instead of {sorted(mine)}"
        for name, wanted in mine.items():
            try:
                near(await out[name].read(), wanted, 1e-4)
            except AssertionError as error:
                error.add_note(f"{case} {name}")
                raise
        model.unload()


def _case(model_type: str, goldens: Sequence[str]) -> Callable[[Place], Coroutine[Any, Any, None]]:
    async def case(place: Place) -> None:
        await _agree(place, *goldens)

    for golden in goldens:
        head = golden[golden.index("Model" if "Model" in golden else "For") :]
        case = shows(model_type, head.replace("ModelWide", "Model, images of another size"), "architectures.npz")(case)
    return case


for _type, _names in ARCHITECTURES.items():
    globals()[_type] = _case(_type, _names)
