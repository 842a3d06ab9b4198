"""The shipped editmgt-tiny: pairs rendered in memory, readers of the words in use, a training that resumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crispedit.editmgt.pipeline import EditMGTPipeline, load_text
from crispedit.editmgt.preset import byte_tokenizer, fresh_vq, read_preset
from crispedit.pipelines.shipped.rendered import MARGIN, SHAPE, Rendering, cropped, rendered, resized
from crispedit.pipelines.shipped.train_tiny import (
    Learner,
    crops,
    fresh_readers,
    fresh_transformer,
    merges,
    tokenise,
    train,
)
from crispedit.pipelines.shipped.train_vq import write_transform

TEXTS = [
    f"{verb} the {colour} {thing} {where}"
    for verb in ("remove", "enlarge")
    for colour in ("red", "blue", "green")
    for thing in ("ball", "kite", "barrel")
    for where in ("on the left", "on the right")
]


@pytest.fixture(scope="module")
def pairs():
    height, width = (side + margin for side, margin in zip(SHAPE, MARGIN, strict=True))
    return [resized(pair, height, width) for pair in rendered(1)]


def test_a_landscape_gives_a_pair_of_each_category(pairs):
    assert len({pair.category for pair in pairs}) >= 5
    for pair in pairs:
        assert pair.source.shape == pair.edited.shape == (*pair.mask.shape, 3)
        assert pair.mask.any()


def test_a_mirrored_crop_swaps_the_sides_in_the_instruction(pairs):
    pair = pairs[0]._replace(instruction="move the kite on the left to the right, bright side")
    rng = np.random.default_rng(0)
    plain = cropped(pair, rng, flip=False)
    mirrored = cropped(pair, rng, flip=True)
    assert plain.source.shape == mirrored.source.shape == (*SHAPE, 3)
    assert plain.instruction == pair.instruction
    assert mirrored.instruction == "move the kite on the right to the left, bright side"
    windows = [
        pair.edited[top : top + SHAPE[0], left : left + SHAPE[1]]
        for top in range(MARGIN[0] + 1)
        for left in range(MARGIN[1] + 1)
    ]
    assert any(np.array_equal(plain.edited, window) for window in windows)
    assert any(np.array_equal(mirrored.edited[:, ::-1], window) for window in windows)


def test_a_crop_never_loses_the_edit(pairs):
    corner = np.zeros_like(pairs[0].mask)
    corner[0, 0] = True
    rng = np.random.default_rng(0)
    made = [cropped(pairs[0]._replace(mask=corner), rng, flip=False) for _ in range(50)]
    assert None in made
    assert all(pair.mask.any() for pair in made if pair is not None)


def test_landscapes_are_rendered_in_the_background_in_their_order():
    rendering = Rendering([1], processes=1)
    taken = rendering.take(1)
    rendering.close()
    assert [pair.instruction for pair in taken] == [pair.instruction for pair in rendered(1)]
    assert rendering.take(1) == []


def test_a_word_in_use_is_a_token_and_any_text_can_be_read():
    tokenizer = byte_tokenizer(32, merges(TEXTS, 60))
    known = tokenizer("remove the blue kite")["input_ids"]
    assert len(known) < 10
    assert len(byte_tokenizer(32)("remove the blue kite")["input_ids"]) == 22
    odd = "Ersetze 🐕"
    assert tokenizer.decode(tokenizer(odd)["input_ids"], skip_special_tokens=True) == odd


def test_a_training_resumes_and_its_checkpoint_loads(pairs, tmp_path):
    preset = read_preset("editmgt-tiny") | {"text_merges": 60}
    preset["transformer"] |= {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1}

    def fresh():
        torch.manual_seed(0)
        vq = fresh_vq(preset)
        write_transform(vq.model)
        generator = torch.Generator().manual_seed(0)
        vq.codebook.copy_(0.2 * torch.randn(vq.codebook.shape, generator=generator))
        return vq, fresh_readers([pair.instruction for pair in pairs], preset)

    vq, text = fresh()
    tokens = tokenise(vq, text, crops(pairs, 2, np.random.default_rng(0)))
    assert tokens.source.shape[1:] == (14, 20)
    saved = tmp_path / "savepoint.pt"
    model = Learner(fresh_transformer(preset, vq), text)
    assert train(model, tokens, saved, steps=50, batch=4, rate=1e-3)[0]["edited"] > 0
    vq, text = fresh()
    model = Learner(fresh_transformer(preset, vq), text)
    [row] = train(model, tokens, saved, steps=100, batch=4, rate=1e-3)
    assert row["step"] == 100
    assert row["pairs"] == len(tokens.source)

    EditMGTPipeline(model.transformer, vq, text, 132).save_pretrained(tmp_path / "model")
    again = load_text(tmp_path / "model").encode([pairs[0].instruction])
    with torch.no_grad():
        sequence, pooled = model.read(*(ids[:1] for ids in (tokens.clip_ids, tokens.llm_ids)))
    torch.testing.assert_close(again.sequence, sequence)
    torch.testing.assert_close(again.pooled, pooled)


def test_a_folder_without_encoders_is_refused(tmp_path):
    with pytest.raises(ValueError, match="text_encoder"):
        load_text(tmp_path)
