"""Repairing: what a recipe's `edit.repair` and `edit.repair_drift` do to a candidate before it is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from crispedit import repair
from crispedit.bounds import Bound
from crispedit.pipelines.records import IN_PLACE
from crispedit.record import Image, Mask

if TYPE_CHECKING:
    from crispedit.pipelines.recipe import Recipe


@dataclass(frozen=True)
class RepairedEdit:
    """The images to store, and the columns of the table `edit` that record what was changed."""

    edited: Image
    mask: Mask | None
    source: Image | None
    """A new source, if both images were cropped to what they share."""
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class Repairing:
    """The repairs of a recipe. `motion` aligns a shifted or scaled edited image with its source and crops both to their
    overlap; `drift` removes the change of tone outside the edit."""

    motion: bool = False
    drift: bool = False
    tone_is_free: frozenset[str] = frozenset()
    """The categories whose edits change the tone of the whole image on purpose."""

    @classmethod
    def of(cls, recipe: Recipe) -> Repairing:
        free = {
            name for name, category in recipe.category_files.items() if category.bounds.get("exposure.drift") == Bound()
        }
        return cls(recipe.edit.repair, recipe.edit.repair_drift, frozenset(free))

    @property
    def options(self) -> dict[str, bool]:
        """The options that are part of a candidate's key: empty without a repair."""
        asked = {"repair": self.motion, "repair_drift": self.drift}
        return {name: True for name, on in asked.items() if on}

    def __bool__(self) -> bool:
        return self.motion or self.drift

    def __call__(self, source: Image, edited: Image, mask: Mask | None, category: str) -> RepairedEdit:
        """The edit, repaired if possible; `mask` has the source's or the edited image's size."""
        columns: dict[str, Any] = {}
        cropped = None
        if self.motion:
            columns["transform"] = IN_PLACE
            onto = None if mask is None else repair.resampled_mask(mask, source)
            laid = repair.to_overlap(source, edited, onto)
            if isinstance(laid, repair.Repaired):
                edited, mask = laid.edited, laid.mask
                columns["transform"] = json.dumps([[round(value, 6) for value in line] for line in laid.transform])
                if laid.source.shape != source.shape:
                    source = cropped = laid.source
        if self.drift and category not in self.tone_is_free and source.shape == edited.shape:
            onto = None if mask is None else repair.resampled_mask(mask, source)
            if (restored := repair.without_drift(source, edited, onto)) is not None:
                edited, drift = restored
                columns["drift"] = json.dumps(
                    {name: [round(value, 6) for value in values] for name, values in asdict(drift).items()}
                )
        return RepairedEdit(edited, mask, cropped, columns)


NO_REPAIR = Repairing()
