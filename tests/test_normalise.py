"""Normalisation, on real files of every kind that it meets."""

from __future__ import annotations

import io
import tracemalloc

import cv2
import numpy as np
import pytest
from bad_inputs import (
    MAX_PIXELS,
    WIDE_GAMUT,
    bomb_png,
    damaged_files,
    encode,
    flipped,
    kept_files,
    oriented,
    photo,
    picture,
    refused_files,
    sixteen_bits,
    tiff_of_cv2,
    with_alpha,
    ycck,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from crispedit.normalise import Normalised, Refused, Unreadable, normalise

KEPT, REFUSED, DAMAGED = kept_files(), refused_files(), damaged_files()


def open_(data: bytes, max_pixels: int = MAX_PIXELS, max_short_side_px: int | None = None) -> Normalised:
    return normalise(data, max_pixels=max_pixels, max_short_side_px=max_short_side_px)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    assert a.shape == b.shape
    return float(np.abs(a.astype(float) - b).mean())


@pytest.mark.parametrize("name", KEPT)
def test_a_good_file_becomes_rgb(name: str):
    found = open_(KEPT[name])
    assert found.image.dtype == np.uint8
    assert found.image.shape == (found.height, found.width, 3)
    assert found.image.flags.c_contiguous


@pytest.mark.parametrize("name", REFUSED)
def test_a_declined_file_says_why(name: str):
    reason, data = REFUSED[name]
    with pytest.raises(Refused) as raised:
        open_(data)
    assert raised.value.reason == reason


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_an_error(name: str):
    with pytest.raises(Unreadable) as raised:
        open_(DAMAGED[name])
    assert "0x" not in str(raised.value), "a message must not differ from run to run"


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("plain.jpg", 4),
        ("plain.png", 0),
        ("plain.tiff", 0),
        ("big.tiff", 0),
        ("lzw.tiff", 0),
        ("lossless.webp", 0),
        ("jpeg_named.png", 4),
        ("trailing_garbage.jpg", 4),
        ("two_pictures.jpg", 5),
        ("thumbnail_page.tiff", 0),
        ("broken_icc.jpg", 4),
        ("srgb_icc.jpg", 4),
        ("rgb16.png", 0.51),
        ("rgb16.tiff", 0.51),
        ("float_rgb.tiff", 0),
        ("cmyk.tiff", 0),
        ("ycck.jpg", 4),
        ("lab.tiff", 3),
    ],
)
def test_colours_come_through(name: str, tolerance: float):
    assert distance(open_(KEPT[name]).image, photo(name)) <= tolerance


@pytest.mark.parametrize("name", ["grey16.png", "grey16.tiff", "float.tiff"])
def test_deep_grey_keeps_its_scale(name: str):
    grey = photo(name)[..., 0]
    assert np.array_equal(open_(KEPT[name]).image, np.dstack([grey] * 3))


def test_black_and_white_of_16_bits_are_black_and_white():
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (8, 1))
    image = open_(encode(Image.fromarray(ramp), "PNG")).image
    assert image.min() == 0
    assert image.max() == 255


def test_floats_of_0_to_255_are_not_scaled_again():
    image = photo("levels").astype(np.float32)
    assert np.array_equal(open_(tiff_of_cv2(image[..., ::-1])).image, photo("levels"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int):
    found = open_(oriented("upright", orientation))
    assert (found.width, found.height) == (160, 120)
    assert distance(found.image, photo("upright")) < 4
    assert found.notes.get("orientation", "1") == str(orientation)


def test_a_turned_tiff_is_turned_once():
    image = np.ascontiguousarray(photo("turned").swapaxes(0, 1)[::-1])  # stored turned left: orientation 6
    data = encode(image, "TIFF", tiffinfo={274: 6})
    found = open_(data)
    assert np.array_equal(found.image, photo("turned"))
    assert (found.width, found.height) == (160, 120)


@pytest.mark.parametrize(("format", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("WEBP", "RGBA"), ("TIFF", "RGBA")])
def test_transparent_pixels_become_white(format: str, mode: str):
    options = {"lossless": True} if format == "WEBP" else {}
    found = open_(encode(with_alpha("glass", mode), format, **options))
    expected = np.asarray(picture("glass", "L" if mode == "LA" else "RGB").convert("RGB"))
    assert (found.image[:, :80] == 255).all()
    assert np.array_equal(found.image[:, 80:], expected[:, 80:])
    assert found.notes["alpha"] == "white"


def test_opaque_alpha_changes_nothing():
    found = open_(encode(picture("opaque", "RGBA"), "PNG"))
    assert np.array_equal(found.image, photo("opaque"))
    assert "alpha" not in found.notes


def test_a_transparent_palette_entry_becomes_white():
    palette = picture("palette_transparent.png", "P")
    found = open_(KEPT["palette_transparent.png"])
    clear = np.asarray(palette) == palette.getpixel((0, 0))
    assert (found.image[clear] == 255).all()
    assert np.array_equal(found.image[~clear], np.asarray(palette.convert("RGB"))[~clear])


def test_a_wide_gamut_is_converted_and_greys_stay():
    grey = np.full((8, 8, 3), 128, np.uint8)
    green = np.full((8, 8, 3), (60, 160, 60), np.uint8)
    image = open_(encode(np.hstack([grey, green]), "PNG", icc_profile=WIDE_GAMUT)).image
    assert np.abs(image[:, :8].astype(int) - 128).max() <= 2
    # The same numbers mean a much purer green in the wide space: less red and blue in sRGB.
    assert image[0, 12, 0] < 40
    assert image[0, 12, 1] > 160


def test_an_srgb_profile_leaves_the_pixels_alone():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = open_(encode(photo("srgb"), "PNG", icc_profile=srgb))
    assert np.array_equal(found.image, photo("srgb"))
    assert found.notes["icc"] == "srgb"


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("broken_icc.jpg", "broken"),
        ("cmyk_with_rgb_icc.jpg", "mismatched"),
        ("wide_gamut.png", "converted"),
        ("grey_with_rgb_icc.jpg", "converted"),
    ],
)
def test_what_became_of_the_profile_is_noted(name: str, note: str):
    assert open_(KEPT[name]).notes["icc"] == note


