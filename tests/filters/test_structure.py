"""Structure tells a scene in another manner from an answer that lost the scene."""

import cv2
import numpy as np
import pytest
from pair_scenes import pair, scene

from crispedit.category import load_categories
from crispedit.filters.structure import Structure

SOURCE = scene(31)
BOUNDS = load_categories()["style"].bounds


def rejected(edited):
    scores = Structure().measure([pair(SOURCE, edited)])[0]
    return [name for name in ("kept", "tones") if BOUNDS[f"structure.{name}"].verdict(scores[name])]


@pytest.mark.parametrize(
    "style",
    [
        cv2.cvtColor(cv2.cvtColor(SOURCE, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
        cv2.stylization(SOURCE, sigma_s=20, sigma_r=0.4),
        cv2.medianBlur(SOURCE, 9),
        (SOURCE // 64 * 64 + 32).astype(np.uint8),
    ],
)
def test_a_style_keeps_the_scene(style):
    assert rejected(style) == []


@pytest.mark.parametrize("lost", [np.zeros_like(SOURCE), np.full_like(SOURCE, 128), scene(32), SOURCE[::-1].copy()])
def test_black_blank_or_another_scene(lost):
    assert rejected(lost) != []


def test_a_blank_source_has_no_structure_to_keep():
    blank = np.full_like(SOURCE, 90)
    assert set(Structure().measure([pair(blank, blank)])[0].values()) == {None}


def test_only_the_subject_before_a_new_background_is_compared():
    mask = np.ones(SOURCE.shape[:2], bool)
    mask[200:500, 200:500] = False
    edited = np.where(mask[..., None], scene(32), SOURCE)
    known, unknown = pair(SOURCE, edited, mask), pair(SOURCE, edited)
    known.category = unknown.category = "background"
    assert Structure().measure([known])[0]["kept"] > 0.95 > Structure().measure([unknown])[0]["kept"]
