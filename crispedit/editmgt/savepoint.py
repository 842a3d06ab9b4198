"""Savepoints: everything a training run needs to resume, in folders that appear complete or not at all.

    step-00001000/
      weights.safetensors     the trained weights, by name
      optimizer.safetensors   AdamW's state of each weight
      ema.safetensors         the averaged weights, with `ema`
      state.json              step, names of the files, reader state, counters

A folder is written under a temporary name, synced to disk, and renamed. A truncated file is detected before anything
is restored. Tensors are saved unsharded, so a run of one process resumes on eight, and a DDP run resumes with FSDP2. No
random state is saved: every draw of training depends only on (seed, step, sample).
"""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from crispedit.editmgt.optimiser import EMA

FOLDER = "savepoints"  # in a run's folder
WEIGHTS, OPTIMIZER, AVERAGES = "weights.safetensors", "optimizer.safetensors", "ema.safetensors"
STATE = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq")
ASIDE = "torn-"  # prefix of the folder of an unreadable savepoint


class TornError(ValueError):
    """A savepoint with a missing or truncated file."""


def unsharded(tensor: Tensor) -> Tensor:
    """The complete tensor on the CPU, gathered from its shards. Every process must call it."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu().contiguous()


@torch.no_grad()
def assign(to: Tensor, value: Tensor) -> None:
    """Copy a complete tensor into one that may be sharded."""
    if isinstance(to, DTensor):
        value = distribute_tensor(value.to(to.device), to.device_mesh, to.placements, src_data_rank=None)
    to.copy_(value)


def gather(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """The unsharded tensors, by name; empty unless `keep`. Every process must call it.

    One process per host should keep them, so that the host's memory holds them once.
    """
    gathered = {}
    for name, tensor in tensors.items():
        if keep:
            gathered[name] = unsharded(tensor).clone()  # 8-bit moments share their tables
        elif isinstance(tensor, DTensor):
            tensor.full_tensor()
    return gathered


def files(
    weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, ema: EMA | None, keep: bool = True
) -> dict[str, dict[str, Tensor]]:
    """The contents of a savepoint's files; empty unless `keep`. Every process must call it."""
    moments = {
        f"{kind}/{name}": torch.as_tensor(value)
        for name, weight in weights.items()
        for kind, value in optimizer.state.get(weight, {}).items()
    }
    gathered = {WEIGHTS: gather(weights, keep), OPTIMIZER: gather(moments, keep)}
    if ema is not None:
        gathered[AVERAGES] = gather(ema.weights, keep)
    return gathered


def write(folder: Path, step: int, files: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Write the savepoint of a step into the run's savepoint folder; called by one process."""
    final = folder / f"step-{step:08d}"
    temporary = _hidden(final)
    temporary.mkdir(parents=True)
    for name, tensors in files.items():
        save_file(dict(tensors), temporary / name)
    text = json.dumps({"step": step, "files": sorted(files), **state}, indent=1)
    (temporary / STATE).write_text(f"{text}\n")
    for path in [*temporary.iterdir(), temporary]:
        _sync(path)
    if final.exists():
        os.replace(final, _hidden(final))
    os.replace(temporary, final)
    _sync(folder)
    return final


def paths(folder: Path) -> list[Path]:
    """All savepoints in order of steps, readable or not."""
    return sorted(folder.glob("step-*"))


def sweep(folder: Path, keep: int) -> None:
    """Remove all but the last `keep` savepoints, and folders that a crash left half-written."""
    for path in paths(folder)[:-keep]:
        os.replace(path, _hidden(path))  # a half-removed savepoint is never taken for a complete one
    for path in folder.glob(".step-*.tmp"):
        shutil.rmtree(path)


def set_aside(savepoint: Path) -> None:
    """Rename an unreadable savepoint, so that a person can inspect it."""
    aside = savepoint.with_name(f"{ASIDE}{savepoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(savepoint, aside)


def read_state(savepoint: Path) -> dict[str, Any]:
    """The state given to `write`, with the step and the file names. TornError if it cannot be read."""
    try:
        return json.loads((savepoint / STATE).read_text())
    except (OSError, ValueError) as error:
        raise TornError(f"{savepoint / STATE}: {error}") from error


def _read(savepoint: Path, state: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The tensors of all its files. TornError if one is missing or truncated."""
    present = {path.name for path in savepoint.glob("*.safetensors")}
    files = {}
    for name in {WEIGHTS, OPTIMIZER, *state.get("files", present)}:
        try:
            files[name] = load_file(savepoint / name)
        except (OSError, SafetensorError) as error:
            raise TornError(f"{savepoint / name}: {error}") from error
    return files


def restore(
    savepoint: Path, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, ema: EMA | None
) -> dict[str, Any]:
    """Restore the tensors of a savepoint and return its state. Nothing changes unless every file can be read.

    TornError if a file cannot be read; ValueError if the savepoint belongs to another model, or lacks the averaged
    weights that the run needs.
    """
    state = read_state(savepoint)
    files = _read(savepoint, state)
    saved, optimised = files[WEIGHTS], _by_weight(files[OPTIMIZER])
    if saved.keys() != weights.keys():
        name = sorted(saved.keys() ^ weights.keys())[0]
        raise ValueError(
            f"{savepoint} belongs to a run with other trained weights ({name} differs); use another run folder"
        )
    for name, weight in weights.items():
        if saved[name].shape != weight.shape:
            raise ValueError(f"{savepoint}: {name} is {tuple(saved[name].shape)}, not {tuple(weight.shape)}")
    if ema is not None and AVERAGES not in files:
        raise ValueError(f"{savepoint} has no averaged weights: it was trained without ema")
    eight_bit = any("state1" in kinds for kinds in optimised.values())
    if optimised and eight_bit == isinstance(optimizer, torch.optim.AdamW):
        raise ValueError(f"{savepoint} was trained with other `optimiser.bits`; keep them, or use another run folder")
    for name, weight in weights.items():
        assign(weight, saved[name])
        if kinds := optimised.get(name):
            optimizer.state[weight] = _moments(kinds, weight, optimizer)
    if ema is not None:
        for name, average in ema.weights.items():
            assign(average, files[AVERAGES][name])
    return state


def _by_weight(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Optimiser state as {weight: {kind: tensor}}, from tensors named "kind/weight"."""
    by_weight: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        kind, weight = name.split("/", 1)
        by_weight[weight][kind] = tensor
    return by_weight


def _moments(kinds: Mapping[str, Tensor], weight: Tensor, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of torch's AdamW for one weight, which may be sharded, or of bitsandbytes' AdamW."""
    if "state1" in kinds:  # quantised moments, tables and scales; the step is an int
        return {name: int(value) if name == "step" else value.to(weight.device) for name, value in kinds.items()}
    state = {kind: torch.zeros_like(weight, requires_grad=False) for kind in MOMENTS}
    for kind in MOMENTS:
        assign(state[kind], kinds[kind])
    state["step"] = kinds["step"].to(weight.device if optimizer.defaults.get("fused") else "cpu")
    return state


def _hidden(path: Path) -> Path:
    """A unique name for a folder that is being written or removed; `sweep` removes what a crash leaves of these."""
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
