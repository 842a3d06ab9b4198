"""Preservation sees what changed outside the edit, with the true mask or an estimated one."""

import cv2
import numpy as np
import pytest
from pair_scenes import pair, scene, verdicts, with_object

from crispedit.change import Moments
from crispedit.filters.alignment import Alignment
from crispedit.filters.preservation import Preservation, restyles_one_thing, ssim

SOURCE = scene(2)
EDITED, MASK = with_object(SOURCE, 200, 150, 120)


def masks(known: bool):
    return MASK if known else None


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("quality", [95, 75])
def test_an_edit_that_keeps_to_its_place_passes(known, quality):
    sample = pair(SOURCE, EDITED, masks(known), quality)
    assert verdicts(Preservation(), sample) == []
    assert Preservation().measure([sample])[0]["leakage"] < 0.001


def test_a_second_change_outside_the_mask_is_leakage():
    leaking, second = with_object(EDITED, 450, 300, 100)
    sample = pair(SOURCE, leaking, MASK)
    assert verdicts(Preservation(), sample) == ["leakage:high"]
    scores = Preservation().measure([sample])[0]
    assert scores["leakage"] == pytest.approx(
        second.mean() / scores["outside_fraction"], rel=0.4
    )  # a look is 9 px wide
    assert verdicts(Preservation(), pair(SOURCE, leaking, MASK | second)) == []


def test_specks_far_from_the_edit_are_leakage_without_a_mask():
    leaking = EDITED
    for x in range(20, 620, 64):
        for y in (20, 80, 340, 400, 460):
            leaking, _ = with_object(leaking, x, y, 14)
    assert verdicts(Preservation(), pair(SOURCE, leaking)) == ["leakage:high"]


@pytest.mark.parametrize("known", [True, False])
def test_a_regenerated_outside_fails(known):
    """Every texture is drawn anew, a few pixels from where it was; nothing large moves."""
    offset = np.random.default_rng(5).normal(0, 4, (64, 80, 2)).astype(np.float32)
    there = cv2.resize(offset, (640, 512), interpolation=cv2.INTER_CUBIC) + np.dstack(
        np.meshgrid(range(640), range(512))
    )
    redrawn = cv2.remap(SOURCE, there.astype(np.float32), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    redrawn[MASK] = EDITED[MASK]
    assert "wander_px:high" in verdicts(Alignment(), pair(SOURCE, redrawn, masks(known)))


@pytest.mark.parametrize("known", [True, False])
def test_a_whole_image_edit_has_no_outside(known):
    style = 255 - SOURCE
    mask = np.ones(SOURCE.shape[:2], bool) if known else None
    scores = Preservation().measure([pair(SOURCE, style, mask)])[0]
    assert scores.pop("outside_fraction") == pytest.approx(0, abs=0.02)
    least = scores.pop("least_change")
    assert least is None if known else least > 6  # nothing at all was left as it was
    assert set(scores.values()) == {None}


@pytest.mark.parametrize(
    ("instruction", "one"),
    [
        ("Turn the cat into a low poly cat", True),
        ("Make the wooden toy horse look like an origami horse, please.", True),
        ("Restyle this car as a hand-drawn car with thick outlines", True),
        ("Transfer the image into a folded-paper origami art style.", False),
        ("Turn the photo into an old photo", False),
        ("Turn the city into a cyberpunk city", False),
        ("Turn the cat into a watercolour painting", False),
        ("Make the old street an old drawing", False),
        ("Convert the style of the picture to a comic style", False),
    ],
)
def test_a_style_may_be_for_one_thing_alone(instruction: str, one: bool):
    assert restyles_one_thing(instruction) is one
    everywhere = pair(SOURCE, 255 - SOURCE)
    everywhere.category, everywhere.instruction = "style", instruction
    scores = Preservation().measure([everywhere])[0]
    assert scores["beside_thing"] == (scores["least_change"] if one else None)


def test_images_of_different_sizes_are_compared_on_the_source_grid():
    wider = cv2.resize(EDITED, (700, 512), interpolation=cv2.INTER_CUBIC)
    assert Preservation().measure([pair(SOURCE, wider, MASK)])[0]["leakage"] < 0.05


def test_ssim_is_one_for_equal_images_and_symmetric():
    a, b = SOURCE[..., 0], EDITED[..., 0]

    def similarity(x, y):
        return ssim(Moments.of(x, y))

    assert similarity(a, a).min() == pytest.approx(1, abs=1e-3)
    np.testing.assert_array_equal(similarity(a, b), similarity(b, a))
    inside = MASK.reshape(64, 8, 80, 8).all(axis=(1, 3))
    assert similarity(a, b)[inside].mean() < 0.6 < 0.99 < similarity(a, b)[50:].mean()


def test_similarity_is_that_of_the_rest():
    inverted = EDITED.copy()
    inverted[MASK] = 255 - inverted[MASK]
    for edited in (EDITED, inverted):
        assert Preservation().measure([pair(SOURCE, edited, MASK)])[0]["outside_ssim"] > 0.97
