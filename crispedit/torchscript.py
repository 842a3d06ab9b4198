"""TorchScript archives, such as OpenAI's `ViT-B-32.pt`: their tensors, read without running anything in them.

An archive is a zip file: `data.pkl` holds the tree of modules, and `data/N` the bytes of each tensor. Unpickling allows
only tensors and plain containers. Modules become objects without code, and the archive's code is never loaded.
"""

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive. A checkpoint of `torch.save` is a zip too, but has no constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive by name, as `torch.jit.load(path).state_dict()` has them, and those that are
    plain attributes of a module. ValueError if the archive is damaged or holds anything but modules and tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
            tree = _Reader(archive, root).load()
    except (zipfile.BadZipFile, StopIteration, KeyError, EOFError, IndexError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is not a TorchScript archive that can be read safely: {error}") from None
    return dict(_named_tensors(tree))


def tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights: safetensors, a TorchScript archive, or a checkpoint that loads weights-only."""
    if path.suffix == ".safetensors":
        return load_file(path)
    return state_dict(path) if is_archive(path) else torch.load(path, map_location="cpu", weights_only=True)


class _Module:
    """A module without its code: its attributes, which are tensors, modules and values."""

    def __init__(self, *arguments: object) -> None:
        self.attributes: Mapping[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _named_tensors(module: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _named_tensors(value, f"{prefix}{name}.")


class _Reader(pickle.Unpickler):
    """An unpickler that refuses everything but the allowed names."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive, self._root = archive, root
        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order).decode() != sys.byteorder:
            raise pickle.UnpicklingError("its tensors have another byte order than this machine")

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return _Module
        allowed = STORAGES.get(name) if module == "torch" else _ALLOWED.get((module, name))
        if allowed is None:
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return allowed

    def persistent_load(self, given: Any) -> Tensor:
        """The storage that a tensor points at, as a flat tensor."""
        kind, dtype, key, _, count = given
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it holds {kind!r}")
        data = self._archive.read(f"{self._root}data/{key}")
        if len(data) < count * dtype.itemsize:
            raise pickle.UnpicklingError(f"tensor {key} is cut short")
        return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _tensor(storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: object) -> Tensor:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min([offset, *size, *stride]) < 0 or (0 not in size and last >= len(storage)):
        raise pickle.UnpicklingError("a tensor reaches outside its bytes")
    return torch.as_strided(storage, tuple(size), tuple(stride), offset).clone()


def _first(value: Any, *_: object) -> Any:
    return value


_JIT = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
_ALLOWED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    **{("torch.jit._pickle", name): _first for name in _JIT},
}
