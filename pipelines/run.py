"""A run: its directory, the lock against a second driver, and the fingerprints that keep outputs of different settings
apart."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

import crispedit
from crispedit.outcome import Damaged
from crispedit.pipelines.recipe import Recipe, resolved
from crispedit.shards import journal, storage
from crispedit.shards.lock import locked

STEPS = ("listing", "waves", "curate", "annotate", "edit", "score", "compare", "select")
"""The folders of a run, in the order of the work."""

Identity = Mapping[str, Any]
"""What determines a step's output, by part; without policy (bounds, quotas, pools)."""


class Run:
    """A recipe and its directory."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.root = recipe.run.absolute()  # workers have another working directory

    def folder(self, step: str) -> Path:
        return self.root / step

    @property
    def shards(self) -> str:
        to = self.recipe.pack.to
        return to if to is not None and storage.is_remote(to) else os.path.abspath(to or self.folder("shards"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run inside this context; the lock ends with the process. ValueError if it is taken."""
        taken = f"another process is working in {self.root}; wait for it, or choose another run=DIR"
        with locked(self.root / ".lock", taken):
            yield

    def begin(self, identities: Mapping[str, Identity]) -> None:
        """Prepare these steps: remove leftovers of a crash, and refuse to mix outputs."""
        for step in identities:
            if any(self.folder(step).glob("part-*.parquet")):
                raise ValueError(
                    f"{self.root} was built by an earlier CrispEdit, whose tables are not in waves. Finish it with "
                    f"the commit that {self.root / 'recipe.yaml'} names, or build into a new directory (run=DIR)"
                )
        listing = {"photographs": {"source": self.recipe.source.model_dump(mode="json")}}
        for step, identity in {**identities, "listing": listing}.items():
            self.folder(step).mkdir(parents=True, exist_ok=True)
            journal.sweep(self.folder(step))
            self._check_fingerprint(step, identity)

    def store_recipe(self, identities: Mapping[str, Identity]) -> None:
        """Write the resolved recipe and the software versions into the run; `audit` and a resumed run use them."""
        with journal.replaced(self.root / "recipe.yaml") as out:
            out.write(self._recipe_text(identities).encode())

    def _check_fingerprint(self, step: str, new: Identity) -> None:
        path = self.folder(step) / "fingerprint.json"
        if path.exists():
            try:
                old = json.loads(path.read_text())
            except ValueError as error:
                again = "Remove it: the same command writes it again"
                raise Damaged(f"{path} is damaged ({error}). {again}") from None
            # A removed filter leaves unused columns; a new one adds columns.
            changes = [
                change
                for part, before in old.items()
                if not (part.startswith("filter ") and part not in new and step == "score")
                for change in _changes(_key(step, part), before, new.get(part))
            ]
            changes += [f"{_key(step, part)}: was not there" for part in new if part not in old and step != "score"]
            if changes and journal.parts(self.folder(step)):
                # Another source is listed anew.
                later = STEPS if step == "curate" else STEPS[STEPS.index(step) :]
                folders = [str(self.folder(name)) for name in later if self.folder(name).exists()]
                raise ValueError(
                    f"{self.folder(step)} was made with other settings, and a table does not mix two:\n"
                    + "".join(f"  {change}\n" for change in changes)
                    + "Either build into a new directory (run=DIR), or remove these folders and run the same command "
                    + f"again: {shlex.join(folders)}"
                )
            new = {**old, **new} if not changes else new
        with journal.replaced(path) as out:
            out.write(json.dumps(new, indent=1, sort_keys=True).encode())

    def _recipe_text(self, identities: Mapping[str, Identity]) -> str:
        provenance: dict[str, Any] = {
            "crispedit": crispedit.__version__,
            "commit": _commit(),
            "python": platform.python_version(),
        }
        provenance["packages"] = _packages()
        provenance["parts"] = {
            step: {n: p for n, p in identity.items() if n != "photographs"} for step, identity in identities.items()
        }
        header = "# The resolved recipe of this run; `crispedit build` on this directory continues it.\n"
        comment = "".join(
            f"# {line}\n" for line in yaml.safe_dump({"made with": provenance}, sort_keys=False).splitlines()
        )
        # Without `run`: the recipe's directory is the run, wherever it is moved.
        kept = {key: value for key, value in resolved(self.recipe).items() if key != "run"}
        return header + comment + yaml.safe_dump(kept, sort_keys=False)


def _key(step: str, part: str) -> str:
    """The recipe's key of a part of a fingerprint: edit.editors.NAME of "editor NAME"."""
    keys = {
        "photographs": "curate",
        "edited": "edit",
        "editor ": "edit.editors.",
        "filter ": "curate.filters." if step == "curate" else "filters.",
        "annotator": "annotate",
        "judge": "filters.judge",
    }
    return next((key + part.removeprefix(one) for one, key in keys.items() if part.startswith(one)), part)


def _changes(part: str, before: Any, after: Any) -> list[str]:
    if before == after:
        return []
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = sorted({*before, *after})
        return [c for key in keys for c in _changes(f"{part}.{key}", before.get(key), after.get(key))]
    key = part.replace("curate.source", "source").replace(".options", "")
    return [f"{key}: was {before!r}, is now {after!r}"]


PACKAGES = ("ray", "pyarrow", "duckdb", "numpy", "opencv-python-headless", "pillow", "simplejpeg")


def _packages() -> dict[str, str]:
    """Versions of the packages that can change a pixel or a number."""
    installed = {}
    for name in (*PACKAGES, "torch", "transformers", "diffusers", "open_clip_torch"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _commit() -> str | None:
    """The checkout's commit, with "+changes" if it has any; None outside a checkout."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
