"""Normalisation: whatever image file a user brings becomes 8-bit sRGB RGB, upright, or says why it does not.

Two ways out, and callers treat them differently: `Refused` is an image that was understood and declined (a
rejected row, with a short stable reason), `Unreadable` is damage (an error row, with a message). What was
done to the colours is noted, so that a dataset can tell which of its photographs were converted:

- EXIF (and TIFF) orientation is applied; a damaged EXIF block counts as none.
- An ICC profile is converted to sRGB (relative colorimetric, black point compensation); a profile that is
  broken or belongs to another colour space is ignored. Without a profile, values are taken to be sRGB, and
  CMYK is multiplied out, `(255 - C)(255 - K)/255`; CMYK and YCCK JPEGs hold inverted ink, as Adobe writes it.
- 16-bit values are scaled so that 65535 becomes 255. Floating-point values are taken as 0-1 when they all lie
  there, else as 0-255; any other range, and 32-bit integers, have no known white and are refused.
- Transparent pixels are composited on white: that is what a viewer would show, and JPEG cannot hold alpha.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms, TiffImagePlugin, UnidentifiedImageError

from crispedit.record import Image

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff")
"""Of files that may be read, in lower case."""


class Refused(Exception):  # noqa: N818  a refusal is no error
    """An image that was understood and declined.

    `reason` is one of: animated, too_many_pixels, unsupported_format, unknown_range.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unreadable(Exception):  # noqa: N818  reads as what it says
    """Bytes that are no image, or a damaged one; the message says what is wrong with them."""


@dataclass(frozen=True)
class Normalised:
    """An upright sRGB image and where it came from."""

    image: Image
    width: int
    """Width in pixels of the file's image, upright, before any downscaling."""
    height: int
    format: str
    """jpeg, png, webp or tiff: what the bytes are, whatever the file is called."""
    notes: dict[str, str] = field(default_factory=dict)
    """What was done, by subject: orientation (2-8), icc (converted, srgb, broken, mismatched), alpha (white),
    depth (16, float), colour (the mode, where it is not RGB)."""


def normalise(data: bytes, *, max_pixels: int, max_short_side_px: int | None) -> Normalised:
    """The image in a JPEG, PNG, WebP or TIFF file.

    More than `max_pixels` pixels are refused from the header, before anything is decoded; Pillow's own limit
    (2 x `Image.MAX_IMAGE_PIXELS`, 179 million) stays in force above it. A short side longer than
    `max_short_side_px` is scaled down to it. Raises `Refused` or `Unreadable`, nothing else; never returns
    part of an image.
    """
    # Pillow warns about damaged metadata and large images; both are judged here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _normalise(data, max_pixels, max_short_side_px)
        except (Refused, Unreadable):
            raise
        except Pillow.DecompressionBombError:
            raise Refused("too_many_pixels") from None
        except UnidentifiedImageError:
            raise Unreadable("the header is damaged") from None
        except Exception as error:
            # Decoders meet hostile bytes with nearly any exception: struct.error, SyntaxError, KeyError, ...
            raise Unreadable(f"does not decode: {type(error).__name__}: {error}") from error


def _normalise(data: bytes, max_pixels: int, max_short_side_px: int | None) -> Normalised:
    kind = _format(data)
    notes: dict[str, str] = {}

    def admit(width: int, height: int) -> None:
        if width * height > max_pixels:
            raise Refused("too_many_pixels")

    picture, icc, orientation = _DECODERS[kind](data, admit)
    width, height = picture.size if orientation < 5 else picture.size[::-1]
    if picture.mode != "RGB":
        notes["colour"] = picture.mode
    picture = _eight_bits(picture, notes)
    picture = _shrink(_to_srgb(picture, icc, notes), max_short_side_px)
    if orientation != 1:
        notes["orientation"] = str(orientation)
        picture = picture.transpose(_UPRIGHT[orientation])
    return Normalised(np.array(picture), width, height, kind, notes)


# What the first bytes say

_REFUSED_MAGIC = (
    b"BM",  # BMP
    b"\xff\x0a",  # JPEG XL
    b"\x00\x00\x00\x0cJXL ",
    b"\x00\x00\x00\x0cjP  ",  # JPEG 2000
    b"\xff\x4f\xff\x51",
    b"\x00\x00\x01\x00",  # ICO
    b"8BPS",  # Photoshop
    b"qoif",
    b"DDS ",
    b"%!PS",
    b"%PDF",
    b"\x76\x2f\x31\x01",  # OpenEXR
    b"#?RADIANCE",
    b"IIRO",  # Olympus raw
    b"FUJIFILMCCD-RAW",
    *(b"P%d\n" % n for n in range(1, 8)),  # Netpbm
)


