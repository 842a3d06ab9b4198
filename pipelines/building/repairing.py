"""Repairing: what a recipe's `edit.repair` and `edit.repair_drift` do to an edit, and how an edit is stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from crispedit import images, repair
from crispedit.bounds import Bound
from crispedit.pipelines.records import IN_PLACE
from crispedit.record import Edit, Image

if TYPE_CHECKING:
    from crispedit.pipelines.recipe import Recipe


@dataclass(frozen=True)
class Repairing:
    """The repairs of a recipe. `motion` aligns a shifted or scaled edited image with its source and crops both to their
    overlap; `drift` removes the change of tone outside the edit."""

    jpeg_quality: int = 95
    motion: bool = False
    drift: bool = False
    tone_is_free: frozenset[str] = frozenset()
    """The categories whose edits change the tone of the whole image on purpose."""

    @classmethod
    def of(cls, recipe: Recipe) -> Repairing:
        edit, files = recipe.edit, recipe.category_files.items()
        free = {name for name, category in files if category.bounds.get("exposure.drift") == Bound()}
        return cls(edit.jpeg_quality, edit.repair, edit.repair_drift, frozenset(free))

    @property
    def options(self) -> dict[str, bool]:
        """The options that are part of a candidate's key: empty without a repair."""
        return {name: True for name, on in (("repair", self.motion), ("repair_drift", self.drift)) if on}

    def stored(self, edit: Edit, photograph: Image, category: str) -> dict[str, Any]:
        """The columns of the table `edit` for an edit, repaired if possible. Its mask may have the size of its source
        or of its edited image."""
        edited, mask, source = edit.edited, edit.mask, edit.source
        onto = photograph if source is None else source
        columns: dict[str, Any] = {"cost": edit.cost}
        if self.motion:
            columns["transform"] = IN_PLACE
            laid = repair.to_overlap(onto, edited, None if mask is None else repair.resampled_mask(mask, onto))
            if isinstance(laid, repair.Repaired):
                edited, mask = laid.edited, laid.mask
                columns["transform"] = json.dumps([_rounded(line) for line in laid.transform])
                if laid.source.shape != onto.shape:
                    onto = source = laid.source
        if self.drift and category not in self.tone_is_free and onto.shape == edited.shape:
            known = None if mask is None else repair.resampled_mask(mask, onto)
            if (restored := repair.without_drift(onto, edited, known)) is not None:
                edited, drift = restored
                columns["drift"] = json.dumps({name: _rounded(values) for name, values in asdict(drift).items()})
        height, width = edited.shape[:2]
        return {
            **columns,
            "width": width,
            "height": height,
            "edited": images.encode_jpeg(edited, self.jpeg_quality),
            "mask": None if mask is None else images.encode_mask(repair.resampled_mask(mask, edited)),
            "source": None if source is None else images.encode_jpeg(source, self.jpeg_quality),
        }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 6) for value in values]
