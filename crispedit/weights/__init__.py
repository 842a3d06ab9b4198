"""The small models that ship with the package: a folder each, with weights, configuration and a card."""

import hashlib
import importlib.util
import json
from functools import cache
from importlib import resources
from pathlib import Path

from crispedit.record import content_key


def folder(name: str) -> Path:
    """The model's folder."""
    return Path(str(resources.files(__name__))) / name


def local(model: str) -> Path | None:
    """The folder that a model's name means: a path, or the name of a shipped model; None for a hub model."""
    if Path(model).is_dir():
        return Path(model)
    return folder(model) if Path(model).name == model and folder(model).is_dir() else None


def fingerprint(name: str) -> str | None:
    """A hash of the shipped model's weights; None if there are none."""
    files = sorted(file for suffix in ("npz", "safetensors") for file in folder(name).glob(f"*.{suffix}"))
    return content_key(*(file.read_bytes() for file in files)) if files else None


def packaged(package: str, pattern: str) -> Path | None:
    """The first file in an installed package's folder whose path fits a glob pattern; None if there is none. It does
    not import the package."""
    spec = importlib.util.find_spec(package)
    files = [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parent.glob(pattern))
    return files[0] if files else None


def verified(file: Path, sha256: str, package: str) -> bytes:
    """The bytes of a package's file of weights. ValueError if they are not those of the `package` and version."""
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{file}: not the weights of {package}; install that version again")
    return data


SAMPLE_BYTES = 1 << 16
SUFFIXES = ("json", "jinja", "txt", "safetensors")


@cache
def digest(root: Path) -> str:
    """32 hex digits for a model's folder or file. It covers the configuration (JSON, text, chat templates) and, of
    every safetensors file, the header and the first 64 KiB of each tensor: training changes every tensor, so
    checkpoints differ, and 60 GB take seconds. Of any other file all bytes count."""
    pieces: list[str | bytes] = []
    files = [root] if root.is_file() else (p for suffix in SUFFIXES for p in root.rglob(f"*.{suffix}"))
    for path in sorted(files):
        pieces.append(str(path.relative_to(root)))
        pieces += _tensors(path) if path.suffix == ".safetensors" else [path.read_bytes()]
    return content_key(*pieces)


def _tensors(path: Path) -> list[bytes]:
    """The header of a safetensors file, and the beginning of each tensor in it. ValueError if there is none."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, path.stat().st_size))
        try:
            tensors = json.loads(header)
            spans = [tuple(t["data_offsets"]) for name, t in tensors.items() if name != "__metadata__"]
        except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
            raise ValueError(f"{path}: not a safetensors file, or damaged; download or write it again") from None
        pieces = [header]
        for start, end in sorted(spans):
            file.seek(8 + length + start)
            pieces.append(file.read(min(end - start, SAMPLE_BYTES)))
    return pieces
