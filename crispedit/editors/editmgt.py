"""EditMGT as an editor: the model that this project trains carries out the jobs of its own pipeline.

Model: arXiv 2605.10859. The instruction is the job's; its plan and captions are not looked at. The true mask of an
edit is not known, so none is returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from crispedit import weights
from crispedit.parts import Editor
from crispedit.record import Edit, Image, Job, Refusal

if TYPE_CHECKING:
    from crispedit.editmgt.pipeline import EditMGTPipeline


class EditMGT(Editor):
    """Edits with a checkpoint in diffusers' layout: a folder, or a repository of the Hugging Face hub."""

    gpus: ClassVar[float] = 1.0

    model: str
    llm: str | None = None
    """Where the language model lies, if the checkpoint does not bring it."""
    steps: int = Field(36, ge=1)
    guidance: float = 6.0
    strength: float = Field(1.1, gt=0)
    temperature: float = Field(2.0, ge=0)
    """How freely tokens are chosen for keeping at the first step; 0 at the last."""
    token_temperature: float = Field(1.0, gt=0)
    """How freely each token is drawn: below 1, likely ones are favoured."""
    hold: float = Field(0.0, ge=0, le=1)
    negative: str = ""
    paste_untouched: bool = False
    """Put the source's own pixels back wherever the hold kept its tokens."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    """"auto" is the GPU if there is one, else the CPU. Not part of the identity, nor is `batch_size`."""
    batch_size: int = Field(1, ge=1)
    """Edits sampled at once. Noise does not depend on it, but rounding does, and may turn a token at more than 1."""

    _pipeline: EditMGTPipeline | None = PrivateAttr(None)

    def load(self) -> None:
        import torch

        from crispedit.editmgt.pipeline import EditMGTPipeline

        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._pipeline = EditMGTPipeline.from_pretrained(
            self.model, llm=self.llm, device=device, dtype=getattr(torch, self.dtype)
        )

    def identity(self) -> dict[str, Any]:
        """Options that matter, and the weights: a checkpoint that is trained further is another editor."""
        found = super().identity()
        for name in ("device", "batch_size"):
            del found["options"][name]
        folders = [self.model] if self.llm is None else [self.model, self.llm]
        return found | {
            "weights": [weights.digest(Path(folder)) for folder in folders if Path(folder).is_dir()]
        }

    def edit(
        self, sources: Sequence[Image], jobs: Sequence[Job], seeds: Sequence[int]
    ) -> list[Edit | Refusal]:
        if self._pipeline is None:
            self.load()
        assert self._pipeline is not None
        edits = self._pipeline(
            list(sources),
            [job.instruction for job in jobs],
            steps=self.steps,
            guidance=self.guidance,
            strength=self.strength,
            temperature=(self.temperature, 0.0),
            token_temperature=self.token_temperature,
            hold=self.hold,
            seed=list(seeds),
            negative=self.negative,
            paste_untouched=self.paste_untouched,
            batch_size=self.batch_size,
        )
        return [Edit(edit.image) for edit in edits]

    def __getstate__(self) -> dict[Any, Any]:
        """Without the weights: whoever unpickles this part loads its own."""
        state = dict(super().__getstate__())
        state["__pydantic_private__"] = {"_pipeline": None}
        return state
