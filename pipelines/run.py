"""A run: its directory, the schema of its tables, the lock that keeps a second driver out, and the fingerprints that
keep two kinds of output from mixing in one table."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

import crispedit
from crispedit.cascade import Cascade
from crispedit.pipelines.recipe import Recipe, resolved
from crispedit.record import canonical_json, content_key
from crispedit.shards import journal
from crispedit.shards.journal import Table
from crispedit.shards.lock import locked

STEPS = ("curate", "annotate", "edit", "score", "compare", "select", "pack")

CURATE = Table(
    pa.schema(
        [
            ("uri", pa.string()),
            ("key", pa.string()),
            ("dataset", pa.string()),
            ("licence", pa.string()),
            ("caption", pa.string()),
            ("format", pa.string()),
            ("original_width", pa.int32()),
            ("original_height", pa.int32()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("sha256", pa.string()),
            ("refusal", pa.string()),
            ("error", pa.string()),
            ("image", pa.binary()),
        ]
    ),
    key="uri",
    blobs={"image": "jpg"},
    member="key",
)
"""One row per input file. `refusal`: understood and declined; `error`: could not be read."""

ANNOTATE = Table(
    pa.schema(
        [
            ("key", pa.string()),
            ("job_key", pa.string()),
            ("source_key", pa.string()),
            ("category", pa.string()),
            ("ordinal", pa.int32()),
            ("instruction", pa.string()),
            ("source_caption", pa.string()),
            ("target_caption", pa.string()),
            ("plan", pa.string()),
            ("refusal", pa.string()),
            ("error", pa.string()),
        ]
    )
)
"""One row per requested edit (photograph, category, ordinal): the job, or why there is none."""

EDIT = Table(
    pa.schema(
        [
            ("key", pa.string()),
            ("job_key", pa.string()),
            ("source_key", pa.string()),
            ("category", pa.string()),
            ("editor", pa.string()),
            ("editor_version", pa.int32()),
            ("options", pa.string()),
            ("seed", pa.int32()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("transform", pa.string()),
            ("refusal", pa.string()),
            ("error", pa.string()),
            ("source", pa.binary()),
            ("edited", pa.binary()),
            ("mask", pa.binary()),
        ]
    ),
    blobs={"source": "source.jpg", "edited": "edited.jpg", "mask": "mask.png"},
)
"""One row per candidate. `source` is null unless the editor composed a source of its own; `transform` is the JSON of
the [2][3] affine map (source to edited pixels) that an imported edit was laid onto its source by, where that was
asked."""

IN_PLACE = "[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]"
"""The `transform` of an imported edit that lay on its source, or that no repair could lay there: stored as it came."""


COMPARE = Table(
    pa.schema(
        [
            ("key", pa.string()),
            ("job_key", pa.string()),
            ("candidates", pa.list_(pa.string())),
            ("chosen", pa.string()),
            ("answers", pa.string()),
            ("error", pa.string()),
        ]
    )
)
"""One row per comparison of a job's candidates, whose keys are `candidates`: the key of the `chosen` one, or null if
the judge's model preferred none. Other bounds let other candidates pass, which is another comparison."""


def score_table(cascade: Cascade) -> Table:
    """One row per measured candidate: its score columns. Later rows of a key add columns that earlier ones lack."""
    return Table(pa.schema([pa.field("key", pa.string()), *cascade.columns]))


def curate_table(cascade: Cascade) -> Table:
    """CURATE with the photographs' score columns."""
    schema = pa.schema([*CURATE.schema, *cascade.columns])
    return Table(schema, key=CURATE.key, blobs=CURATE.blobs, member=CURATE.member)


