"""Preprocessing and the way of coordinates into the padded frame and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from talking_points.models.omg_llava.image_processing import CLIP_MEAN, CLIP_STD, OmgLlavaImageProcessor, to_rgb

sizes = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@pytest.mark.parametrize(("width", "height"), [(75, 50), (41, 90), (33, 33), (200, 3)])
def test_equals_clips_own_processor_on_the_padded_square(width, height):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    processor = OmgLlavaImageProcessor(64)
    clip = CLIPImageProcessorPil(
        size={"height": 64, "width": 64},
        crop_size={"height": 64, "width": 64},
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
    )
    expected = clip(processor.pad(image), return_tensors="np")["pixel_values"][0]
    assert np.array_equal(processor.pixel_values(image), expected)


def test_padding_is_centred_with_the_mean_colour():
    square = np.asarray(OmgLlavaImageProcessor().pad(np.zeros((4, 9, 3), np.uint8)))
    assert square.shape == (9, 9, 3)
    assert square[:2].reshape(-1, 3).tolist() == [[122, 116, 104]] * 18
    assert square[2:6].max() == 0
    assert square[6:].min() > 0


@given(size=sizes, x=st.floats(0, 1), y=st.floats(0, 1))
def test_points_keep_their_place_relative_to_the_padded_image(size, x, y):
    width, height = size
    side = max(size)
    [[u, v]] = OmgLlavaImageProcessor(1024).points_to_frame([[x * width, y * height]], size)
    assert u == pytest.approx((x * width + (side - width) // 2) / side * 1024, abs=1e-6)
    assert v == pytest.approx((y * height + (side - height) // 2) / side * 1024, abs=1e-6)
    assert 0 <= u <= 1024 + 1e-6
    assert 0 <= v <= 1024 + 1e-6


def test_points_of_images_of_different_sizes():
    frame = OmgLlavaImageProcessor(100).points_to_frame([[0, 0], [10, 5]], [[20, 10], [10, 50]])
    assert frame.tolist() == [[0.0, 25.0], [60.0, 10.0]]


def test_boxes_become_corners():
    boxes = OmgLlavaImageProcessor(100).boxes_to_frame([[2, 1, 4, 5]], [20, 10])
    assert boxes.tolist() == [[10.0, 30.0, 30.0, 55.0]]


def test_grey_and_transparent_images_become_rgb():
    assert to_rgb(Image.new("L", (3, 2), 7)).getpixel((0, 0)) == (7, 7, 7)
    assert to_rgb(Image.new("RGBA", (3, 2))).mode == "RGB"


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8)]
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match="expected a PIL image or a uint8 array"):
        to_rgb(array)


@pytest.mark.parametrize("image", [np.zeros((0, 5, 3), np.uint8), Image.new("RGB", (0, 5)), Image.new("L", (5, 0))])
def test_an_image_without_pixels_is_no_answer_to_anything(image):
    with pytest.raises(ValueError, match=r"pixels|uint8"):
        to_rgb(image)


def test_settings_survive_a_folder(tmp_path):
    OmgLlavaImageProcessor(96).save_pretrained(tmp_path)
    loaded = OmgLlavaImageProcessor.from_pretrained(tmp_path)
    assert (loaded.image_size, loaded.image_mean, loaded.image_std) == (96, list(CLIP_MEAN), list(CLIP_STD))
