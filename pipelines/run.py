"""A run: its directory, the lock against a second driver, and the fingerprints that keep outputs of different settings
apart."""

import glob
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import yaml

import crispedit
from crispedit.outcome import Damaged
from crispedit.pipelines.recipe import LOCK, STORED, Recipe, of_run, resolved
from crispedit.shards import journal, storage
from crispedit.shards.lock import locked

STEPS = ("listing", "waves", "curate", "annotate", "edit", "score", "compare", "select")
"""The folders of a run, in the order of the work."""

BEGUN = "# Relative paths start at: "
"""The recipe's line with the working directory of the build, relative to the run."""
PACKAGES = (
    *("ray", "pyarrow", "duckdb", "numpy", "opencv-python-headless", "pillow", "simplejpeg", "torch", "transformers"),
    *("diffusers", "open_clip_torch"),
)
"""The packages that can change a pixel or a number."""

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
        return storage.absolute(self.recipe.pack.to or str(self.folder("shards")))

    def locked(self) -> AbstractContextManager[None]:
        """Lock the run inside this context; the lock ends with the process. ValueError if it is taken."""
        taken = f"another process is working in {self.root}; wait for it, or choose another run=DIR"
        return locked(self.root / LOCK, taken)

    def begin(self, identities: Mapping[str, Identity]) -> None:
        """Prepare these steps: remove leftovers of a crash, and refuse to mix outputs."""
        if "curate" in identities:
            self._check_source()
        for step in identities:
            if any(self.folder(step).glob("part-*.parquet")):
                raise ValueError(
                    f"{self.root} was built by an earlier CrispEdit, whose tables are not in waves. Finish it with "
                    f"the commit that {self.root / STORED} names, or build into a new directory (run=DIR)"
                )
        listing = {"photographs": {"source": self.recipe.source.model_dump(mode="json")}}
        for step, identity in {**identities, "listing": listing}.items():
            self.folder(step).mkdir(parents=True, exist_ok=True)
            journal.sweep(self.folder(step))
            self._check_fingerprint(step, identity)

    def store_recipe(self, identities: Mapping[str, Identity]) -> None:
        """Write the resolved recipe and the software versions into the run; `audit` and a resumed run use them."""
        parts = {step: {n: p for n, p in one.items() if n != "photographs"} for step, one in identities.items()}
        made_with = {
            "crispedit": crispedit.__version__,
            "commit": _commit(),
            "python": platform.python_version(),
            "packages": _packages(),
            "parts": parts,
        }
        provenance = yaml.safe_dump({"made with": made_with}, sort_keys=False)
        # Without `run`: the recipe's directory is the run, wherever it is moved.
        kept = {key: value for key, value in resolved(self.recipe).items() if key != "run"}
        text = (
            "# The resolved recipe of this run; `crispedit build` on this directory continues it.\n"
            f"{BEGUN}{self._begun_in()}\n"
            + "".join(f"# {line}\n" for line in provenance.splitlines())
            + yaml.safe_dump(kept, sort_keys=False)
        )
        with journal.replaced(self.root / STORED) as out:
            out.write(text.encode())

    def _begun_in(self) -> str:
        """The working directory of the run's first build, relative to the run, so that both can be moved."""
        stored = self.root / STORED
        line = re.search(f"^{BEGUN}(.*)$", stored.read_text("utf-8") if stored.exists() else "", re.MULTILINE)
        return line[1] if line else os.path.relpath(os.curdir, self.root.resolve())

    def _check_source(self) -> None:
        """ValueError if a relative `source.path` would be read from another directory than the first build's, where it
        still exists."""
        path = os.path.expanduser(self.recipe.source.path)
        if storage.is_remote(path) or os.path.isabs(path) or storage.is_temporary(path):
            return
        folder = os.path.realpath(self.root.resolve() / self._begun_in())
        there = os.path.join(folder, path)
        if folder != os.path.realpath(os.curdir) and any(map(glob.glob, [there, *storage.expand_braces(there)])):
            raise ValueError(
                f"source.path: {path} is relative to {folder}, where this run was begun: start again there"
            )

    def _check_fingerprint(self, step: str, new: Identity) -> None:
        path = self.folder(step) / "fingerprint.json"
        if path.exists():
            try:
                old = json.loads(path.read_text())
            except ValueError as error:
                raise Damaged(f"{path} is damaged ({error}). Remove it: the same command writes it again") from None
            changes = list(_changes(step, old, new))
            if changes and journal.parts(self.folder(step)):
                listed_anew = any(change.startswith("source.") for change in changes)
                later = STEPS if listed_anew else STEPS[STEPS.index(step) :]
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


def run_in(path: str | Path) -> Run:
    """The run in a directory. ValueError if it holds none."""
    return Run(of_run(path))


def _changes(step: str, old: Identity, new: Identity) -> Iterator[str]:
    """The differences between two identities of a step. A filter that `score` no longer has leaves unused columns, and
    a new one adds columns, so these are none."""
    for part, before in old.items():
        if part in new or step != "score" or not part.startswith("filter "):
            for keys, was, now in _differences(before, new.get(part)):
                yield f"{_key(step, part, keys)}: was {was!r}, is now {now!r}"
    for part in new:
        if part not in old and step != "score":
            yield f"{_key(step, part)}: was not there"


def _differences(before: Any, after: Any, *keys: str) -> Iterator[tuple[Sequence[str], Any, Any]]:
    """(keys, value before, value after) of each leaf that differs."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            yield from _differences(before.get(key), after.get(key), *keys, key)
    elif before != after:
        yield keys, before, after


def _key(step: str, part: str, keys: Sequence[str] = ()) -> str:
    """The recipe's key of a value in a part of a fingerprint: edit.editors.NAME.steps of "editor NAME", options,
    steps."""
    kind, _, name = part.partition(" ")
    places = {
        "photographs": [] if keys[:1] == ("source",) else ["curate"],
        "edited": ["edit"],
        "editor": ["edit.editors", name],
        "filter": ["curate.filters" if step == "curate" else "filters", name],
        "annotator": ["annotate"],
        "judge": ["filters.judge"],
    }
    return ".".join([*places.get(kind, [part]), *(key for key in keys if key != "options")])


def _packages() -> dict[str, str]:
    installed = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
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