def test_cmyk_jpegs_are_not_negatives():
    assert distance(open_(KEPT["cmyk.jpg"]).image, photo("cmyk.jpg")) < 4
    assert distance(open_(ycck("inks")).image, photo("inks")) < 4


def test_the_short_side_is_scaled_down_and_never_up():
    data = encode(photo("large", 400, 300), "PNG")
    small = open_(data, max_short_side_px=150)
    assert small.image.shape == (150, 200, 3)
    assert (small.width, small.height) == (400, 300)
    reference = cv2.resize(photo("large", 400, 300), (200, 150), interpolation=cv2.INTER_AREA)
    assert distance(small.image, reference) < 3
    assert open_(data, max_short_side_px=300).image.shape == (300, 400, 3)
    assert open_(data, max_short_side_px=1000).image.shape == (300, 400, 3)


def test_a_strip_keeps_one_pixel():
    assert open_(encode(photo("strip", 3000, 2), "PNG"), max_short_side_px=1).image.shape == (1, 1500, 3)


def test_the_limit_is_on_pixels_and_exact():
    data = encode(photo("limit", 50, 40), "PNG")
    assert open_(data, max_pixels=2000).image.shape == (40, 50, 3)
    with pytest.raises(Refused, match="too_many_pixels"):
        open_(data, max_pixels=1999)


def test_pillows_own_limit_refuses_too():
    with pytest.raises(Refused, match="too_many_pixels"):
        open_(bomb_png(), max_pixels=10**12)


def test_a_bomb_is_refused_before_its_pixels_are_made():
    data = bomb_png(12_000)
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match="too_many_pixels"):
            open_(data)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_16_bits_survive_without_clipping():
    found = open_(encode(Image.fromarray(sixteen_bits("deep")[..., 1]), "TIFF"))
    assert np.array_equal(found.image[..., 0], photo("deep")[..., 1])
    assert found.notes["depth"] == "16"


ENCODINGS = {
    "jpeg": lambda image: encode(image, "JPEG", quality=90),
    "progressive": lambda image: encode(image, "JPEG", quality=90, progressive=True),
    "cmyk": lambda image: encode(Image.fromarray(image).convert("CMYK"), "JPEG", quality=90),
    "png": lambda image: encode(image, "PNG"),
    "palette": lambda image: encode(Image.fromarray(image).convert("P"), "PNG"),
    "webp": lambda image: encode(image, "WEBP", quality=80),
    "lossless": lambda image: encode(image, "WEBP", lossless=True),
    "tiff": lambda image: encode(image, "TIFF"),
    "lzw": lambda image: encode(image, "TIFF", compression="tiff_lzw"),
    "float": lambda image: tiff_of_cv2(image.astype(np.float32)),
}
WHOLE = {name: write(photo("whole", 64, 48)) for name, write in ENCODINGS.items()}


@settings(max_examples=150)
@given(kind=st.sampled_from(sorted(WHOLE)), share=st.floats(0, 0.9999))
def test_a_file_cut_anywhere_never_gives_part_of_an_image(kind: str, share: float):
    whole = WHOLE[kind]
    try:
        found = open_(whole[: int(len(whole) * share)])
    except Unreadable:
        return
    assert np.array_equal(found.image, open_(whole).image), "only what is after the pixels may be missing"


@settings(max_examples=150)
@given(kind=st.sampled_from(sorted(WHOLE)), data=st.data())
def test_damage_raises_nothing_else(kind: str, data: st.DataObject):
    damaged = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = open_(bytes(damaged), max_pixels=1_000_000)
    except (Refused, Unreadable):
        return
    assert found.image.dtype == np.uint8
    assert found.image.ndim == 3


@settings(max_examples=80)
@given(st.binary(max_size=200))
def test_noise_is_no_image(noise: bytes):
    with pytest.raises((Refused, Unreadable)):
        open_(noise)


def test_every_chunk_of_a_png_is_checked():
    data = WHOLE["png"]
    position = data.index(b"IDAT") + (len(data) - data.index(b"IDAT")) // 2
    with pytest.raises(Unreadable):
        open_(flipped(data, position))


def test_bytes_may_come_from_anywhere():
    buffer = io.BytesIO(WHOLE["jpeg"])
    assert open_(buffer.getvalue()).format == "jpeg"
