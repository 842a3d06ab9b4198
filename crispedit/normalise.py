"""Normalisation: turns a user's image file into an upright 8-bit sRGB image, or says why it cannot.

There are two exceptions: `Refused` is an image that was understood and declined (a rejected row, with a short stable
reason), `Unreadable` is damage (an error row, with a message). libvips decodes; it is only given what decides the
pixels (`crispedit.image_file`), so each of its warnings counts as damage. What was done to the colours is noted, so
that a dataset can tell which photographs were converted:

- EXIF (and TIFF) orientation is applied; a damaged EXIF block counts as none.
- An ICC profile is converted to sRGB (relative colorimetric, black point compensation); a profile that is broken or
  belongs to another colour space is ignored. A space that is stated otherwise is converted too: Adobe RGB in EXIF, a
  PNG's cICP, gAMA and cHRM. Without any of them values are taken to be sRGB, and CMYK is multiplied out,
  `(255 - C)(255 - K)/255`.
- 16-bit values are scaled so that 65535 becomes 255. Floating-point values are taken as 0-1 when they all lie there,
  and as 0-255 when they are whole numbers of that range; any other range, and other integers, have no known white and
  are refused.
- Transparent pixels are composited on white: that is what a viewer would show, and JPEG cannot hold alpha.
"""

import functools
import io
import logging
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pyvips
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms

from crispedit.image_file import ImageFile, Refused, Unreadable, take_apart
from crispedit.record import Image

__all__ = ["SUFFIXES", "Normalised", "Refused", "Unreadable", "normalise"]

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff")
"""Suffixes of files that are read, in lower case."""

MAX_PIXELS = 2 * 89_478_485
"""A limit above any `max_pixels`: 512 MB of RGB."""

# libvips' complaints are raised here; its log would go to the terminal.
logging.getLogger("pyvips").setLevel(logging.CRITICAL)
pyvips.cache_set_max(0)  # no image is read twice


@dataclass(frozen=True)
class Normalised:
    """An upright sRGB image and where it came from."""

    image: Image
    width: int
    """Width in pixels of the file's image, upright, before any downscaling."""
    height: int
    format: str
    """jpeg, png, webp or tiff: by content, not by the file's name."""
    notes: dict[str, str] = field(default_factory=dict)
    """What was done, by subject: orientation (2-8), icc (converted, srgb, broken, mismatched), space (one that is
    stated without a profile: its name, broken or unknown), alpha (white), depth (16, float), colour (grey, cmyk,
    lab)."""


