"""The training recipe's sections that the trainer itself reads: objective, optimiser, LoRA, saving, watching."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from crispedit.recipe import Strict


class Objective(Strict):
    """The training objective: masked-token cross entropy (paper, section on training), and what we add to it."""

    drop_text: float = Field(0.1, ge=0, le=1)
    """The chance that a pair's instruction is replaced by the empty one, which guidance needs."""
    edit_weight: float = Field(1.0, gt=0)
    """How much an edited token (where the mask is known) counts, against 1 for the others."""
    localise: float = Field(0.0, ge=0)
    """Weight of a second loss, per pair: the cross entropy between the mask and where the instruction looks (the map
    that a hold goes by). Not in the paper: a large model may learn to look by itself, a small one needs telling."""
    region_only: float = Field(0.0, ge=0, le=1)
    """The chance that only edited tokens are masked and all others known, as when sampling with a mask."""
    text_to_image: float = Field(0.0, ge=0, le=1)
    """The chance that a batch is trained without its source: the edited image from its caption alone, as the released
    code trains without `train_edit_model`. Pairs without a target caption are told their instruction."""


class Optimiser(Strict):
    """AdamW. Norms, biases and embeddings are not decayed."""

    rate: float = Field(1e-4, gt=0)
    bits: Literal[8, 32] = 32
    """8: bitsandbytes' AdamW8bit, a quarter of the memory for the moments (arXiv 2110.02861). Not with sharding."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the rate rises, but never more than a tenth of the run, so that a short run gets warm too."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up; "cosine" falls to a tenth of the rate at the last step."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(10.0, gt=0)
    """Gradients of a greater norm are scaled down to it."""


class Lora(Strict):
    """Low-rank adapters (arXiv 2106.09685) in place of the full weights."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0", "proj_mlp", "proj_out")
    """Layers, by the end of their names."""


class Save(Strict):
    """Savepoints, from which a run resumes."""

    every: int = Field(1000, ge=1)
    """Steps."""
    keep: int = Field(3, ge=1)
    """How many of the last ones to keep."""


class Watch(Strict):
    """Logs, samples and measurements."""

    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    log_every: int = Field(10, ge=1)
    """Steps between points in the tracker, the first at step 1; `metrics.jsonl` has every step."""
    sample_every: int = Field(500, ge=1)
    """Steps between sheets of sample edits and held-out figures. The first are taken with the first savepoint."""
    samples: int = Field(4, ge=0)
    """Pairs that are edited: the rows of a sheet, and what the figures of edits are means over."""
    held_out_pairs: int = Field(32, ge=1)
    """Pairs whose loss is measured, of those held out."""
    sampling_steps: int = Field(12, ge=1)


class Training(Strict):
    """The trainer's settings, independent of the model and the source of its pairs."""

    run: Path
    """The folder for metrics, savepoints, samples and the finished model. An existing run is resumed."""
    seed: int = 0
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    """Pairs that one process carries through the model at once."""
    global_batch: int = Field(ge=1)
    """Pairs of one step, over all processes: each accumulates global_batch / batch / processes batches. So a recipe
    gives the same curve on any number of processes."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast; weights, optimiser and EMA stay fp32."""
    sharding: Literal["none", "full"] = "none"
    """Over several processes: a whole model in each (DDP), or each holding a share of it (FSDP2)."""
    compile: bool = False
    """Compile the model with torch.compile, one graph for all image sizes. The first steps take minutes."""
    gradient_checkpointing: bool = False
    """Recompute a block's activations when they are needed again: a third more work, a fraction of the memory."""
    ema: float | None = Field(None, gt=0, lt=1)
    """The decay of the averaged weights, which are then sampled from and exported."""
    lora: Lora | None = None
    trainable: tuple[str, ...] = ("",)
    """Only parameters whose names begin with one of these are trained. (With `lora`, only the adapters.)"""
    objective: Objective = Objective()
    optimiser: Optimiser = Optimiser()
    save: Save = Save()
    watch: Watch = Watch()
    max_skipped: int = Field(10, ge=0)
    """Steps with a loss or gradient that is not finite are skipped; more than this many in a row end the run."""

    @model_validator(mode="after")
    def _divisible(self) -> Training:
        if self.global_batch % self.batch:
            raise ValueError(f"global_batch {self.global_batch} must be a multiple of batch {self.batch}")
        if self.optimiser.bits == 8 and self.sharding == "full":
            raise ValueError("optimiser.bits: 8-bit moments cannot be sharded; use 32, or `sharding: none`")
        if self.compile and self.sharding == "full":
            raise ValueError(
                "compile: a sharded model is not compiled; leave it out, or use `sharding: none`"
            )
        return self
