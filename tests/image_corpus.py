"""Image files of every kind that normalisation meets, each with the picture that it holds.

The pictures are known because the files are made from them here, or they come from a second decoder (Pillow's libjpeg
and libwebp); nothing of `crispedit.normalise` is used.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import imagecodecs
import numpy as np
import tifffile
from bad_inputs import WIDE_GAMUT, encode, oriented, photo, png_chunk, ycck
from PIL import Image, ImageCms, ImageOps

WIDTH, HEIGHT = 60, 44


@dataclass(frozen=True)
class Made:
    """A file, and the sRGB picture that it holds, or the reason for which it is declined."""

    data: bytes
    truth: np.ndarray | None = None
    """[H, W, 3]"""
    declined: str | None = None
    notes: dict[str, str] | None = None
    """That normalisation must leave among its notes."""


def base(name: str) -> np.ndarray:
    return photo(name, WIDTH, HEIGHT)


def grey3(grey: np.ndarray) -> np.ndarray:
    return np.dstack([grey] * 3)


def on_white(colours: np.ndarray, alpha: np.ndarray, white: int = 255) -> np.ndarray:
    """Composited, of any depth, as 8 bits."""
    share = alpha[..., None].astype(float) / white
    return np.rint((colours.astype(float) * share + white * (1 - share)) * 255 / white).astype(np.uint8)


# JPEG


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def after_start(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def without_jfif(data: bytes) -> bytes:
    assert data[2:4] == b"\xff\xe0"
    return data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]


def flat_jpeg(blocks: list[np.ndarray], factors: list[tuple[int, int]], width: int, height: int, **how) -> bytes:
    """A baseline JPEG of blocks of one level each: `blocks` are the levels by component, in whole MCUs.

    Any sampling factors can be had, also those that no library writes. `interleaved=False`: a scan for each.
    """
    quant = segment(0xDB, b"\0" + b"\x08" * 64)  # 8 x 8 coefficients of 8: the DC difference is the level's
    frame = struct.pack(">BHHB", 8, height, width, len(factors))
    frame += b"".join(bytes([i + 1, h << 4 | v, 0]) for i, (h, v) in enumerate(factors))
    # One code a size: 12 codes of 4 bits for DC, and an end of block of 1 bit for AC.
    dc = segment(0xC4, b"\0" + bytes([0, 0, 0, 12]) + bytes(12) + bytes(range(12)))
    ac = segment(0xC4, b"\x10" + bytes([1]) + bytes(15) + b"\0")

    def scan(components: list[int], order: list[tuple[int, int, int]]) -> bytes:
        header = bytes([len(components)]) + b"".join(bytes([i + 1, 0]) for i in components) + b"\0\x3f\0"
        last, bits = dict.fromkeys(components, 0), ""
        for component, row, column in order:
            level = int(blocks[component][row, column]) - 128
            difference, last[component] = level - last[component], level
            size = abs(difference).bit_length()
            bits += f"{size:04b}"
            if size:
                value = difference if difference > 0 else difference + (1 << size) - 1
                bits += f"{value:0{size}b}"
            bits += "0"  # end of block
        bits += "1" * (-len(bits) % 8)
        coded = int(bits, 2).to_bytes(len(bits) // 8, "big")
        return segment(0xDA, header) + coded.replace(b"\xff", b"\xff\0")

    across, down = (max(f[i] for f in factors) for i in (0, 1))
    mcus = [(y, x) for y in range(-(-height // (8 * down))) for x in range(-(-width // (8 * across)))]
    if how.get("interleaved", True):
        order = [
            (i, y * v + j, x * h + k)
            for y, x in mcus
            for i, (h, v) in enumerate(factors)
            for j in range(v)
            for k in range(h)
        ]
        scans = scan(list(range(len(factors))), order)
    else:
        scans = b"".join(
            scan([i], [(i, y, x) for y in range(b.shape[0]) for x in range(b.shape[1])]) for i, b in enumerate(blocks)
        )
    return b"\xff\xd8" + quant + segment(0xC0, frame) + dc + ac + scans + b"\xff\xd9"


def sampled(name: str, factors: list[tuple[int, int]], **how) -> bytes:
    """A flat JPEG of random levels with these sampling factors."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    across, down = (max(f[i] for f in factors) for i in (0, 1))
    columns, rows = 2, 2  # of MCUs
    blocks = [rng.integers(90, 170, (rows * v, columns * h)) for h, v in factors]
    return flat_jpeg(blocks, factors, columns * across * 8, rows * down * 8, **how)


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def exif(adobe_rgb: bool = False, orientation: int = 1, color_space: int = 0xFFFF) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    if adobe_rgb:
        block.get_ifd(0x8769)[0xA001] = color_space
        block.get_ifd(0x8769)[0xA005] = {1: "R03"}
    return block.tobytes()


