"""Every kind of image file, against the picture it was made from or a second decoder's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_corpus import Made, corpus
from PIL import Image

from crispedit.normalise import Refused, normalise

CORPUS = corpus()


def test_there_are_enough_kinds():
    assert len(CORPUS) >= 150


@pytest.mark.parametrize("made", CORPUS.values(), ids=CORPUS)
def test_the_picture_is_right_or_declined(made: Made):
    if made.declined is not None:
        with pytest.raises(Refused) as refused:
            normalise(made.data, max_pixels=10**6, max_short_side_px=None)
        assert refused.value.reason == made.declined
        assert made.declined == "too_many_pixels" or refused.value.format, "a declined format has a name"
        return
    found = normalise(made.data, max_pixels=10**6, max_short_side_px=None)
    assert found.image.shape == made.truth.shape
    assert np.abs(found.image.astype(int) - made.truth).max() <= 2
    assert (made.notes or {}).items() <= found.notes.items()


def test_c_libraries_say_nothing_on_the_terminal():
    """Whole files, and the same cut short and overwritten, with a root logger that prints everything."""
    code = """
import logging, sys
logging.basicConfig(level=logging.INFO)
from bad_inputs import damaged_files, kept_files
from image_corpus import corpus
from crispedit.normalise import Refused, Unreadable, normalise
files = [*(made.data for made in corpus().values()), *kept_files().values(), *damaged_files().values()]
sys.stderr.flush()
print("begin", file=sys.stderr, flush=True)
for data in files:
    middle = len(data) // 2
    for one in (data, data[:middle], data[:middle] + b"\\xff" * 40 + data[middle + 40 :]):
        try:
            normalise(one, max_pixels=10**6, max_short_side_px=None)
        except (Refused, Unreadable):
            pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=with_tests())
    assert done.returncode == 0, done.stderr
    assert done.stderr.partition("begin\n")[2] == ""
    assert done.stdout == ""


def with_tests() -> dict[str, str]:
    """An environment in which a process finds what this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


CASES = Path(__file__).parents[2] / "shared" / "cases"
KEPT_CASES = {
    "colour-adobe-rgb-exif/photo.jpg": {"space": "adobe_rgb"},
    "colour-png-gamma/photo.png": {"space": "gamma"},
    "jpeg-icc-chunk-numbers/photo.jpg": {"icc": "broken"},
    "jpeg-sampling-odd/photo.jpg": {},
    "jpeg-samsung-sos/photo.jpg": {},
    "png-16-bit-grey-transparent/photo.png": {"alpha": "white"},
    "png-long-text/photo.png": {},
    "tiff-16-bit-white-is-zero/photo.tif": {},
    "tiff-planar-16-bit/photo.tif": {},
}
DECLINED_CASES = {
    "declined-formats/icon.bmp": "bmp",
    "declined-formats/photo.tga": "tga",
    "declined-formats/raw.rw2": "camera raw",
    "jpeg-12-bit/monkey12.jpg": "12-bit jpeg",
    "tiff-12-bit-grey/photo.tif": "tiff of 12-bit samples",
}


def case(name: str) -> bytes:
    if not CASES.exists():
        pytest.skip("the files of known failures are not beside this checkout")
    return (CASES / name).read_bytes()


@pytest.mark.parametrize("name", KEPT_CASES)
def test_a_known_failure_is_kept_with_the_right_colours(name: str):
    found = normalise(case(name), max_pixels=10**9, max_short_side_px=None)
    assert KEPT_CASES[name].items() <= found.notes.items()
    for truth in ("truth.png", "whole.jpg"):
        path = CASES / Path(name).parent / truth
        if path.exists():
            expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
            assert np.abs(found.image - expected).mean() < 1  # the file's own rounding and JPEG


@pytest.mark.parametrize("name", DECLINED_CASES)
def test_a_known_format_is_declined_by_its_name(name: str):
    with pytest.raises(Refused) as refused:
        normalise(case(name), max_pixels=10**9, max_short_side_px=None)
    assert refused.value.format == DECLINED_CASES[name]
