"""The recipe of a build: all choices of a run in one strict object, and the parts that they name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, FiniteFloat

from crispedit import annotators as annotator_folder
from crispedit import editors as editor_folder
from crispedit import filters as filter_folder
from crispedit import parts, recipe
from crispedit.bounds import Bound
from crispedit.cascade import Cascade
from crispedit.category import Category, load_categories
from crispedit.filters.judge import Judge
from crispedit.parts import Annotator, Editor, Filter, Part
from crispedit.pipelines.sources import check_no_secrets, layout
from crispedit.pipelines.sources.pairs import AnySource, PairsSource
from crispedit.recipe import EditorSpec, FilterSpec, PartSpec, Pool, Strict
from crispedit.shards import storage

STORED, LOCK = "recipe.yaml", ".lock"
"""Files of a run: its recipe, and the lock of the build that works on it."""


class CategorySpec(Strict):
    """What a run wants of one category. A bare number in a recipe means `jobs`."""

    jobs: float = Field(1.0, ge=0)
    """Jobs per photograph on average: 2 gives each two; 0.25 gives one to a quarter of them, chosen by key."""
    quota: int | None = Field(None, ge=0)
    """The most pairs in the packed set; null: all that pass."""
    file: Path | None = None
    """The category's file, if it is not in `configs/categories`."""
    bounds: dict[str, Bound] = {}
    """Bounds of this category alone, by "filter.score"; they win over the category file's."""