SRGB_TO_XYZ = np.array(
    [[0.4123908, 0.3575843, 0.1804808], [0.2126390, 0.7151687, 0.0721923], [0.0193308, 0.1191948, 0.9505322]]
)
ADOBE_TO_XYZ = np.array(
    [[0.5766690, 0.1855582, 0.1882286], [0.2973450, 0.6273636, 0.0752915], [0.0270314, 0.0706889, 0.9913375]]
)
P3_TO_XYZ = np.array(
    [[0.4865709, 0.2656677, 0.1982173], [0.2289746, 0.6917385, 0.0792869], [0.0, 0.0451134, 1.0439444]]
)


def srgb_light(values: np.ndarray) -> np.ndarray:
    """0-1 of light, of sRGB values of 0-1."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_srgb(light: np.ndarray, to_xyz: np.ndarray = SRGB_TO_XYZ) -> np.ndarray:
    """8-bit sRGB of light in 0-1 of a space whose white is D65."""
    linear = np.clip(light @ (np.linalg.inv(SRGB_TO_XYZ) @ to_xyz).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)


def jpegs() -> dict[str, Made]:
    made: dict[str, Made] = {}

    def add(name: str, data: bytes, truth: np.ndarray | None = None, **more) -> None:
        made[f"{name}.jpg"] = Made(data, by_pillow(data) if truth is None else truth, **more)

    for sampling in (0, 1, 2):
        for progressive in (False, True):
            data = encode(base("jpeg"), "JPEG", quality=93, subsampling=sampling, progressive=progressive)
            add(f"sampling{sampling}_progressive{progressive:d}", data)
    for quality in (30, 100):
        add(f"quality{quality}", encode(base("quality"), "JPEG", quality=quality))
    for width, height in ((1, 1), (7, 13), (17, 1), (1, 33), (8, 8)):
        add(f"size_{width}_{height}", encode(photo("size", width, height), "JPEG", quality=95))
    for factor in ("411", "422", "440"):
        add(f"factor_{factor}", imagecodecs.jpeg8_encode(base("factor"), 93, subsampling=factor))
    odd = {
        "3x1": [(3, 1), (1, 1), (1, 1)],
        "1x3": [(1, 3), (1, 1), (1, 1)],
        "1x4": [(1, 4), (1, 1), (1, 1)],
        "4x2": [(4, 2), (1, 1), (1, 1)],
        "2x2_chroma_2x1": [(2, 2), (2, 1), (2, 1)],
        "luma_below_chroma": [(1, 1), (2, 2), (2, 2)],
        "unequal_chroma": [(2, 2), (2, 1), (1, 2)],
    }
    for name, factors in odd.items():
        add(f"odd_{name}", sampled(name, factors))
    add("separate_scans", sampled("scans", [(1, 1)] * 3, interleaved=False))
    for factor in ((3, 1), (2, 2)):
        fractional = sampled("fractional", [factor, (2, 1), (1, 1)] if factor[0] == 3 else [(3, 2), (2, 2), (1, 1)])
        made[f"fractional_{factor[0]}.jpg"] = Made(fractional, declined="unsupported_format")

    grey = base("grey")[..., 0]
    add("grey", encode(Image.fromarray(grey), "JPEG", quality=93))
    add("grey_2x2", flat_jpeg([np.full((2, 2), 99)], [(2, 2)], 16, 16), np.full((16, 16, 3), 99, np.uint8))
    add("rgb", encode(base("rgb"), "JPEG", quality=97, keep_rgb=True))
    add("cmyk", encode(Image.fromarray(base("cmyk")).convert("CMYK"), "JPEG", quality=95))
    add("ycck", ycck("ycck"))

    plain = encode(base("plain"), "JPEG", quality=93, subsampling=0)
    whole, scan = by_pillow(plain), plain.index(b"\xff\xda")
    spectral = scan + 2 + int.from_bytes(plain[scan + 2 : scan + 4], "big") - 3
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    icc = b"ICC_PROFILE\0"
    half = len(srgb) // 2
    beside: dict[str, tuple[bytes, dict[str, str]]] = {
        "samsung_scan": (plain[: spectral + 1] + b"\0" + plain[spectral + 2 :], {}),
        "jfif_2": (plain.replace(b"JFIF\0\1\1", b"JFIF\0\2\1"), {}),
        "no_jfif": (without_jfif(plain), {}),
        "short_jfif": (after_start(without_jfif(plain), segment(0xE0, b"JFIF\0\1")), {}),
        "icc_0_of_1": (after_start(plain, segment(0xE2, icc + b"\0\1" + srgb)), {"icc": "broken"}),
        "icc_2_of_1": (after_start(plain, segment(0xE2, icc + b"\2\1" + srgb)), {"icc": "broken"}),
        "icc_twice": (after_start(plain, *[segment(0xE2, icc + b"\1\1" + srgb)] * 2), {"icc": "broken"}),
        "icc_short": (after_start(plain, segment(0xE2, icc)), {"icc": "broken"}),
        "icc_swapped": (
            after_start(plain, segment(0xE2, icc + b"\2\2" + srgb[half:]), segment(0xE2, icc + b"\1\2" + srgb[:half])),
            {"icc": "srgb"},
        ),
        "icc_after_frame": (plain[:scan] + segment(0xE2, icc + b"\1\1" + srgb) + plain[scan:], {"icc": "srgb"}),
        "adobe_unknown": (after_start(plain, segment(0xEE, b"Adobe\0\x64\0\0\0\0\7")), {}),
        "bytes_before_end": (plain[:-2] + b"\0" * 6 + plain[-2:], {}),
        "words_before_end": (plain[:-2] + b"made by a camera" + plain[-2:], {}),
        "fill_before_end": (plain[:-2] + b"\xff" * 9 + plain[-2:], {}),
        "bytes_between_segments": (plain[:scan] + b"\0\0\0" + plain[scan:], {}),
        "after_end": (plain + b"\xff\xd8\xff garbage" * 9, {}),
        "long_comment": (after_start(plain, *[segment(0xFE, b"x" * 65000)] * 3), {}),
        "wild_exif": (after_start(plain, segment(0xE1, b"Exif\0\0MM\0*" + b"\xff" * 99)), {}),
        "unknown_segments": (after_start(plain, *(segment(0xE3 + n, b"?" * n) for n in range(11))), {}),
    }
    for name, (data, notes) in beside.items():
        add(name, data, whole, notes=notes)
    for orientation in range(1, 9):
        data = oriented("turned", orientation)
        upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        add(f"orientation_{orientation}", data, upright)

    smooth = cv2.GaussianBlur(base("adobe"), (0, 0), 4)
    for name, block in {"r03": exif(True), "2": exif(True, color_space=2)}.items():
        data = encode(smooth, "JPEG", quality=100, subsampling=0, exif=block)
        light = (by_pillow(data) / 255) ** (563 / 256)
        add(f"adobe_rgb_{name}", data, to_srgb(light, ADOBE_TO_XYZ), notes={"space": "adobe_rgb"})
    uncalibrated = exif(True).replace(b"R03", b"R98")
    data = encode(smooth, "JPEG", quality=93, exif=uncalibrated)
    add("uncalibrated", data, notes={"space": "unknown"})
    both = encode(smooth, "JPEG", quality=93, exif=exif(True), icc_profile=srgb)
    add("adobe_rgb_and_profile", both, notes={"icc": "srgb"})

    for name, data in {
        "12_bit": imagecodecs.jpeg8_encode(base("deep").astype(np.uint16) * 16, bitspersample=12),
        "lossless": imagecodecs.jpeg8_encode(base("lossless"), lossless=True),
        "arithmetic": plain.replace(b"\xff\xc0", b"\xff\xc9", 1),
        "hierarchical": plain.replace(b"\xff\xc0", b"\xff\xc5", 1),
        "height_comes_later": plain.replace(struct.pack(">BHH", 8, HEIGHT, WIDTH), struct.pack(">BHH", 8, 0, WIDTH)),
        "two_channels": flat_jpeg([np.full((2, 2), 99)] * 2, [(1, 1)] * 2, 16, 16),
        "jpeg_ls": imagecodecs.jpegls_encode(base("ls")),
    }.items():
        made[f"{name}.jpg"] = Made(data, declined="unsupported_format")
    return made


# PNG

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(samples: np.ndarray, depth: int, colour: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """A PNG of samples [H, W, channels] of any depth and colour type; the chunks stand before its pixels."""
    height, width = samples.shape[:2]
    raw = b""
    for x, y, across, down in _PASSES if interlaced else [(0, 0, 1, 1)]:
        for row in samples[y::down, x::across]:
            if row.size:
                values = row.astype(">u2").tobytes() if depth == 16 else row.astype(np.uint8).ravel()
                if depth < 8:
                    bits = (values[:, None] >> np.arange(depth - 1, -1, -1)) & 1
                    values = np.packbits(bits.astype(np.uint8).ravel())
                raw += b"\0" + (values if isinstance(values, bytes) else values.tobytes())
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(raw)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pngs() -> dict[str, Made]:
    made: dict[str, Made] = {}
    image, alpha = base("png"), np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    palette = np.random.default_rng(5).integers(0, 256, (256, 3)).astype(np.uint8)
    for interlaced in (False, True):
        way = "interlaced" if interlaced else "plain"

        def add(name: str, samples: np.ndarray, depth: int, colour: int, truth: np.ndarray, *chunks: bytes) -> None:
            samples = samples if samples.ndim == 3 else samples[..., None]
            data = png(samples, depth, colour, *chunks, interlaced=interlaced)  # noqa: B023
            made[f"{name}_{depth}_{way}.png"] = Made(data, truth)  # noqa: B023

        for depth in (1, 2, 4, 8, 16):
            white = 2**depth - 1
            grey = np.rint(image[..., 0] / 255 * white).astype(np.uint16)
            levels = np.rint(grey / white * 255).astype(np.uint8)
            add("grey", grey, depth, 0, grey3(levels))
            clear = int(grey[0, 0])
            truth = np.where(grey == clear, 255, levels).astype(np.uint8)
            add("grey_clear", grey, depth, 0, grey3(truth), png_chunk(b"tRNS", struct.pack(">H", clear)))
            if depth <= 8:
                indices = (image[..., 1] >> (8 - depth)).astype(np.uint8)
                colours = png_chunk(b"PLTE", palette[: 2**depth].tobytes())
                add("palette", indices, depth, 3, palette[indices], colours)
                opacity = np.random.default_rng(depth).integers(0, 256, 2**depth).astype(np.uint8)
                truth = on_white(palette[indices], opacity[indices])
                add("palette_clear", indices, depth, 3, truth, colours, png_chunk(b"tRNS", opacity.tobytes()))
        for depth in (8, 16):
            scale = 1 if depth == 8 else 257
            deep, deep_alpha = image.astype(np.uint16) * scale, alpha.astype(np.uint16) * scale
            add("rgb", deep, depth, 2, image)
            clear = png_chunk(b"tRNS", struct.pack(">3H", *deep[3, 4].tolist()))
            hidden = (image == image[3, 4]).all(axis=2)
            add("rgb_clear", deep, depth, 2, np.where(hidden[..., None], 255, image).astype(np.uint8), clear)
            add("grey_alpha", np.dstack([deep[..., 0], deep_alpha]), depth, 4, on_white(grey3(image[..., 0]), alpha))
            add("rgba", np.dstack([deep, deep_alpha]), depth, 6, on_white(image, alpha))

    light = srgb_light(image / 255)
    linear = np.rint(light * 65535).astype(np.uint16)

    def chunk(name: bytes, kind: str, *numbers: int) -> bytes:
        return png_chunk(name, struct.pack(f">{kind}", *numbers))

    def declared(name: str, truth: np.ndarray, *chunks: bytes, deep: np.ndarray | None = None, **notes: str) -> None:
        depth, samples = (8, image) if deep is None else (16, deep)
        made[f"{name}.png"] = Made(png(samples, depth, 2, *chunks), truth, notes=notes)

    def gama(gamma: int) -> bytes:
        return chunk(b"gAMA", "I", gamma)

    srgb_chrm = chunk(b"cHRM", "8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    swapped = chunk(b"cHRM", "8I", 31270, 32900, 30000, 60000, 64000, 33000, 15000, 6000)
    green_red = light[..., [1, 0, 2]]
    declared("gama_linear", image, gama(100000), deep=linear, space="gamma")
    declared("gama_1.8", to_srgb((image / 255) ** 1.8), gama(55556), space="gamma")
    declared("gama_srgb", image, gama(45455))
    declared("gama_chrm_srgb", image, gama(45455), srgb_chrm)
    declared("chrm_swapped", to_srgb(green_red), gama(45455), swapped, space="primaries")
    declared("gama_zero", image, gama(0), space="broken")
    declared("chrm_flat", image, chunk(b"cHRM", "8I", 31270, 32900, *[30000, 30000] * 3), space="broken")
    declared("gama_short", image, png_chunk(b"gAMA", b"\0\0"), space="broken")
    declared("srgb_wins", image, png_chunk(b"sRGB", b"\0"), gama(100000))
    declared("cicp_srgb", image, png_chunk(b"cICP", bytes([1, 13, 0, 1])), gama(100000), space="cicp_1_13")
    declared("cicp_p3", to_srgb(light, P3_TO_XYZ), png_chunk(b"cICP", bytes([12, 13, 0, 1])), space="cicp_12_13")
    declared("cicp_linear", image, png_chunk(b"cICP", bytes([1, 8, 0, 1])), deep=linear, space="cicp_1_8")
    declared("cicp_unknown", image, png_chunk(b"cICP", bytes([99, 13, 0, 1])), space="unknown")
    wrong = bytearray(gama(100000))
    wrong[-1] ^= 1
    declared("gama_wrong_checksum", image, bytes(wrong))
    text = b"workflow\0\0" + zlib.compress(b"a node " * 400_000)
    declared("long_text", image, png_chunk(b"zTXt", text))
    declared("long_plain_text", image, png_chunk(b"tEXt", b"workflow\0" + b"x" * 3_000_000))
    declared("icc_broken", image, png_chunk(b"iCCP", b"x\0\0" + b"no zlib"), icc="broken")
    declared("unknown_chunk", image, png_chunk(b"cRAZ", b"y" * 99))
    turned = png_chunk(b"eXIf", exif(orientation=6).removeprefix(b"Exif\0\0"))
    made["orientation.png"] = Made(png(image, 8, 2, turned), np.rot90(image, 3))
    phone = png(image, 8, 2).replace(b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + png_chunk(b"CgBI", bytes(4)))
    made["apple.png"] = Made(phone, declined="unsupported_format")
    for transfer in (16, 18):
        data = png(linear, 16, 2, png_chunk(b"cICP", bytes([9, transfer, 0, 1])))
        made[f"cicp_hdr_{transfer}.png"] = Made(data, declined="unsupported_format")
    return made


# TIFF


def tiff(array: np.ndarray, **options) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


def as_lab(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L of 0-255 and a and b as signed bytes; and the picture that this rounding leaves."""
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(Image.fromarray(image), srgb, lab, outputMode="LAB")
    back = ImageCms.profileToProfile(converted, lab, srgb, outputMode="RGB")
    return np.asarray(converted), np.asarray(back)


