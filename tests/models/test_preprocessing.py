"""Pixel values compared with the image processors of `transformers`, and refused images."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.processor_goldens import picture as golden_picture
from tensorcommons.errors import InvalidWeights, ShapeMismatch, TensorCommonsError
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
    level = 1 / 255 / min(processor.settings.std or (1.0,))
    assert np.abs(actual - wanted).max() < 0.01 * level, "equal up to the rounding of float32 against float64"


@pytest.mark.parametrize("resample", range(6))
def test_a_uniform_image_stays_uniform_and_the_target_size_is_not_resized(resample):
    flat = np.full((13, 9, 3), 77, np.uint8)
    assert (resized(flat, (5, 31), resample) == 77).all()
    image = picture(13, 9)
    assert np.array_equal(resized(image, (13, 9), resample), image)


def test_a_letterbox_and_the_region_of_the_image():
    config = {"size": {"longest_edge": 20}, "do_pad": True, "pad_size": {"height": 20, "width": 20}, "resample": 4}
    processor = ImageProcessor.of({**config, "do_normalize": False}, "f")
    values = processor(np.full((30, 60, 3), 255, np.uint8))
    rows, columns = processor.region(30, 60)
    assert values.shape == (3, 20, 20) and (values[:, rows, columns] == 1).all()
    assert values.sum() == 3 * 10 * 20, "the padding must be zero"
    assert processor.region(60, 30) == (slice(0, 20), slice(5, 15))


FORMS = json.loads((TINY / "processors.json").read_text())


@pytest.mark.parametrize("number", range(len(FORMS)))
def test_fields_of_every_form_mean_what_they_mean_in_transformers(number):
    config = dict(FORMS[number])
    image = golden_picture(*config.pop("_shape"))
    processor = ImageProcessor.of(config, "preprocessor_config.json")
    with np.load(TINY / "processors.npz") as arrays:
        wanted = arrays[f"{number}"]
    actual = processor(image)
    s = processor.settings
    level = (1 if s.rescale is None else s.rescale) / min(s.std or (1.0,))
    assert actual.shape == wanted.shape
    assert np.abs(actual - wanted).max() < 1.01 * level, "off by more than one level in places"
    assert (np.abs(actual - wanted) > 0.01 * level).mean() < 0.25, "more than the noise of another order of axes"


def test_without_a_named_class_the_model_selects_the_processor():
    config = {"size": 8, "crop_size": 6}
    assert ImageProcessor.of(config, "f", "vit")(picture(10, 20)).shape == (3, 8, 8)
    assert ImageProcessor.of(config, "f", "dinov2")(picture(10, 20)).shape == (3, 6, 6)
    assert ImageProcessor.of(config, "f", "dinov2").settings.mean != ImageProcessor.of(config, "f", "vit").settings.mean


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"size": {"shortest_edge": 5, "height": 9}}, "size"),
        ({"size": "big"}, "size"),
        ({"size": {"height": 0, "width": 3}}, "size"),
        ({"size": {"height": 1 << 15, "width": 1 << 15}}, "size"),
        ({"size": None}, "size"),
        ({"size": {"longest_edge": 9}}, "size"),
        ({"size": True}, "size"),
        ({"resample": 9}, "resample"),
        ({"resample": "bilinear"}, "resample"),
        ({"image_mean": None}, "image_mean"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_mean": [0.5, math.nan, 0.5]}, "image_mean"),
        ({"image_std": [0, 1, 1]}, "image_std"),
        ({"image_std": [1e-60, 1, 1]}, "image_std"),
        ({"image_std": [math.inf, 1, 1]}, "image_std"),
        ({"rescale_factor": "x"}, "rescale_factor"),
        ({"rescale_factor": math.inf}, "rescale_factor"),
        ({"rescale_factor": 10**400}, "rescale_factor"),
        ({"do_pad": True}, "pad_size"),
        ({"do_resize": "yes"}, "do_resize"),
        ({"do_center_crop": True, "crop_size": {"shortest_edge": 3}}, "crop_size"),
        ({"image_processor_type": "EfficientNetImageProcessor"}, "image_processor_type"),
        ({"image_processor_type": ["ViTImageProcessor"]}, "image_processor_type"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 9}, "crop_pct": 0}, "crop_pct"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 4097}}, "size .* is over"),
    ],
)
def test_unsupported_configs_are_refused(change, word):
    with pytest.raises(InvalidWeights, match=f"^preprocessor_config.json: {word} "):
        ImageProcessor.of({**CONFIGS["vit"], **change}, "preprocessor_config.json")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["height", "width", "shortest_edge", "longest_edge", "max_height", "x"]), inner
        )
    ),
    max_leaves=6,
)
CHANGES = st.dictionaries(st.sampled_from(sorted({key for config in FORMS for key in config} - {"_shape"})), VALUES)
STARTS = st.sampled_from([*CONFIGS.values(), *({k: v for k, v in form.items() if k != "_shape"} for form in FORMS)])


def _mutated(start, changes, shape, dropped):
    """Process an image under a mutated config: pixels, or a typed error from the config or for the image."""
    config = {name: value for name, value in {**start, **changes}.items() if name not in dropped}
    try:
        processor = ImageProcessor.of(config, "preprocessor_config.json", "vit")
    except InvalidWeights:
        return
    try:
        values = processor(picture(*shape))
    except ShapeMismatch:
        return
    assert values.dtype == np.float32 and values.shape[0] == 3
    assert np.isfinite(values).all()


SHAPES_OF_MUTATED = st.sampled_from([(1, 1), (1, 60), (60, 1), (7, 9)])
MUTATED = given(STARTS, CHANGES, SHAPES_OF_MUTATED, st.sets(st.sampled_from(["size", "crop_size", "image_mean"])))


@pytest.mark.slow
@settings(max_examples=150)
@MUTATED
def test_mutated_configs_give_pixels_or_a_typed_error(start, changes, shape, dropped):
    _mutated(start, changes, shape, dropped)


@pytest.mark.long
@settings(max_examples=20_000)
@MUTATED
def test_many_mutated_configs_give_pixels_or_a_typed_error(start, changes, shape, dropped):
    _mutated(start, changes, shape, dropped)


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize(("before", "after"), [((40, 31), (13, 50)), ((9, 60), (30, 20)), ((17, 17), (17, 5))])
def test_resizing_a_part_gives_that_part_of_the_resized_image(resample, before, after):
    image = picture(*before)
    whole = resized(image, after, resample)
    for rows, columns in (((0, 1), (2, 5)), ((after[0] - 3, after[0]), (0, after[1])), ((4, 9), (1, 4))):
        part = resized(image, after, resample, [rows, columns])
        assert np.array_equal(part, whole[slice(*rows), slice(*columns)])


@pytest.mark.parametrize("shape", [(300, 1), (1, 300), (3000, 2)])
def test_cropped_pixels_take_no_memory(shape):
    processor = ImageProcessor.of(CONFIGS["bit"] | {"size": {"shortest_edge": 224}, "crop_size": 224}, "f")
    image = picture(*shape)
    tracemalloc.start()
    assert processor(image).shape == (3, 224, 224)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20
    whole = ImageProcessor.of(CONFIGS["bit"] | {"size": {"shortest_edge": 2240}, "do_center_crop": False}, "f")
    with pytest.raises(ShapeMismatch, match="limit"):
        whole(image)


async def test_accepted_and_refused_images():
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
    with pytest.raises(TensorCommonsError, match="4 bytes are not an image"):
        await pixels_of(b"\x89PNG")
    with pytest.raises(TensorCommonsError, match="str"):
        await pixels_of("cat.png")