def _category_spec(value: object) -> object:
    return {"jobs": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


def _without_nulls(value: object) -> object:
    """`filters.unchanged=null` takes a part out of a recipe."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class CurateSpec(Strict):
    max_pixels: int = Field(200_000_000, ge=1)
    """Larger files are refused before decoding, as protection from decompression bombs."""
    max_short_side_px: int | None = Field(1024, ge=16)
    """Larger photographs are scaled down to this short side; null keeps their size."""
    jpeg_quality: int = Field(95, ge=1, le=100)
    """JPEG quality of the stored photographs."""
    duplicate_bits: int = Field(4, ge=0, le=16)
    """Photographs whose perceptual hashes differ in at most this many of 64 bits count as one."""
    filters: Annotated[dict[str, FilterSpec], BeforeValidator(_without_nulls)] = {}
    pool: Pool = Pool(batch=4)
    """The actors that read and normalise, as in `score.pool`."""


class AnnotateSpec(PartSpec):
    """The annotator by name; its options stand beside it."""

    annotator: str = "compositor"
    """The part that writes jobs: `compositor` (for its own editor, which first draws the things that the jobs name),
    `chat`, or a module of your own, `package.module`."""
    least_category_probability: float = Field(0.0, ge=0, le=1)
    """A job whose instruction asks for its category with a smaller probability (`crispedit.classifier`) is refused as
    "category_mismatch" before anything is edited. 0 disables the check: the classifier also misreads some good ones."""


class EditSpec(Strict):
    """The editors by name, in order of preference when several candidates of a job pass."""

    editors: dict[str, EditorSpec] = Field({"compositor": EditorSpec()}, min_length=1)
    share: Literal["measured"] | None = None
    """Null: every editor makes a candidate of each job. "measured": one editor does; in each category the editor with
    the most passing candidates per `price` in finished waves gets most jobs (pipelines/building/routing.py)."""
    least_share: float = Field(0.1, gt=0, lt=1)
    """The least share of a category's jobs for every editor, so that each is still measured."""
    jpeg_quality: int = Field(95, ge=1, le=100)
    """JPEG quality of the stored edits."""
    repair: bool = False
    """Align an edited image that was shifted, scaled, or cropped and stretched with its source, if a
    near-similarity explains it, and crop both to what they share. It changes the editor's or dataset's pixels, so
    it is off by default."""
    repair_drift: bool = False
    """Remove a change of brightness, contrast and colour outside the edit, in the whole image, if one gain and offset
    per channel explains it. Categories whose edits change the tone on purpose (`exposure.drift: {}`) are left alone."""


class ScoreSpec(Strict):
    measure_everything: bool = False
    """Also measure pairs that have already failed a bound, for calibration and what-if; it costs more."""
    pool: Pool = Pool()
    """The actors of all filters without a GPU; a filter with a GPU has its own pool."""


class SelectSpec(Strict):
    """How pairs are chosen among those that pass."""

    best: dict[str, FiniteFloat] = {}
    """Weights of scores, such as `{judge.instruction_following: 1, clip.target: 10}`: of a job's passing candidates the
    one with the highest weighted sum is kept. One that lacks a score comes last. Empty, and among equals: the first
    editor's first seed."""
    judge: bool = False
    """The model of `filters.judge` compares a job's passing candidates side by side, and the one it prefers is kept. If
    it prefers none or does not answer, `best` decides."""
    duplicate_bits: int = Field(2, ge=0, le=16)
    """Pairs with one instruction whose images' hashes differ by at most this count as one (needs `duplicate`)."""


class PackSpec(Strict):
    to: str | None = None
    """The shards' destination: a folder, or a URL such as s3://bucket/set; null: `shards` in the run."""
    pairs_per_shard: int = Field(1000, ge=1)
    """Pairs in each shard but the last."""
    seed: int = 0
    """Seed of the order of pairs."""


class EngineSpec(Strict):
    kind: Literal["ray", "inprocess"] = "ray"
    """On Ray, or one row after another in this process."""
    address: str | None = None
    """A Ray cluster to join, such as "auto"; null: RAY_ADDRESS, else a new cluster on this machine."""
    cpus: int | None = Field(None, ge=1)
    """CPUs of a new cluster; null: the machine's."""
    block_seconds: float = Field(120.0, gt=0)
    """Seconds of work that a process gets at a time: results are committed at least this often, and a crash costs each
    process no more than this."""
    rows_per_part: int = Field(256, ge=1)
    """The most rows that are processed and committed together."""
    attempts: int = Field(3, ge=1)
    """How often a row with a transient error is tried, such as a server that does not answer."""
    stall_minutes: float | None = Field(60.0, gt=0)
    """A process that works longer than this on one block counts as hung and is killed; null: never."""
    wave_sources: int | None = Field(10_000, ge=1)
    """Photographs per wave, about: waves of whole containers are finished early, and planning does not grow with the
    run; null: one wave. It changes no shard."""
    open_waves: int = Field(4, ge=1)
    """Waves in work at once, so that no pool waits for another step."""
    stop_at_failures: int | None = Field(200, ge=1)
    """Stop when four in five of a step's last this many rows failed for the same reason; null: never."""


class Recipe(Strict):
    """The recipe of a run. `docs/recipe.md` explains every key."""

    run: Path
    """The run's directory."""
    source: AnySource
    categories: dict[str, Annotated[CategorySpec, BeforeValidator(_category_spec)]] = Field(min_length=1)
    curate: CurateSpec = CurateSpec()
    annotate: AnnotateSpec = AnnotateSpec()
    edit: EditSpec = EditSpec()
    filters: Annotated[dict[str, FilterSpec], BeforeValidator(_without_nulls)] = {}
    regimes: dict[Literal["exact", "regenerated", "global"], dict[str, dict[str, Bound]]] = {}
    """Bounds by regime, category and "filter.score". The filter `regeneration` measures a pair's regime: the editor
    left the rest as it was, redrew it, or changed everything. These bounds win over the category's."""
    score: ScoreSpec = ScoreSpec()
    select: SelectSpec = SelectSpec()
    pack: PackSpec = PackSpec()
    engine: EngineSpec = EngineSpec()

    @cached_property
    def category_files(self) -> Mapping[str, Category]:
        """The wanted categories. ValueError for one that has no file."""
        known = load_categories(files=[spec.file for spec in self.categories.values() if spec.file is not None])
        for name in self.categories:
            if name not in known:
                raise ValueError(f"categories.{name}: there is no such category; choose from {', '.join(known)}")
        return {name: known[name] for name in self.categories}

    @property
    def own_categories(self) -> tuple[Category, ...]:
        """The requested categories that are not shipped."""
        return tuple(self.category_files[c] for c, spec in self.categories.items() if spec.file is not None)

    @property
    def imports_pairs(self) -> bool:
        """Whether the source has edits, which annotate and edit import."""
        return isinstance(self.source, PairsSource)

    @cached_property
    def source_cascade(self) -> Cascade:
        """The filters on photographs, with their bounds."""
        return _cascade(self.curate.filters, "source", {})

    @cached_property
    def pair_cascade(self) -> Cascade:
        """The filters on pairs, with their bounds by category."""
        bounds = {name: {**self.category_files[name].bounds, **spec.bounds} for name, spec in self.categories.items()}
        for regime, categories in self.regimes.items():
            if strange := sorted(set(categories) - set(self.categories)):
                raise ValueError(f"regimes.{regime}.{strange[0]}: the recipe has no such category")
        regimes: dict[str, dict[str, dict[str, Bound]]] = {str(name): own for name, own in self.regimes.items()}
        return _cascade(self.filters, "pair", bounds, regimes)

    @cached_property
    def judge(self) -> Judge | None:
        """The filter that compares a job's candidates, if `select.judge` is set. ValueError if it has no model."""
        if not self.select.judge:
            return None
        judge = self.pair_cascade.filters.get("judge")
        if not isinstance(judge, Judge) or judge.chat is None:
            raise ValueError(
                "select.judge lets the model of filters.judge choose, and there is none: set filters.judge.chat "
                "(with facts: false and rubric: false it compares only)"
            )
        return judge

    @cached_property
    def annotator(self) -> Annotator:
        """The annotator, with the categories that are not shipped, if it takes any. ValueError for a category that it
        cannot plan."""
        name, options = self.annotate.annotator, self.annotate.options
        kind = parts.find(annotator_folder, name, Annotator)
        if self.own_categories and "own_categories" in kind.model_fields:
            options["own_categories"] = self.own_categories
        if kind.categories is not None and not self.imports_pairs:
            for category, spec in self.categories.items():
                if spec.jobs > 0 and category not in kind.categories:
                    raise ValueError(
                        f"categories.{category}: the annotator {name!r} cannot plan such edits, only "
                        f"{', '.join(kind.categories)}; choose another with annotate.annotator"
                    )
        return parts.make(annotator_folder, name, Annotator, options)

    @cached_property
    def editors(self) -> Mapping[str, Editor]:
        return {
            name: parts.make(editor_folder, spec.editor or name, Editor, spec.options)
            for name, spec in self.edit.editors.items()
        }

    def check(self) -> Recipe:
        """Make every part, so that a wrong name or option fails now and not on a GPU node. Returns itself."""
        check_no_secrets("source.path", self.source.path)
        check_no_secrets("pack.to", self.pack.to or "")
        if re.match(r"[a-z][a-z0-9+.-]+:/", str(self.run)):  # as a path, a URL has lost a slash
            raise ValueError(
                "run: a run cannot be in an object store yet: give a folder that all nodes share, and pack.to=s3://... "
                "for the shards"
            )
        storage.check_lasts("run", self.run)
        if self.pack.to is not None:
            storage.check_lasts("pack.to", self.pack.to)
        if (first := next(iter(self.edit.editors.items())))[1].when == "failed":
            raise ValueError(f"edit.editors.{first[0]}.when is failed, but no editor comes before it")
        self._check_share()
        scores = self.pair_cascade.scores
        if strange := sorted(set(self.select.best) - set(scores)):
            raise ValueError(
                f"select.best.{strange[0]}: no filter measures it; choose from {', '.join(scores) or 'none'}"
            )
        _ = (self.category_files, self.source_cascade, self.pair_cascade, self.judge, self.annotator, self.editors)
        self._check_servers()
        for section, cascade in (("curate.filters", self.source_cascade), ("filters", self.pair_cascade)):
            for name, one in cascade.filters.items():
                if (lacking := one.lacks()) is not None:
                    raise ValueError(f"{section}.{name} cannot measure anything: {lacking}, or take the filter out")
        return self

    def _check_share(self) -> None:
        """ValueError if jobs cannot be shared as the recipe says."""
        if self.edit.share is None:
            return
        prices = {name: spec.price for name, spec in self.edit.editors.items() if spec.when == "always"}
        if len(prices) < 2 or self.imports_pairs:
            raise ValueError("edit.share: measured needs two or more editors without `when: failed`")
        if self.edit.least_share * len(prices) > 1:
            raise ValueError(f"edit.least_share: {len(prices)} editors cannot have {self.edit.least_share:g} each")
        if None in prices.values() and set(prices.values()) != {None}:
            raise ValueError(
                "edit.share: measured compares candidates by their price: give every editor a `price`, or none"
            )

    def _check_servers(self) -> None:
        """ValueError for a pool that would start a server in every process that Ray happens to use."""
        pools: dict[str, tuple[Part, Pool]] = {"annotate": (self.annotator, self.annotate.pool)}
        pools |= {f"edit.editors.{n}": (one, self.edit.editors[n].pool) for n, one in self.editors.items()}
        pools |= {f"filters.{n}": (one, self.filters[n].pool) for n, one in self.pair_cascade.filters.items()}
        for name, (part, pool) in pools.items():
            serves = any(getattr(one, "serve", None) for one in (part, getattr(part, "chat", None)))
            if serves and pool.actors is None and pool.gpus == 0:
                raise ValueError(
                    f"{name}.pool: each of its processes starts a server of its own: say how many with `actors`"
                )


def _cascade(
    specs: Mapping[str, FilterSpec],
    scope: Literal["source", "pair"],
    category_bounds: Mapping[str, Mapping[str, Bound]],
    regime_bounds: Mapping[str, Mapping[str, Mapping[str, Bound]]] | None = None,
) -> Cascade:
    filters: dict[str, Filter] = {}
    for name, spec in specs.items():
        filters[name] = parts.make(filter_folder, spec.filter or name, Filter, spec.options)
        if scope not in filters[name].scope:
            raise ValueError(
                f"filter {name!r} does not measure a {scope}, only {', '.join(sorted(filters[name].scope))}"
            )
    bounds = {name: spec.bounds for name, spec in specs.items()}
    return Cascade.of(filters, bounds, category_bounds, regime_bounds)


def load(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, in a run's directory (its `recipe.yaml`), or a shipped one by its name in `configs/`.

    A run's own recipe names no `run`: the directory is the run, wherever it was built.
    """
    if Path(path).is_dir():
        return of_run(path, overrides)
    return _settled(recipe.by_name(Recipe, path, overrides))


def of_run(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a run's directory. ValueError if there is none."""
    file = Path(path) / STORED
    if file.is_file():
        return _settled(recipe.load(Recipe, file, [f"run={json.dumps(str(path))}", *overrides]))
    if (Path(path) / LOCK).exists():
        raise ValueError(
            f"{path} has no {STORED} yet: its build is just starting, or was stopped before it made anything; "
            "if so, run the same `crispedit build` command again"
        )
    raise ValueError(f"{path} is not a run: it has no {STORED} (build one with `crispedit build`)")


def _settled(loaded: Recipe) -> Recipe:
    """The checked recipe with the detected layout of its pairs. (A run's own recipe has this already.)"""
    loaded.check()
    for name, editor in loaded.editors.items():
        try:
            editor.check()
        except ValueError as error:
            raise ValueError(f"edit.editors.{name}: {error}") from None
    if isinstance(loaded.source, PairsSource):
        return loaded.model_copy(update={"source": layout.detected(loaded.source)})
    return loaded


def resolved(of: Recipe) -> dict[str, Any]:
    """The recipe with every default written out, JSON-ready."""
    return of.model_dump(mode="json")
