"""From an image of any shape to the padded square frame that the vision path sees, and back.

The frame: the image is centred on a square of its longer side, filled with the mean colour, and resized.
All coordinates are (x to the right, y down); "frame" coordinates are pixels of the resized square.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from transformers.image_processing_base import ImageProcessingMixin

from talking_points import image_files

ImageInput = Image.Image | NDArray[np.uint8]

# OMG-LLaVA rounds CLIP's statistics to four digits; the difference is visible in the sixth digit of the outputs.
CLIP_MEAN = (0.4814, 0.4578, 0.4082)
CLIP_STD = (0.2686, 0.2613, 0.2757)
_THREADS = 8
"""At most so many images are made ready at a time: resizing and looking up let other threads run."""


def to_rgb(image: ImageInput) -> Image.Image:
    """An RGB image from a PIL image of any mode or a uint8 array (height, width, 3)."""
    if isinstance(image, Image.Image) and image.width and image.height:
        return image_files.to_rgb(image)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(
            f"expected a PIL image or a uint8 array (height, width, 3), found {array.dtype} {array.shape}: "
            "convert the image to 8-bit RGB first"
        )
    if not array.size:
        raise ValueError(f"expected an image with pixels, found one of shape {array.shape}")
    return Image.fromarray(array)


def padding(width: int, height: int) -> tuple[int, int, int]:
    """The side of the square in original pixels, and the pixels added on the left and on the top."""
    side = max(width, height)
    return side, (side - width) // 2, (side - height) // 2


class OmgLlavaImageProcessor(ImageProcessingMixin):
    """OMG-LLaVA's preprocessing: pad to a square, resize (bicubic, antialiased), scale to [0, 1], normalise."""

    model_input_names = ("pixel_values",)

    def __init__(
        self,
        image_size: int = 1024,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)

    def pad(self, image: ImageInput) -> Image.Image:
        """The image centred on a square of its longer side, filled with the mean colour."""
        rgb = to_rgb(image)
        side, left, top = padding(*rgb.size)
        square = Image.new("RGB", (side, side), tuple(int(channel * 255) for channel in self.image_mean))
        square.paste(rgb, (left, top))
        return square

    def pixel_values(self, image: ImageInput) -> NDArray[np.float32]:
        """One preprocessed image: float32 (3, image_size, image_size)."""
        square = self.pad(image).resize((self.image_size, self.image_size), Image.Resampling.BICUBIC)
        # A channel has 256 values, so each is normalised once. Scaling in float64 and rounding before the rest is
        # what the CLIP preprocessing of the official release does.
        scaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
        mean, std = np.asarray(self.image_mean, np.float32), np.asarray(self.image_std, np.float32)
        table = ((scaled[:, None] - mean) / std)[None]  # (1, 256, 3): looked up outside the interpreter's lock
        return np.ascontiguousarray(cv2.LUT(np.asarray(square), table).transpose(2, 0, 1))

    def __call__(self, images: Sequence[ImageInput]) -> NDArray[np.float32]:
        """A batch of preprocessed images: float32 (B, 3, image_size, image_size), several made at a time."""
        if len(images) == 1:
            return self.pixel_values(images[0])[None]
        with ThreadPoolExecutor(min(len(images), os.cpu_count() or 1, _THREADS)) as pool:
            return np.stack(list(pool.map(self.pixel_values, images)))

    def points_to_frame(self, points: ArrayLike, sizes: ArrayLike) -> NDArray[np.float64]:
        """Points (N, 2) from original pixels to frame pixels; ``sizes`` (N, 2) or (2,) holds (width, height)."""
        side, offset = self._square(sizes)
        return (np.asarray(points, np.float64) + offset) * self.image_size / side

    def boxes_to_frame(self, boxes: ArrayLike, sizes: ArrayLike) -> NDArray[np.float64]:
        """Boxes [x, y, width, height] in original pixels to corners [x0, y0, x1, y1] in frame pixels, both (N, 4)."""
        array = np.asarray(boxes, np.float64).reshape(-1, 4)
        near = self.points_to_frame(array[:, :2], sizes)
        far = self.points_to_frame(array[:, :2] + array[:, 2:], sizes)
        return np.concatenate([near, far], axis=1)

    @staticmethod
    def _square(sizes: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Side (..., 1) and (left, top) padding (..., 2) of images of the given (width, height)."""
        sizes = np.asarray(sizes, np.int64)
        side = sizes.max(axis=-1, keepdims=True)
        return side.astype(np.float64), ((side - sizes) // 2).astype(np.float64)
