"""Parses JPEG, PNG, WebP and TIFF files: their metadata about pixels, and the part that holds the pixels.

Text, previews, profiles and maker's notes never reach a decoder. Errors in them therefore do not cost the photograph,
and every warning of the decoder can count as damage.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Literal

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
    kind = sniff(data)
    if kind in _READERS:
        return _READERS[kind](data)
    if kind == "gif":
        gif = Pillow.open(io.BytesIO(data), formats=["GIF"])
        raise Refused("animated" if getattr(gif, "is_animated", False) else "unsupported_format", "gif")
    if kind is not None:
        raise Refused("unsupported_format", kind)
    if not data:
        raise Unreadable("the file is empty")
    raise Unreadable(f"no known image format starts with {data[:12]!r}")


# Formats by their first bytes

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    *((magic, "tiff") for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (b"GIF8", "gif"),
    (b"\xff\x0a", "jpeg xl"),
    (b"\0\0\0\x0cJXL ", "jpeg xl"),
    (b"\0\0\0\x0cjP  ", "jpeg 2000"),
    (b"\xff\x4f\xff\x51", "jpeg 2000"),
    (b"II\xbc", "jpeg xr"),
    (b"8BPS", "psd"),
    (b"qoif", "qoi"),
    (b"DDS ", "dds"),
    (b"%!PS", "eps"),
    (b"\xc5\xd0\xd3\xc6", "eps"),
    (b"%PDF", "pdf"),
    (b"\x76\x2f\x31\x01", "openexr"),
    (b"#?RADIANCE", "radiance hdr"),
    (b"#?RGBE", "radiance hdr"),
    *((magic, "camera raw") for magic in (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW")),
    *((magic, "camera raw") for magic in (b"II\x1a\0\0\0HEAPCCDR", b"FOVb", b"\0MRM")),
    *((b"P%d%c" % (n, space), "netpbm") for n in range(1, 8) for space in b" \t\r\n#"),
    (b"PF\n", "pfm"),
    (b"Pf\n", "pfm"),
    (b"gimp xcf", "xcf"),
    (b"SIMPLE  =", "fits"),
    (b"AT&TFORM", "djvu"),
    (b"FLIF", "flif"),
    (b"BPG\xfb", "bpg"),
    (b"\x8aMNG", "mng"),
    (b"\x8bJNG", "jng"),
    (b"\x59\xa6\x6a\x95", "sun raster"),
    (b"\x01\xda", "sgi"),
    (b"/* XPM", "xpm"),
    (b"\xd7\xcd\xc6\x9a", "wmf"),
    (b"\xabKTX", "ktx"),
    (b"icns", "icns"),
    (b"SDPX", "dpx"),
    (b"XPDS", "dpx"),
    (b"\x80\x2a\x5f\xd7", "cineon"),
    (b"\x97JB2\r\n\x1a\n", "jbig2"),
    (b"\x13\xab\xa1\x5c", "astc"),
    (b"\xd0\xcf\x11\xe0", "flashpix"),
)
_HEIF = (b"hei", b"hev", b"mif", b"msf")
_OS2 = (b"BA", b"CI", b"CP", b"IC", b"PT")  # arrays, icons and pointers of OS/2
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)


def sniff(data: bytes) -> str | None:
    """The image format of these bytes, in lower case, or None. The first 1,024 bytes are enough.

    Only jpeg, png, webp and tiff can be read.
    """
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:4] == b"FORM" and data[8:12] in (b"ILBM", b"PBM ", b"ACBM"):
        return "iff"
    if data[4:8] == b"ftyp":
        brands = {b"avif": "avif", b"avis": "avif", b"crx ": "camera raw"}
        return brands.get(data[8:12], "heif" if data[8:11] in _HEIF else "video")
    if data[:2] == b"BM" or (data[:2] in _OS2 and 14 <= int.from_bytes(data[2:6], "little") <= 4096):
        return "bmp"
    if data[:4] in (b"\0\0\1\0", b"\0\0\2\0") and data[4:6] > b"\0\0":  # how many; Targa has zeros there
        return "ico"
    if data[128:132] == b"DICM":
        return "dicom"
    if data[40:44] == b" EMF" and data[:4] == b"\1\0\0\0":
        return "emf"
    if len(data) > 128 and data[0] == 10 and data[1] in (0, 2, 3, 4, 5) and data[2] < 2 and data[64] == 0:
        return "pcx"
    if _SVG.search(data[:1024]):
        return "svg"
    return "tga" if _is_tga(data) else None


def _is_tga(data: bytes) -> bool:
    """Targa has no signature: its 18 header bytes must all be plausible."""
    if len(data) < 19:
        return False
    _, colour_map, kind, first, length, entry, _, _, width, height, depth, flags = struct.unpack(
        "<3BHHB4H2B", data[:18]
    )
    mapped = kind in (1, 9)
    return (
        kind in (1, 2, 3, 9, 10, 11)
        and colour_map == mapped
        and (entry in (15, 16, 24, 32) and length > 0 if mapped else (first, length, entry) == (0, 0, 0))
        and depth in (8, 15, 16, 24, 32)
        and width * height > 0
        and flags & 0xC0 == 0
    )


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
        if length < 2 or len(body) != length - 2:
            raise Unreadable("the file is cut short in its header")
        at += length
        in_scan = marker == _SOS
        if marker == _JPEG_LS:
            raise Refused("unsupported_format", "jpeg ls")
        if marker in _FRAMES:
            if frame:
                raise Unreadable("two pictures are interleaved")
            frame = body
            sequential = marker in _SEQUENTIAL
            size = _jpeg_frame(marker, body)
        elif marker == _SOS:
            if not frame:
                raise Unreadable("the header is damaged")
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
        if marker in _TABLES or marker in _FRAMES or marker == _SOS or _keeps(marker, body):
            kept.append(bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body)
    if not frame:
        raise Unreadable("the header is damaged")
    orientation, space, notes = _exif(exif)
    icc = _icc_of_chunks(chunks)
    return ImageFile(
        "jpeg",
        *size,
        b"".join(kept),
        orientation,
        icc,
        space,
        colours=frame[5],
        alpha=False,
        notes=() if icc else notes,
    )


def _keeps(marker: int, body: bytes) -> bool:
    """Whether a segment says how colours are stored."""
    return (marker == _APP0 and body.startswith(b"JFIF\0")) or (marker == _APP14 and body.startswith(b"Adobe"))


def _jpeg_frame(marker: int, body: bytes) -> tuple[int, int]:
    """Width and height. Refuses what no ordinary decoder reads."""
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise Unreadable("the header is damaged")
    precision, height, width, count = struct.unpack(">BHHB", body[:6])
    if marker in (0xC3, 0xC7, 0xCB, 0xCF):
        raise Refused("unsupported_format", "lossless jpeg")
    if precision != 8:
        raise Refused("unsupported_format", f"{precision}-bit jpeg")
    if marker in (0xC9, 0xCA):
        raise Refused("unsupported_format", "arithmetic-coded jpeg")
    if marker not in (*_SEQUENTIAL, *_PROGRESSIVE):
        raise Refused("unsupported_format", "hierarchical jpeg")
    if count not in (1, 3, 4):
        raise Refused("unsupported_format", f"jpeg of {count} channels")
    if width and not height:
        raise Refused("unsupported_format", "jpeg whose height comes after its pixels")
    if not width:
        raise Unreadable("the header gives no size")
    factors = [(byte >> 4, byte & 15) for byte in body[7::3]]
    across, down = (max(factor[i] for factor in factors) for i in (0, 1))
    if any(not h or not v for h, v in factors):
        raise Unreadable("the header is damaged")
    if any(across % h or down % v for h, v in factors):
        raise Refused("unsupported_format", "jpeg with fractional chroma sampling")
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
        if len(data) < at + 12:
            raise Unreadable("the file is cut short")
        length, name = struct.unpack(">I4s", data[at : at + 8])
        body, chunk = data[at + 8 : at + 8 + length], data[at : at + 12 + length]
        if len(chunk) != 12 + length:
            raise Unreadable("the file is cut short")
        at += 12 + length
        if name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise Unreadable(f"the checksum of its {name.decode()} chunk is wrong")
            kept.append(chunk)
        elif name == b"CgBI":
            raise Refused("unsupported_format", "apple's png")
        elif name == b"acTL" and int.from_bytes(body[:4], "big") > 1:
            raise Refused("animated", "apng")
        elif name == b"eXIf" or zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big"):
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
            if transfer in colour_space.HDR:
                raise Refused("unsupported_format", "high dynamic range png")
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
    if getattr(picture, "is_animated", False):
        raise Refused("animated", "webp")
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
_UNSIGNED, _FLOAT, _RGB, _YCBCR, _JPEG_IN_TIFF = 1, 3, 2, 6, 7
_PHOTOMETRIC_AT = -1  # no tag of a file: where the photometric interpretation stands

Tags = dict[int, tuple[int, ...]]
"""A page's tags, with their numbers."""


