"""The pipeline end to end with a small model of real parts: sizes, masks, batches, seeds, saving, mistakes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from crispedit.editmgt.options import SamplingOptions
from crispedit.editmgt.pipeline import EditMGTPipeline
from crispedit.editmgt.preset import build, read_preset
from crispedit.editmgt.transformer import Transformer, TransformerConfig

FAST = SamplingOptions(steps=3, guidance=3.0)
HELD = FAST.changed(hold=0.3)


def photo(height, width, seed=0):
    """Smooth colours with an edge, as a photograph has them."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    base = np.stack([x, y, (x + y) / 2], -1) * 200
    base[height // 3 : height // 2, width // 4 : width // 2] += 50
    noise = np.random.default_rng(seed).normal(0, 4, base.shape)
    return np.clip(base + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pipeline() -> EditMGTPipeline:
    """The tiny preset at a smaller resolution. Its gates are open, so that text and source matter; it does not copy."""
    pipeline = build("editmgt-tiny", seed=3)
    pipeline.resolution = 96
    generator = torch.Generator().manual_seed(0)
    for name, parameter in pipeline.transformer.named_parameters():
        if "norm" in name and name.endswith("linear.weight"):
            parameter.normal_(std=0.05, generator=generator)
        if "norm" in name and name.endswith("linear.bias"):
            parameter.zero_()
        if name.startswith("mlm_layer.conv2"):
            parameter.mul_(10)
    return pipeline


def test_output_has_the_inputs_size(pipeline):
    for height, width in ((70, 131), (96, 96), (33, 20)):
        image = photo(height, width)
        (out,) = pipeline(image, "make it red", FAST)
        assert out.image.shape == image.shape
        assert out.image.dtype == np.uint8
        assert out.localisation.shape == out.held.shape
        assert 0 <= out.localisation.min() <= out.localisation.max() <= 1
        assert out.held_fraction == 0


def test_an_answer_is_its_own(pipeline):
    """Alone, in a mixed batch, in another order and with other batch sizes: the same answer."""
    images = [photo(64, 96), photo(96, 64, 1), photo(64, 96, 2)]
    words = ["make it red", "add a dog", "remove the square"]
    together = pipeline(images, words, HELD, seed=[5, 6, 7])
    for i in (2, 0, 1):
        (alone,) = pipeline(images[i], words[i], HELD, seed=5 + i)
        assert np.array_equal(alone.image, together[i].image)
        assert np.array_equal(alone.held, together[i].held)
        assert np.allclose(alone.localisation, together[i].localisation, atol=1e-4)
    small = pipeline(images, words, HELD, seed=[5, 6, 7], batch_size=1)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(small, together, strict=True))


def test_several_answers_per_image(pipeline):
    """Released: two images per prompt crash as soon as there is a source."""
    image = photo(64, 64)
    three = pipeline(image, "make it red", FAST, seed=4, images_per_prompt=3)
    assert len(three) == 3
    assert not np.array_equal(three[0].image, three[1].image)
    (second,) = pipeline(image, "make it red", FAST, seed=5)
    assert np.array_equal(second.image, three[1].image)


def test_instruction_and_negative_matter(pipeline):
    image = photo(64, 64)
    first = pipeline([image, image], ["make it red", "add a dog"], FAST)
    assert not np.array_equal(first[0].image, first[1].image)
    # One negative prompt for two instructions: released, it crashes.
    other = pipeline([image, image], ["make it red", "add a dog"], FAST.changed(negative="ugly"))
    assert not np.array_equal(first[0].image, other[0].image)
    plain = pipeline([image, image], ["make it red", "add a dog"], FAST.changed(guidance=1.0))
    assert not np.array_equal(plain[0].image, plain[1].image)


def test_mask_and_paste_leave_the_rest_bit_exact(pipeline):
    image = photo(100, 150)
    mask = np.zeros((100, 150), bool)
    mask[20:50, 30:80] = True
    before = image.copy()
    (out,) = pipeline(image, "add a dog", FAST.changed(paste_untouched=True), mask=mask)
    assert np.array_equal(image, before)
    assert 0.5 < out.held_fraction < 1
    inside = np.kron(~out.held, np.ones((2, 2), bool))  # coarse: only to see that the mask is covered
    assert inside.any()
    changed = (out.image != image).any(-1)
    assert changed[mask].mean() > 0.3
    far = np.ones_like(mask)
    far[: 20 + 50, 10 : 80 + 40] = False
    assert not changed[far].any()
    (free,) = pipeline(image, "add a dog", FAST, mask=mask)
    assert np.array_equal(free.held, out.held)


def test_a_mask_and_a_hold_must_agree(pipeline):
    image = photo(96, 96)
    mask = np.zeros((96, 96), bool)
    mask[:48] = True
    (masked,) = pipeline(image, "add a dog", FAST, mask=mask)
    (both,) = pipeline(image, "add a dog", FAST.changed(hold=0.5), mask=mask)
    assert (both.held >= masked.held).all()
    assert both.held_fraction > masked.held_fraction


def test_start_keeps_a_share_of_the_source(pipeline):
    image = photo(96, 96)
    source = pipeline.vq.encode(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
    seen = []
    pipeline(image, "add a dog", FAST, start=0.25, on_step=lambda now: seen.append(now.tokens))
    kept = (seen[-1] == source).float().mean()
    assert kept > 0.6
    assert len(seen) == 3


def test_released_noise_is_one_stream(pipeline):
    image = photo(64, 64)
    first, again = (pipeline(image, "add a dog", FAST, seed=9, released_noise=True)[0] for _ in range(2))
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, pipeline(image, "add a dog", FAST, seed=9)[0].image)


def test_words_localise_differently(pipeline):
    image = photo(96, 96)
    (whole,) = pipeline(image, "add a dog to the left", FAST)
    (word,) = pipeline(image, "add a dog to the left", FAST, words=["dog"])
    assert np.array_equal(whole.image, word.image)
    assert not np.allclose(whole.localisation, word.localisation)
    (real,) = pipeline(image, "add a dog to the left", FAST, padding_rows=False)
    assert not np.allclose(whole.localisation, real.localisation)


def test_save_and_load(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    again = EditMGTPipeline.from_pretrained(tmp_path)
    assert again.resolution == 96
    assert again.text.llm_tokens == 32
    image = photo(64, 80)
    ours, theirs = (p(image, "make it red", FAST.changed(hold=0.2))[0] for p in (pipeline, again))
    assert np.array_equal(ours.image, theirs.image)
    (tmp_path / "transformer").rename(tmp_path / "editmgt")  # the released folder's name
    shutil.move(tmp_path / "llm_encoder", tmp_path.parent / "gemma")
    with pytest.raises(ValueError, match="no folder llm_encoder or text_encoder_2; name a language model"):
        EditMGTPipeline.from_pretrained(tmp_path)
    apart = EditMGTPipeline.from_pretrained(tmp_path, llm=tmp_path.parent / "gemma")
    assert np.array_equal(apart(image, "make it red", FAST.changed(hold=0.2))[0].image, ours.image)


def test_a_model_that_halves_its_grid(pipeline):
    """Released: position ids follow the height, not the configuration, so that other sizes crash; so do non-squares."""
    halving = EditMGTPipeline(pipeline.transformer, pipeline.vq, pipeline.text, resolution=128)
    assert halving.transformer.config.downsample
    (out,) = halving(photo(90, 200), "make it red", HELD)
    assert out.held.shape == (10, 24)  # 8 pixels a token
    with pytest.raises(ValueError, match="multiples of 16"):
        halving(photo(40, 40), "make it red", FAST, size=(40, 40))


def test_a_model_that_keeps_its_grid(pipeline):
    config = TransformerConfig(**{**pipeline.transformer.config.model_dump(), "downsample": False})
    model = Transformer(config)
    model.initialize(torch.Generator().manual_seed(0))
    keeping = EditMGTPipeline(model.eval(), pipeline.vq, pipeline.text, resolution=128)
    (out,) = keeping(photo(40, 40), "make it red", HELD, size=(40, 24))
    assert out.held.shape == (3, 5)


def test_a_resampling_connector(pipeline):
    """Its context follows the time, so it runs at every step; released, it only runs at a width of 1024."""
    config = TransformerConfig(**{**pipeline.transformer.config.model_dump(), "connector_type": "qformer"})
    model = Transformer(config)
    model.initialize(torch.Generator().manual_seed(0))
    resampling = EditMGTPipeline(model.eval(), pipeline.vq, pipeline.text, resolution=64)
    (out,) = resampling(photo(64, 64), "make it red", HELD)
    assert out.image.shape == (64, 64, 3)
    with pytest.raises(ValueError, match="mixes all tokens"):
        resampling(photo(64, 64), "make it red", FAST, words=["red"])


def test_bfloat16(pipeline):
    half = EditMGTPipeline(
        build("editmgt-tiny").transformer.to(torch.bfloat16), pipeline.vq, pipeline.text, resolution=96
    )
    (out,) = half(photo(60, 60), "make it red", HELD)
    assert out.image.shape == (60, 60, 3)


def test_mistakes_are_named(pipeline):
    image = photo(40, 40)
    cases = [
        ("2 images but 1 instructions", {"image": [image, image], "instruction": ["a"]}),
        ("2 images but 3 seeds", {"image": [image, image], "seed": [1, 2, 3]}),
        (r"mask 0 is \(3, 3\) and its image \(40, 40\)", {"mask": np.ones((3, 3), bool)}),
        ("the mask is empty", {"mask": np.zeros((40, 40), bool)}),
        ("uint8 RGB", {"image": image[..., 0]}),
        ("start", {"start": 0.0}),
        ("images_per_prompt", {"images_per_prompt": 0}),
        (r"blocks \[8\] must name some of this model's 0 to 7", {"blocks": [8]}),
        (r"blocks \[\]", {"blocks": []}),
        ("'cat' is not in the prompt", {"words": ["cat"]}),
    ]
    for match, options in cases:
        options = {"image": image, "instruction": "make it red"} | options
        with pytest.raises(ValueError, match=match):
            pipeline(**options, sampling=FAST)
    with pytest.raises(ValueError, match=r"hold: .* \(choose from steps, guidance, "):
        FAST.changed(hold=1.5)
    with pytest.raises(ValueError, match="strength: Extra inputs"):
        FAST.changed(strength=1.1)
    small = TransformerConfig(**{**pipeline.transformer.config.model_dump(), "codebook_size": 512})
    with pytest.raises(ValueError, match="cannot be combined"):
        EditMGTPipeline(Transformer(small), pipeline.vq, pipeline.text)
    with pytest.raises(ValueError, match="has no folder"):
        EditMGTPipeline.from_pretrained("/tmp")
    with pytest.raises(ValueError, match="choose from editmgt-1b, editmgt-tiny"):
        read_preset("editmgt-huge")


def test_a_checkpoint_carries_its_sampling(pipeline, tmp_path):
    """What a caller gives replaces the checkpoint's; what he does not, stays the checkpoint's."""
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["sampling"]["steps"] == 36
    index["sampling"] = {"steps": 2, "hold": 0.4}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    again = EditMGTPipeline.from_pretrained(tmp_path)
    assert again.sampling == SamplingOptions(steps=2, hold=0.4)
    assert SamplingOptions(hold=0.1).over(again.sampling) == SamplingOptions(steps=2, hold=0.1)
    assert again(photo(40, 40), "make it red")[0].steps <= 2
    index["sampling"] = {"step": 2}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"step: .*choose from steps"):
        EditMGTPipeline.from_pretrained(tmp_path)


def test_the_model_that_ships_is_known_by_its_name():
    assert EditMGTPipeline.from_pretrained("editmgt-tiny", device="cpu").resolution < 256
