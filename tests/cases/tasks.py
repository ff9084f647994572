"""Pipelines of heads and images, with tiny random models: results that follow from the logits."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.errors import TensorCommonsError
from tensorcommons.models.preprocessing import pixels_of
from tests.cases import Place, only
from tests.cases.architectures import checkpoint
from tests.cases.checkpoints import WEIGHTS, pack, tensors_of
from tests.cases.pipelines import VIT, reading, seeing
from tests.cases.random_weights import picture, values_of
from tests.cases.support import near, raises


async def _pipe(place: Place, task: str, files: dict[str, bytes]) -> Any:
    return await tc.pipeline(task, files, manager=place.manager(), device=place.device.kind)


async def images_are_classified(place: Place) -> None:
    pipe = await _pipe(place, "image-classification", seeing(place, "ViTForImageClassification"))
    images = [picture(45, 70), picture(66, 31)]
    answers = await pipe(images)
    pixels = np.stack([pipe.model.processor(image) for image in images])
    logits = await (await pipe.model(pixel_values=pixels))["logits"].read()
    names = ("one", "two", "three")
    for answer, row in zip(answers, logits, strict=True):
        assert [entry["label"] for entry in answer] == [names[i] for i in np.argsort(-row)]
        assert abs(sum(entry["score"] for entry in answer) - 1) < 1e-5
    assert (await pipe(images[1]))[0]["label"] == answers[1][0]["label"]
    await raises(TensorCommonsError, pipe("cat.png"), "str")
    pipe.close()
    blind = await _pipe(place, "image-classification", checkpoint(place, "ViTForImageClassification"))
    await raises(TensorCommonsError, blind(images), "preprocessor_config.json")
    blind.close()


async def features_of_images(place: Place) -> None:
    pipe = await _pipe(place, "image-feature-extraction", seeing(place, "Dinov2Model"))
    image = picture(45, 70)
    first, second = await pipe([image, image[::-1]], pool=True)
    pixels = pipe.model.processor(image)[None]
    out = await pipe.model(pixel_values=pixels)
    near(first, await out["pooler_output"].read(), 1e-5)
    assert second.shape == (1, 24) and not np.allclose(first, second)
    near(await pipe(image), await out["last_hidden_state"].read(), 1e-5)
    pipe.close()


async def saliency_of_an_image(place: Place) -> None:
    backbone = checkpoint(place, "Dinov2Model")
    tensors = {f"backbone.{name}": array for name, array in tensors_of(backbone).items()}
    for n, (inputs, outputs) in enumerate(((24, 256), (256, 128), (128, 64)), 1):
        shapes = {f"upconv{n}.weight": (inputs, outputs, 4, 4), f"upconv{n}.bias": (outputs,)}
        shapes |= {f"bn{n}.{part}": (outputs,) for part in ("weight", "bias", "running_mean", "running_var")}
        tensors |= {f"decoder.{name}": values_of(name, shape) for name, shape in shapes.items()}
        tensors[f"decoder.bn{n}.running_var"] = np.abs(values_of(str(n), (outputs,))) + 90
    tensors["decoder.final_conv.weight"] = values_of("final", (1, 64, 1, 1))
    tensors["decoder.final_conv.bias"] = np.zeros(1, np.float32)
    config = {**json.loads(backbone["config.json"]), "model_type": "dinov2-saliency"}
    letterbox = {"size": {"longest_edge": 30}, "do_pad": True, "pad_size": {"height": 30, "width": 30}}
    processing = json.dumps({**VIT, **letterbox}).encode()
    files = {"config.json": json.dumps(config).encode(), WEIGHTS: pack(tensors), "preprocessor_config.json": processing}
    pipe = await _pipe(place, "saliency", files)
    wide = await pipe(picture(30, 60))
    assert wide.shape == (15, 30)
    assert wide.min() >= 0 and wide.max() <= 1 and wide.std() > 0
    pipe.close()


@only("cpu", "webgpu")
async def files_of_every_mode_have_the_pixels_of_pillow(place: Place) -> None:
    table = json.loads((Path(place.goldens) / "pictures.json").read_text())
    for name, golden in table.items():
        pixels = await pixels_of(base64.b64decode(golden["file"]))
        wanted = np.frombuffer(base64.b64decode(golden["pixels"]), np.uint8).reshape(*golden["shape"], 3)
        assert np.array_equal(pixels, wanted), name
    for bad in (b"", b"no image", base64.b64decode(table["grey.jpeg"]["file"])[:300]):
        await raises(TensorCommonsError, pixels_of(bad), "bytes")
    bomb = bytearray(base64.b64decode(table["grey.png"]["file"]))
    bomb[16:24] = (10_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    await raises(TensorCommonsError, pixels_of(bytes(bomb)), "10,000 x 10,000")


@only("webgpu")
async def a_file_and_a_canvas_are_the_same_image(place: Place) -> None:
    from js import ImageData, OffscreenCanvas, Uint8ClampedArray
    from pyodide.ffi import to_js

    image = picture(20, 24)
    rgba = np.concatenate([image, np.full((20, 24, 1), 255, np.uint8)], -1)
    data = ImageData.new(Uint8ClampedArray.new(to_js(rgba.tobytes()).buffer), 24, 20)
    canvas = OffscreenCanvas.new(24, 20)
    canvas.getContext("2d").putImageData(data, 0, 0)
    file = (await (await canvas.convertToBlob()).arrayBuffer()).to_bytes()  # a PNG
    pipe = await _pipe(place, "image-feature-extraction", seeing(place, "Dinov2Model"))
    wanted = await pipe(image)
    for other in (data, canvas, file):
        assert np.array_equal(await pipe(other), wanted)
    await raises(TensorCommonsError, pipe(b"no image"), "8 bytes")
    pipe.close()


@only("webgpu")
async def entities_in_a_text(place: Place) -> None:
    pipe = await _pipe(place, "token-classification", reading(place, "BertForTokenClassification"))
    text = "The Cat sat, and ran"
    entities, (again, _) = await pipe(text), await pipe([text, "dog"])
    encoding = pipe.model.tokenizer.encode_batch([text])
    logits = await (await pipe.model(input_ids=encoding.input_ids))["logits"].read()
    assert [entity["entity"] for entity in entities] == [("one", "two", "three")[i] for i in logits[0, 1:-1].argmax(-1)]
    assert [entity["index"] for entity in entities] == list(range(1, len(entities) + 1))
    parts = [text[entity["start"] : entity["end"]] for entity in entities]
    assert "".join(parts) == text.replace(" ", "") and parts[:4] == ["The", "Cat", "sat", ","]
    assert [entity["word"] for entity in entities][:2] == ["the", "cat"]
    near(np.array([e["score"] for e in again]), np.array([e["score"] for e in entities]), 1e-5)
    pipe.close()


@only("webgpu")
async def a_cross_encoder_takes_pairs(place: Place) -> None:
    pipe = await _pipe(place, "text-classification", reading(place, "BertForSequenceClassification"))
    pairs = [("the cat", "a dog"), ("the cat sat", "on the mat")]
    answers = await pipe(pairs, top_k=None)
    encoding = pipe.model.tokenizer.encode_batch([a for a, _ in pairs], [b for _, b in pairs])
    logits = await (await pipe.model(**encoding.as_inputs()))["logits"].read()
    for answer, row in zip(answers, logits, strict=True):
        scores = {entry["label"]: entry["score"] for entry in answer}
        near(np.array([scores[name] for name in ("one", "two", "three")]), 1 / (1 + np.exp(-row)), 1e-5)
    await raises(TensorCommonsError, pipe(["one", ("a", "b")]), "pass two batches")
    pipe.close()
