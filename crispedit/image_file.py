"""Parses JPEG, PNG, WebP and TIFF files: their metadata about pixels, and the part that holds the pixels.

Text, previews, profiles and maker's notes never reach a decoder. Errors in them therefore do not cost the photograph,
and every warning of the decoder can count as damage.
"""

import io
import re
import struct
import zlib
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml
from PIL import Image as Pillow

from crispedit import colour_space
from crispedit.colour_space import Space

Notes = tuple[tuple[str, str], ...]
UNKNOWN_SPACE: Notes = (("space", "unknown"),)


class Refused(Exception):  # noqa: N818  a refusal is not an error
    """An image that was understood and declined.

    `reason` is one of: animated, too_many_pixels, unsupported_format, unknown_range. `format` is the format found.
    """

    def __init__(self, reason: str, format: str | None = None) -> None:
        super().__init__(reason if format is None else f"{reason}: {format}")
        self.reason = reason
        self.format = format


class Unreadable(Exception):  # noqa: N818  reads as what it says
    """Bytes that are not an image, or are damaged; the message says what is wrong."""


def _decline(unsupported: bool, format: str, reason: str = "unsupported_format") -> None:
    if unsupported:
        raise Refused(reason, format)


def _require(sound: object, problem: str = "the header is damaged") -> None:
    if not sound:
        raise Unreadable(problem)


@dataclass(frozen=True)
class ImageFile:
    """Encoded pixels, and what the file says about them."""

    format: str
    """jpeg, png, webp or tiff."""
    width: int
    """In pixels, as stored: before the orientation."""
    height: int
    encoded: bytes
    """A file of the same format that holds only the pixels."""
    orientation: int = 1
    """1-8, as in EXIF."""
    icc: bytes | None = None
    space: Space | None = None
    """A colour space that is declared without a profile."""
    colours: int | None = None
    """Colour channels: 1, 3 or 4 (CMYK). None: all except the second or fourth, which is alpha."""
    alpha: bool = True
    """Whether the channel after the colours, if there is one, is transparency."""
    inverted: bool = False
    """Whether 0 is white, also after decoding."""
    lab: bool = False
    """Whether the colours are 8-bit CIELAB, whose a and b are signed."""
    notes: Notes = ()


def take_apart(data: bytes) -> ImageFile:
    """The file's parts. Raises `Refused`, `Unreadable`, or for hostile bytes almost any exception."""
    _require(data, "the file is empty")
    kind = sniff(data)
    _require(kind, f"no known image format starts with {data[:12]!r}")
    if kind in _READERS:
        return _READERS[kind](data)
    animated = kind == "gif" and getattr(Pillow.open(io.BytesIO(data), formats=["GIF"]), "is_animated", False)
    raise Refused("animated" if animated else "unsupported_format", kind)


_FORMATS: dict[str, str] = yaml.safe_load((resources.files("crispedit") / "formats.yaml").read_text(encoding="utf-8"))
_FIRST_BYTES = re.compile(
    "|".join(f"(?P<f{n}>{start})" for n, start in enumerate(_FORMATS.values())).encode(), re.DOTALL
)


def sniff(data: bytes) -> str | None:
    """The image format of these bytes, in lower case, or None. The first 1,024 bytes are enough.

    Only jpeg, png, webp and tiff can be read.
    """
    match = _FIRST_BYTES.match(data[:1024])
    return list(_FORMATS)[int(match.lastgroup[1:])] if match and match.lastgroup else None


# JPEG

_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
"""The marker that ends entropy-coded bytes: neither a stuffed zero nor a restart."""
_SOS, _EOI, _APP0, _APP1, _APP2, _APP14 = 0xDA, 0xD9, 0xE0, 0xE1, 0xE2, 0xEE
_TABLES = (0xC4, 0xCC, 0xDB, 0xDD)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_LS = 0xF7
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), (0xC2,)