def normalise(data: bytes, *, max_pixels: int, max_short_side_px: int | None) -> Normalised:
    """The image in a JPEG, PNG, WebP or TIFF file.

    More than `max_pixels` pixels, and `MAX_PIXELS` in any case, are refused from the header, before anything is
    decoded. A short side longer than `max_short_side_px` is scaled down to it. Raises `Refused` or `Unreadable`,
    nothing else; never returns part of an image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about damaged metadata
        try:
            return _normalise(data, max_pixels, max_short_side_px)
        except (Refused, Unreadable):
            raise
        except Pillow.DecompressionBombError:
            raise Refused("too_many_pixels") from None
        except Exception as error:
            # Hostile headers can raise nearly any exception: struct.error, SyntaxError, KeyError, ...
            raise Unreadable(f"the header is damaged: {type(error).__name__}: {_steady(error)}") from error


def _normalise(data: bytes, max_pixels: int, max_short_side_px: int | None) -> Normalised:
    file = take_apart(data)
    if file.width * file.height > min(max_pixels, MAX_PIXELS):
        raise Refused("too_many_pixels")
    notes = dict(file.notes)
    image = _shrink(_rgb(file, _decoded(file), notes), max_short_side_px)
    width, height = file.width, file.height
    if file.orientation != 1:
        notes["orientation"] = str(file.orientation)
    if file.orientation > 4:
        image, width, height = cv2.transpose(image), height, width
    flip = _FLIPS[(file.orientation - 1) % 4]
    return Normalised(image if flip is None else cv2.flip(image, flip), width, height, file.format, notes)


_FLIPS = (None, 1, -1, 0)
"""OpenCV's codes of the flips of EXIF's orientations 1 to 4 (none, horizontal, both, vertical); 5 to 8 are transposed
first."""


# Pixels, [H, W, channels] of uint8, uint16 or float

Pixels = NDArray[Any]

_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
MAX_EXTRANEOUS_BYTES = 16
"""Extra bytes allowed before a JPEG's end marker (any number, if all are equal). Many cameras leave some; more of them
come from an overwritten scan that was decoded out of step."""


def _decoded(file: ImageFile) -> Pixels:
    """The pixels of all channels. Unreadable if the decoder warns of anything."""
    try:
        return _decode(file.encoded)
    except pyvips.Error as error:
        match = _EXTRANEOUS.search(error.detail)
        count = int(match[1]) if match else 0
        left = file.encoded[-2 - count : -2]
        if not count or (count > MAX_EXTRANEOUS_BYTES and len(set(left)) > 1):
            raise Unreadable(f"does not decode: {_steady(error.detail)}") from None
    try:
        return _decode(file.encoded[: -2 - count] + file.encoded[-2:])
    except pyvips.Error as error:
        raise Unreadable(f"does not decode: {_steady(error.detail)}") from None


def _decode(data: bytes) -> Pixels:
    image = pyvips.Image.new_from_buffer(data, "", access="sequential", fail_on="warning")
    pixels: Pixels = image.numpy()
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _steady(error: object) -> str:
    """A library's first complaint, without memory addresses, so that it is the same in every process."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    complaint = next((line for line in lines if not line.startswith("unable to ")), lines[0] if lines else "")
    return re.sub(r"0x[0-9a-f]{5,}", "memory", complaint)[:200]


# Depth, colour, size


def _rgb(file: ImageFile, pixels: Pixels, notes: dict[str, str]) -> NDArray[np.uint8]:
    """[H, W, 3]: opaque sRGB. The profile is applied to the colours alone; then they are composited on white."""
    channels = pixels.shape[2]
    colours = file.colours or (1 if channels < 3 else 3)
    alpha = pixels[..., colours] if file.alpha and channels > colours else None
    pixels = pixels[..., :colours]
    if pixels.dtype.kind == "f":
        notes["depth"] = "float"
        pixels, alpha = _float_to_uint8(pixels), None if alpha is None else _float_to_uint8(alpha)
        if file.inverted:
            pixels = 255 - pixels
    elif pixels.dtype == np.uint16:
        notes["depth"] = "16"
    elif pixels.dtype != np.uint8:
        raise Refused("unknown_range")
    if pixels.shape[2] != 3:
        notes["colour"] = "grey" if pixels.shape[2] == 1 else "cmyk"
    image = np.ascontiguousarray(_to_srgb(file, pixels, notes))
    if alpha is not None and (opacity := _eight_bits(alpha)).min() != 255:
        notes["alpha"] = "white"
        picture = Pillow.fromarray(image)
        white = Pillow.new("RGB", picture.size, (255, 255, 255))
        image = np.array(Pillow.composite(picture, white, Pillow.fromarray(opacity)))
    return image


def _eight_bits(values: Pixels) -> NDArray[np.uint8]:
    return values if values.dtype == np.uint8 else ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _float_to_uint8(values: Pixels) -> NDArray[np.uint8]:
    """0-255, from values in 0-1 or whole numbers up to 255. Refuses other ranges, whose white is unknown."""
    if np.isfinite(values).all() and values.min() >= 0:
        if values.max() <= 1:
            return np.rint(values * np.float32(255)).astype(np.uint8)
        if values.max() <= 255 and (values == np.rint(values)).all():
            return values.astype(np.uint8)
    raise Refused("unknown_range", "floating-point tiff")


