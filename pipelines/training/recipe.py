"""The recipe of a training run: the trainer's settings, the model and the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from crispedit import recipe
from crispedit.editmgt.settings import Training
from crispedit.recipe import Strict


def _weighted(value: object) -> object:
    """Paths with their weights; 1 if none is given."""
    paths = [value] if isinstance(value, str) else value
    return dict.fromkeys(paths, 1.0) if isinstance(paths, list | tuple) else paths


class Model(Strict):
    """Where training begins."""

    start: str
    """A preset with fresh weights (`editmgt-tiny`), or a checkpoint: a folder in diffusers' layout, or a hub name."""
    llm: str | None = None
    """The language model, if the checkpoint does not include it."""
    connector: Literal["linear", "mlp", "fmlp"] | None = None
    """Give a checkpoint that has none (Meissonic) a fresh connector to `llm`."""
    text_precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the text encoders; stored features have their own."""


class Data(Strict):
    """The training pairs and their size."""

    shards: Annotated[dict[str, float], BeforeValidator(_weighted)] = Field(min_length=1)
    """Shard sets or tars, of images or (`crispedit tokenize`) of tokens: one path, a list, or a mixture: paths with the
    number of times that a pair is used in an epoch."""
    held_out: str | Annotated[int, Field(ge=0)] = 32
    """Held-out pairs for measurements: a separate shard set (of other photographs, to be strict), or this many pairs of
    `shards` (at most a tenth), chosen by key. 0: none; samples are then training pairs."""
    resolution: int = Field(1024, ge=16)
    """Images are scaled to about the square of this in pixels, in the bucket with the nearest aspect."""
    multiple_px: int = Field(64, ge=8)
    """The buckets' sides are multiples of this."""
    max_aspect: float = Field(2.0, ge=1)
    crop: float = Field(1.0, ge=1)
    """Above 1, images are enlarged by this factor and a random window is cropped, the same from source, edit and mask;
    the model is told which."""
    categories: tuple[str, ...] | None = None
    weights: dict[str, float] = {}
    """The number of times that a pair of a category is used in an epoch; 1 by default."""
    window_shards: int = Field(16, ge=1)
    """The number of shards whose pairs are shuffled together."""
    workers: int = Field(2, ge=0)
    """Decoding processes per training process; 0: none."""


class RayTrain(Strict):
    """Training on Ray instead of under torchrun: Ray Train starts the processes."""

    workers: int = Field(1, ge=1)
    gpus: float = Field(1, ge=0)
    """GPUs per worker."""
    cpus: float = Field(8, gt=0)
    """CPUs per worker: one for itself and one for each of `data.workers`."""
    address: str | None = None
    """The cluster; null: RAY_ADDRESS, else a new one."""


class TrainRecipe(Training):
    """The recipe of a training run; `configs/train/tiny.yaml` is an example."""

    model: Model
    data: Data
    ray: RayTrain | None = None
    """null: this process, or those that torchrun or accelerate launch has started."""

    @model_validator(mode="after")
    def _fits(self) -> TrainRecipe:
        if self.data.crop > 1 and self.data.resolution * self.data.crop > 16384:
            raise ValueError(f"data.crop {self.data.crop} makes images of more than 16384 pixels a side")
        return self


def load(path: str, overrides: Sequence[str] = ()) -> TrainRecipe:
    """The recipe in a file, in a run's folder (its `recipe.yaml`), or a shipped one by its name in configs/train/.

    `shards=` is short for `data.shards=`.
    """
    overrides = [f"data.{text}" if text.startswith("shards=") else text for text in overrides]
    if (Path(path) / "recipe.yaml").is_file():
        return recipe.load(TrainRecipe, Path(path) / "recipe.yaml", overrides)
    return recipe.by_name(TrainRecipe, path, overrides, "train")
