"""Metrics against the published formulae, torchmetrics, and pairs whose answer is known."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from crispedit import metrics, torchvision_ops
from crispedit.compositor.landscape import landscape

torchvision_ops.declare()

from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure  # noqa: E402  (imports torchvision, which must be mended first)
from torchvision.transforms import ToTensor  # noqa: E402

PHOTO = landscape(1, 320, 256, "lake")
OTHER = landscape(2, 320, 256, "desert")


def as_tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def masked(top=64, left=80, height=96, width=128):
    mask = np.zeros(PHOTO.shape[:2], bool)
    mask[top : top + height, left : left + width] = True
    return mask


@pytest.mark.parametrize("size", [(320, 256), (200, 300)])
def test_distances_are_magicbrushs(size):
    """`eval_distance` of its image_eval.py, with its own libraries: resize to the target, ToTensor, the loss."""
    answer, target = Pillow.fromarray(OTHER).resize(size), Pillow.fromarray(PHOTO)
    pair = ToTensor()(answer.resize(target.size)), ToTensor()(target)
    ours = metrics.resized(np.asarray(answer), PHOTO)
    assert metrics.l1(ours, PHOTO) == pytest.approx(torch.nn.L1Loss()(*pair).item(), rel=1e-5)
    assert metrics.l2(ours, PHOTO) == pytest.approx(torch.nn.MSELoss()(*pair).item(), rel=1e-5)


def test_distances_do_not_wrap():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    for a, b in ((black, white), (white, black)):
        assert metrics.l1(a, b) == metrics.l2(a, b) == 1.0
    assert metrics.l1(black, black + 1) == pytest.approx(1 / 255)


def test_psnr_and_ssim_are_torchmetrics():
    noisy = cv2.GaussianBlur(PHOTO, (0, 0), 1.5)
    pair = as_tensor(noisy), as_tensor(PHOTO)
    assert metrics.psnr(noisy, PHOTO) == pytest.approx(peak_signal_noise_ratio(*pair, data_range=1.0).item(), abs=1e-3)
    theirs = structural_similarity_index_measure(*pair, data_range=1.0).item()
    assert metrics.ssim(noisy, PHOTO) == pytest.approx(theirs, abs=1e-4)
    assert theirs < 0.99


def test_equal_images_score_perfectly_and_finitely():
    assert metrics.l1(PHOTO, PHOTO) == metrics.l2(PHOTO, PHOTO) == 0
    assert metrics.psnr(PHOTO, PHOTO) == metrics.PSNR_LIMIT_DB == pytest.approx(58.92, abs=0.01)
    assert metrics.ssim(PHOTO, PHOTO) == pytest.approx(1, abs=1e-6)


def test_a_region_is_measured_as_its_own_image():
    mask = masked()
    crop, other = PHOTO[64:160, 80:208], OTHER[64:160, 80:208]
    for measure in (metrics.l1, metrics.l2, metrics.psnr):
        assert measure(PHOTO, OTHER, mask) == pytest.approx(measure(crop, other))
        assert measure(PHOTO, OTHER, np.zeros_like(mask)) is None


def test_ssim_of_a_region_does_not_see_the_other_side():
    mask = masked()
    beside, within = PHOTO.copy(), PHOTO.copy()
    beside[~mask] = 255 - beside[~mask]
    within[100:120, 120:150] = 255
    assert metrics.ssim(beside, PHOTO, mask) == pytest.approx(1, abs=1e-6)
    assert metrics.ssim(within, PHOTO, mask) < 0.97
    assert metrics.ssim(within, PHOTO, ~mask) == pytest.approx(1, abs=1e-6)
    assert metrics.ssim(PHOTO, PHOTO, masked(height=8)) is None  # thinner than the window


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"sizes differ: \(256, 320\) and \(100, 100\)"):
        metrics.l1(PHOTO, PHOTO[:100, :100])


def jpeg(image, quality, subsampling):
    data = io.BytesIO()
    Pillow.fromarray(image).save(data, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Pillow.open(data).convert("RGB"))


def halved(image):
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def noisy(image):
    noise = np.random.default_rng(0).normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def brighter(image):
    return np.clip(image.astype(int) + 20, 0, 255).astype(np.uint8)


def redder(image):
    return np.clip(image.astype(int) + np.array([30, 0, 0]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("scale", [1, 3])
def test_leakage_sees_changes_and_not_reencoding(scale):
    """At any resolution, because both are judged at one."""
    image = landscape(1, 320 * scale, 256 * scale, "lake")
    mask = cv2.resize(masked().astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    for change in (lambda x: x, lambda x: jpeg(x, 75, 2), lambda x: jpeg(x, 95, 0), halved, noisy):
        assert metrics.leakage(image, change(image), mask) < 0.005
    for change in (brighter, redder):
        assert metrics.leakage(image, change(image), mask) > 0.8
    object_added = image.copy()
    object_added[200 * scale : 240 * scale, 20 * scale : 60 * scale] = (200, 30, 30)
    share = metrics.leakage(image, object_added, mask)
    assert share == pytest.approx(40 * 40 / (~mask).sum() * scale**2, rel=0.75)


def test_an_edit_is_not_its_own_leakage():
    mask = masked()
    edited = PHOTO.copy()
    edited[mask] = 255 - edited[mask]
    assert metrics.leakage(PHOTO, edited, mask) == 0
    smaller = masked(height=48)  # the same change is leakage where the mask does not allow it
    assert metrics.leakage(PHOTO, edited, smaller) > 0.02
    assert metrics.leakage(PHOTO, edited, np.ones_like(mask)) is None


def test_cosine_is_the_definitions_and_none_without_a_direction():
    a, b = torch.randn(16, generator=torch.Generator().manual_seed(0)), torch.arange(16.0)
    expected = float((a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt()))
    assert metrics.cosine(a, b) == pytest.approx(expected, rel=1e-5)
    assert metrics.cosine(a, -a) == pytest.approx(-1)
    assert metrics.cosine(a - a, b) is None


def test_black_is_all_black():
    dark = np.zeros((4, 4, 3), np.uint8)
    assert metrics.black(dark)
    dark[0, 0, 2] = 1
    assert not metrics.black(dark)