def _jpeg(data: bytes) -> ImageFile:
    """The first picture in the file: phones append previews, depth and gain maps (MPO)."""
    kept = [b"\xff\xd8"]
    frame, size = b"", (0, 0)
    sequential = in_scan = False
    exif, chunks = b"", list[bytes]()
    at = 2
    while True:
        match = _MARKER.search(data, at)
        if match is None:
            # Without an end marker the decoder says where the pixels stop.
            kept.append(data[at:])
            break
        if in_scan:
            kept.append(data[at : match.start()])
        marker, at = match[1][0], match.end()
        if marker == _EOI:
            kept.append(b"\xff\xd9")
            break
        if marker in (0x01, 0xD8):  # markers without a body
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        body = data[at + 2 : at + length]
        _require(length >= 2 and len(body) == length - 2, "the file is cut short in its header")
        at += length
        in_scan = marker == _SOS
        _decline(marker == _JPEG_LS, "jpeg ls")
        if marker in _FRAMES:
            _require(not frame, "two pictures are interleaved")
            frame = body
            sequential = marker in _SEQUENTIAL
            size = _jpeg_frame(marker, body)
        elif marker == _SOS:
            _require(frame)
            # Samsung's front cameras write a last coefficient of 0; libjpeg warns and reads all 64
            if sequential:
                body = body[:-3] + b"\0\x3f\0"
        elif marker == _APP0 and body.startswith(b"JFIF\0") and len(body) >= 14:
            body = b"JFIF\0\1\2" + body[7:12] + b"\0\0"  # drops the version and the thumbnail
        elif marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            if body[11] > 2:  # taken for YCbCr, as libjpeg does with a warning
                body = body[:11] + b"\1" + body[12:]
        elif marker == _APP1 and body.startswith(b"Exif\0") and not exif:
            exif = body[6:]
        elif marker == _APP2 and body.startswith(b"ICC_PROFILE\0"):
            chunks.append(body[12:])
        # APP0 and APP14 say how colours are stored.
        says_colours = (marker, body[:5]) in ((_APP0, b"JFIF\0"), (_APP14, b"Adobe"))
        if marker in _TABLES or marker in _FRAMES or marker == _SOS or says_colours:
            kept.append(bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body)
    _require(frame)
    orientation, space, notes = _exif(exif)
    icc = _icc_of_chunks(chunks)
    notes = () if icc else notes
    return ImageFile("jpeg", *size, b"".join(kept), orientation, icc, space, frame[5], alpha=False, notes=notes)


def _jpeg_frame(marker: int, body: bytes) -> tuple[int, int]:
    """Width and height. Refuses what no ordinary decoder reads."""
    _require(len(body) >= 6 and len(body) == 6 + 3 * body[5])
    precision, height, width, count = struct.unpack(">BHHB", body[:6])
    _decline(marker in (0xC3, 0xC7, 0xCB, 0xCF), "lossless jpeg")
    _decline(precision != 8, f"{precision}-bit jpeg")
    _decline(marker in (0xC9, 0xCA), "arithmetic-coded jpeg")
    _decline(marker not in (*_SEQUENTIAL, *_PROGRESSIVE), "hierarchical jpeg")
    _decline(count not in (1, 3, 4), f"jpeg of {count} channels")
    _decline(width > 0 and height == 0, "jpeg whose height comes after its pixels")
    _require(width, "the header gives no size")
    factors = [(byte >> 4, byte & 15) for byte in body[7::3]]
    _require(all(h and v for h, v in factors))
    across, down = map(max, zip(*factors, strict=True))
    _decline(any(across % h or down % v for h, v in factors), "jpeg with fractional chroma sampling")
    return width, height


def _icc_of_chunks(chunks: list[bytes]) -> bytes | None:
    """A profile from its numbered parts; empty, which counts as broken, if the numbers are wrong."""
    if not chunks:
        return None
    numbered = {chunk[:2]: chunk[2:] for chunk in chunks}
    expected = [bytes([number + 1, len(chunks)]) for number in range(len(chunks))]
    return b"".join(numbered[n] for n in expected) if set(numbered) == set(expected) else b""


# PNG


