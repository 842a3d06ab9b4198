"""Bounds: the deciding half of "measure, then decide". A bound is a closed interval that a score must lie in."""

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from crispedit.record import Score


class Bound(BaseModel):
    """`min <= score <= max`; a null side has no limit. An unknown (null) score passes; it is counted separately."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing could pass")
        return self

    def verdict(self, score: Score) -> str | None:
        """None if the score passes, else the side it fell off: "low" or "high". ValueError for NaN."""
        if score is None:
            return None
        if math.isnan(score):
            raise ValueError("a score is NaN; a filter must return None for what it cannot know")
        if self.min is not None and score < self.min:
            return "low"
        if self.max is not None and score > self.max:
            return "high"
        return None


def at_least(**limits: float) -> dict[str, Bound]:
    """Bounds with only a lower limit, by score."""
    return {name: Bound(min=limit) for name, limit in limits.items()}


def at_most(**limits: float) -> dict[str, Bound]:
    """Bounds with only an upper limit, by score."""
    return {name: Bound(max=limit) for name, limit in limits.items()}