class Run:
    """A recipe and the directory it fills."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.root = recipe.run.absolute()  # workers on other nodes have other working directories

    def folder(self, step: str) -> Path:
        return self.root / step

    @property
    def engine_steps(self) -> list[str]:
        """The steps that make and measure, in order; `compare` only where the judge chooses."""
        return [step for step in STEPS[:5] if step != "compare" or self.recipe.judge is not None]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other drivers out while the block runs; the lock dies with the process. ValueError if taken."""
        taken = f"another process is working in {self.root}; wait for it, or choose another run=DIR"
        with locked(self.root / ".lock", taken):
            yield

    def begin(self, step: str) -> None:
        """Claim a step: sweep what a crash left, and refuse to mix outputs."""
        folder = self.folder(step)
        folder.mkdir(parents=True, exist_ok=True)
        journal.sweep(folder)
        self._check_fingerprint(step)

    def store_recipe(self) -> None:
        """Write the resolved recipe, with what runs it, into the run: what `audit` and a continued run go by."""
        with journal.replaced(self.root / "recipe.yaml") as out:
            out.write(self._recipe_text().encode())

    def fingerprint(self, step: str) -> dict[str, Any]:
        """What decides the bytes this step writes, by part; policy (bounds, quotas, pools) is not in it."""
        recipe = self.recipe
        curate = recipe.curate
        source = {
            "source": recipe.source.model_dump(mode="json"),
            "max_short_side_px": curate.max_short_side_px,
            "jpeg_quality": curate.jpeg_quality,
        }
        if step == "curate":
            filters = recipe.source_cascade.filters
            return {"photographs": source, **{f"filter {n}": f.identity() for n, f in filters.items()}}
        if step == "annotate":
            if recipe.imports_pairs:
                return {"photographs": source, "annotator": "imported"}
            least = recipe.annotate.least_category_probability
            agreed = {"least_category_probability": least} if least else {}
            return {"photographs": source, "annotator": recipe.annotator.identity(), **agreed}
        if step == "edit" and recipe.imports_pairs:
            stored = recipe.edit.model_dump(mode="json", include={"jpeg_quality", "repair"})
            return {"photographs": source, "edited": stored}
        if step == "edit":
            editors = {f"editor {name}": editor.identity() for name, editor in recipe.editors.items()}
            return {"photographs": source, "edited": {"jpeg_quality": recipe.edit.jpeg_quality}, **editors}
        if step == "score":
            filters = recipe.pair_cascade.filters
            return {"photographs": source, **{f"filter {n}": f.identity() for n, f in filters.items()}}
        if step == "compare":
            if recipe.judge is None:
                raise ValueError("select.judge is false: no candidates are to be compared")
            return {"photographs": source, "judge": recipe.judge.comparison()}
        raise AssertionError(f"{step} is policy: it has no fingerprint")

    @property
    def recipe_fingerprint(self) -> str:
        """One word for everything that decided the pairs' content, for the shards' metadata."""
        return content_key(canonical_json({step: self.fingerprint(step) for step in STEPS[:4]}))

    def _check_fingerprint(self, step: str) -> None:
        path = self.folder(step) / "fingerprint.json"
        new = self.fingerprint(step)
        if path.exists():
            old = json.loads(path.read_text())
            # A filter that is no longer asked for leaves columns nobody reads; one that is new adds columns.
            changes = [
                change
                for part, before in old.items()
                if not (part.startswith("filter ") and part not in new and step == "score")
                for change in _changes(part, before, new.get(part))
            ]
            changes += [f"{part}: was not there" for part in new if part not in old and step != "score"]
            if changes and journal.parts(self.folder(step)):
                later = " ".join(str(self.folder(name)) for name in STEPS[STEPS.index(step) :])
                raise ValueError(
                    f"{self.folder(step)} was made with other settings, and a table does not mix two:\n"
                    + "".join(f"  {change}\n" for change in changes)
                    + f"Either build into a new directory (run=DIR), or remove {later} and run again."
                )
            new = {**old, **new} if not changes else new
        with journal.replaced(path) as out:
            out.write(json.dumps(new, indent=1, sort_keys=True).encode())

    def _recipe_text(self) -> str:
        provenance: dict[str, Any] = {
            "crispedit": crispedit.__version__,
            "commit": _commit(),
            "python": platform.python_version(),
        }
        provenance["packages"] = _packages()
        provenance["parts"] = {
            step: {n: p for n, p in self.fingerprint(step).items() if n != "photographs"}
            for step in self.engine_steps
        }
        header = "# The resolved recipe of this run; `crispedit build` on this directory continues it.\n"
        comment = "".join(
            f"# {line}\n" for line in yaml.safe_dump({"made with": provenance}, sort_keys=False).splitlines()
        )
        return header + comment + yaml.safe_dump(resolved(self.recipe), sort_keys=False)


def _changes(part: str, before: Any, after: Any) -> list[str]:
    if before == after:
        return []
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = sorted({*before, *after})
        return [c for key in keys for c in _changes(f"{part}.{key}", before.get(key), after.get(key))]
    return [f"{part}: was {before!r}, is now {after!r}"]


PACKAGES = ("ray", "pyarrow", "duckdb", "numpy", "opencv-python-headless", "pillow", "simplejpeg")


def _packages() -> dict[str, str]:
    """Versions of what can change a pixel or a number."""
    installed = {}
    for name in (*PACKAGES, "torch", "transformers", "diffusers", "open_clip_torch"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _commit() -> str | None:
    """The commit of the checkout this runs from, with "+changes" when it has any; None when installed elsewhere."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            [
                "git",
                "-C",
                str(here),
                "describe",
                "--always",
                "--abbrev=40",
                "--dirty=+changes",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