def _to_srgb(file: ImageFile, pixels: Pixels, notes: dict[str, str]) -> NDArray[np.uint8]:
    """[H, W, 3]: grey, RGB, CMYK or Lab pixels, converted by the profile or the declared space."""
    if file.lab:
        notes["colour"] = "lab"
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        lab = Pillow.frombytes("LAB", pixels.shape[1::-1], pixels.tobytes())
        return np.asarray(_transform(profile, "LAB").apply(lab))
    if file.icc is not None:
        notes["icc"] = fate = _fate(file.icc, pixels.shape[2])
        if fate == "converted":
            return _through(file.icc, pixels)
        if fate == "srgb":
            return _without_profile(pixels)
    if file.space is not None and pixels.shape[2] != 4:
        notes["space"] = file.space.name
        if _fate(file.space.profile, 3) == "converted":
            return _through(file.space.profile, pixels)
    return _without_profile(pixels)


def _without_profile(pixels: Pixels) -> NDArray[np.uint8]:
    pixels = _eight_bits(pixels)
    if pixels.shape[2] == 4:
        return np.asarray(Pillow.frombytes("CMYK", pixels.shape[1::-1], pixels.tobytes()).convert("RGB"))
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_CHANNELS = {"GRAY": (1,), "RGB ": (3, 1), "CMYK": (4,)}  # grey files are often tagged with their RGB working space


@functools.lru_cache(maxsize=64)
def _fate(icc: bytes, channels: int) -> str:
    """What is done with a profile, as in notes: converted, srgb, broken or mismatched.

    It counts as sRGB if conversion changes no colour by more than one level; its name proves nothing.
    """
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space = profile.profile.xcolor_space
        if channels not in _CHANNELS.get(space, ()):
            return "mismatched"
        transform = _transform(profile, _MODES[_CHANNELS[space][0]])
        if space != "RGB ":
            return "converted"
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "broken"
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    converted = np.asarray(transform.apply(Pillow.fromarray(colours)))
    return "srgb" if int(cv2.absdiff(converted, colours).max()) <= 1 else "converted"


def _transform(profile: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    srgb = ImageCms.createProfile("sRGB")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    return ImageCms.buildTransform(profile, srgb, mode, "RGB", renderingIntent=intent, flags=flags)


_INTERPRETATIONS = {(1, 1): "b-w", (1, 2): "grey16", (3, 1): "srgb", (3, 2): "rgb16", (4, 1): "cmyk", (4, 2): "cmyk"}


def _through(icc: bytes, pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels of 8 or 16 bits, converted from a profile's space to 8-bit sRGB."""
    if icc[16:20] == b"RGB " and pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    height, width, channels = pixels.shape
    size = pixels.dtype.itemsize
    image = pyvips.Image.new_from_memory(
        np.ascontiguousarray(pixels), width, height, channels, "uchar" if size == 1 else "ushort"
    ).copy(interpretation=_INTERPRETATIONS[channels, size])
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    return image.icc_transform("srgb", embedded=True, intent="relative", black_point_compensation=True, depth=8).numpy()


def _shrink(image: NDArray[np.uint8], max_short_side_px: int | None) -> NDArray[np.uint8]:
    """Scale a longer short side down to `max_short_side_px`.

    Lanczos with a support that grows with the factor: it keeps detail up to the new Nyquist frequency. The INTER_AREA
    of OpenCV is faster, but a box filter leaves ratios just above 1 both soft and aliased, and a soft photograph looks
    to `filters.upscaled` like an enlarged one.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    if max_short_side_px is None or short <= max_short_side_px:
        return image  # converting to Pillow and back costs as much as decoding
    width, height = (max(1, round(side * max_short_side_px / short)) for side in (width, height))
    # reducing_gap: whole-number box reduction first, no closer than 3x the target, so it cannot be seen.
    return np.array(Pillow.fromarray(image).resize((width, height), Pillow.Resampling.LANCZOS, reducing_gap=3.0))
