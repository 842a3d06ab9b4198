"""Watermark and text finds lettering over the edited image, and does not take an edit for it."""

import importlib.util

import cv2
import numpy as np
import pytest
from pair_scenes import pair, scene, verdicts, with_object

from crispedit import lettering
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
    assert verdicts(WatermarkText(), pair(lettered(SOURCE, TILED, 1.2, 2), lettered(EDITED, TILED, 1.2, 2), MASK)) == []


def test_a_whole_image_edit_is_not_known():
    style = WatermarkText().measure([pair(SOURCE, 255 - SOURCE)])[0]
    assert style["overlay"] is None
    assert style["ground"] < 0.3


@pytest.fixture(scope="module")
def detecting():
    pytest.importorskip("rapidocr", reason="the weights of the detector come with the extra `ocr`")
    filter_ = WatermarkText(detector=True)
    filter_.load()
    return filter_


def captioned(image, text="Photo by Anna 2024"):
    return lettered(image, [(560, 740)], 1.1, 2, alpha=1.0, text=text)


def test_the_detector_finds_a_caption_that_nobody_asked_for(detecting):
    caption = captioned(EDITED)
    assert "text:high" in verdicts(detecting, pair(SOURCE, caption, instruction="Add a ball"))
    assert "text:high" in verdicts(detecting, pair(SOURCE, captioned(SOURCE), instruction="Add a ball"))
    assert "text:high" in verdicts(detecting, pair(SOURCE, caption, MASK, instruction="Add a ball"))
    drawn_anew = cv2.GaussianBlur(255 - caption, (0, 0), 1)
    assert "text:high" in verdicts(detecting, pair(SOURCE, drawn_anew, instruction="Invert the colours"))


def test_the_detector_passes_words_that_were_there_or_were_asked_for(detecting):
    assert verdicts(detecting, pair(SOURCE, EDITED, MASK)) == []
    assert verdicts(detecting, pair(captioned(SOURCE), captioned(EDITED), instruction="Add a ball")) == []
    asked = pair(SOURCE, captioned(SOURCE), instruction="Add the caption 'Photo by Anna 2024' at the bottom")
    assert detecting.measure([asked])[0]["text"] == 0.0


def test_without_the_detector_words_are_not_known():
    assert WatermarkText().measure([pair(SOURCE, EDITED, MASK)])[0]["text"] is None


def test_a_recipe_that_wants_the_detector_is_refused_without_its_package(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == lettering.PACKAGE else find(name, *rest)
    )
    assert WatermarkText().lacks() is None
    assert "pip install 'crispedit[ocr]'" in (WatermarkText(detector=True).lacks() or "")
    with pytest.raises(ValueError, match="rapidocr is not installed"):
        WatermarkText(detector=True).load()