def _format(data: bytes) -> str:
    """jpeg, png, webp or tiff. Refuses other image formats; `Unreadable` for what is no image at all."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        gif = Pillow.open(io.BytesIO(data), formats=["GIF"])
        raise Refused("animated" if getattr(gif, "is_animated", False) else "unsupported_format")
    if data.startswith(_REFUSED_MAGIC) or data[4:8] == b"ftyp" or b"<svg" in data[:1024].lower():
        raise Refused("unsupported_format")  # ftyp: HEIC, AVIF and other ISO media
    if not data:
        raise Unreadable("the file is empty")
    raise Unreadable(f"no image format is known that starts with {data[:12]!r}")


# Pixels, as a Pillow picture of any mode, with the ICC profile and the orientation still to be applied

Admit = Callable[[int, int], None]
"""Told the width and height before pixels are decoded; raises to stop."""
Decoded = tuple[Pillow.Image, bytes | None, int]

_UPRIGHT = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}


def _orientation(picture: Pillow.Image) -> int:
    """1-8 as in EXIF; 1 where there is none or it does not parse."""
    try:
        value = picture.getexif().get(0x0112, 1)
    except (
        Exception
    ):  # Pillow parses EXIF, XMP and maker notes here; no damage to them is worth the photograph
        return 1
    return value if value in _UPRIGHT else 1


def _decode_jpeg(data: bytes, admit: Admit) -> Decoded:
    """JPEG, by libjpeg-turbo itself: Pillow ignores its warnings, which tell of a scan cut or overwritten."""
    # Phones append previews, depth and gain maps (MPO); the first picture is the photograph.
    header = Pillow.open(io.BytesIO(data), formats=["JPEG", "MPO"])
    admit(*header.size)
    icc, orientation = header.info.get("icc_profile"), _orientation(header)
    space = {"L": "GRAY", "CMYK": "CMYK"}.get(header.mode, "RGB")
    pixels = simplejpeg.decode_jpeg(data, colorspace=space, strict=True)
    if space == "GRAY":
        pixels = pixels[..., 0]
    if space == "CMYK":
        return Pillow.fromarray(255 - pixels, "CMYK"), icc, orientation
    return Pillow.fromarray(pixels), icc, orientation


def _decode_png(data: bytes, admit: Admit) -> Decoded:
    picture = Pillow.open(io.BytesIO(data), formats=["PNG"])
    admit(*picture.size)
    if getattr(picture, "is_animated", False):
        raise Refused("animated")
    # Decoding stops at the last pixel and skips the checksums; this reads them all.
    Pillow.open(io.BytesIO(data), formats=["PNG"]).verify()
    picture.load()
    return picture, picture.info.get("icc_profile"), _orientation(picture)


def _decode_webp(data: bytes, admit: Admit) -> Decoded:
    picture = Pillow.open(io.BytesIO(data), formats=["WEBP"])
    admit(*picture.size)
    if getattr(picture, "is_animated", False):
        raise Refused("animated")
    picture.load()
    return picture, picture.info.get("icc_profile"), _orientation(picture)


_NEW_SUBFILE_TYPE, _WIDTH, _HEIGHT, _DNG_VERSION, _ICC = 254, 256, 257, 50706, 34675
_REDUCED, _TRANSPARENCY_MASK = 1, 4


def _decode_tiff(data: bytes, admit: Admit) -> Decoded:
    """TIFF, by Pillow, and by OpenCV where Pillow does not know the sample format (floating-point RGB)."""
    pages = _tiff_pages(data)
    if _DNG_VERSION in pages[0] or pages[0].get(_NEW_SUBFILE_TYPE, 0) & _REDUCED:
        raise Refused("unsupported_format")  # a camera raw file: its first image is a preview
    # Thumbnails, pyramid levels and masks belong to the first page; anything else is a second page.
    extras = _REDUCED | _TRANSPARENCY_MASK
    if any(not page.get(_NEW_SUBFILE_TYPE, 0) & extras for page in pages[1:]):
        raise Refused("animated")
    admit(int(pages[0][_WIDTH]), int(pages[0][_HEIGHT]))
    try:
        picture = Pillow.open(io.BytesIO(data), formats=["TIFF"])
    except UnidentifiedImageError:
        return _decode_tiff_cv2(data), pages[0].get(_ICC), 1
    # Pillow turns a TIFF upright while loading it, and then forgets its orientation.
    picture.load()
    return picture, picture.info.get("icc_profile"), _orientation(picture)


def _decode_tiff_cv2(data: bytes) -> Pillow.Image:
    """A colour TIFF of floating-point samples; OpenCV turns it upright."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[2:] != (3,) or pixels.dtype.kind != "f":
        raise Unreadable("this kind of TIFF is not supported: save it as 8- or 16-bit RGB")
    return Pillow.fromarray(_float_to_uint8(pixels[..., ::-1]))


