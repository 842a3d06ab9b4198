"""Patches finds tile steps, grids of any period, JPEG blocks and a second change, each by its own score."""

import cv2
import numpy as np
import pytest
from pair_scenes import pair, scene, verdicts, with_object

from crispedit import images
from crispedit.filters.patches import Patches

SOURCE = scene(13, 1024, 768)
EDITED, MASK = with_object(SOURCE, 200, 150, 200)


def re_encoded(image, quality):
    return images.decode_jpeg(images.encode_jpeg(image, quality))


def with_grid(image, half, levels):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    pattern = np.where((x // half + y // half) % 2, levels, -levels)[..., None]
    return np.clip(image.astype(np.int16) + pattern, 0, 255).astype(np.uint8)


def in_tiles(image, levels, seed=0):
    height, width = image.shape[:2]
    steps = np.random.default_rng(seed).normal(0, levels, (height // 128 + 1, width // 128 + 1))
    tiles = np.kron(steps, np.ones((128, 128)))[:height, :width, None]
    return np.clip(np.rint(image + tiles), 0, 255).astype(np.uint8)


def garbled(image, x, y, side):
    patch = image[y : y + side, x : x + side].copy()
    pieces = patch.reshape(side // 8, 8, side // 8, 8, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 8, 8, 3)
    pieces = np.random.default_rng(0).permutation(pieces).reshape(side // 8, side // 8, 8, 8, 3)
    edited = image.copy()
    edited[y : y + side, x : x + side] = pieces.transpose(0, 2, 1, 3, 4).reshape(side, side, 3)
    return edited


@pytest.mark.parametrize("mask", [MASK, None])
def test_a_clean_edit_passes(mask):
    assert verdicts(Patches(), pair(SOURCE, EDITED, mask)) == []


@pytest.mark.parametrize(
    ("bad", "nearly", "reason"),
    [
        (re_encoded(EDITED, 30), re_encoded(EDITED, 85), "blocking:high"),
        (in_tiles(EDITED, 5), in_tiles(EDITED, 0.3), "tile_step:high"),
        *((with_grid(EDITED, half, 4), with_grid(EDITED, half, 0), "grid:high") for half in (1, 2, 4, 8)),
        (garbled(EDITED, 700, 480, 160), EDITED, "second_change:high"),
        (with_object(EDITED, 700, 480, 160)[0], with_object(EDITED, 380, 200, 60)[0], "second_change:high"),
    ],
)
def test_each_defect_by_its_reason_and_its_neighbour_passes(bad, nearly, reason):
    assert reason in verdicts(Patches(), pair(SOURCE, bad))
    assert verdicts(Patches(), pair(SOURCE, nearly)) == []


@pytest.mark.parametrize("flawed", [re_encoded(SOURCE, 20), with_grid(SOURCE, 4, 4), in_tiles(SOURCE, 5)])
def test_a_flaw_of_the_photograph_is_not_the_edit_s(flawed):
    edited, _ = with_object(flawed, 200, 150, 100)
    assert verdicts(Patches(), pair(flawed, edited)) == []


def test_faint_texture_garbled_in_one_place_is_found_by_its_structure():
    grain = cv2.GaussianBlur(np.random.default_rng(5).normal(0, 1, SOURCE.shape[:2]), (0, 0), 2)
    source = np.clip(128 + 12 * grain[..., None] / grain.std() + np.zeros(3), 0, 255).astype(np.uint8)
    edited, _ = with_object(source, 200, 150, 100)
    assert verdicts(Patches(), pair(source, garbled(edited, 700, 480, 160))) == ["garbled:high"]
    assert verdicts(Patches(), pair(source, edited)) == []


def test_garbling_is_unknown_where_most_texture_is_another():
    assert Patches().measure([pair(SOURCE, scene(9))])[0]["garbled"] is None


def test_a_second_change_is_as_large_as_it_is():
    two, mask = with_object(EDITED, 700, 480, 160)
    found = Patches().measure([pair(SOURCE, two)])[0]["second_change"]
    assert found == pytest.approx(mask.mean(), rel=0.2)


def test_with_a_mask_the_largest_change_may_be_the_unrequested_one():
    two, mask = with_object(EDITED, 600, 400, 300)
    assert mask.sum() > MASK.sum()
    assert Patches().measure([pair(SOURCE, two, MASK)])[0]["second_change"] == pytest.approx(mask.mean(), rel=0.2)
    assert Patches().measure([pair(SOURCE, two, MASK | mask)])[0]["second_change"] == 0


@pytest.mark.parametrize("category", ["background", "motion"])
def test_where_the_edit_cannot_be_guessed_only_a_mask_tells_what_is_apart_from_it(category):
    spoiled, _ = with_object(in_tiles(EDITED, 5), 700, 480, 160)
    known, unknown = pair(SOURCE, spoiled, MASK), pair(SOURCE, spoiled)
    known.category = unknown.category = category
    assert {"tile_step:high", "second_change:high"} <= set(verdicts(Patches(), known))
    assert Patches().measure([unknown])[0]["second_change"] is None


def test_tiles_are_found_in_a_large_image():
    source, edited = (cv2.resize(image, None, fx=2, fy=2) for image in (SOURCE, EDITED))
    assert "tile_step:high" in verdicts(Patches(), pair(source, in_tiles(edited, 5)))
    assert "tile_step:high" not in verdicts(Patches(), pair(source, edited))


def test_drawing_everything_anew_brings_nothing_in():
    soft = cv2.GaussianBlur(EDITED, (0, 0), 0.6).astype(float)
    noise = np.random.default_rng(0).normal(0, 2, EDITED.shape)
    redrawn = np.clip(np.rint(soft + noise), 0, 255).astype(np.uint8)
    assert verdicts(Patches(), pair(SOURCE, redrawn)) == []


def test_the_dots_of_a_print_are_its_style():
    dots = 40 * np.sign(np.sin((np.arange(SOURCE.shape[1]) + 0.5) * np.pi / 4)).astype(np.float32)
    printed = np.clip(SOURCE + dots[None, :, None], 0, 255).astype(np.uint8)
    sample = pair(SOURCE, printed)
    assert Patches().measure([sample])[0]["grid"] > 24
    sample.category = "style"
    assert Patches().measure([sample])[0]["grid"] is None
