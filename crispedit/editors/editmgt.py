"""EditMGT, the model that this project trains, as an editor.

Model: arXiv 2605.10859. It uses the job's instruction, not its plan or captions. It does not know the true mask of an
edit, so it returns none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from crispedit import weights
from crispedit.editmgt.options import SamplingOptions
from crispedit.parts import Edit, Editor, Image, Job, Refusal

if TYPE_CHECKING:
    from crispedit.editmgt.pipeline import EditMGTPipeline


class EditMGT(Editor, SamplingOptions):
    """Edits with a checkpoint. Sampling options that a recipe leaves out are the checkpoint's own."""

    gpus: ClassVar[float] = 1.0
    incidental: ClassVar[frozenset[str]] = frozenset({"device", "batch_size"})

    model: str
    """A folder in diffusers' layout, a shipped model ("editmgt-tiny"), or a repository of the Hugging Face hub."""
    llm: str | None = None
    """The language model, if the checkpoint does not include it."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """null: bfloat16 on a GPU, float32 elsewhere."""
    device: str = "auto"
    """"auto" is the GPU if there is one, else the CPU."""
    batch_size: int = Field(1, ge=1)
    """Edits sampled at once. Above 1, rounding may change a token now and then; noise does not depend on it."""

    _pipeline: EditMGTPipeline | None = PrivateAttr(None)

    def load(self) -> None:
        from crispedit.editmgt.pipeline import EditMGTPipeline

        self._pipeline = EditMGTPipeline.from_pretrained(self.model, llm=self.llm, device=self.device, dtype=self.dtype)

    def identity(self) -> dict[str, Any]:
        """The options, the weights and the checkpoint's own options: a checkpoint that is trained further is another
        editor."""
        identity = super().identity()
        for name in SamplingOptions.model_fields.keys() - self.model_fields_set:
            del identity["options"][name]
        folders = [weights.local(model) for model in (self.model, self.llm) if model is not None]
        return identity | {"weights": [weights.digest(folder) for folder in folders if folder is not None]}

    def edit(self, sources: Sequence[Image], jobs: Sequence[Job], seeds: Sequence[int]) -> list[Edit | Refusal]:
        if self._pipeline is None:
            self.load()
        assert self._pipeline is not None
        instructions, options = [job.instruction for job in jobs], self.over(self._pipeline.sampling)
        edits = self._pipeline(sources, instructions, options, seed=seeds, batch_size=self.batch_size)
        return [Edit(edit.image) for edit in edits]
