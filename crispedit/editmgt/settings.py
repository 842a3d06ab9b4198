"""The trainer's sections of a training recipe: objective, optimiser, LoRA, savepoints, logging."""

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
    """Loss weight of edited tokens, where the mask is known; other tokens have weight 1."""
    localise: float = Field(0.0, ge=0)
    """Weight of a second loss, per pair: the cross entropy between the mask and where the instruction looks (the map
    that a hold goes by). Not in the paper: a large model may learn to look by itself, a small one needs telling."""
    region_only: float = Field(0.0, ge=0, le=1)
    """The chance that only edited tokens are masked and all others known, as when sampling with a mask."""
    text_to_image: float = Field(0.0, ge=0, le=1)
    """The chance that a batch is trained without its source: the edited image from its caption alone, as the released
    code trains without `train_edit_model`. A pair without a target caption uses its instruction."""


class Optimiser(Strict):
    """AdamW. Norms, biases and embeddings are not decayed."""

    rate: float = Field(1e-4, gt=0)
    bits: Literal[8, 32] = 32
    """8: bitsandbytes' AdamW8bit, a quarter of the memory for the moments (arXiv 2110.02861). Not with sharding."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up, at most a tenth of the run."""
    schedule: Literal["constant", "cosine"] = "constant"
    """The rate after the warm-up; "cosine" falls to a tenth of it at the last step."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(10.0, gt=0)
    """Maximum norm of the gradient; a larger one is scaled down."""


class Lora(Strict):
    """Low-rank adapters (arXiv 2106.09685) in place of the full weights."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0", "proj_mlp", "proj_out")
    """The adapted layers, as suffixes of their names."""


class Save(Strict):
    """Savepoints, from which a run resumes."""

    every: int = Field(1000, ge=1)
    """Steps between savepoints."""
    keep: int = Field(3, ge=1)
    """Number of savepoints to keep."""


class Watch(Strict):
    """Logs, samples and measurements."""

    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    log_every: int = Field(10, ge=1)
    """Steps between points in the tracker, the first at step 1; `metrics.jsonl` has every step."""
    sample_every: int = Field(500, ge=1)
    """Steps between sheets of sample edits and held-out measurements. The first come with the first savepoint."""
    samples: int = Field(4, ge=0)
    """Pairs that are edited: the rows of a sheet, and the basis of its measurements."""
    held_out_pairs: int = Field(32, ge=1)
    """Held-out pairs whose loss is measured."""
    sampling_steps: int = Field(12, ge=1)


class Training(Strict):
    """The trainer's settings, independent of the model and the source of its pairs."""

    run: Path
    """The folder for metrics, savepoints, samples and the finished model. An existing run is resumed."""
    seed: int = 0
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    """Pairs of one forward pass in one process."""
    global_batch: int = Field(ge=1)
    """Pairs of one step, over all processes; each accumulates global_batch / batch / processes batches. So a recipe
    gives the same loss curve on any number of processes."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast; weights, optimiser and EMA stay fp32."""
    sharding: Literal["none", "full"] = "none"
    """With several processes: none: each holds the full model (DDP); full: each holds a shard of it (FSDP2)."""
    compile: bool = False
    """Compile the model with torch.compile, one graph for all image sizes. The first steps take minutes."""
    gradient_checkpointing: bool = False
    """Recompute a block's activations in the backward pass: a third more work, a fraction of the memory."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of the averaged weights, which are then used for samples and exported."""
    lora: Lora | None = None
    trainable: tuple[str, ...] = ("",)
    """Prefixes of the names of trained parameters. With `lora`, only the adapters are trained."""
    objective: Objective = Objective()
    optimiser: Optimiser = Optimiser()
    save: Save = Save()
    watch: Watch = Watch()
    max_skipped: int = Field(10, ge=0)
    """Steps whose loss or gradient is not finite are skipped; more than this many in a row end the run."""

    @model_validator(mode="after")
    def _divisible(self) -> Training:
        if self.global_batch % self.batch:
            raise ValueError(f"global_batch {self.global_batch} must be a multiple of batch {self.batch}")
        if self.optimiser.bits == 8 and self.sharding == "full":
            raise ValueError("optimiser.bits: 8-bit moments cannot be sharded; use 32, or `sharding: none`")
        if self.compile and self.sharding == "full":
            raise ValueError("compile: a sharded model cannot be compiled; remove `compile`, or use `sharding: none`")
        return self
