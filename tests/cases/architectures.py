"""Every architecture and head against `transformers`: tiny checkpoints with weights made from their names."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.errors import ShapeMismatch, TensorCommonsError
from tests.cases import Place, shows
from tests.cases.golden_models import INPUTS, checkpoint_of, load_goldens
from tests.cases.support import near, raises

_HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
ARCHITECTURES = {
    **{
        family.lower().replace("xlmr", "xlm_r"): [f"{family}{head}" for head in _HEADS]
        for family in ("Bert", "DistilBert", "Roberta", "XLMRoberta", "MPNet", "Electra", "Albert", "ModernBert")
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


async def one_tower_of_clip(place: Place) -> None:
    """A call with a text alone has its features, which have the direction of the embeddings, and no scores."""
    files = checkpoint_of(load_goldens(place.goldens, "variants")[0]["CLIPModel"])
    model = await tc.from_pretrained(files, manager=place.manager(), device=place.device, tokenizer=False)
    arrays = load_goldens(place.goldens, "variants")[1]
    inputs = {name: arrays[f"CLIPModel.{name}"] for name in ("input_ids", "attention_mask", "pixel_values")}
    pixels = inputs.pop("pixel_values")
    for given, kind in ((inputs, "text"), ({"pixel_values": pixels}, "image")):
        out = await model(**given, outputs=[f"{kind}_features"])
        features = await out[f"{kind}_features"].read()
        near(features / np.linalg.norm(features, axis=1, keepdims=True), arrays[f"CLIPModel.{kind}_embeds"], 1e-4)
        await raises(TensorCommonsError, model(**given), "logits_per_image")
    await raises(TensorCommonsError, model(), "pixel_values")
    await raises(ShapeMismatch, model(pixel_values=np.zeros((1, 3, 30, 30), np.float32)), "18 x 18")
    model.unload()


async def texts_of_bart_end_alike(place: Place) -> None:
    """A classifier reads the state of the last end token, of which each text must have the same number."""
    files = checkpoint_of(load_goldens(place.goldens, "variants")[0]["BartForSequenceClassification labels"])
    model = await tc.from_pretrained(files, manager=place.manager(), device=place.device, tokenizer=False)
    await raises(TensorCommonsError, model(input_ids=[[5, 6, 7]]), "end tokens")
    await raises(TensorCommonsError, model(input_ids=[[5, 2, 2], [5, 6, 2]]), "end tokens")
    await raises(ShapeMismatch, model(input_ids=[[5, 6, 2]], decoder_input_ids=[[2, 5]]), "decoder_input_ids")
    model.unload()
