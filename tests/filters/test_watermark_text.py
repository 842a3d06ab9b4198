"""Watermark and text finds lettering over the edited image, and does not take an edit for it."""

import cv2
import numpy as np
import pytest
from pair_scenes import pair, scene, verdicts, with_object

from crispedit.filters.watermark_text import WatermarkText

SOURCE = scene(15, 1024, 768)
EDITED, MASK = with_object(SOURCE, 300, 200, 220)


def lettered(image, places, size, thickness, alpha=0.5, text="SAMPLE"):
    layer = np.zeros(image.shape[:2], np.uint8)
    for place in places:
        cv2.putText(layer, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, 255, thickness, cv2.LINE_AA)
    weight = alpha / 255 * layer[..., None]
    return (image * (1 - weight) + 255 * weight).astype(np.uint8)


TILED = [(x, y) for y in range(60, 768, 140) for x in range(-60, 1024, 260)]


@pytest.mark.parametrize("mask", [MASK, None])
def test_a_tiled_watermark_and_a_large_word_fail(mask):
    tiled = lettered(EDITED, TILED, 1.2, 2)
    word = lettered(EDITED, [(60, 640)], 7, 12)
    assert verdicts(WatermarkText(), pair(SOURCE, tiled, mask)) == ["overlay:high"]
    assert verdicts(WatermarkText(), pair(SOURCE, word, mask)) == ["overlay:high"]


@pytest.mark.parametrize("mask", [MASK, None])
@pytest.mark.parametrize("quality", [95, 80])
def test_an_edit_without_lettering_passes(mask, quality):
    assert verdicts(WatermarkText(), pair(SOURCE, EDITED, mask, quality)) == []


def test_lettering_that_is_the_edit_passes_where_the_mask_says_so():
    sign = lettered(SOURCE, [(300, 300)], 3, 8, alpha=1.0)
    mask = np.zeros(MASK.shape, bool)
    mask[200:340, 280:700] = True
    assert verdicts(WatermarkText(), pair(SOURCE, sign, mask)) == []


def test_a_watermark_that_the_source_has_too_is_none():
    assert (
        verdicts(
            WatermarkText(), pair(lettered(SOURCE, TILED, 1.2, 2), lettered(EDITED, TILED, 1.2, 2), MASK)
        )
        == []
    )


def test_a_whole_image_edit_is_not_known():
    style = WatermarkText().measure([pair(SOURCE, 255 - SOURCE)])[0]
    assert style["overlay"] is None
    assert style["ground"] < 0.3
