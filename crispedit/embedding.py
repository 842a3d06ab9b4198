"""Embedding: items in batches of one fixed shape, and a cache of the latest embeddings. Imports torch only to embed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from crispedit.record import Image, Sample, content_key

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BATCH_GPU = 32
"""Batches have one fixed shape (one item on a CPU), so that no embedding depends on its neighbours in a batch."""


def embed(encode: Callable[[Tensor], Tensor], items: Sequence[Tensor], device: torch.device) -> Tensor:
    """[N, D] fp32 on the CPU: the embeddings of N items of one shape, in order."""
    import torch

    size = BATCH_GPU if device.type == "cuda" else 1
    embeddings = []
    with torch.inference_mode():
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            padded = torch.stack([*batch, *[torch.zeros_like(batch[0])] * (size - len(batch))])
            embeddings.append(encode(padded.to(device))[: len(batch)].float().cpu())
    return torch.cat(embeddings) if embeddings else torch.empty(0, 0)


REMEMBERED = 512
"""Embeddings kept from earlier batches: pairs of one photograph follow each other and share images and captions."""


class Remembered:
    """A cache of the most recent embeddings by key, so that what pairs share is embedded once.

    It changes no result: no embedding depends on its neighbours in a batch.
    """

    def __init__(self, embed: Callable[[list[Any]], Tensor], limit: int = REMEMBERED) -> None:
        self._embed = embed
        self._limit = limit
        self._known: dict[Any, Tensor] = {}

    def __call__(self, wanted: Mapping[Any, Callable[[], Any]]) -> dict[Any, Tensor]:
        """The [D] embedding for each key; a value is called only if its embedding is not cached."""
        new = [key for key in wanted if key not in self._known]
        self._known.update(zip(new, self._embed([wanted[key]() for key in new]), strict=True))
        embeddings = {key: self._known.pop(key) for key in wanted}
        self._known.update(embeddings)  # in order of last use
        while len(self._known) > self._limit:
            del self._known[next(iter(self._known))]
        return embeddings


def sides(sample: Sample) -> list[tuple[str, Callable[[], Image]]]:
    """The content key of a sample's source and, of a pair, of its edited image; and what decodes it."""
    jpegs = {"source": sample.source_jpeg, "edited": sample.edited_jpeg}
    return [
        (content_key("image", jpeg), partial(getattr, sample, side)) for side, jpeg in jpegs.items() if jpeg is not None
    ]