def _png(data: bytes) -> ImageFile:
    kept = [data[:8]]
    chunks: dict[bytes, bytes] = {}
    at = 8
    while True:
        _require(len(data) >= at + 12, "the file is cut short")
        length, name = struct.unpack(">I4s", data[at : at + 8])
        body, chunk = data[at + 8 : at + 8 + length], data[at : at + 12 + length]
        _require(len(chunk) == 12 + length, "the file is cut short")
        at += 12 + length
        _decline(name == b"CgBI", "apple's png")
        _decline(name == b"acTL" and int.from_bytes(body[:4], "big") > 1, "apng", "animated")
        whole = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            _require(whole, f"the checksum of its {name.decode()} chunk is wrong")
            kept.append(chunk)
        elif whole or name == b"eXIf":
            chunks.setdefault(name, body)
        if name == b"IHDR":
            width, height = struct.unpack(">II", body[:8])
        if name == b"IEND":
            break
    orientation, space, notes = _exif(chunks.get(b"eXIf", b""))
    icc = None
    if chunks.keys() & {b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"}:
        notes = ()
    try:
        if b"cICP" in chunks:
            primaries, transfer, matrix, full = chunks[b"cICP"][:4]
            _decline(transfer in colour_space.HDR, "high dynamic range png")
            space = colour_space.of_code_points(primaries, transfer)
            if space is None or matrix != 0 or full != 1:
                space, notes = None, UNKNOWN_SPACE
        elif b"iCCP" in chunks:
            icc = _inflated(chunks[b"iCCP"])
        elif b"sRGB" in chunks:
            space = None
        elif chunks.keys() & {b"gAMA", b"cHRM"}:
            gamma = chunks.get(b"gAMA")
            primary = chunks.get(b"cHRM")
            space = colour_space.of_gamma(
                None if gamma is None else struct.unpack(">I", gamma)[0] / 100_000,
                None if primary is None else [n / 100_000 for n in struct.unpack(">8I", primary)],
            )
    except (ValueError, struct.error, zlib.error):
        notes = (("space", "broken"),)
    return ImageFile("png", width, height, b"".join(kept), orientation, icc, space, notes=notes)


MAX_PROFILE_BYTES = 2**24


def _inflated(body: bytes) -> bytes:
    """The profile of an iCCP chunk; empty, which counts as broken, if it does not inflate."""
    try:
        return zlib.decompressobj().decompress(body[body.index(b"\0") + 2 :], MAX_PROFILE_BYTES)
    except (ValueError, zlib.error):
        return b""


# WebP


def _webp(data: bytes) -> ImageFile:
    picture = Pillow.open(io.BytesIO(data), formats=["WEBP"])
    _decline(getattr(picture, "is_animated", False), "webp", "animated")
    orientation, space, notes = _exif(picture.info.get("exif", b"").removeprefix(b"Exif\0\0"))
    icc = picture.info.get("icc_profile")
    return ImageFile("webp", *picture.size, data, orientation, icc, space, notes=() if icc else notes)


# TIFF

_NEW_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_ORIENTATION, _SAMPLES, _PLANAR, _TILES, _INK_SET = 274, 277, 284, 324, 332
_COLORIMETRY = {301, 318, 319}
"""Tags of a colour space in numbers: transfer function, white point, primaries."""
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _ICC, _DNG_VERSION = 338, 339, 34675, 50706
_REDUCED, _TRANSPARENCY_MASK = 1, 4
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 3, 5: 4, 6: 3, 8: 3}
"""Channels of colour, by photometric interpretation: white is zero, black is zero, RGB, palette, CMYK, YCbCr, Lab."""
_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946, 50001}
_UNSIGNED, _FLOAT, _JPEG_IN_TIFF = 1, 3, 7
_RGB, _PALETTE, _YCBCR, _LAB = 2, 3, 6, 8
_PHOTOMETRIC_AT = -1  # no tag of a file: where the photometric interpretation stands

Tags = dict[int, tuple[int, ...]]
"""A page's tags, with their numbers."""


