"""Artefacts finds what the edit brought in, each by its own score, and not what the photograph already had."""

import numpy as np
import pytest
from pair_scenes import pair, scene, verdicts, with_object

from crispedit import images
from crispedit.filters.artefacts import Artefacts

SOURCE = scene(13)
EDITED, _ = with_object(SOURCE, 200, 150, 160)


def re_encoded(image, quality):
    return images.decode_jpeg(images.encode_jpeg(image, quality))


def banded(image, levels):
    step = 255 / (levels - 1)
    return (np.round(image / step) * step).astype(np.uint8)


def framed(image, width, value):
    out = image.copy()
    out[:width] = out[-width:] = value
    return out


def with_checkerboard(image, levels):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    pattern = np.where((x + y) % 2, levels, -levels)[..., None]
    return np.clip(image.astype(np.int16) + pattern, 0, 255).astype(np.uint8)


def test_a_clean_edit_passes():
    assert verdicts(Artefacts(), pair(SOURCE, EDITED)) == []


@pytest.mark.parametrize(
    ("bad", "nearly", "reason"),
    [
        (re_encoded(EDITED, 8), re_encoded(EDITED, 85), "blocking:high"),
        (banded(EDITED, 16), banded(EDITED, 128), "banding:high"),
        (framed(EDITED, 12, 255), framed(EDITED, 2, 255), "border_px:high"),
        (framed(EDITED, 30, 0), EDITED, "border_px:high"),
        (with_checkerboard(EDITED, 4), with_checkerboard(EDITED, 0), "checkerboard:high"),
    ],
)
def test_each_defect_by_its_reason_and_its_neighbour_passes(bad, nearly, reason):
    assert reason in verdicts(Artefacts(), pair(SOURCE, bad))
    assert verdicts(Artefacts(), pair(SOURCE, nearly)) == []


@pytest.mark.parametrize(
    "flawed",
    [re_encoded(SOURCE, 8), banded(SOURCE, 16), framed(SOURCE, 12, 255), with_checkerboard(SOURCE, 4)],
)
def test_a_flaw_of_the_photograph_is_not_the_edit_s(flawed):
    edited, _ = with_object(flawed, 200, 150, 100)
    assert verdicts(Artefacts(), pair(flawed, edited)) == []


def test_the_border_is_as_wide_as_it_is():
    for width in (5, 17, 40):
        found = Artefacts().measure([pair(SOURCE, framed(EDITED, width, 0))])[0]["border_px"]
        assert abs(found - width) <= 1


def test_an_even_sky_is_no_border():
    y = np.mgrid[:512, :640][0]
    sky = np.clip(200 + (512 - y) / 30, 0, 255).astype(np.uint8)
    scenery = np.where((y > 250)[..., None], SOURCE, np.stack([sky] * 3, axis=2))
    assert verdicts(Artefacts(), pair(SOURCE, scenery)) == []


def test_tiny_images_do_not_fail():
    tiny = SOURCE[:8, :12]
    assert verdicts(Artefacts(), pair(tiny, tiny)) == []
