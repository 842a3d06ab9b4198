"""The tiny tokenizer: an encoder that is a block transform, codes that cover colours, a decoder that learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crispedit.compositor.landscape import landscape
from crispedit.editmgt.preset import fresh_vq, read_preset
from crispedit.pipelines.shipped.train_vq import (
    PIXELS,
    SHAPE,
    Images,
    block_transform,
    codebook,
    crops,
    difference,
    kmeans,
    latents_of,
    measure,
    train,
    write_transform,
)


@pytest.fixture(scope="module")
def images():
    pixels = np.stack([landscape(seed, SHAPE[1], SHAPE[0]) for seed in range(6)])
    mask = np.zeros(pixels.shape[:3], np.bool_)
    mask[:, 32:72, 40:80] = True
    pixels[:3, 32:72, 40:80] = (220, 20, 20)  # a red square
    return Images(pixels, mask)


@pytest.fixture
def vq():
    torch.manual_seed(0)
    found = fresh_vq(read_preset("editmgt-tiny"))
    write_transform(found.model)
    return found


def test_the_encoder_is_the_block_transform(vq, images):
    rgb = torch.from_numpy(images.pixels[:2]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        encoded = vq.model.encode(rgb).latents
    expected = latents_of(images.pixels[:2])
    assert encoded.shape == (2, 8, SHAPE[0] // PIXELS, SHAPE[1] // PIXELS)
    assert expected.std() > 0.05
    assert torch.allclose(encoded, expected, atol=0.01)


def test_the_decoder_begins_as_the_blocks_mean_colours(vq, images):
    rgb = torch.from_numpy(images.pixels[:2]).permute(0, 3, 1, 2).float() / 255
    means = (
        torch.nn.functional.avg_pool2d(rgb, PIXELS).repeat_interleave(PIXELS, 2).repeat_interleave(PIXELS, 3)
    )
    with torch.no_grad():
        decoded = vq.model.decoder(latents_of(images.pixels[:2]))
    assert torch.allclose(decoded, means, atol=0.01)


def test_the_transform_keeps_what_it_can_say():
    forward, backward = block_transform()
    flat = forward.permute(0, 2, 3, 1).reshape(8, 12)
    assert torch.allclose(flat @ backward, torch.eye(8), atol=1e-5)


def test_kmeans_finds_the_clusters_and_leaves_no_code_unused():
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]])
    points = centres.repeat(50, 1) + 0.1 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    codes = kmeans(points, 4)
    assert torch.cdist(centres, codes).min(1).values.max() < 0.1
    many = kmeans(points, 40)
    assert len(torch.cdist(points, many).argmin(1).unique()) == 40


def test_codes_know_the_colours_of_edits(vq, images):
    codes = codebook(images, latents_of(images.pixels), 64, samples=2000)
    red = latents_of(np.full((1, 8, 8, 3), (220, 20, 20), np.uint8)).flatten()
    assert torch.cdist(red[None], codes).min() < 0.05


def test_crops_are_the_pixels_behind_the_tokens(images):
    tokens = torch.arange(6 * 14 * 20).view(6, 14, 20)
    part = crops(images, tokens, 8, 8, step=3)
    for token, pixels, mask in zip(part.tokens, part.pixels, part.mask, strict=True):
        number, row, column = np.unravel_index(int(token[0, 0]), tokens.shape)
        window = (number, slice(row * 8, row * 8 + 64), slice(column * 8, column * 8 + 64))
        assert np.array_equal((pixels * 255).round().permute(1, 2, 0).numpy(), images.pixels[window])
        assert np.array_equal(mask[0].numpy(), images.mask[window])
    again = crops(images, tokens, 8, 8, step=3)
    assert torch.equal(again.tokens, part.tokens)
    assert not torch.equal(crops(images, tokens, 8, 8, step=4).tokens, part.tokens)


def test_training_goes_on_where_it_was_saved_and_gets_better(vq, images, tmp_path):
    latents = latents_of(images.pixels)
    vq.codebook.copy_(codebook(images, latents, vq.codebook_size, samples=2000))
    tokens = vq.encode(torch.from_numpy(images.pixels).permute(0, 3, 1, 2).float() / 255)
    part = crops(images, tokens, 12, None, step=0)

    def loss() -> float:
        with torch.no_grad():
            return float(difference(vq.decode(part.tokens), part.pixels, part.mask))

    before = loss()
    vq.model.decoder.requires_grad_(True)
    train(vq.model, images, tokens, 160, 4, 1e-3, tmp_path / "checkpoint.pt")
    weights = {name: value.clone() for name, value in vq.model.state_dict().items()}
    assert loss() < 0.97 * before
    torch.manual_seed(1)
    other = fresh_vq(read_preset("editmgt-tiny"))
    train(
        other.model, images, tokens, 30, 4, 2e-3, tmp_path / "checkpoint.pt"
    )  # finished: nothing left to do
    assert all(torch.equal(value, weights[name]) for name, value in other.model.state_dict().items())


def test_what_is_measured(vq, images):
    vq.codebook.copy_(codebook(images, latents_of(images.pixels), vq.codebook_size, samples=2000))
    found = measure(vq, images)
    assert found["images"] == 6
    assert 18 < found["psnr_db"] < 40
    assert 0 < found["entropy_bits"] <= np.log2(found["codes_used"])
    vq.codebook.zero_()
    flat = measure(vq, images)
    assert flat["codes_used"] == 1
    assert flat["psnr_db"] < found["psnr_db"] - 3