def _tiff(data: bytes) -> ImageFile:
    page, *others = _tiff_pages(data)
    # The first image of a raw file is a preview.
    raw = _DNG_VERSION in page or _number(page, _NEW_SUBFILE_TYPE, 0) & _REDUCED or data[8:10] == b"CR"
    _decline(bool(raw), "camera raw")
    # Thumbnails, pyramid levels and masks belong to the first page; anything else is a second page.
    extras = _REDUCED | _TRANSPARENCY_MASK
    second = any(not _number(other, _NEW_SUBFILE_TYPE, 0) & extras for other in others)
    _decline(second, "tiff of several pages", "animated")
    _require({_WIDTH, _HEIGHT, _PHOTOMETRIC} <= page.keys(), "the header gives no size or colours")
    photometric = _number(page, _PHOTOMETRIC, 0)
    samples = _number(page, _SAMPLES, 1)
    bits, formats = set(_numbers(page, _BITS, 1)), set(_numbers(page, _SAMPLE_FORMAT, _UNSIGNED))
    compression = _number(page, _COMPRESSION, 1)
    colours = _COLOURS.get(photometric, samples + 1)
    few = samples < (1 if photometric == _PALETTE else colours)
    _decline(few or _number(page, _INK_SET, 1) != 1, f"tiff of {samples} samples, photometric {photometric}")
    _decline(compression not in _COMPRESSIONS, f"tiff of compression {compression}")
    # libvips reads its values as RGB.
    _decline(photometric == _YCBCR and compression != _JPEG_IN_TIFF, "tiff of YCbCr without JPEG compression")
    mixed = formats not in ({_UNSIGNED}, {_FLOAT}) or len(bits) != 1
    _decline(mixed, "tiff of signed, complex or mixed samples", "unknown_range")
    (bit,) = bits
    known = bit in ((16, 32) if formats == {_FLOAT} else (1, 2, 4, 8, 16))
    _decline(not known, f"tiff of {bit}-bit samples", "unknown_range")
    lab = photometric == _LAB
    _decline(lab and bit != 8, f"{bit}-bit Lab tiff")
    _decline(_number(page, _PLANAR, 1) == 2 and _TILES in page and samples > 1, "tiff of tiles in separate planes")
    _check_whole(page, len(data))
    orientation = _number(page, _ORIENTATION, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    icc = None if lab or _ICC not in page else bytes(page[_ICC])
    space, notes = None, Notes()
    if icc is None and _EXIF_IFD in page:  # an EXIF block has the layout of a TIFF
        _, space, notes = _exif(data)
    if icc is None and page.keys() & _COLORIMETRY:
        notes = UNKNOWN_SPACE
    if lab:  # libvips reads 8-bit Lab as RGB
        at = page[_PHOTOMETRIC_AT][0]
        data = data[:at] + _RGB.to_bytes(2, "little" if data[:2] == b"II" else "big") + data[at + 2 :]
    width, height = _number(page, _WIDTH, 0), _number(page, _HEIGHT, 0)
    alpha = _number(page, _EXTRA_SAMPLES, 0) in (1, 2)
    inverted = photometric == 0 and formats == {_FLOAT}
    return ImageFile("tiff", width, height, data, orientation, icc, space, colours, alpha, inverted, lab, notes)


def _check_whole(page: Tags, size: int) -> None:
    """Unreadable if strips or tiles lie outside the file: libtiff would guess and fill with zeros."""
    for offsets, counts in ((273, 279), (_TILES, 325)):
        starts, lengths = _numbers(page, offsets, 0), _numbers(page, counts, 0)
        _require(len(starts) == len(lengths))
        inside = all(start + length <= size for start, length in zip(starts, lengths, strict=True))
        _require(inside, "the file is cut short")


def _number(page: Tags, tag: int, default: int) -> int:
    return _numbers(page, tag, default)[0]


def _numbers(page: Tags, tag: int, default: int) -> tuple[int, ...]:
    return page.get(tag) or (default,)


_INTEGERS = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q", 18: "Q"}
"""The types of tags that are read; no other type holds a number that is needed."""


def _tiff_pages(data: bytes) -> list[Tags]:
    """The tags of a TIFF's pages; a page that is linked in a loop is read once. Unreadable where one is cut short."""
    order, big = ("<" if data[:2] == b"II" else ">"), b"+" in data[2:4]
    counted, offset, entry_size = ("Q", "Q", 20) if big else ("H", "I", 12)
    inline = struct.calcsize(offset)

    def read(types: str, at: int) -> tuple[Any, ...]:
        try:
            return struct.unpack_from(order + types, data, at)
        except struct.error:
            raise Unreadable("the file is cut short") from None

    pages: list[Tags] = []
    starts = [read(offset, 8 if big else 4)[0]]
    while starts[-1] and starts[-1] not in starts[:-1]:
        first = starts[-1] + struct.calcsize(counted)
        (count,) = read(counted, starts[-1])
        starts += read(offset, first + count * entry_size)
        page: Tags = {}
        for at in range(first, first + count * entry_size, entry_size):
            tag, kind, length = read("HH" + offset, at)
            here = at + entry_size - inline
            page[tag] = ()
            if (code := _INTEGERS.get(kind)) is None:
                continue
            if length * struct.calcsize(code) > inline:
                (here,) = read(offset, here)
            _require(here + length * struct.calcsize(code) <= len(data), "the file is cut short")
            page[tag] = read(f"{length}{code}", here)
            if tag == _PHOTOMETRIC:
                page[_PHOTOMETRIC_AT] = (here,)
        pages.append(page)
        _decline(len(pages) > 64, "tiff of several pages", "animated")  # more than one photograph, surely
    _require(pages)
    return pages


# EXIF

_EXIF_IFD, _INTEROP_IFD, _COLOR_SPACE, _INTEROP_INDEX = 0x8769, 0xA005, 0xA001, 1
_ADOBE_RGB, _UNCALIBRATED = 2, 0xFFFF


def _exif(block: bytes) -> tuple[int, Space | None, Notes]:
    """The orientation (1 if there is none), the colour space if it is not sRGB, and a note if the space is unknown. A
    damaged block counts as empty."""
    orientation, space, notes = 1, None, Notes()
    try:
        exif = Pillow.Exif()
        exif.load(b"Exif\0\0" + block)
        orientation = exif.get(_ORIENTATION, 1)
        declared = exif.get_ifd(_EXIF_IFD).get(_COLOR_SPACE)
        index = str(exif.get_ifd(_INTEROP_IFD).get(_INTEROP_INDEX, "")).strip("\0 ")
        if declared == _ADOBE_RGB or (declared == _UNCALIBRATED and index == "R03"):
            space = colour_space.adobe_rgb()
        elif declared == _UNCALIBRATED:
            notes = UNKNOWN_SPACE
    except Exception:
        pass
    return (orientation if orientation in range(1, 9) else 1), space, notes


_READERS = {"jpeg": _jpeg, "png": _png, "webp": _webp, "tiff": _tiff}
