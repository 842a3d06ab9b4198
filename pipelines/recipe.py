"""The recipe of a build: every choice of a run in one strict object, and the parts those choices make."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources
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
from crispedit.pipelines import layout
from crispedit.pipelines.pairs import AnySource, PairsSource
from crispedit.pipelines.sources import check_no_secrets
from crispedit.recipe import EditorSpec, FilterSpec, PartSpec, Pool, Strict


class CategorySpec(Strict):
    """What a run wants of one category. A bare number in a recipe means `jobs`."""

    jobs: float = Field(1.0, ge=0)
    """Jobs a photograph, on average: 2 gives each two, 0.25 gives a quarter of them (chosen by key) one."""
    quota: int | None = Field(None, ge=0)
    """Pairs at most in the packed set; null: all that pass."""
    file: Path | None = None
    """The category's file, where it is not one of `configs/categories`."""
    bounds: dict[str, Bound] = {}
    """Bounds of this category alone, by "filter.score"; they win over the category file's."""


def _category_spec(value: object) -> object:
    return {"jobs": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


def _without_nulls(value: object) -> object:
    """`filters.unchanged=null` takes a part out of a recipe."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class CurateSpec(Strict):
    """Photographs: how they are normalised and what of them is measured."""

    max_pixels: int = Field(200_000_000, ge=1)
    """Larger files are refused before they are decoded: decompression bombs."""
    max_short_side_px: int | None = Field(1024, ge=16)
    """Larger photographs are scaled down to this short side; null keeps their size."""
    jpeg_quality: int = Field(95, ge=1, le=100)
    duplicate_bits: int = Field(4, ge=0, le=16)
    """Photographs whose perceptual hashes differ in at most this many of 64 bits count as one."""
    filters: Annotated[dict[str, FilterSpec], BeforeValidator(_without_nulls)] = {}
    pool: Pool = Pool(batch=4)


class AnnotateSpec(PartSpec):
    """The annotator by name; its options stand beside it."""

    annotator: str = "compositor"
    least_category_probability: float = Field(0.0, ge=0, le=1)
    """A job whose words ask for its category with less than this (`crispedit.classifier`) is refused as
    "category_mismatch", before anything is edited. 0: none is, for the classifier misreads some good ones too."""


class EditSpec(Strict):
    """The editors by name, in order of preference when several candidates of a job pass."""

    editors: dict[str, EditorSpec] = Field({"compositor": EditorSpec()}, min_length=1)
    share: Literal["measured"] | None = None
    """Null: every editor makes a candidate of each job. "measured": one does, and in each category the editor with the
    most passing candidates per `price` in finished waves gets the most jobs (`crispedit.pipelines.routing`)."""
    least_share: float = Field(0.1, gt=0, lt=1)
    """Of a category's jobs, for every editor: so that each goes on being measured."""
    jpeg_quality: int = Field(95, ge=1, le=100)
    repair: bool = False
    """Lay an edited image that was shifted, scaled, or cropped and stretched back onto its source, where a
    near-similarity explains how it lies, and crop both to what they share. It stores other pixels than the editor or
    the dataset made, so it is asked for."""
    repair_drift: bool = False
    """Take back the change of brightness, contrast and colour outside the edit, everywhere alike, where one gain and
    offset a channel explains it. Categories whose edits change the tone on purpose (`exposure.drift: {}`) are left."""


class ScoreSpec(Strict):
    """How pairs are measured."""

    measure_everything: bool = False
    """Measure pairs that have already failed a bound too: for calibration and what-if, at a price."""
    pool: Pool = Pool()
    """The actors that run every filter that needs no GPU; a filter with a GPU has a pool of its own."""


class SelectSpec(Strict):
    """How pairs are chosen among those that pass."""

    best: dict[str, FiniteFloat] = {}
    """Of a job's candidates that pass, the one with the highest sum of these scores times these weights is kept, such
    as `{judge.instruction_following: 1, clip.target: 10}`; one that lacks a score comes last. Empty, and among equals:
    the first editor's first seed."""
    judge: bool = False
    """The model of `filters.judge` compares the candidates of a job that pass, side by side, and the one it prefers is
    kept. Where it prefers none, or does not answer, `best` decides."""
    duplicate_bits: int = Field(2, ge=0, le=16)
    """Pairs with one instruction whose images' hashes differ by at most this count as one (needs `duplicate`)."""


class PackSpec(Strict):
    """How shards are cut."""

    to: str | None = None
    """Where the shards go: a folder, or a URL such as s3://bucket/set; null: `shards` in the run."""
    pairs_per_shard: int = Field(1000, ge=1)
    seed: int = 0


class EngineSpec(Strict):
    """Where the work runs."""

    kind: Literal["ray", "inprocess"] = "ray"
    address: str | None = None
    """A Ray cluster to join, such as "auto"; null: RAY_ADDRESS, else a cluster of our own on this machine."""
    cpus: int | None = Field(None, ge=1)
    """CPUs of a cluster of our own; null: the machine's."""
    block_seconds: float = Field(120.0, gt=0)
    """Work that a process is given at a time, in measured seconds: results are committed at least so often, and a crash
    costs no more than this of each process."""
    rows_per_part: int = Field(256, ge=1)
    """Rows that are given and committed together at most."""
    attempts: int = Field(3, ge=1)
    """How often a row is tried whose result is a passing trouble, such as a server that does not answer."""
    stall_minutes: float | None = Field(60.0, gt=0)
    """A process that works longer than this on one block is killed: it hangs. null: never."""
    wave_sources: int | None = Field(10_000, ge=1)
    """`build` works on whole containers of about this many photographs at a time: early ones are finished early, and
    what is planned does not grow with the run; null: all at once. It changes no shard."""
    open_waves: int = Field(4, ge=1)
    """Waves at work at once, so that no pool of processes waits for another step."""
    stop_at_failures: int | None = Field(200, ge=1)
    """Stop when of a step's last so many rows four in five failed for the same reason; null: never."""


class Recipe(Strict):
    """One run, whole: see `configs/embedded.yaml` for every key with its meaning."""

    run: Path
    source: AnySource
    categories: dict[str, Annotated[CategorySpec, BeforeValidator(_category_spec)]] = Field(min_length=1)
    curate: CurateSpec = CurateSpec()
    annotate: AnnotateSpec = AnnotateSpec()
    edit: EditSpec = EditSpec()
    filters: Annotated[dict[str, FilterSpec], BeforeValidator(_without_nulls)] = {}
    regimes: dict[Literal["exact", "regenerated", "global"], dict[str, dict[str, Bound]]] = {}
    """Bounds by category and "filter.score" that hold for pairs of a regime alone: of editors that left the rest as it
    was, drew it anew, or changed it all (the filter `regeneration` tells). They win over the category's."""
    score: ScoreSpec = ScoreSpec()
    select: SelectSpec = SelectSpec()
    pack: PackSpec = PackSpec()
    engine: EngineSpec = EngineSpec()

    @cached_property
    def category_files(self) -> Mapping[str, Category]:
        """The wanted categories. ValueError for one that has no file."""
        known = load_categories(
            files=[spec.file for spec in self.categories.values() if spec.file is not None]
        )
        for name in self.categories:
            if name not in known:
                raise ValueError(
                    f"categories.{name}: there is no such category; choose from {', '.join(known)}"
                )
        return {name: known[name] for name in self.categories}

    @property
    def own_categories(self) -> tuple[Category, ...]:
        """The wanted categories that do not ship."""
        return tuple(self.category_files[c] for c, spec in self.categories.items() if spec.file is not None)

    @property
    def imports_pairs(self) -> bool:
        """The source brings its own edits: annotate and edit import them."""
        return isinstance(self.source, PairsSource)

    @cached_property
    def source_cascade(self) -> Cascade:
        """The filters on photographs, with their bounds."""
        return _cascade(self.curate.filters, "source", {})

    @cached_property
    def pair_cascade(self) -> Cascade:
        """The filters on pairs, with their bounds by category."""
        bounds = {
            name: {**self.category_files[name].bounds, **spec.bounds}
            for name, spec in self.categories.items()
        }
        for regime, categories in self.regimes.items():
            if strange := sorted(set(categories) - set(self.categories)):
                raise ValueError(f"regimes.{regime}.{strange[0]}: the recipe has no such category")
        regimes: dict[str, dict[str, dict[str, Bound]]] = {
            str(name): own for name, own in self.regimes.items()
        }
        return _cascade(self.filters, "pair", bounds, regimes)

    @cached_property
    def judge(self) -> Judge | None:
        """The filter that compares the candidates of a job, where `select.judge` asks for that. ValueError if it has no
        model."""
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
        """The annotator, which is given the categories that do not ship if it has a place for them. ValueError for a
        category that it cannot plan."""
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
        if re.match(r"[a-z][a-z0-9+.-]+:/", str(self.run)):  # a path of a URL has lost a slash
            raise ValueError(
                "run: a run cannot be in an object store yet: give a folder that all nodes share, and pack.to=s3://... "
                "for the shards"
            )
        if (first := next(iter(self.edit.editors.items())))[1].when == "failed":
            raise ValueError(
                f"edit.editors.{first[0]}.when is failed, but no editor stands before it to fail"
            )
        self._check_share()
        scores = [f"{name}.{score}" for name, f in self.pair_cascade.filters.items() for score in f.scores]
        if strange := sorted(set(self.select.best) - set(scores)):
            raise ValueError(
                f"select.best.{strange[0]}: no filter measures it; choose from {', '.join(scores) or 'none'}"
            )
        _ = (self.category_files, self.source_cascade, self.pair_cascade)
        _ = (self.judge, self.annotator, self.editors)
        self._check_servers()
        for section, cascade in (("curate.filters", self.source_cascade), ("filters", self.pair_cascade)):
            for name, one in cascade.filters.items():
                if (lacking := one.lacks()) is not None:
                    raise ValueError(
                        f"{section}.{name} cannot measure anything: {lacking}, or take the filter out"
                    )
        return self

    def _check_share(self) -> None:
        """ValueError if the jobs cannot be shared as the recipe says."""
        if self.edit.share is None:
            return
        prices = {name: spec.price for name, spec in self.edit.editors.items() if spec.when == "always"}
        if len(prices) < 2 or self.imports_pairs:
            raise ValueError("edit.share: measured needs two or more editors that make candidates of any job")
        if self.edit.least_share * len(prices) > 1:
            raise ValueError(
                f"edit.least_share: {len(prices)} editors cannot have {self.edit.least_share:g} each"
            )
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
    made: dict[str, Filter] = {}
    for name, spec in specs.items():
        made[name] = parts.make(filter_folder, spec.filter or name, Filter, spec.options)
        if scope not in made[name].scope:
            raise ValueError(
                f"filter {name!r} does not measure a {scope}, only {', '.join(sorted(made[name].scope))}"
            )
    bounds = {name: spec.bounds for name, spec in specs.items()}
    return Cascade.of(made, bounds, category_bounds, regime_bounds)


def load(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, of a run's directory (its `recipe.yaml`), or one that ships (by its name in `configs/`).

    A run's directory is the run, wherever it was built: its recipe names no `run`.
    """
    file = Path(path)
    if (file / "recipe.yaml").is_file():
        made = recipe.load(Recipe, file / "recipe.yaml", [f"run={json.dumps(path)}", *overrides]).check()
        return _settled(made)
    if file.is_dir():
        raise ValueError(f"{path} is no run: it has no recipe.yaml (build one with `crispedit build`)")
    shipped = resources.files("crispedit.configs") / f"{file.stem}.yaml"
    if not file.exists() and shipped.is_file():
        made = recipe.parse(Recipe, shipped.read_text(encoding="utf-8"), overrides, name=path).check()
        return _settled(made)
    return _settled(recipe.load(Recipe, file, overrides).check())


def _settled(made: Recipe) -> Recipe:
    """The recipe with what the layout of its pairs is, where it leaves that open; its editors' options are
    checked. (A run's own recipe was settled when the run began.)"""
    for name, editor in made.editors.items():
        try:
            editor.check()
        except ValueError as error:
            raise ValueError(f"edit.editors.{name}: {error}") from None
    if isinstance(made.source, PairsSource):
        return made.model_copy(update={"source": layout.detected(made.source)})
    return made


def resolved(of: Recipe) -> dict[str, Any]:
    """The recipe with every default written out, JSON-ready."""
    return of.model_dump(mode="json")
