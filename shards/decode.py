"""Decoding of a stored pair into pixels: both images and the mask through one geometry, straight into given memory.

simplejpeg (libjpeg-turbo) releases the interpreter while it decodes and writes into the buffer it is given; it is the
fastest of the decoders measured in benchmarks/shards.py. Its fast DCT is not used: it changes pixels.
"""

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from crispedit import images

Shape = tuple[int, int]
"""(height, width) in pixels."""


class Pixels(NamedTuple):
    """Memory for one pair: source and edited uint8 [H, W, 3] RGB, mask bool [H, W]."""

    source: NDArray[np.uint8]
    edited: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def pair_bytes(shape: Shape) -> int:
    """Bytes of the `Pixels` of one pair."""
    return 7 * shape[0] * shape[1]


def carve(memory: NDArray[np.uint8], count: int, shape: Shape) -> Pixels:
    """`count` pairs as views of a flat uint8 array: source and edited [count, H, W, 3], mask [count, H, W]."""
    image = count * shape[0] * shape[1] * 3
    return Pixels(
        memory[:image].reshape(count, *shape, 3),
        memory[image : 2 * image].reshape(count, *shape, 3),
        memory[2 * image : 2 * image + image // 3].view(np.bool_).reshape(count, *shape),
    )


def image_size(name: str, data: bytes) -> tuple[int, int]:
    """(width, height) in pixels from the header of a JPEG or PNG; nothing is decoded. ValueError if it has none."""
    if name.endswith(".png"):
        if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 24:
            raise ValueError("not a PNG")
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    return width, height


def aspect_shapes(size: int, multiple: int = 64, max_aspect: float = 2.0) -> list[Shape]:
    """Shapes of about size x size pixels, sides a multiple of `multiple`, aspects from 1/max_aspect to max_aspect."""
    widths = range(multiple, int(size * max_aspect) + multiple, multiple)
    shapes = [(max(multiple, round(size * size / width / multiple) * multiple), width) for width in widths]
    return sorted((height, width) for height, width in shapes if 1 / max_aspect <= width / height <= max_aspect)


def nearest_shape(sizes: NDArray[np.int64], shapes: Sequence[Shape]) -> NDArray[np.int64]:
    """[N] for each (width, height) in sizes [N, 2], the number of the shape whose aspect is nearest (as a ratio)."""
    aspects = np.log([width / height for height, width in shapes])
    wanted = np.log(np.maximum(sizes[:, 0], 1) / np.maximum(sizes[:, 1], 1))
    return np.abs(wanted[:, None] - aspects[None, :]).argmin(axis=1)


def decode_pair(source: bytes, edited: bytes, mask: bytes | None, size: Shape, into: Pixels) -> None:
    """Decode a pair of this stored size into memory of the wanted shape; without a mask, its memory becomes false.

    Images of another size than the shape are scaled to cover it and cropped about the centre: all three alike. A JPEG
    of at least twice the size is decoded at a half, a quarter, ... (libjpeg's scaled DCT), which is faster and as good.
    ValueError if anything does not decode; SizesDifferError if source, edited or mask is not of the stored size.
    """
    shape = into.mask.shape[0], into.mask.shape[1]
    covered, top, left = _cover(size, shape)
    for jpeg, out in ((source, into.source), (edited, into.edited)):
        height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
        if (height, width) != size:
            raise SizesDifferError(f"an image is {width}x{height}, the pair {size[1]}x{size[0]}")
        if size == shape:
            simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=out)
        else:
            reduced = simplejpeg.decode_jpeg(jpeg, colorspace="RGB", min_height=covered[0], min_width=covered[1])
            out[:] = _resized(reduced, covered)[top : top + shape[0], left : left + shape[1]]
    if mask is None:
        into.mask[:] = False
        return
    decoded = images.decode_mask(mask)
    if decoded.shape != size:
        raise SizesDifferError(f"the mask is {decoded.shape[1]}x{decoded.shape[0]}, the pair {size[1]}x{size[0]}")
    if size != shape:
        grey = _resized(decoded.astype(np.uint8) * 255, covered)
        decoded = grey[top : top + shape[0], left : left + shape[1]] >= 128
    into.mask[:] = decoded


class SizesDifferError(ValueError):
    """The images of a pair, or its mask, are of different sizes, so that no one geometry fits them."""


def _cover(size: Shape, shape: Shape) -> tuple[Shape, int, int]:
    """(size after scaling so that it just covers the shape, top, left of the centred crop)."""
    scale = max(shape[0] / size[0], shape[1] / size[1])
    covered = tuple(max(side, math.floor(old * scale + 0.5)) for side, old in zip(shape, size, strict=True))
    return (covered[0], covered[1]), (covered[0] - shape[0]) // 2, (covered[1] - shape[1]) // 2


def _resized(image: NDArray[np.uint8], size: Shape) -> NDArray[np.uint8]:
    if image.shape[:2] == size:
        return image
    how = cv2.INTER_AREA if size[0] <= image.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=how), np.uint8)
