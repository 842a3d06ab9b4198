"""The small CLIP's training: its loss against open_clip's, its data, and that what it writes loads as any CLIP does."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crispedit import clip
from crispedit.pipelines.shipped import train_clip
from crispedit.pipelines.shipped.train_clip import SIZE

import open_clip  # isort: skip  (after crispedit.clip, which mends torchvision)


@pytest.fixture(scope="module")
def pairs():
    return train_clip.render([1, 2])


def test_the_loss_is_clips_where_all_captions_differ():
    a, b = (F.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(s)), dim=1) for s in (0, 1))
    scale = torch.tensor(14.0)
    ours = train_clip.contrast(a, b, torch.eye(6), scale)
    torch.testing.assert_close(ours, open_clip.loss.ClipLoss()(a, b, scale))


def test_equal_captions_are_equally_right():
    same = train_clip.equal(["a lake", "a boat", "a lake"])
    assert same.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    a, text = (F.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(s)), dim=1) for s in (0, 1))
    scale = torch.tensor(14.0)
    exchanged = text[[2, 1, 0]]
    torch.testing.assert_close(
        train_clip.contrast(a, text, same, scale), train_clip.contrast(a, exchanged, same, scale)
    )
    apart = torch.eye(3)
    assert train_clip.contrast(a, text, apart, scale) != train_clip.contrast(a, exchanged, apart, scale)


def test_images_are_moved_but_never_mirrored():
    ramp = torch.arange(SIZE, dtype=torch.float32).expand(1, 3, SIZE, SIZE).repeat(20, 1, 1, 1)
    moved = train_clip.shifted(ramp, np.random.default_rng(0))
    assert moved.shape == ramp.shape
    assert (moved.diff(dim=3) >= 0).all()
    assert (moved - ramp).abs().max() <= 6
    assert len({float(image[0, 0, SIZE // 2]) for image in moved}) > 5


def test_the_data_is_pairs_with_captions_of_both_sides(pairs):
    assert pairs.images.shape[1:] == (2, SIZE, SIZE, 3)
    assert len(pairs.images) == len(pairs.captions) >= 12
    changed = (pairs.images[:, 0] != pairs.images[:, 1]).any(axis=(1, 2, 3))
    assert changed.all()
    assert all(before != after for before, after in pairs.captions)


def test_a_short_training_is_repeatable_and_loads_through_open_clip(pairs, tmp_path):
    first, second = (train_clip.train(pairs, steps=3, batch=4, rate=1e-3) for _ in range(2))
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    facts = {
        **dict.fromkeys(("parameters", "size", "train_pairs", "train_photos", "steps", "batch", "rate"), 1),
        **train_clip.measure(first, pairs, among=4),
    }
    assert 0 <= facts["top1"] <= facts["top5"] <= 1
    train_clip.write(tmp_path / "clip", first, facts)
    assert (tmp_path / "clip/open_clip_model.safetensors").stat().st_size < 12e6
    loaded = clip.load(f"local-dir:{tmp_path / 'clip'}")
    own = F.normalize(first.encode_image(train_clip.to_tensor(pairs.images[:2, 0])), dim=1).detach()
    torch.testing.assert_close(loaded.images(list(pairs.images[:2, 0])), own, atol=5e-3, rtol=0)
    unknown = loaded.network.token_embedding.weight[loaded.tokenize(["zebra"])[0, 1]]
    assert float(unknown.detach().abs().max()) == 0
