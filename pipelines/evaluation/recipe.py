"""The recipe of an evaluation: benchmarks, editors, models, and what the judge costs."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from crispedit.measures import Models
from crispedit.pipelines.recipe import EngineSpec
from crispedit.recipe import PartSpec, Pool, Strict


class EntrySpec(PartSpec):
    """A row of the table: an editor with its options beside it, or folders of results."""

    editor: str | None = None
    results: Path | tuple[Path, ...] | None = None
    """Images named by the ids of the cases; several folders are several seeds."""
    seeds: int = Field(1, ge=1)
    """How often each case is edited, each time with another seed."""


class Price(Strict):
    """What the judge's tokens cost."""

    prompt_per_million: float = Field(ge=0)
    answer_per_million: float = Field(ge=0)
    image_tokens: int = Field(1000, ge=0)
    """Tokens per image, for the estimate before a run."""
    currency: str = "USD"

    def of(self, prompt_tokens: float, answer_tokens: float) -> float:
        return (prompt_tokens * self.prompt_per_million + answer_tokens * self.answer_per_million) / 1e6


class EvaluationRecipe(Strict):
    out: Path
    benchmarks: dict[str, dict[str, Any]] = Field(min_length=1)
    """Benchmarks by name, with their options; `benchmark: package.module` names one of your own."""
    editors: dict[str, EntrySpec] = {}
    """Editors by their names in the table."""
    controls: tuple[Literal["copy-source", "ground-truth"], ...] = ("copy-source", "ground-truth")
    """Judging a control costs as much as judging an editor, but only once: replies are kept."""
    models: Models = Models()
    judgements: int = Field(1, ge=1)
    """How often a judge rates each answer."""
    kept: Path | None = None
    """The folder of the judge's replies, which several evaluations may share; null: `judge-replies` beside `out`."""
    edits: Path | None = None
    """The folder of edits, which several evaluations may share; null: `edits` beside `out`."""
    price: Price | None = None
    humans: Path | None = None
    """People's preferences about these editors: a CSV, JSONL or parquet of case, first, second, winner."""
    limit: int | None = Field(None, ge=1)
    """The most families of cases (such as sessions), chosen by the hashes of their ids; null: all."""
    level: float = Field(0.95, gt=0, lt=1)
    measure: Pool = Pool()
    """The actors that measure."""
    engine: EngineSpec = EngineSpec(kind="inprocess")
