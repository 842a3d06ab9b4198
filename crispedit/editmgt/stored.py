"""Stored examples: a pair's tokens and text features as safetensors bytes, and back to the same tensors.

Only the rows of the sequence that differ from the empty instruction's are stored. With a language model that pads on
the left, padding has the same features for every instruction and is not stored; with padding on the right, all rows
are.
"""

from collections.abc import Sequence

import torch
from safetensors.torch import load, save

from crispedit.editmgt.examples import Examples
from crispedit.editmgt.pipeline import SCORE, EditMGTPipeline
from crispedit.editmgt.text import TextFeatures
from crispedit.record import content_key

EMPTY = "empty.safetensors"  # the file of a tokenised set that holds the empty instruction's features

TOKENS, OTHERS = ("source", "edited"), ("region", "pooled")
"""The fields of examples that are stored as they are; tokens as int32."""
SAMPLED = 4096  # values of each tensor in a fingerprint; training changes every tensor, so a sample is enough


def to_bytes(examples: Examples, empty: TextFeatures) -> list[bytes]:
    """The bytes of each example."""
    assert examples.source is not None
    stored = []
    for row, sequence in enumerate(examples.sequence):
        differing = (sequence != empty.sequence[0]).any(1).nonzero()[:, 0]
        first, last = (int(differing[0]), int(differing[-1]) + 1) if len(differing) else (0, 0)
        tensors = {name: getattr(examples, name)[row] for name in TOKENS + OTHERS}
        tensors |= {name: tensors[name].int() for name in TOKENS}
        tensors |= {"sequence": sequence[first:last], "first": torch.tensor(first, dtype=torch.int32)}
        stored.append(save({name: value.cpu().contiguous() for name, value in tensors.items()}))
    return stored


def from_bytes(
    keys: Sequence[str], categories: Sequence[str], stored: Sequence[bytes], empty: TextFeatures, pixels: int
) -> Examples:
    """The examples of a batch, on the CPU. pixels: side of a token. ValueError if their sizes differ."""
    loaded = [load(data) for data in stored]
    grids = {tuple(tensors["edited"].shape) for tensors in loaded}
    if len(grids) > 1:
        raise ValueError(f"examples of {sorted(grids)} tokens in one batch: tokenise with this recipe's buckets")
    ((rows, columns),) = grids
    sequence = empty.sequence.expand(len(loaded), -1, -1).clone()
    for row, tensors in zip(sequence, loaded, strict=True):
        first = int(tensors["first"])
        row[first : first + len(tensors["sequence"])] = tensors["sequence"]
    stacked = {name: torch.stack([tensors[name] for tensors in loaded]) for name in TOKENS + OTHERS}
    stacked |= {name: stacked[name].long() for name in TOKENS}
    micro = torch.tensor([columns * pixels, rows * pixels, 0.0, 0.0, SCORE]).repeat(len(loaded), 1)
    return Examples(list(keys), list(categories), **stacked, sequence=sequence, micro=micro)


def empty_to_bytes(empty: TextFeatures) -> bytes:
    """The empty instruction's features, which are stored beside the shards as `EMPTY`."""
    return save({name: value.cpu().contiguous() for name, value in vars(empty).items()})


def empty_from_bytes(data: bytes) -> TextFeatures:
    return TextFeatures(**load(data))


def fingerprint(pipeline: EditMGTPipeline) -> str:
    """32 hex digits that identify the image tokenizer and the text encoders, on which stored examples depend."""
    parts: list[str | bytes] = [str(pipeline.text.llm_tokens)]
    for module in (pipeline.vq.model, pipeline.text.clip, pipeline.text.llm):
        for name, value in sorted(({} if module is None else module.state_dict()).items()):
            sampled = value.detach().flatten()[:SAMPLED].float().cpu().numpy().tobytes()
            parts += [name, str(tuple(value.shape)), sampled]
    return content_key(*parts)