def _tiff(data: bytes) -> ImageFile:
    pages = _tiff_pages(data)
    page = pages[0]
    if _DNG_VERSION in page or _number(page, _NEW_SUBFILE_TYPE, 0) & _REDUCED or data[8:10] == b"CR":
        raise Refused("unsupported_format", "camera raw")  # its first image is a preview
    # Thumbnails, pyramid levels and masks belong to the first page; anything else is a second page.
    extras = _REDUCED | _TRANSPARENCY_MASK
    if any(not _number(other, _NEW_SUBFILE_TYPE, 0) & extras for other in pages[1:]):
        raise Refused("animated", "tiff of several pages")
    if not {_WIDTH, _HEIGHT, _PHOTOMETRIC} <= page.keys():
        raise Unreadable("the header gives no size or colours")
    photometric = _number(page, _PHOTOMETRIC, 0)
    samples = _number(page, _SAMPLES, 1)
    bits, formats = set(_numbers(page, _BITS, 1)), set(_numbers(page, _SAMPLE_FORMAT, _UNSIGNED))
    compression = _number(page, _COMPRESSION, 1)
    colours = _COLOURS.get(photometric)
    if colours is None or samples < (1 if photometric == 3 else colours) or _number(page, _INK_SET, 1) != 1:
        raise Refused("unsupported_format", f"tiff of {samples} samples, photometric {photometric}")
    if compression not in _COMPRESSIONS:
        raise Refused("unsupported_format", f"tiff of compression {compression}")
    if photometric == _YCBCR and compression != _JPEG_IN_TIFF:  # libvips reads its values as RGB
        raise Refused("unsupported_format", "tiff of YCbCr without JPEG compression")
    if formats not in ({_UNSIGNED}, {_FLOAT}) or len(bits) != 1:
        raise Refused("unknown_range", "tiff of signed, complex or mixed samples")
    (bit,) = bits
    if bit not in ((16, 32) if formats == {_FLOAT} else (1, 2, 4, 8, 16)):
        raise Refused("unknown_range", f"tiff of {bit}-bit samples")
    lab = photometric == 8
    if lab and bit != 8:
        raise Refused("unsupported_format", f"{bit}-bit Lab tiff")
    if _number(page, _PLANAR, 1) == 2 and _TILES in page and samples > 1:
        raise Refused("unsupported_format", "tiff of tiles in separate planes")
    _check_whole(page, len(data))
    extra = _numbers(page, _EXTRA_SAMPLES, 0)[0]
    orientation = _number(page, _ORIENTATION, 1)
    icc = None if lab or _ICC not in page else bytes(page[_ICC])
    space, notes = None, Notes()
    if icc is None and _EXIF_IFD in page:  # an EXIF block has the layout of a TIFF
        _, space, notes = _exif(data)
    if icc is None and page.keys() & _COLORIMETRY:
        notes = UNKNOWN_SPACE
    return ImageFile(
        "tiff",
        _number(page, _WIDTH, 0),
        _number(page, _HEIGHT, 0),
        # libvips reads 8-bit Lab as RGB.
        _with_short(data, page[_PHOTOMETRIC_AT][0], _RGB) if lab else data,
        orientation if orientation in range(1, 9) else 1,
        icc,
        space,
        colours=colours,
        alpha=extra in (1, 2),
        inverted=photometric == 0 and formats == {_FLOAT},
        lab=lab,
        notes=notes,
    )