def tiffs() -> dict[str, Made]:
    made: dict[str, Made] = {}
    image = base("tiff")
    grey, alpha = image[..., 0], np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    colour_map = np.random.default_rng(6).integers(0, 256, (3, 256)).astype(np.uint16)
    planes = np.ascontiguousarray(np.moveaxis(image, 2, 0))
    inks = np.dstack([255 - image, np.zeros_like(grey)])
    for order, order_name in (("<", "little"), (">", "big")):

        def add(name: str, array: np.ndarray, truth: np.ndarray | None, declined: str | None = None, **options) -> None:
            data = tiff(array, byteorder=order, **options)  # noqa: B023
            made[f"{name}_{order_name}.tif"] = Made(data, None if declined else truth, declined)  # noqa: B023

        for bits, scale in ((8, 1), (16, 257)):
            kind = np.uint8 if bits == 8 else np.uint16
            deep, flat, opacity = (
                image.astype(kind) * kind(scale),
                grey.astype(kind) * kind(scale),
                alpha.astype(kind) * kind(scale),
            )
            white = kind(255 * scale)
            separate = planes.astype(kind) * kind(scale)
            add(f"rgb{bits}", deep, image, photometric="rgb")
            add(f"planar{bits}", separate, image, photometric="rgb", planarconfig="separate")
            add(f"planar_lzw{bits}", separate, image, photometric="rgb", planarconfig="separate", compression="lzw")
            add(f"tiled{bits}", deep, image, photometric="rgb", tile=(16, 32))
            add(f"predictor{bits}", deep, image, photometric="rgb", compression="deflate", predictor=True)
            add(f"grey{bits}", flat, grey3(grey), photometric="minisblack")
            add(f"white_is_zero{bits}", white - flat, grey3(grey), photometric="miniswhite")
            add(
                f"grey_alpha{bits}",
                np.dstack([flat, opacity]),
                on_white(grey3(grey), alpha),
                photometric="minisblack",
                extrasamples=["unassalpha"],
            )
            add(
                f"rgba{bits}",
                np.dstack([deep, opacity]),
                on_white(image, alpha),
                photometric="rgb",
                extrasamples=["unassalpha"],
            )
            multiplied = np.rint(deep.astype(float) * alpha[..., None] / 255).astype(kind)
            add(
                f"premultiplied{bits}",
                np.dstack([multiplied, opacity]),
                on_white(image, alpha),
                photometric="rgb",
                extrasamples=["assocalpha"],
            )
            add(f"extra{bits}", np.dstack([deep, opacity]), image, photometric="rgb", extrasamples=["unspecified"])
            add(f"cmyk{bits}", inks.astype(kind) * kind(scale), image, photometric="separated")
            add(
                f"cmyk_planar{bits}",
                np.ascontiguousarray(np.moveaxis(inks, 2, 0)).astype(kind) * kind(scale),
                image,
                photometric="separated",
                planarconfig="separate",
            )
        for compression in ("packbits", "lzw", "deflate"):
            add(compression, image, image, photometric="rgb", compression=compression)
        for compression in ("zstd", "lzma"):
            add(compression, image, None, "unsupported_format", photometric="rgb", compression=compression)
        add("jpeg_xl", image, None, "unsupported_format", photometric="rgb", compression="jpegxl")
        add("float", image.astype(np.float32) / 255, image, photometric="rgb")
        add("float_grey", grey.astype(np.float32) / 255, grey3(grey), photometric="minisblack")
        add("float_white_is_zero", 1 - grey.astype(np.float32) / 255, grey3(grey), photometric="miniswhite")
        add(
            "float_predictor",
            image.astype(np.float32) / 255,
            image,
            photometric="rgb",
            compression="deflate",
            predictor=True,
        )
        add("lab", *as_lab(image), photometric="cielab")
        add("lab16", image.astype(np.uint16), None, "unsupported_format", photometric="cielab")
        add("half", (image / 255).astype(np.float16), image, photometric="rgb")
        add("float_to_255", image.astype(np.float32), image, photometric="rgb")
        add("float_above_1", image.astype(np.float32) / 170, None, "unknown_range", photometric="rgb")
        add("double", grey / 255.0, None, "unknown_range", photometric="minisblack")
        add("signed", grey.astype(np.int16), None, "unknown_range", photometric="minisblack")
        add("integers", grey.astype(np.uint32) << 20, None, "unknown_range", photometric="minisblack")
        for bits in (10, 12, 14):
            add(
                f"grey{bits}",
                grey.astype(np.uint16) << (bits - 8),
                None,
                "unknown_range",
                photometric="minisblack",
                bitspersample=bits,
            )
        add("palette", grey, colour_map.T[grey].astype(np.uint8), photometric="palette", colormap=colour_map * 257)
        add("palette_8_bit", grey, colour_map.T[grey].astype(np.uint8), photometric="palette", colormap=colour_map)
        add("one_bit", grey > 128, grey3(np.where(grey > 128, 255, 0).astype(np.uint8)), photometric="minisblack")
        add(
            "one_bit_white_is_zero",
            grey <= 128,
            grey3(np.where(grey > 128, 255, 0).astype(np.uint8)),
            photometric="miniswhite",
        )
        add("white_point", image, image, photometric="rgb", extratags=[(318, 5, 2, (3127, 10000, 329, 1000), True)])
        made[f"white_point_{order_name}.tif"] = replace(
            made[f"white_point_{order_name}.tif"], notes={"space": "unknown"}
        )
        add(
            "tiled_planes",
            np.moveaxis(image, 2, 0),
            None,
            "unsupported_format",
            photometric="rgb",
            planarconfig="separate",
            tile=(16, 16),
        )
        add("several_pages", np.stack([image, image]), None, "animated", photometric="rgb")
        add("turned", image, np.rot90(image, 3), photometric="rgb", extratags=[(274, 3, 1, 6, True)])
        add("unknown_tag", image, image, photometric="rgb", extratags=[(65000, 2, 6, "maker", True)])
        made[f"big_{order_name}.tif"] = Made(tiff(image, byteorder=order, bigtiff=True, photometric="rgb"), image)
    for bits in (2, 4):
        values = grey >> (8 - bits)
        row = (WIDTH * bits + 7) // 8
        shifts = np.arange(bits - 1, -1, -1)
        packed = np.packbits(((values[..., None] >> shifts) & 1).reshape(HEIGHT, -1).astype(np.uint8), axis=1)
        assert packed.shape[1] == row
        for inverted in (False, True):
            data = strips(packed.tobytes(), bits, 0 if inverted else 1)
            levels = (values.astype(int) * 255 // (2**bits - 1)).astype(np.uint8)
            name = f"{'white_is_zero' if inverted else 'grey'}{bits}.tif"
            made[name] = Made(data, grey3(255 - levels if inverted else levels))
    made["ycbcr.tif"] = Made(encode(Image.fromarray(image).convert("YCbCr"), "TIFF"), declined="unsupported_format")
    jpeg = tiff(cv2.GaussianBlur(image, (0, 0), 4), photometric="ycbcr", compression="jpeg")
    made["ycbcr_jpeg.tif"] = Made(jpeg, by_pillow(jpeg))
    return made


def strips(pixels: bytes, bits: int, photometric: int) -> bytes:
    """A little-endian grey TIFF of one strip of packed samples."""
    tags = [
        (256, 4, WIDTH),
        (257, 4, HEIGHT),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, HEIGHT),
        (279, 4, len(pixels)),
    ]
    table = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, kind, 1, n) for tag, kind, n in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + table + bytes(4)


