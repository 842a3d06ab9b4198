"""Stored examples: a pair's tokens and text features as safetensors bytes, and back to the same tensors.

A language model that pads on the left gives its padding the same features whatever the instruction, so only the rows
of the sequence that differ from the empty instruction's are stored; those of one that pads on the right all do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors.torch import load, save
from torch import Tensor

from crispedit.editmgt.examples import Examples, Unconditional
from crispedit.editmgt.pipeline import SCORE, EditMGTPipeline
from crispedit.record import content_key

EMPTY = "empty.safetensors"
"""The file of a tokenised set that holds the empty instruction's features."""

SAMPLED = 4096
"""Values of each tensor that a fingerprint looks at: training moves every tensor."""


def to_bytes(examples: Examples, empty: Unconditional) -> list[bytes]:
    """The bytes of each example."""
    if examples.source is None:
        raise ValueError("examples without a source are made while training, never stored")
    stored = []
    for row in range(len(examples)):
        sequence = examples.sequence[row]
        places = (sequence != empty.sequence[0]).any(1).nonzero()[:, 0]
        first, last = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
        tensors = {
            "source": examples.source[row].int(),
            "edited": examples.edited[row].int(),
            "region": examples.region[row],
            "pooled": examples.pooled[row],
            "sequence": sequence[first:last],
            "first": torch.tensor(first, dtype=torch.int32),
        }
        stored.append(save({name: value.cpu().contiguous() for name, value in tensors.items()}))
    return stored


def from_bytes(
    keys: Sequence[str], categories: Sequence[str], stored: Sequence[bytes], empty: Unconditional, pixels: int
) -> Examples:
    """The examples of a batch, on the CPU. pixels: of a token's side. ValueError if their sizes differ."""
    found = [load(data) for data in stored]
    grids = {tuple(tensors["edited"].shape) for tensors in found}
    if len(grids) > 1:
        raise ValueError(
            f"examples of {sorted(grids)} tokens in one batch: tokenise with this recipe's buckets"
        )
    ((rows, columns),) = grids
    sequence = empty.sequence.expand(len(found), -1, -1).clone()
    for row, tensors in enumerate(found):
        first = int(tensors["first"])
        sequence[row, first : first + len(tensors["sequence"])] = tensors["sequence"]

    def all_of(name: str) -> Tensor:
        return torch.stack([tensors[name] for tensors in found])

    micro = torch.tensor([columns * pixels, rows * pixels, 0.0, 0.0, SCORE])
    return Examples(
        keys=list(keys),
        categories=list(categories),
        source=all_of("source").long(),
        edited=all_of("edited").long(),
        region=all_of("region"),
        sequence=sequence,
        pooled=all_of("pooled"),
        micro=micro.expand(len(found), -1).clone(),
    )


def empty_to_bytes(empty: Unconditional) -> bytes:
    """The empty instruction's features, which are stored beside the shards as `EMPTY`."""
    tensors = {"sequence": empty.sequence, "pooled": empty.pooled}
    return save({name: value.cpu().contiguous() for name, value in tensors.items()})


def empty_from_bytes(data: bytes) -> Unconditional:
    tensors = load(data)
    return Unconditional(tensors["sequence"], tensors["pooled"])


def fingerprint(pipeline: EditMGTPipeline) -> str:
    """32 hex digits of the image tokenizer and the text encoders: what stored examples depend on."""
    parts: list[str | bytes] = [str(pipeline.text.llm_tokens)]
    for module in (pipeline.vq.model, pipeline.text.clip, pipeline.text.llm):
        for name, value in sorted(({} if module is None else module.state_dict()).items()):
            sampled = value.detach().flatten()[:SAMPLED].float().cpu().numpy().tobytes()
            parts += [name, str(tuple(value.shape)), sampled]
    return content_key(*parts)
