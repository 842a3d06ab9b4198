"""Records: the tables of a run, and their rows in the driver: keys, texts, outcomes and references."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import pyarrow as pa

from crispedit.cascade import Cascade
from crispedit.shards.journal import BlobRef, Table, columns

OUTCOME = [*columns(pa.string(), "refusal", "error"), ("transient", pa.bool_())]
"""`refusal`: understood and declined; `error`: failed; `transient`: whether the error is transient, null without
one."""

TOKENS = ("input_tokens", "output_tokens")
"""A chat model's tokens for a row; null: no model, or its server does not count."""


def _table(*fields: tuple[str, pa.DataType], **options: Any) -> Table:
    return Table(pa.schema(fields), **options)


CURATE = _table(
    *columns(pa.string(), "uri", "key", "dataset", "licence", "caption", "format"),
    *columns(pa.int32(), "original_width", "original_height", "width", "height"),
    ("sha256", pa.string()),
    *OUTCOME,
    ("image", pa.binary()),
    key="uri",
    blobs={"image": "jpg"},
    member="key",
)
"""One row per input file."""

ANNOTATE = _table(
    *columns(pa.string(), "key", "job_key", "source_key", "category"),
    ("ordinal", pa.int32()),
    *columns(pa.string(), "instruction", "source_caption", "target_caption", "plan"),
    *columns(pa.int64(), *TOKENS),
    *OUTCOME,
)
"""One row per requested edit (photograph, category, ordinal): the job, or why there is none."""

EDIT = _table(
    *columns(pa.string(), "key", "job_key", "source_key", "category", "editor"),
    ("editor_version", pa.int32()),
    ("options", pa.string()),
    *columns(pa.int32(), "seed", "width", "height"),
    *columns(pa.string(), "transform", "drift"),
    *columns(pa.float64(), "cost", "seconds", "gpu_seconds"),
    *OUTCOME,
    *columns(pa.binary(), "source", "edited", "mask"),
    blobs={"source": "source.jpg", "edited": "edited.jpg", "mask": "mask.png"},
)
"""One row per candidate. `source` is null unless the editor composed a new source. With `edit.repair`, `transform` is
the JSON of the [2][3] affine map (source to edited pixels) that was undone; with `edit.repair_drift`, `drift` is the
JSON of each channel's `gain` and `offset` that were removed (edited = gain * source + offset). Otherwise both are null.
`cost` is the server's charge for the edit, in the currency of its prices; null if unknown. `seconds` is the editor's
time for its batch, shared evenly, and `gpu_seconds` that times the GPUs of its process; null for imported edits and for
errors."""

IN_PLACE = "[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]"
"""The `transform` of an edit that was aligned already, or could not be: stored unchanged."""

COMPARE = _table(
    *columns(pa.string(), "key", "job_key"),
    ("candidates", pa.list_(pa.string())),
    *columns(pa.string(), "chosen", "answers"),
    *columns(pa.int64(), *TOKENS),
    ("error", pa.string()),
    ("transient", pa.bool_()),
)
"""One row per comparison of a job's candidates, whose keys are `candidates`. `chosen` is a key, or null if the judge
preferred none. With other bounds other candidates pass, which makes another comparison."""


def score_table(cascade: Cascade) -> Table:
    """One row per measured candidate: its score columns. Several rows of a key complement each other."""
    return Table(pa.schema([pa.field("key", pa.string()), *cascade.columns]), completes=True)


def curate_table(cascade: Cascade) -> Table:
    """CURATE with the photographs' score columns."""
    schema = pa.schema([*CURATE.schema, *cascade.columns])
    return Table(schema, key=CURATE.key, blobs=CURATE.blobs, member=CURATE.member)


@dataclass(slots=True, kw_only=True)
class Record:
    """The columns of a row that the driver needs."""

    error: str | None = None
    transient: bool | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The record in a row that may have more columns."""
        return cls(**{f.name: row[f.name] for f in fields(cls) if f.name in row})

    def row(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(slots=True)
class Photograph(Record):
    """A row of `curate`."""

    uri: str
    key: str | None = None
    caption: str | None = None
    width: int | None = None
    original_width: int | None = None
    image: BlobRef | None = None


@dataclass(slots=True)
class Request(Record):
    """A row of `annotate`: a requested edit of a photograph, and the resulting job."""

    key: str
    source_key: str
    category: str
    ordinal: int
    job_key: str | None = None
    instruction: str | None = None
    source_caption: str | None = None
    target_caption: str | None = None
    plan: str | None = None


@dataclass(slots=True)
class Candidate(Record):
    """A row of `edit`, with the row of `score` once there is one."""

    key: str
    job_key: str
    source_key: str
    category: str
    editor: str
    source: BlobRef | None = None
    edited: BlobRef | None = None
    mask: BlobRef | None = None
    refusal: str | None = None
    scores: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Comparison(Record):
    """A row of `compare`."""

    key: str
    job_key: str
    chosen: str | None = None
