"""Sampling options: how EditMGT turns masked tokens into an edit. A checkpoint carries its own; callers change them.

Defaults are those of the released pipeline (arXiv 2605.10859): 36 steps, guidance 6, reference strength 1.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Schedule = Literal["cosine", "linear"]
Speed = Literal["exact", "fast", "faster"]


class SamplingOptions(BaseModel):
    """Options of the sampler. `over` replaces only those fields of another set that were given explicitly."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    steps: int = Field(36, ge=1)
    """Passes of the model; each fixes some of the tokens."""
    guidance: float = 6.0
    """Scale of classifier-free guidance; 1 turns it off, which halves the work."""
    reference_strength: float = Field(1.1, gt=0)
    """Attention weight of the source: above 1, the edit stays closer to it."""
    hold: float = Field(0.0, ge=0, le=1)
    """Tokens to which the instruction attends less than this keep the source's value; 0 is off."""
    hold_peak: float = Field(0.0, ge=0)
    """Where attention peaks below this many times its mean, the edit is of most of the image, such as a new style: a
    hold then keeps what gets less than `hold` / 0.45 of the mean attention. 0 is off, as released."""
    negative: str = ""
    """Negative prompt: what the edit should not show."""
    paste_untouched: bool = False
    """Restore the source's pixels wherever a hold or a mask kept its tokens."""
    temperature: tuple[float, float] | float = (2.0, 0.0)
    """Temperature of the noise on the order in which tokens are fixed, at the first and last step; from a single number
    it falls to 0.01."""
    token_temperature: float = Field(1.0, gt=0)
    """Temperature at which tokens are drawn; below 1, likely tokens are favoured, which suits small models."""
    schedule: Schedule = "cosine"
    """How the share of masked tokens falls over the steps."""
    speed: Speed = "exact"
    """fast, faster: reuse results that hardly change between steps, and take fewer steps where little is edited; the
    edit differs a little."""

    def over(self, base: SamplingOptions) -> SamplingOptions:
        """`base`, with the fields that were given explicitly in these options."""
        return base.changed(**self.model_dump(include=SamplingOptions.model_fields.keys() & self.model_fields_set))

    def changed(self, **changes: Any) -> SamplingOptions:
        """These options with changes. ValueError names what is wrong, and the choices."""
        return sampling_options({**self.model_dump(), **changes})


RELEASED = SamplingOptions()


def sampling_options(values: Mapping[str, Any]) -> SamplingOptions:
    """The options of a mapping, such as a checkpoint's. ValueError names what is wrong, and the choices."""
    try:
        return SamplingOptions(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'][:1]))}: {e['msg']}" for e in error.errors())
        choices = ", ".join(SamplingOptions.model_fields)
        raise ValueError(f"sampling options: {problems} (choose from {choices})") from None
