"""Pixel values against the image processors of `transformers`, and images that cannot be taken."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tensorcommons.errors import DeviceUnavailable, InvalidWeights, ShapeMismatch, TensorCommonsError
from tensorcommons.models.preprocessing import ImageProcessor, pixels_of, resized
from tests.cases import shows
from tests.cases.random_weights import picture
from tests.models.server import TINY

CONFIGS = json.loads((TINY / "preprocessing.json").read_text())
SHAPES = ((45, 70), (66, 31))


@shows("any vision model", "pixels within 1/255", "architectures.npz")
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_those_of_transformers(name, shape):
    processor = ImageProcessor.of(CONFIGS[name], name)
    with np.load(TINY / "architectures.npz") as arrays:
        wanted = arrays[f"{name}-{shape[0]}x{shape[1]}.processed"]
    actual = processor(picture(*shape))
    assert actual.shape == wanted.shape and actual.dtype == np.float32
    level = 1 / 255 / min(processor.std or (1.0,))
    assert np.abs(actual - wanted).max() < 0.01 * level, "to the bit, but for float32 against float64"


@pytest.mark.parametrize("resample", range(6))
def test_a_flat_image_stays_flat_and_a_size_that_is_there_stays(resample):
    flat = np.full((13, 9, 3), 77, np.uint8)
    assert (resized(flat, (5, 31), resample) == 77).all()
    image = picture(13, 9)
    assert np.array_equal(resized(image, (13, 9), resample), image)


def test_a_letterbox_and_the_region_in_it():
    config = {"size": {"longest_edge": 20}, "do_pad": True, "pad_size": {"height": 20, "width": 20}, "resample": 4}
    processor = ImageProcessor.of({**config, "do_normalize": False}, "f")
    values = processor(np.full((30, 60, 3), 255, np.uint8))
    rows, columns = processor.region(30, 60)
    assert values.shape == (3, 20, 20) and (values[:, rows, columns] == 1).all()
    assert values.sum() == 3 * 10 * 20, "zeros around"
    assert processor.region(60, 30) == (slice(0, 20), slice(5, 15))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"size": {"shortest_edge": 5, "longest_edge": 9}}, "size"),
        ({"size": "big"}, "size"),
        ({"size": {"height": 0, "width": 3}}, "size"),
        ({"resample": 9}, "resample"),
        ({"image_mean": None}, "image_mean"),
        ({"image_std": [0, 1, 1]}, "image_std"),
        ({"rescale_factor": "x"}, "rescale_factor"),
        ({"do_pad": True}, "pad_size"),
    ],
)
def test_configs_that_cannot_be_followed(change, word):
    with pytest.raises(InvalidWeights, match=word):
        ImageProcessor.of({**CONFIGS["vit"], **change}, "preprocessor_config.json")


async def test_what_an_image_may_be():
    image = picture(8, 10)
    assert np.array_equal(await pixels_of(image), image)
    assert np.array_equal(await pixels_of(np.moveaxis(image, -1, 0)), image)
    transparent = np.concatenate([image, np.zeros((8, 10, 1), np.uint8)], -1)
    assert np.array_equal(await pixels_of(transparent), image)
    gray = await pixels_of(image[:, :, 0])
    assert gray.shape == (8, 10, 3) and np.array_equal(gray[..., 2], image[..., 0])
    for bad in (image.astype(np.float32), image[None], np.zeros((4, 5, 2), np.uint8), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(ShapeMismatch):
            await pixels_of(bad)
    with pytest.raises(DeviceUnavailable, match="array"):
        await pixels_of(b"\x89PNG")
    with pytest.raises(TensorCommonsError, match="str"):
        await pixels_of("cat.png")
