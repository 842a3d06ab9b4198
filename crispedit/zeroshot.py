"""Zero-shot classification of edit instructions by a CLIP text tower: the category whose description lies nearest.

For sets of categories that `crispedit.classifier` does not know: any category with a definition can be told from the
others. CLIP's texts describe pictures, not orders, so for the seven the trained classifier is the better reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from crispedit.category import Category
from crispedit.classifier import Classification
from crispedit.clip import Clip


class ZeroShot:
    """Reads instructions with a loaded model; a category is the mean of its definition and its aliases."""

    def __init__(self, clip: Clip, categories: Mapping[str, Category]) -> None:
        if len(categories) < 2:
            raise ValueError("zero-shot classification needs at least two categories to choose from")
        self._clip = clip
        self._names = sorted(categories)
        means = [clip.texts(_descriptions(categories[name])).mean(0) for name in self._names]
        self._prototypes_CD = torch.nn.functional.normalize(torch.stack(means), dim=-1)
        self._scale = float(clip.network.logit_scale.detach().exp())

    def classify(self, instructions: Sequence[str]) -> list[Classification]:
        """One answer per instruction, in order; scores are a softmax at the model's own temperature."""
        return [self._classify(embedding_D) for embedding_D in self._clip.texts(instructions)]

    def _classify(self, embedding_D: torch.Tensor) -> Classification:
        scores_C = (self._scale * (self._prototypes_CD @ embedding_D)).softmax(-1)
        (top, next_), (best, second) = (values.tolist() for values in scores_C.topk(2))
        return Classification(self._names[best], top, self._names[second], next_)


def _descriptions(category: Category) -> list[str]:
    sentences = [sentence.strip() for sentence in category.definition.split(".") if sentence.strip()]
    return [category.name, sentences[0], *category.aliases]
