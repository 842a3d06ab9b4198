"""The recipe of a training run: the trainer's own settings, and which model learns from which pairs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from crispedit import recipe
from crispedit.editmgt.settings import Training
from crispedit.recipe import Strict


def _weighted(value: object) -> object:
    """One path, or several, each with its weight: 1 where none is given."""
    paths = [value] if isinstance(value, str) else value
    return dict.fromkeys(paths, 1.0) if isinstance(paths, list | tuple) else paths


class Model(Strict):
    """Where training begins."""

    start: str
    """A preset with fresh weights (`editmgt-tiny`), or a checkpoint: a folder in diffusers' layout, or a hub name."""
    llm: str | None = None
    """The language model, if the checkpoint does not bring it."""
    connector: Literal["linear", "mlp", "fmlp"] | None = None
    """Give a checkpoint that has none (Meissonic) a fresh connector to `llm`."""
    text_precision: Literal["fp32", "bf16"] = "fp32"
    """Of the text encoders while they run here; stored features have their own."""


class Data(Strict):
    """Which pairs are seen, and how large."""

    shards: Annotated[dict[str, float], BeforeValidator(_weighted)] = Field(min_length=1)
    """Shard sets or tars, of images or (`crispedit tokenize`) of tokens: one path, a list, or a mixture, each path with
    how often a pair of it comes in an epoch."""
    held_out: str | Annotated[int, Field(ge=0)] = 32
    """What is measured but not trained on: a shard set of its own (strict: of other photographs), or so many pairs of
    `shards` (a tenth at most), chosen by their keys. 0: nothing is; samples are then of pairs trained on."""
    resolution: int = Field(1024, ge=16)
    """Images are scaled to about its square in pixels, in the bucket of the nearest aspect."""
    multiple_px: int = Field(64, ge=8)
    """Sides of the buckets are multiples of it."""
    max_aspect: float = Field(2.0, ge=1)
    crop: float = Field(1.0, ge=1)
    """Above 1, images are scaled that much larger and a window is cut out at random: the same one of source, edit and
    mask, and the model is told which."""
    categories: tuple[str, ...] | None = None
    weights: dict[str, float] = {}
    """How often a pair of a category comes in an epoch; 1 where nothing is said."""
    window_shards: int = Field(16, ge=1)
    """Shards whose pairs are mixed with each other."""
    workers: int = Field(2, ge=0)
    """Processes that decode, for each process that trains; 0: none."""


class RayTrain(Strict):
    """Training on Ray instead of under torchrun: Ray Train starts the processes."""

    workers: int = Field(1, ge=1)
    gpus: float = Field(1, ge=0)
    """A worker."""
    cpus: float = Field(8, gt=0)
    """A worker; it needs one for itself and one for each of `data.workers`."""
    address: str | None = None
    """The cluster; null: RAY_ADDRESS, else one of our own."""


class TrainRecipe(Training):
    """One training run, whole: see `configs/train/tiny.yaml` for every key with its meaning."""

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
    """The recipe of a file, of a run's folder (its `recipe.yaml`), or one that ships (by its name in configs/train/).

    `run=` and `shards=` may stand for themselves and for `data.shards=`.
    """
    overrides = [f"data.{text}" if text.startswith("shards=") else text for text in overrides]
    file = Path(path)
    if file.is_dir():
        file = file / "recipe.yaml"
    shipped = resources.files("crispedit.configs") / "train" / f"{file.stem}.yaml"
    if not file.exists() and shipped.is_file():
        return recipe.parse(TrainRecipe, shipped.read_text(encoding="utf-8"), overrides, name=path)
    return recipe.load(TrainRecipe, file, overrides)
