"""Examples: one window for source, edit and mask; stored and read back to the same tensors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from crispedit.editmgt import stored
from crispedit.editmgt.examples import Encoder, Examples
from crispedit.editmgt.pipeline import EditMGTPipeline
from crispedit.editmgt.preset import build
from crispedit.editmgt.text import TextFeatures

PRESET = Path(__file__).parents[1] / "data" / "editmgt-smallest.yaml"


@pytest.fixture(scope="module")
def pipeline() -> EditMGTPipeline:
    return build(PRESET)


@dataclass
class Pixels:
    """A batch as the shard reader gives it: noise, whose mask is where it is bright."""

    height: int
    width: int
    count: int = 2
    keys: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = self.keys or [f"key{i}" for i in range(self.count)]
        generator = np.random.default_rng(0)
        shape = (self.count, self.height // 8, self.width // 8, 3)
        coarse = generator.integers(0, 256, shape, np.uint8).repeat(8, 1).repeat(8, 2)
        self.source: NDArray[np.uint8] = coarse
        self.edited = coarse.copy()
        self.mask = coarse[..., 0] > 230
        self.masked = np.ones(self.count, bool)
        self.categories = ["add"] * self.count
        self.metas = [{"instruction": f"do {i}"} for i in range(self.count)]


def equal(one: Examples, other: Examples) -> bool:
    names = ("source", "edited", "region", "sequence", "pooled", "micro")
    return all(
        torch.equal(getattr(one, name), getattr(other, name)) and getattr(one, name).dtype == getattr(other, name).dtype
        for name in names
    )


def test_without_a_crop_all_is_there(pipeline: EditMGTPipeline):
    found = Encoder(pipeline.vq, pipeline.text)(Pixels(64, 96))
    assert found.source.shape == found.edited.shape == found.region.shape == (2, 4, 6)
    assert torch.equal(found.source, found.edited)
    assert found.region.any()
    assert not found.region.all()
    assert found.micro.tolist() == [[96, 64, 0, 0, 6]] * 2
    assert not found.sequence.is_inference()
    assert not torch.equal(found.sequence[0], found.sequence[1])


def test_one_window_for_source_edit_and_mask(pipeline: EditMGTPipeline):
    batch, encode = Pixels(80, 120, 6), Encoder(pipeline.vq, pipeline.text, crop=1.25, seed=7)
    found = encode(batch, step=3)
    assert found.source.shape == (6, 4, 6)
    assert torch.equal(found.source, found.edited)  # two windows would differ: the picture is noise
    assert len({tuple(row) for row in found.micro.tolist()}) > 1
    for row, (width, height, top, left, _) in enumerate(found.micro.int().tolist()):
        assert (width, height) == (120, 80)
        assert 0 <= top <= 16
        assert 0 <= left <= 24
        window = batch.mask[row, top : top + 64, left : left + 96]
        assert torch.equal(found.region[row], torch.from_numpy(window.reshape(4, 16, 6, 16).any((1, 3))))

    alone = replace_rows(batch, 4)
    assert torch.equal(encode(alone, step=3).micro[0], found.micro[4])  # by key, not by place
    assert not torch.equal(encode(batch, step=4).micro, found.micro)


def replace_rows(batch: Pixels, row: int) -> Pixels:
    one = Pixels(batch.height, batch.width, 1, [batch.keys[row]])
    one.source, one.edited, one.mask = (a[row : row + 1] for a in (batch.source, batch.edited, batch.mask))
    return one


def test_sides_that_are_not_whole_tokens_are_refused(pipeline: EditMGTPipeline):
    with pytest.raises(ValueError, match="multiples of 16 pixels, not 72x64"):
        Encoder(pipeline.vq, pipeline.text)(Pixels(64, 72))


def test_an_unknown_mask_is_no_region(pipeline: EditMGTPipeline):
    batch = Pixels(64, 64)
    batch.mask = np.zeros_like(batch.mask)
    assert not Encoder(pipeline.vq, pipeline.text)(batch).region.any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_stored_examples_come_back_the_same(pipeline: EditMGTPipeline, side: str):
    pipeline.text.llm_tokenizer.padding_side = side
    pipeline.text.forget()
    found, empty = Encoder(pipeline.vq, pipeline.text)(Pixels(64, 96)), pipeline.text.encode([""])
    data = stored.to_bytes(found, empty)
    empty = stored.empty_from_bytes(stored.empty_to_bytes(empty))
    back = stored.from_bytes(found.keys, found.categories, data, empty, pipeline.vq.pixels)
    assert equal(back, found)
    assert data == stored.to_bytes(found, empty)
    rows = len(stored.load(data[0])["sequence"])
    # "do 0" is four bytes, and there is a begin and an end token; padding before them is as before the empty text.
    assert rows == (6 if side == "left" else 15)

    half = replace(found, sequence=found.sequence.bfloat16(), pooled=found.pooled.bfloat16())
    bf16 = TextFeatures(empty.sequence.bfloat16(), empty.pooled.bfloat16())
    assert equal(stored.from_bytes(found.keys, found.categories, stored.to_bytes(half, bf16), bf16, 16), half)


def test_an_instruction_that_is_empty_is_stored_too(pipeline: EditMGTPipeline):
    batch = Pixels(64, 64)
    batch.metas = [{"instruction": None}, {}]
    found, empty = Encoder(pipeline.vq, pipeline.text)(batch), pipeline.text.encode([""])
    assert torch.equal(found.sequence, empty.sequence.expand(2, -1, -1))
    data = stored.to_bytes(found, empty)
    assert equal(stored.from_bytes(found.keys, found.categories, data, empty, 16), found)


def test_what_is_not_a_tokenised_set_is_refused(pipeline: EditMGTPipeline):
    empty = pipeline.text.encode([""])
    encode = Encoder(pipeline.vq, pipeline.text)
    data = [stored.to_bytes(encode(Pixels(64, width)), empty)[0] for width in (64, 96)]
    with pytest.raises(ValueError, match="in one batch"):
        stored.from_bytes(["a", "b"], ["add", "add"], data, empty, 16)


def test_fingerprints_tell_tokenizers_apart():
    one, again, other = build(PRESET), build(PRESET), build(PRESET, seed=1)
    assert stored.fingerprint(one) == stored.fingerprint(again) != stored.fingerprint(other)
    with torch.no_grad():
        again.vq.model.quantize.embedding.weight[0, 0] += 1
    assert stored.fingerprint(one) != stored.fingerprint(again)


def test_a_batch_without_its_source_is_told_the_caption(pipeline: EditMGTPipeline):
    batch = Pixels(64, 96)
    batch.metas[0]["target_caption"] = "a red door"
    found = Encoder(pipeline.vq, pipeline.text, text_to_image=1.0)(batch)
    assert found.source is None
    told = pipeline.text.encode(["a red door", "do 1"])  # without a caption, the instruction
    assert torch.equal(found.sequence, told.sequence)
    some = Encoder(pipeline.vq, pipeline.text, text_to_image=0.5)
    alone = [some(Pixels(32, 32), step).source is None for step in range(40)]
    assert 8 < sum(alone) < 32
    assert alone == [some(Pixels(32, 32), step).source is None for step in range(40)]
