"""Savepoints: all that a training run needs to resume, as folders that appear complete or not at all.

    step-00001000/
      weights.safetensors     what is trained, by name
      optimizer.safetensors   AdamW's state of each of them
      ema.safetensors         the averages, if there are any
      state.json              step, names of the files, reader state, counters

A folder is written under a temporary name, every file and the folder synced, and renamed; one that a disk has cut off
all the same is noticed before anything of it is used. Tensors are whole, whatever the sharding, so a savepoint of one
process can be gone on with by eight, and one of DDP by FSDP2. No random state is kept: every draw of training
depends only on (seed, step, sample).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from crispedit.editmgt.ema import EMA

FOLDER = "savepoints"
"""In a run's folder."""
WEIGHTS, OPTIMIZER, AVERAGES = "weights.safetensors", "optimizer.safetensors", "ema.safetensors"
STATE = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq")
ASIDE = "torn-"
"""Before the name of a savepoint that could not be read."""


class TornError(ValueError):
    """A savepoint with a missing or truncated file."""


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor on the CPU, gathered from its shards. Every process must call it."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu().contiguous()


@torch.no_grad()
def assign(to: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one that may be sharded."""
    if isinstance(to, DTensor):
        value = distribute_tensor(value.to(to.device), to.device_mesh, to.placements, src_data_rank=None)
    to.copy_(value)


def gather(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """The whole tensors, by name. Every process must call it; only one that is to keep them gets them, so that the
    host's memory holds them once and not once a process."""
    kept = {}
    for name, tensor in tensors.items():
        if keep:
            kept[name] = whole(tensor).clone()  # 8-bit moments share their tables
        elif isinstance(tensor, DTensor):
            tensor.full_tensor()
    return kept


def files(
    weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, ema: EMA | None, keep: bool = True
) -> dict[str, dict[str, Tensor]]:
    """The files of a savepoint, of the process that is to `keep` them. Every process must call it."""
    moments = {
        f"{kind}/{name}": torch.as_tensor(value)
        for name, weight in weights.items()
        for kind, value in optimizer.state.get(weight, {}).items()
    }
    gathered = {WEIGHTS: gather(weights, keep), OPTIMIZER: gather(moments, keep)}
    if ema is not None:
        gathered[AVERAGES] = gather(ema.weights, keep)
    return gathered


def write(
    folder: Path, step: int, files: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> Path:
    """Write the savepoint of a step into the run's savepoint folder; called by one process."""
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.{uuid4().hex}.tmp"
    temporary.mkdir(parents=True)
    for name, tensors in files.items():
        save_file(dict(tensors), temporary / name)
    text = json.dumps({"step": step, "files": sorted(files), **state}, indent=1)
    (temporary / STATE).write_text(f"{text}\n")
    for path in [*temporary.iterdir(), temporary]:
        _sync(path)
    if final.exists():
        _remove(final)
    os.replace(temporary, final)
    _sync(folder)
    return final


def found(folder: Path) -> list[Path]:
    """All savepoints in order of steps, readable or not."""
    return sorted(folder.glob("step-*"))


def sweep(folder: Path, keep: int) -> None:
    """Remove all but the last `keep`, and what a crash left half-written."""
    for path in [*found(folder)[:-keep], *folder.glob(".step-*.tmp")]:
        _remove(path)


def set_aside(savepoint: Path) -> None:
    """Rename an unreadable savepoint, for a person to look at."""
    aside = savepoint.with_name(f"{ASIDE}{savepoint.name}")
    if aside.exists():
        _remove(aside)
    os.replace(savepoint, aside)


def read_state(savepoint: Path) -> dict[str, Any]:
    """What `write` was given, the step and the names of the files. TornError if it cannot be read."""
    try:
        state: dict[str, Any] = json.loads((savepoint / STATE).read_text())
    except (OSError, ValueError) as error:
        raise TornError(f"{savepoint / STATE}: {error}") from error
    return state


def _read(savepoint: Path, state: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """All its files. TornError if one is missing or truncated."""
    there = {path.name for path in savepoint.glob("*.safetensors")}
    files = {}
    for name in {WEIGHTS, OPTIMIZER, *state.get("files", there)}:
        try:
            files[name] = load_file(savepoint / name)
        except (OSError, SafetensorError) as error:
            raise TornError(f"{savepoint / name}: {error}") from error
    return files


def restore(
    savepoint: Path, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, ema: EMA | None
) -> dict[str, Any]:
    """Restore the tensors of a savepoint and return its state. Nothing changes unless all of it can be read.

    TornError if it cannot be read; ValueError if it is of another model, or has no averages although the run keeps
    some.
    """
    state = read_state(savepoint)
    files = _read(savepoint, state)
    saved, optimised = files[WEIGHTS], _by_weight(files[OPTIMIZER])
    if saved.keys() != weights.keys():
        name = sorted(saved.keys() ^ weights.keys())[0]
        raise ValueError(
            f"{savepoint} is of a run that trained something else: {name}; use another run folder"
        )
    for name, weight in weights.items():
        if saved[name].shape != weight.shape:
            raise ValueError(f"{savepoint}: {name} is {tuple(saved[name].shape)}, not {tuple(weight.shape)}")
    if ema is not None and AVERAGES not in files:
        raise ValueError(f"{savepoint} has no averaged weights: it was trained without ema")
    eight_bit = any("state1" in kinds for kinds in optimised.values())
    if optimised and eight_bit == isinstance(optimizer, torch.optim.AdamW):
        raise ValueError(
            f"{savepoint} was trained with other `optimiser.bits`; keep them, or use another run folder"
        )
    for name, weight in weights.items():
        assign(weight, saved[name])
        if kinds := optimised.get(name):
            optimizer.state[weight] = (
                _eight_bit(kinds, weight) if eight_bit else _adamw(kinds, weight, optimizer)
            )
    if ema is not None:
        for name, average in ema.weights.items():
            assign(average, files[AVERAGES][name])
    return state


def _by_weight(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """An optimiser's tensors, {weight: {kind: tensor}}, from their names "kind/weight"."""
    out: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, weight = name.split("/", 1)
        out.setdefault(weight, {})[kind] = tensor
    return out


def _adamw(
    kinds: Mapping[str, Tensor], weight: Tensor, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """torch's AdamW's state of a weight, which may be sharded."""
    state = {kind: torch.zeros_like(weight, requires_grad=False) for kind in MOMENTS}
    for kind in MOMENTS:
        assign(state[kind], kinds[kind])
    state["step"] = kinds["step"].to(weight.device if optimizer.defaults.get("fused") else "cpu")
    return state


def _eight_bit(kinds: Mapping[str, Tensor], weight: Tensor) -> dict[str, Any]:
    """bitsandbytes' state of a weight: quantised moments, their tables and scales, and a plain number of steps."""
    tensors = {kind: tensor.to(weight.device) for kind, tensor in kinds.items() if kind != "step"}
    return {**tensors, "step": int(kinds["step"])}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Rename first, so that a half-removed savepoint is never taken for a complete one."""
    gone = folder if folder.name.startswith(".") else folder.with_name(f".{folder.name}.{uuid4().hex}.tmp")
    if gone != folder:
        os.replace(folder, gone)
    shutil.rmtree(gone)
