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
    """Every choice of the sampler. Only the fields that were given explicitly replace another set's: see `over`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    steps: int = Field(36, ge=1)
    """Passes of the model; each decides some of the tokens."""
    guidance: float = 6.0
    """Classifier-free guidance; 1 is off, and halves the work."""
    reference_strength: float = Field(1.1, gt=0)
    """Attention weight of the source: above 1, the edit stays closer to it."""
    hold: float = Field(0.0, ge=0, le=1)
    """Tokens that the instruction attends to less than this keep the source's; 0 is off."""
    negative: str = ""
    """What the edit should not show: the text of the unconditional half."""
    paste_untouched: bool = False
    """Put the source's own pixels back wherever a hold or a mask kept its tokens."""
    temperature: tuple[float, float] | float = (2.0, 0.0)
    """Of the noise on the order in which tokens are kept, from first to last step; a number falls to 0.01."""
    token_temperature: float = Field(1.0, gt=0)
    """Of the draw of each token; below 1, likely tokens are favoured, which suits small models."""
    schedule: Schedule = "cosine"
    """How the share of masked tokens falls over the steps."""
    speed: Speed = "exact"
    """fast, faster: reuse what hardly changes from step to step, which changes the edit a little."""

    def over(self, base: SamplingOptions) -> SamplingOptions:
        """`base`, with the fields that were given here explicitly."""
        given = SamplingOptions.model_fields.keys() & self.model_fields_set
        return base.changed(**{name: getattr(self, name) for name in sorted(given)})

    def changed(self, **changes: Any) -> SamplingOptions:
        """These options with others in place. ValueError names what is wrong, and the choices."""
        return sampling_options({**self.model_dump(), **changes})


RELEASED = SamplingOptions()


def sampling_options(values: Mapping[str, Any]) -> SamplingOptions:
    """The options of a mapping, such as a checkpoint's. ValueError names what is wrong, and the choices."""
    known = {name: value for name, value in values.items() if value is not None}
    try:
        return SamplingOptions(**known)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'][:1]))}: {e['msg']}" for e in error.errors())
        choices = ", ".join(SamplingOptions.model_fields)
        raise ValueError(f"sampling options: {problems} (choose from {choices})") from None