def _tiff_pages(data: bytes) -> list[Any]:
    """The tag directories of a TIFF's pages, headers only; one that is linked in a loop is read once."""
    file = io.BytesIO(data)
    big = b"+" in data[2:4]
    page = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if big else 8))
    pages, at = [], [page.next]
    while at[-1] and at[-1] not in at[:-1]:
        file.seek(at[-1])
        page.load(file)
        pages.append(dict(page))
        at.append(page.next)
        if len(pages) > 64:  # enough to know that it is not one photograph
            raise Refused("animated")
    return pages


_DECODERS: dict[str, Callable[[bytes, Admit], Decoded]] = {
    "jpeg": _decode_jpeg,
    "png": _decode_png,
    "webp": _decode_webp,
    "tiff": _decode_tiff,
}


# Depth, colour, size


def _eight_bits(picture: Pillow.Image, notes: dict[str, str]) -> Pillow.Image:
    """16-bit grey, floating-point and integer pictures as 8-bit grey (Pillow would clip them at 255)."""
    if picture.mode.startswith("I;16"):
        notes["depth"] = "16"
        return Pillow.fromarray(((np.asarray(picture).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if picture.mode == "F":
        notes["depth"] = "float"
        return Pillow.fromarray(_float_to_uint8(np.asarray(picture)))
    if picture.mode == "I":
        raise Refused("unknown_range")
    return picture


def _float_to_uint8(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """0-255 of values in 0-1 or 0-255. Refuses any other range: its white is not known."""
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
        raise Refused("unknown_range")
    scale = 255.0 if values.max() <= 1 else 1.0
    return np.rint(values * scale).astype(np.uint8)


def _to_srgb(picture: Pillow.Image, icc: bytes | None, notes: dict[str, str]) -> Pillow.Image:
    """RGB, sRGB, opaque. Alpha is set aside while the profile is applied, then composited on white."""
    alpha = None
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
        picture = picture.convert("RGB")
    elif picture.mode == "LAB":
        icc = None
        picture = _transform(picture, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    elif picture.mode not in ("RGB", "CMYK", "L"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    if icc:
        picture = _apply_profile(picture, icc, notes)
    picture = picture.convert("RGB")
    if alpha is not None and alpha.getextrema()[0] != 255:
        notes["alpha"] = "white"
        white = Pillow.new("RGB", picture.size, (255, 255, 255))
        picture = Pillow.composite(picture, white, alpha)
    return picture


_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def _apply_profile(picture: Pillow.Image, icc: bytes, notes: dict[str, str]) -> Pillow.Image:
    """The picture in sRGB, or as it was where its profile cannot be used."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space = profile.profile.xcolor_space
        if space == "RGB " and picture.mode == "L":
            picture = picture.convert("RGB")  # grey files are often tagged with their RGB working space
        if _SPACES.get(space) != picture.mode:
            notes["icc"] = "mismatched"
            return picture
        if picture.mode == "RGB" and _is_srgb(profile):
            notes["icc"] = "srgb"
            return picture
        converted = _transform(picture, profile)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes["icc"] = "broken"
        return picture
    notes["icc"] = "converted"
    return converted


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether conversion would change no colour by more than a level: a profile's name proves nothing."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    converted = np.asarray(_transform(Pillow.fromarray(colours), profile))
    return int(cv2.absdiff(converted, colours).max()) <= 1


def _transform(picture: Pillow.Image, profile: ImageCms.ImageCmsProfile) -> Pillow.Image:
    converted = ImageCms.profileToProfile(
        picture,
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert converted is not None, "not in place, so there is an answer"
    return converted


def _shrink(picture: Pillow.Image, max_short_side_px: int | None) -> Pillow.Image:
    """Scaled down so that the short side is `max_short_side_px`, if it is longer.

    Lanczos with a support that grows with the factor: it keeps detail up to the new Nyquist frequency. The
    INTER_AREA of OpenCV is faster, but a box filter leaves ratios just above 1 both soft and aliased, and a
    soft photograph looks to `filters.upscaled` like an enlarged one.
    """
    short = min(picture.size)
    if max_short_side_px is None or short <= max_short_side_px:
        return picture
    width, height = (max(1, round(side * max_short_side_px / short)) for side in picture.size)
    # reducing_gap: whole-number box reduction first, no closer than 3x the target, so it cannot be seen.
    return picture.resize((width, height), Pillow.Resampling.LANCZOS, reducing_gap=3.0)
