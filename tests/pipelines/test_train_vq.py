"""The tiny tokenizer: an encoder that is a block transform, codes that cover colours, a decoder that learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crispedit.compositor.landscape import landscape
from crispedit.editmgt.preset import fresh_vq, read_preset
from crispedit.pipelines.shipped.rendered import SHAPE
from crispedit.pipelines.shipped.train_vq import (
    PIXELS,
    SIDE,
    Images,
    block_transform,
    codebook,
    codes_of,
    difference,
    kmeans,
    latents_of,
    measure,
    squares,
    train_decoder,
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
    fresh = fresh_vq(read_preset("editmgt-tiny"))
    write_transform(fresh.model)
    return fresh


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
    means = torch.nn.functional.avg_pool2d(rgb, PIXELS).repeat_interleave(PIXELS, 2).repeat_interleave(PIXELS, 3)
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
    codes = codebook(images, 64, samples=2000)
    red = latents_of(np.full((1, 8, 8, 3), (220, 20, 20), np.uint8)).flatten()
    assert torch.cdist(red[None], codes).min() < 0.05


def test_squares_are_the_pixels_behind_the_tokens(images):
    tokens = torch.arange(6 * 14 * 20).view(6, 14, 20)
    chosen, pixels, masks = squares(images, tokens, 8, np.random.default_rng(3))
    assert chosen.shape == (8, SIDE, SIDE)
    for token, square, mask in zip(chosen, pixels, masks, strict=True):
        number, row, column = np.unravel_index(int(token[0, 0]), tokens.shape)
        window = (number, slice(row * 8, row * 8 + 64), slice(column * 8, column * 8 + 64))
        assert np.array_equal((square * 255).round().permute(1, 2, 0).numpy(), images.pixels[window])
        assert np.array_equal(mask[0].numpy(), images.mask[window])


def test_the_nearest_codes_are_those_of_the_encoder(vq, images):
    vq.codebook.copy_(codebook(images, vq.codebook_size, samples=2500))
    rgb = torch.from_numpy(images.pixels).permute(0, 3, 1, 2).float() / 255
    assert (codes_of(images.pixels, vq.codebook) == vq.encode(rgb)).float().mean() > 0.9


def test_a_trained_decoder_is_nearer_to_the_images(vq, images):
    vq.codebook.copy_(codebook(images, vq.codebook_size, samples=2500))
    tokens = codes_of(images.pixels, vq.codebook)
    pixels = torch.from_numpy(images.pixels).permute(0, 3, 1, 2).float() / 255

    def loss() -> float:
        with torch.no_grad():
            return float(difference(vq.decode(tokens), pixels, torch.from_numpy(images.mask)[:, None]))

    before = loss()
    train_decoder(vq, images, steps=160, batch=4)
    assert loss() < 0.97 * before


def test_what_is_measured(vq, images):
    vq.codebook.copy_(codebook(images, vq.codebook_size, samples=2500))
    measured = measure(vq, images)
    assert measured["images"] == 6
    assert 18 < measured["psnr_db"] < 40
    assert 0 < measured["entropy_bits"] <= np.log2(measured["codes_used"])
    vq.codebook.zero_()
    flat = measure(vq, images)
    assert flat["codes_used"] == 1
    assert flat["psnr_db"] < measured["psnr_db"] - 3