def _with_short(data: bytes, at: int, value: int) -> bytes:
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    return data[:at] + value.to_bytes(2, order) + data[at + 2 :]


def _check_whole(page: Tags, size: int) -> None:
    """Unreadable if strips or tiles lie outside the file: libtiff would guess and fill with zeros."""
    for offsets, counts in ((273, 279), (_TILES, 325)):
        starts, lengths = _numbers(page, offsets, 0), _numbers(page, counts, 0)
        if len(starts) != len(lengths):
            raise Unreadable("the header is damaged")
        if any(start + length > size for start, length in zip(starts, lengths, strict=True)):
            raise Unreadable("the file is cut short")


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
            code = _INTEGERS.get(kind)
            if code is None:
                page[tag] = ()
                continue
            if length * struct.calcsize(code) > inline:
                (here,) = read(offset, here)
            if here + length * struct.calcsize(code) > len(data):
                raise Unreadable("the file is cut short")
            page[tag] = read(f"{length}{code}", here)
            if tag == _PHOTOMETRIC:
                page[_PHOTOMETRIC_AT] = (here,)
        pages.append(page)
        if len(pages) > 64:  # more than one photograph, surely
            raise Refused("animated", "tiff of several pages")
    if not pages:
        raise Unreadable("the header is damaged")
    return pages


# EXIF

_EXIF_IFD, _INTEROP_IFD, _COLOR_SPACE, _INTEROP_INDEX = 0x8769, 0xA005, 0xA001, 1
_ADOBE_RGB, _UNCALIBRATED = 2, 0xFFFF


def _exif(block: bytes) -> tuple[int, Space | None, Notes]:
    """The orientation (1 if there is none), the colour space if it is not sRGB, and a note if the space is unknown. A
    damaged block counts as empty."""
    if not block:
        return 1, None, ()
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
