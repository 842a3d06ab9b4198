"""A folder of hostile and odd image files, each with what must become of it; written by the tests that need one."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms

from crispedit.pipelines.sources import escape

MAX_PIXELS = 50_000_000
"""The limit that the corpus' bombs exceed."""
WIDTH, HEIGHT = 160, 120


def photo(name: str, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """[H, W, 3] of soft colours, hard edges and grain, different for every name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    coarse = rng.integers(30, 226, (6, 8, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(5):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        cv2.circle(image, centre, int(rng.integers(5, 30)), colour, -1, cv2.LINE_AA)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def encode(image: np.ndarray | Image.Image, format: str, **options) -> bytes:
    """The bytes of a file that Pillow writes."""
    out = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(out, format, **options)
    return out.getvalue()


def picture(name: str, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(photo(name)).convert(mode)


def with_alpha(name: str, mode: str = "RGBA") -> Image.Image:
    """A photograph whose left half is transparent."""
    image = picture(name, mode)
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, WIDTH // 2, HEIGHT))
    image.putalpha(alpha)
    return image


def tiff_of_cv2(image: np.ndarray) -> bytes:
    return cv2.imencode(".tiff", image)[1].tobytes()


def sixteen_bits(name: str) -> np.ndarray:
    return photo(name).astype(np.uint16) * 257


def ycck(name: str) -> bytes:
    """A JPEG as Adobe writes CMYK: YCbCr of the inks, inverted black, and the flag that says so."""
    inks = 255 - photo(name)
    luma = cv2.cvtColor(inks, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    # Pillow inverts CMYK as it writes; undo that, so that the four planes are stored as they are.
    planes = np.dstack([luma, np.full(inks.shape[:2], 255, np.uint8)])
    data = bytearray(encode(Image.fromarray(255 - planes, "CMYK"), "JPEG", quality=95))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def profile(red: tuple[float, float], green: tuple[float, float], blue: tuple[float, float], gamma: float) -> bytes:
    """A small ICC display profile, of primaries in CIE xy under D50 and one gamma."""
    white = np.array([0.9642, 1.0, 0.8249])
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in (red, green, blue)]).T
    matrix = columns * np.linalg.solve(columns, white)

    def xyz(values: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"wide"
    desc = b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + b"\0" + bytes(78)
    tags = {
        b"desc": desc + bytes(-len(desc) % 4),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": xyz(white),
        **{name: xyz(matrix[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    header = struct.pack(">I4xI4s4s4s", offset + len(body), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *(round(v * 65536) for v in white))
    return header + bytes(128 - len(header)) + table + body


WIDE_GAMUT = profile((0.7347, 0.2653), (0.1152, 0.8264), (0.1566, 0.0177), 2.2)
"""Wide Gamut RGB, about."""


def oriented(name: str, orientation: int) -> bytes:
    """A JPEG stored turned, so that applying `orientation` gives `photo(name)`."""
    undo = {2: "x", 3: "xy", 4: "y", 5: "t", 6: "ty", 7: "txy", 8: "tx"}
    image = photo(name)
    for step in undo.get(orientation, ""):
        image = {"x": image[:, ::-1], "y": image[::-1], "t": image.swapaxes(0, 1)}[step]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(np.ascontiguousarray(image), "JPEG", quality=95, subsampling=0, exif=exif.tobytes())


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb_png(side: int = 20_000) -> bytes:
    """A black square of `side` pixels in a few kilobytes."""
    rows = zlib.compress(bytes(side * (1 + (side + 7) // 8)), 9)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def bomb_jpeg(name: str) -> bytes:
    """A JPEG whose header claims 60000 x 60000 pixels."""
    data = bytearray(encode(photo(name), "JPEG"))
    size = data.index(b"\xff\xc0") + 5
    data[size : size + 4] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


def bomb_tiff(name: str) -> bytes:
    """A TIFF whose directory claims 50000 columns and rows."""
    data = bytearray(encode(photo(name), "TIFF"))
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack("<H", data[entry : entry + 2])[0] in (256, 257):
            data[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, 50_000)
    return bytes(data)


def bomb_webp(name: str) -> bytes:
    """A lossless WebP whose header claims 16383 x 16383 pixels."""
    data = bytearray(encode(photo(name), "WEBP", lossless=True))
    size = data.index(b"VP8L") + 9
    flags = struct.unpack("<I", data[size : size + 4])[0] >> 28
    data[size : size + 4] = struct.pack("<I", flags << 28 | 16_382 << 14 | 16_382)
    return bytes(data)


def pages(name: str, subfile: int) -> bytes:
    """A TIFF of two pages, the second marked with this NewSubfileType."""
    second = picture(name + "2").resize((40, 30))
    second.encoderinfo = {"tiffinfo": {254: subfile}}
    return encode(photo(name), "TIFF", save_all=True, append_images=[second])


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


def kept_files() -> dict[str, bytes]:
    """Files that must be kept by any normalisation, by name."""
    jpeg = {"quality": 92}
    palette = picture("palette_transparent.png", "P")
    exif_blob = b"Exif\0\0" + b"II*\0\x08\0\0\0" + b"\xff\xff" + b"\x07" * 40
    large_exif = Image.Exif()
    large_exif[0x010E] = "x" * 60_000
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.profileToProfile(
        picture("lab.tiff"), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    files = {
        "plain.jpg": encode(photo("plain.jpg"), "JPEG", **jpeg),
        "plain.png": encode(photo("plain.png"), "PNG"),
        "plain.webp": encode(photo("plain.webp"), "WEBP", quality=90),
        "plain.tiff": encode(photo("plain.tiff"), "TIFF"),
        "UPPER.JPEG": encode(photo("UPPER.JPEG"), "JPEG", **jpeg),
        "progressive.jpg": encode(photo("progressive.jpg"), "JPEG", progressive=True, **jpeg),
        "restarts.jpg": encode(photo("restarts.jpg"), "JPEG", restart_marker_rows=1, **jpeg),
        "grey.jpg": encode(picture("grey.jpg", "L"), "JPEG", **jpeg),
        "cmyk.jpg": encode(picture("cmyk.jpg", "CMYK"), "JPEG", **jpeg),
        "ycck.jpg": ycck("ycck.jpg"),
        "two_pictures.jpg": encode(
            photo("two_pictures.jpg"), "MPO", save_all=True, append_images=[picture("preview").resize((40, 30))]
        ),
        "trailing_garbage.jpg": encode(photo("trailing_garbage.jpg"), "JPEG", **jpeg) + b"\0garbage\xff" * 999,
        "broken_exif.jpg": encode(photo("broken_exif.jpg"), "JPEG", exif=exif_blob, **jpeg),
        "large_exif.jpg": encode(photo("large_exif.jpg"), "JPEG", exif=large_exif.tobytes(), **jpeg),
        "broken_icc.jpg": encode(photo("broken_icc.jpg"), "JPEG", icc_profile=b"no profile" * 40, **jpeg),
        "srgb_icc.jpg": encode(photo("srgb_icc.jpg"), "JPEG", icc_profile=srgb, **jpeg),
        "wide_gamut.png": encode(photo("wide_gamut.png"), "PNG", icc_profile=WIDE_GAMUT),
        "grey_with_rgb_icc.jpg": encode(picture("grey_with_rgb_icc.jpg", "L"), "JPEG", icc_profile=WIDE_GAMUT, **jpeg),
        "cmyk_with_rgb_icc.jpg": encode(
            picture("cmyk_with_rgb_icc.jpg", "CMYK"), "JPEG", icc_profile=WIDE_GAMUT, **jpeg
        ),
        "grey16.png": encode(Image.fromarray(sixteen_bits("grey16.png")[..., 0]), "PNG"),
        "rgb16.png": cv2.imencode(".png", sixteen_bits("rgb16.png")[..., ::-1])[1].tobytes(),
        "palette.png": encode(picture("palette.png", "P"), "PNG"),
        "palette_transparent.png": encode(palette, "PNG", transparency=palette.getpixel((0, 0))),
        "rgb_transparent.png": encode(photo("rgb_transparent.png"), "PNG", transparency=(1, 2, 3)),
        "rgba.png": encode(with_alpha("rgba.png"), "PNG"),
        "grey_alpha.png": encode(with_alpha("grey_alpha.png", "LA"), "PNG"),
        "one_bit.png": encode(picture("one_bit.png", "1"), "PNG"),
        "uncompressed.png": encode(photo("uncompressed.png"), "PNG", compress_level=0),
        "lossless.webp": encode(photo("lossless.webp"), "WEBP", lossless=True),
        "alpha.webp": encode(with_alpha("alpha.webp"), "WEBP", lossless=True),
        "cmyk.tiff": encode(picture("cmyk.tiff", "CMYK"), "TIFF"),
        "lab.tiff": encode(lab, "TIFF"),
        "lzw.tiff": encode(photo("lzw.tiff"), "TIFF", compression="tiff_lzw"),
        "jpeg_inside.tiff": encode(photo("jpeg_inside.tiff"), "TIFF", compression="jpeg"),
        "one_bit.tiff": encode(picture("one_bit.tiff", "1"), "TIFF", compression="group4"),
        "big.tiff": encode(photo("big.tiff"), "TIFF", big_tiff=True),
        "grey16.tiff": encode(Image.fromarray(sixteen_bits("grey16.tiff")[..., 0]), "TIFF"),
        "rgb16.tiff": tiff_of_cv2(sixteen_bits("rgb16.tiff")[..., ::-1]),
        "float.tiff": encode(Image.fromarray(photo("float.tiff")[..., 0].astype(np.float32) / 255), "TIFF"),
        "float_rgb.tiff": tiff_of_cv2(photo("float_rgb.tiff")[..., ::-1].astype(np.float32) / 255),
        "thumbnail_page.tiff": pages("thumbnail_page.tiff", 1),
        "jpeg_named.png": encode(photo("jpeg_named.png"), "JPEG", **jpeg),
        "png_named.jpg": encode(photo("png_named.jpg"), "PNG"),
        "one_pixel.png": encode(photo("one_pixel.png")[:1, :1], "PNG"),
        "one_row.png": encode(photo("one_row.png")[:1], "PNG"),
        "one_column.jpg": encode(photo("one_column.jpg")[:, :1], "JPEG", **jpeg),
        "a..b...jpg": encode(photo("dots"), "JPEG", **jpeg),
        "new\nline\ttab.jpg": encode(photo("newline"), "JPEG", **jpeg),
        "quotes '\" $HOME `ls`; \\.jpg": encode(photo("quotes"), "JPEG", **jpeg),
        "-rf.jpg": encode(photo("dash"), "JPEG", **jpeg),
        "50% #1.jpg": encode(photo("percent"), "JPEG", **jpeg),
        "цветок 🌼 花.jpg": encode(photo("flower"), "JPEG", **jpeg),
        "x" * 246 + ".jpg": encode(photo("long"), "JPEG", **jpeg),
        "/".join("abcdefghij") + "/deep.jpg": encode(photo("deep"), "JPEG", **jpeg),
        "folder.jpg/inside.jpg": encode(photo("inside"), "JPEG", **jpeg),
        os.fsdecode(b"not-utf8-\xff\xfe.jpg"): encode(photo("not-utf8"), "JPEG", **jpeg),
    }
    plain = encode(photo("beside"), "JPEG", quality=92)
    scan = plain.index(b"\xff\xda")
    spectral = scan + 1 + int.from_bytes(plain[scan + 2 : scan + 4], "big") - 1
    text = png_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"a node " * 300_000))
    png = encode(photo("beside.png"), "PNG")
    files |= {
        # What stands beside the pixels costs no photograph.
        "samsung_scan.jpg": plain[:spectral] + b"\0" + plain[spectral + 1 :],
        "jfif_2.jpg": plain.replace(b"JFIF\0\1\1", b"JFIF\0\2\1"),
        "bytes_before_end.jpg": plain[:-2] + bytes(5) + plain[-2:],
        "icc_0_of_1.jpg": plain[:2] + b"\xff\xe2\0\x14ICC_PROFILE\0\0\1none" + plain[2:],
        "long_text.png": png[:33] + text + png[33:],
        "wrong_gamma_checksum.png": png[:33] + png_chunk(b"gAMA", b"\0\1\x86\xa0")[:-1] + b"?" + png[33:],
        "linear.png": png[:33] + png_chunk(b"gAMA", b"\0\1\x86\xa0") + png[33:],
    }
    files.update({f"orientation_{n}.jpg": oriented(f"orientation_{n}.jpg", n) for n in range(1, 9)})
    return files


def jpeg_frame(marker: bytes, bits: int = 8) -> bytes:
    """A JPEG whose frame is said to be of another process."""
    data = encode(photo("frame"), "JPEG")
    at = data.index(b"\xff\xc0")
    return data[:at] + marker + data[at + 2 : at + 4] + bytes([bits]) + data[at + 5 :]


def refused_files() -> dict[str, tuple[str, bytes]]:
    """Files that must be rejected, by name, with the reason."""
    frames = [picture(f"frame{n}") for n in range(3)]
    gif = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    dng = encode(photo("raw"), "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    return {
        "animated.gif": ("animated", gif),
        "animated.webp": ("animated", encode(frames[0], "WEBP", save_all=True, append_images=frames[1:])),
        "animated.png": ("animated", encode(frames[0], "PNG", save_all=True, append_images=frames[1:])),
        "pages.tiff": ("animated", pages("pages.tiff", 0)),
        "gif_named.png": ("animated", gif),
        "still.gif": ("unsupported_format", encode(frames[0], "GIF")),
        "bomb.png": ("too_many_pixels", bomb_png()),
        "bomb.jpg": ("too_many_pixels", bomb_jpeg("bomb.jpg")),
        "bomb.webp": ("too_many_pixels", bomb_webp("bomb.webp")),
        "bomb.tiff": ("too_many_pixels", bomb_tiff("bomb.tiff")),
        "photo.tga": ("unsupported_format", encode(photo("photo.tga"), "TGA")),
        "photo.ico": ("unsupported_format", encode(photo("photo.ico"), "ICO")),
        "panasonic.rw2": ("unsupported_format", b"IIU\0\x18\0\0\0" + bytes(64)),
        "array.bmp": ("unsupported_format", b"BA\x28\0\0\0" + bytes(64)),
        "twelve_bits.jpg": ("unsupported_format", jpeg_frame(b"\xff\xc1", 12)),
        "lossless.jpg": ("unsupported_format", jpeg_frame(b"\xff\xc3")),
        "arithmetic.jpg": ("unsupported_format", jpeg_frame(b"\xff\xc9")),
        "exr_named.png": ("unsupported_format", b"\x76\x2f\x31\x01" + bytes(64)),
        "photo.bmp": ("unsupported_format", encode(photo("photo.bmp"), "BMP")),
        "photo.jp2": ("unsupported_format", encode(photo("photo.jp2"), "JPEG2000")),
        "photo.avif": ("unsupported_format", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(64)),
        "photo.heic": ("unsupported_format", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)),
        "photo.jxl": ("unsupported_format", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(64)),
        "heic_named.jpg": ("unsupported_format", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)),
        "drawing.svg": ("unsupported_format", b'<?xml version="1.0"?>\n<svg width="9" height="9"></svg>'),
        "layers.psd": ("unsupported_format", b"8BPS\0\1" + bytes(64)),
        "camera.dng": ("unsupported_format", dng),
        "wild_float.tiff": ("unknown_range", tiff_of_cv2(np.full((20, 30, 3), -7.5, np.float32))),
        "nan.tiff": ("unknown_range", encode(Image.fromarray(np.full((20, 30), np.nan, np.float32)), "TIFF")),
        "integers.tiff": ("unknown_range", tiff_of_cv2(np.arange(600, dtype=np.int32).reshape(20, 30) * 99)),
    }


def damaged_files() -> dict[str, bytes]:
    """Files that must end as errors, by name."""

    def half(data: bytes) -> bytes:
        return data[: len(data) // 2]

    jpeg = encode(photo("damaged"), "JPEG", quality=92)
    progressive = encode(photo("damaged"), "JPEG", quality=92, progressive=True)
    png = encode(photo("damaged"), "PNG")
    return {
        "truncated.jpg": half(jpeg),
        "truncated_but_ended.jpg": half(jpeg) + b"\xff\xd9",
        "truncated_progressive.jpg": half(progressive),
        "middle_missing.jpg": jpeg[: len(jpeg) // 2] + jpeg[len(jpeg) // 2 + 500 :],
        "header_only.jpg": jpeg[: jpeg.index(b"\xff\xda")],
        "start_only.jpg": b"\xff\xd8\xff",
        "truncated.png": half(png),
        "signature_only.png": png[:8],
        "wrong_checksum.png": flipped(png, png.index(b"IDAT") + 200),
        "truncated.webp": half(encode(photo("damaged"), "WEBP")),
        "truncated.tiff": half(encode(photo("damaged"), "TIFF")),
        "truncated_lzw.tiff": half(encode(photo("damaged"), "TIFF", compression="tiff_lzw")),
        "truncated_float.tiff": half(tiff_of_cv2(photo("damaged").astype(np.float32))),
        "zeros_inside.jpg": jpeg[: len(jpeg) // 3] + bytes(1500) + jpeg[len(jpeg) // 3 + 1500 :],
        "two_frames.jpg": jpeg[: jpeg.index(b"\xff\xda")] + jpeg[jpeg.index(b"\xff\xc0") :],
        "no_pixels.png": png[:33] + png_chunk(b"IEND", b""),
        "no_end.png": png[:-12],
        "empty.jpg": b"",
        "zeros.jpg": bytes(5000),
        "text.jpg": b"This is not an image.\n" * 20,
        "page.png": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    }


def write_corpus(folder: Path) -> dict[str, str]:
    """Write every file; return what must become of each, by its uri in a folder source: "kept" (by
    normalisation: a recipe's filters may still reject it for its size), "rejected:<reason>" or "error"."""
    outcomes: dict[str, str] = {}

    def write(name: str, data: bytes, outcome: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        outcomes[escape(name)] = outcome

    for name, data in kept_files().items():
        write(name, data, "kept")
    for name, (reason, data) in refused_files().items():
        write(name, data, f"rejected:{reason}")
    for name, data in damaged_files().items():
        write(name, data, "error")

    write(".cache/original.jpg", encode(photo("linked"), "JPEG", quality=92), "")
    del outcomes[".cache/original.jpg"]  # hidden: only the link to it is in the source
    (folder / "link.jpg").symlink_to(folder / ".cache" / "original.jpg")
    outcomes["link.jpg"] = "kept"
    (folder / "notes.txt").write_text("not an image, and not called one")
    (folder / "loop").symlink_to(folder)
    (folder / "folder.jpg" / "loop").symlink_to(folder / "folder.jpg")

    (folder / "dangling.jpg").symlink_to(folder / "gone.jpg")
    (folder / "own_link.jpg").symlink_to(folder / "own_link.jpg")
    os.mkfifo(folder / "pipe.jpg")
    outcomes.update(dict.fromkeys(("own_link.jpg", "pipe.jpg"), "error"))
    outcomes["dangling.jpg"] = "transient"  # what it points at may be there for the next run
    write("forbidden.jpg", encode(photo("forbidden"), "JPEG", quality=92), "transient")
    (folder / "forbidden.jpg").chmod(0)
    if os.access(folder / "forbidden.jpg", os.R_OK):  # the superuser may read everything
        outcomes["forbidden.jpg"] = "kept"
    return outcomes