# WebP


def webps() -> dict[str, Made]:
    image = base("webp")
    rgba = Image.fromarray(np.dstack([image, np.where(image[..., 0] > 128, 255, 0).astype(np.uint8)]))
    clear = on_white(image, np.asarray(rgba)[..., 3])
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    def lossless(picture: np.ndarray | Image.Image, **options) -> bytes:
        return encode(picture, "WEBP", lossless=True, exact=True, **options)

    lossy = encode(image, "WEBP", quality=90)
    wide = ImageCms.profileToProfile(
        Image.fromarray(image), ImageCms.ImageCmsProfile(io.BytesIO(WIDE_GAMUT)), ImageCms.createProfile("sRGB"),
        renderingIntent=1, outputMode="RGB", flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )  # fmt: skip
    return {
        "lossy.webp": Made(lossy, by_pillow(lossy)),
        "lossless.webp": Made(lossless(image), image),
        "alpha.webp": Made(lossless(rgba), clear, notes={"alpha": "white"}),
        "srgb.webp": Made(lossless(image, icc_profile=srgb), image, notes={"icc": "srgb"}),
        "wide.webp": Made(lossless(image, icc_profile=WIDE_GAMUT), np.asarray(wide), notes={"icc": "converted"}),
        "broken_icc.webp": Made(lossless(image, icc_profile=b"none" * 50), image, notes={"icc": "broken"}),
        "turned.webp": Made(lossless(image, exif=exif(orientation=6)), np.rot90(image, 3)),
        "adobe_rgb.webp": Made(
            lossless(image, exif=exif(True)),
            to_srgb((image / 255) ** (563 / 256), ADOBE_TO_XYZ),
            notes={"space": "adobe_rgb"},
        ),
        "wild_exif.webp": Made(lossless(image, exif=b"Exif\0\0" + b"\xff" * 60), image),
    }


