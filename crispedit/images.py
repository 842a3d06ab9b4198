"""Pixels in and out of the bytes that a run stores: RGB JPEG for images, 1-bit PNG for masks.

These files are our own, so they are 8-bit RGB; a user's files go through `crispedit.normalise` first. Encoding is
deterministic: the same pixels give the same bytes on every machine with the same library versions.
"""

import io

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as Pillow

JPEG_QUALITY = 95


def decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """[H, W, 3] RGB of a JPEG. ValueError if it does not decode."""
    return simplejpeg.decode_jpeg(data, colorspace="RGB")


def jpeg_size(data: bytes) -> tuple[int, int]:
    """(width, height) from a JPEG's header. ValueError if it has none."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    return width, height


def encode_jpeg(image: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """JPEG of [H, W, 3] RGB, without chroma subsampling: edits of colour stay sharp, unedited blocks stay equal."""
    pixels = np.ascontiguousarray(image)
    return simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="444")


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """1-bit PNG of a mask, white where true."""
    out = io.BytesIO()
    Pillow.fromarray(mask).save(out, "PNG", optimize=False, compress_level=6)
    return out.getvalue()


def decode_mask(data: bytes) -> NDArray[np.bool_]:
    """[H, W] of a mask PNG of any depth: true where the grey level is at least 128."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if decoded is None:
        raise ValueError("the mask is not a readable PNG")
    return decoded >= 128


def gray(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W] luma (BT.601) of RGB."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def fitted(image: NDArray[np.uint8], max_side_px: int) -> NDArray[np.uint8]:
    """The image [H, W, 3], scaled down to this longer side if it is larger."""
    height, width = image.shape[:2]
    scale = max_side_px / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
