"""Artefacts finds what the edit brought in, each by its own score, and not what the photograph already had."""

import numpy as np
import pytest
from pair_scenes import pair, scene, verdicts, with_object

from crispedit.filters.artefacts import Artefacts

SOURCE = scene(13)
EDITED, _ = with_object(SOURCE, 200, 150, 160)


def banded(image, levels):
    step = 255 / (levels - 1)
    return (np.round(image / step) * step).astype(np.uint8)


def framed(image, width, value):
    out = image.copy()
    out[:width] = out[-width:] = value
    return out


def test_a_clean_edit_passes():
    assert verdicts(Artefacts(), pair(SOURCE, EDITED)) == []


@pytest.mark.parametrize(
    ("bad", "nearly", "reason"),
    [
        (banded(EDITED, 16), banded(EDITED, 128), "banding:high"),
        (framed(EDITED, 12, 255), framed(EDITED, 2, 255), "border_px:high"),
        (framed(EDITED, 30, 0), EDITED, "border_px:high"),
    ],
)
def test_each_defect_by_its_reason_and_its_neighbour_passes(bad, nearly, reason):
    assert reason in verdicts(Artefacts(), pair(SOURCE, bad))
    assert verdicts(Artefacts(), pair(SOURCE, nearly)) == []


@pytest.mark.parametrize("flawed", [banded(SOURCE, 16), framed(SOURCE, 12, 255)])
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


def test_a_small_plain_image_has_no_border():
    plain = np.full((60, 60, 3), 90, np.uint8)
    plain[8:-8, 8:-8] = 200
    assert Artefacts().measure([pair(SOURCE[:60, :60], plain)])[0]["border_px"] == 0