# Formats that are declined


def declined() -> dict[str, Made]:
    image = base("declined")
    targa = {
        f"targa{n}.tga": encode(Image.fromarray(image).convert(mode), "TGA", **options)
        for n, (mode, options) in enumerate(
            [("RGB", {}), ("RGBA", {}), ("L", {}), ("P", {}), ("RGB", {"compression": "tga_rle"})]
        )
    }
    written = {
        name: encode(image, format)
        for name, format in {
            "photo.bmp": "BMP",
            "photo.gif": "GIF",
            "photo.ico": "ICO",
            "photo.jp2": "JPEG2000",
            "photo.pcx": "PCX",
            "photo.ppm": "PPM",
            "photo.sgi": "SGI",
            "photo.dds": "DDS",
            "photo.eps": "EPS",
            "photo.pdf": "PDF",
            "photo.qoi": "QOI",
            "photo.avif": "AVIF",
        }.items()
    }
    first = {
        "array.bmp": b"BA\x28\0\0\0" + bytes(60),
        "panasonic.rw2": b"IIU\0\x18\0\0\0" + bytes(60),
        "olympus.orf": b"IIRO\x08\0\0\0" + bytes(60),
        "fuji.raf": b"FUJIFILMCCD-RAW 0201" + bytes(60),
        "canon.cr2": b"II*\0\x10\0\0\0CR\2\0" + bytes(4) + struct.pack("<HHHIIHHIII", 2, 256, 4, 1, 9, 257, 4, 1, 9, 0),
        "canon.cr3": b"\0\0\0\x18ftypcrx \0\0\0\1" + bytes(60),
        "photo.heic": b"\0\0\0\x18ftypheic" + bytes(60),
        "photo.jxl": b"\xff\x0a" + bytes(60),
        "photo.jxr": b"II\xbc\1" + bytes(60),
        "layers.psd": b"8BPS\0\1" + bytes(60),
        "image.exr": b"\x76\x2f\x31\x01" + bytes(60),
        "sky.hdr": b"#?RADIANCE\n" + bytes(60),
        "icon.icns": b"icns" + bytes(60),
        "drawing.iff": b"FORM\0\0\0\x40ILBM" + bytes(60),
        "film.dpx": b"SDPX" + bytes(60),
        "phone.mp4": b"\0\0\0\x18ftypisom" + bytes(60),
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "scan.dcm": bytes(128) + b"DICM" + bytes(60),
    }
    return {name: Made(data, declined="unsupported_format") for name, data in {**targa, **written, **first}.items()}


KINDS: tuple[Callable[[], dict[str, Made]], ...] = (jpegs, pngs, tiffs, webps, declined)


def corpus() -> dict[str, Made]:
    """Every file, by name."""
    return {name: made for kind in KINDS for name, made in kind().items()}
