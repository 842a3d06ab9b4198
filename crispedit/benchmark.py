"""Benchmarks: cases to edit, and the published ways (protocols) of scoring the answers.

A benchmark is a part: one class in one file of `crispedit/benchmarks`. The file's name is its name in a recipe, and its
fields say where the published files are. It lists `cases` without reading an image and scores answers;
`crispedit.pipelines.evaluate` runs the editors, commits and reports.
"""

from __future__ import annotations

import ast
import io
import json
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Literal

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as Pillow
from PIL import UnidentifiedImageError
from pydantic import TypeAdapter, field_validator

from crispedit import images, metrics, prompts
from crispedit.chat import Chat, ChatError, Published
from crispedit.judge import NO_USAGE, JudgeReply, JudgeUsage, Question, settings
from crispedit.measures import Measures
from crispedit.parts import Part
from crispedit.record import Image, Job, Mask, Score, content_key
from crispedit.replies import Winner

CHUNKS = 8
"""Chunks of parquet cells kept in memory: neighbouring cases share one."""


@dataclass(frozen=True)
class Picture:
    """Where an image's bytes are: a file, a range of one (`offset`, `size`), or a cell of a table (`row`, `column`;
    "NAME/1" is the second one of a column of lists)."""

    path: str
    offset: int | None = None
    size: int | None = None
    row: int | None = None
    column: str | None = None

    def read(self) -> bytes:
        """The bytes. ValueError, naming the place, if there are none."""
        try:
            if self.row is not None and self.column is not None:
                return _cell(self.path, self.row, self.column)
            with fsspec.open(self.path, "rb") as file:
                if self.offset is None:
                    return bytes(file.read())
                file.seek(self.offset)
                return bytes(file.read(self.size))
        except OSError as error:
            raise ValueError(f"{self.path}: {error.strerror or error}") from None

    def image(self) -> Image:
        """The pixels as the published scripts see them: Pillow's `convert("RGB")`, which ignores profile and alpha."""
        try:
            with Pillow.open(io.BytesIO(self.read())) as opened:
                return np.asarray(opened.convert("RGB"))
        except UnidentifiedImageError:
            raise ValueError(f"{self.path} is not an image") from None
        except (OSError, Pillow.DecompressionBombError) as error:
            raise ValueError(f"{self.path}: {error}") from None


@dataclass(frozen=True)
class Case:
    """One edit that a benchmark asks for."""

    id: str
    """Unique in the benchmark; a folder of results names its images by it ("a/b" is `b.png` in the folder `a`)."""
    instruction: str
    source: Picture | None
    """None: the source is the answer to the case `after`, which comes earlier in the list (multi-turn editing)."""
    group: str = ""
    """The kind of edit; some protocols weigh every group alike."""
    family: str = ""
    """Cases of one family (such as a session) are dependent, so the bootstrap draws whole families. Empty: the id."""
    target: Picture | None = None
    """What a perfect editor would answer, where there is one."""
    mask: Picture | None = None
    source_caption: str | None = None
    target_caption: str | None = None
    after: str | None = None
    protocols: tuple[str, ...] = ()
    """The protocols that score this case; empty for an intermediate step that is not scored."""
    result: str = ""
    """The name of its image in a folder of results, if that is not the id: published sets repeat file names."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    def job(self) -> Job:
        """The job that the editor is given."""
        return Job(
            source_key=content_key("case", self.id),
            category=self.group,
            instruction=self.instruction,
            source_caption=self.source_caption or "",
            target_caption=self.target_caption or "",
        )

    @staticmethod
    def from_json(text: str) -> Case:
        return TypeAdapter(Case).validate_json(text)


@dataclass(frozen=True)
class Answer:
    """An answered case with its pixels. `edited` may differ in size from the other images, which share one size."""

    case: Case
    source: Image
    edited: Image
    target: Image | None = None
    mask: Mask | None = None
    repeat: int = 0
    """Which of several judgements this is."""


@dataclass(frozen=True)
class Scored:
    """The metrics of an answer, by protocol; None where one cannot be known."""

    values: Mapping[str, Mapping[str, Score]]
    unparsed: bool = False
    """A judge's reply could not be read; its metrics are None, never a guess."""
    words: tuple[str, ...] = ()
    """What a judge said."""
    usage: JudgeUsage = NO_USAGE
    """What its judge cost."""


REVERSED: Mapping[Winner, Winner] = {"first": "second", "second": "first", "tie": "tie"}


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to one case, in the order in which a judge is shown them."""

    first: Answer
    second: Answer


@dataclass(frozen=True)
class Compared:
    """Which of two answers a judge prefers, by dimension; None where it did not say, or contradicts itself."""

    winners: Mapping[str, Winner | None]
    in_order: Mapping[str, Winner | None] = field(default_factory=dict)
    """The winners when the first answer was shown first."""
    reversed: Mapping[str, Winner | None] = field(default_factory=dict)
    """The winners in the other order; "first" is still the first answer."""
    unparsed: bool = False
    words: tuple[str, ...] = ()
    usage: JudgeUsage = NO_USAGE


Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Protocol:
    """A way of scoring. Only numbers of the same protocol can be compared."""

    about: str
    """What is compared with what, as the table says it."""
    metrics: Mapping[str, Better]
    headline: str
    """The metric that is shown group by group."""
    by_group: bool = False
    """The unweighted mean of the groups' means, instead of the mean of all cases."""
    drops_black: bool = False
    """Leave all-black answers out of the means, as the published script does (they are still counted)."""
    models: Mapping[str, str] = field(default_factory=dict)
    """The model of each role that the published numbers were measured with."""
    published_as: str = ""
    """The published protocol whose figures are shown beside these; empty: this protocol."""
    perfect_by_copying: frozenset[str] = frozenset()
    """Metrics on which an unchanged source is perfect. A missing answer gets the worst value of these, and the source's
    value of all others, so refusing never helps."""
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Names of a group's metrics, where a published prompt names them by the kind of edit."""


class Benchmark(Part):
    """Published cases and how to score them. Fields are options; `cases` and `score` are the contract."""

    questions: ClassVar[float] = 0.0
    """About how many questions a judge is asked for each answer."""
    pairwise: ClassVar[bool] = False
    """Whether `compare` compares the answers of two editors, in place of `score`."""

    @field_validator("*")
    @classmethod
    def _absolute(cls, value: Any) -> Any:
        """Workers have another working directory."""
        return value.absolute() if isinstance(value, Path) else value

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        """By id."""
        raise NotImplementedError

    def cases(self) -> Sequence[Case]:
        """Every case, in a stable order. ValueError names a published file that is missing and its expected form."""
        raise NotImplementedError

    def score(self, answers: Sequence[Answer], measures: Measures) -> list[Scored | Exception]:
        """One result per answer, in order, for the protocols of its case; an exception is that answer's error."""
        return [self.score_one(answer, measures) for answer in answers]

    def score_one(self, answer: Answer, measures: Measures) -> Scored:
        """The result of one answer. A benchmark defines this, or `score` if it works on batches."""
        raise NotImplementedError

    def compare(self, pairs: Sequence[AnswerPair], measures: Measures) -> list[Compared | Exception]:
        """For a pairwise benchmark, one result per pair of answers, in order."""
        raise NotImplementedError

    def request(self, chat: Chat) -> Mapping[str, Any]:
        """How a judge is asked, JSON-ready: order, settings, schema. Empty without a judge."""
        return {}

    def editing(self) -> Mapping[str, Any]:
        """The options that decide what an editor is shown: benchmarks that share them share the answers."""
        return {}

    def image(self, picture: Picture) -> Image:
        """A case's picture as the editor is shown it, and as it is scored."""
        return picture.image()

    def mask(self, picture: Picture) -> Mask:
        """[H, W], true where the edit may be."""
        return images.decode_mask(picture.read())


class JudgedBenchmark(Benchmark):
    """A benchmark whose answers a judge marks. `questions_on` an answer and `marks`, from their replies, are the
    contract.

    Without `prompts`, our own prompts are used, under another id: those numbers are not comparable.
    """

    own_prompts: ClassVar[tuple[str, ...]] = ()
    """Our own prompts, by name."""

    prompts: Path | None = None
    """The published prompts."""

    def questions_on(self, answer: Answer) -> Sequence[Question[Any]]:
        raise NotImplementedError

    def marks(self, case: Case, values: Sequence[Any]) -> dict[str, Score]:
        """Every metric of an answer from the values of its replies, of which an unreadable one is None."""
        raise NotImplementedError

    def score(self, answers: Sequence[Answer], measures: Measures) -> list[Scored | Exception]:
        protocols = self.protocols
        if measures.judge is None:
            return [Scored({p: dict.fromkeys(protocols[p].metrics) for p in a.case.protocols}) for a in answers]
        questions = [self.questions_on(answer) for answer in answers]
        results = iter(measures.judge.ask([question for some in questions for question in some]))
        asked = zip(answers, questions, strict=True)
        return [self.scored(answer.case, [next(results) for _ in some]) for answer, some in asked]

    def scored(
        self,
        case: Case,
        results: Sequence[JudgeReply[Any] | ChatError],
        before: JudgeReply[Any] | ChatError | None = None,
    ) -> Scored | Exception:
        """An answer's marks, or the first error among its replies: the judge will be asked again. `before`: the reply
        to an earlier question, which is paid for, too."""
        replied: list[JudgeReply[Any]] = []
        for one in (before, *results):
            if isinstance(one, ChatError):
                return one
            replied += [] if one is None else [one]
        usage = sum((reply.usage for reply in replied), NO_USAGE)
        replied = replied[-len(results) :]
        values = [reply.value for reply in replied]
        marks = dict.fromkeys(case.protocols, self.marks(case, values))
        return Scored(marks, None in values, tuple(reply.text for reply in replied), usage)

    def asked(self, chat: Chat, published: Published | None, order: str, schema: str) -> Mapping[str, Any]:
        """What `request` says of questions with parts in this order, sent as published or with the judge's settings."""
        used = "our own" if self.prompts is None else "published"
        return settings(published, chat) | {"order": order, "schema": schema, "prompts": used}

    def published(self) -> object:
        """The content of `prompts`, JSON-ready, or its hash."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        used = prompts.versions(self.own_prompts) if self.prompts is None else self.published()
        return super().identity() | {"prompts": used}


def against(reference: Image, edited: Image, caption: str | None, measures: Measures) -> dict[str, Score]:
    """MagicBrush's five: l1, l2, clip_i and dino of the answer and a reference, clip_t of the answer and a caption."""
    fitted = metrics.resized(edited, reference)
    return {
        "l1": metrics.l1(fitted, reference),
        "l2": metrics.l2(fitted, reference),
        "clip_i": measures.clip_image("clip", edited, reference),
        "dino": measures.dino_image(edited, reference),
        "clip_t": measures.clip_text("clip", edited, caption),
    }


AGAINST: Mapping[str, Better] = {"l1": "lower", "l2": "lower", "clip_i": "higher", "dino": "higher", "clip_t": "higher"}
MODELS = {"clip": "ViT-B-32-quickgelu openai", "dino": "vit_small_patch16_224.dino"}
"""The models of the published scripts: CLIP-I and CLIP-T by OpenAI's ViT-B/32, DINO by ViT-S/16."""


def fields(item: Mapping[str, Any], names: Sequence[str], where: str) -> list[Any]:
    """These fields of a published item. ValueError, which begins with `where`, names a missing one."""
    try:
        return [item[name] for name in names]
    except KeyError as error:
        raise ValueError(f"{where}: no {error}") from None


def picture_in(folder: Path, name: str, where: str) -> Picture:
    """A published set's picture by its file name. ValueError, which begins with `where`, if it leaves the folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{where}: {name!r} leaves the folder")
    return Picture(str(path))


def read_json(path: Path, what: str) -> Any:
    """A published JSON file. ValueError says what it should be."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError:
        raise ValueError(f"{path} is missing: {what}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


@cache
def text_constants(path: Path, what: str) -> Mapping[str, str]:
    """The texts that a published Python file assigns to names; it is parsed, not run. ValueError if it cannot be."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"prompts: {path} is not {what}: {error}") from None
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }


def rows(files: Sequence[Path], columns: Sequence[str]) -> list[tuple[Path, int, dict[str, Any]]]:
    """(file, row number, the light columns) of parquet or arrow files. ValueError names a column that is missing."""
    numbered = []
    for path in files:
        schema = pq.read_schema(path) if path.suffix == ".parquet" else _arrow(str(path)).schema
        if missing := [column for column in columns if column not in schema.names]:
            raise ValueError(f"{path}: no column {missing[0]!r}; it has {', '.join(schema.names)}")
        table = pq.read_table(path, columns=list(columns)) if path.suffix == ".parquet" else _arrow(str(path))
        numbered += [(path, i, row) for i, row in enumerate(table.select(list(columns)).to_pylist())]
    return numbered


def _cell(path: str, row: int, column: str) -> bytes:
    """The bytes of an image cell: Hugging Face's {bytes, path}, or plain binary."""
    column, _, item = column.partition("/")
    if path.endswith(".parquet"):
        starts = _group_starts(path)
        if row >= starts[-1]:
            raise ValueError(f"{path}: no row {row}, it has {starts[-1]}")
        group = bisect(starts, row) - 1
        value = _read_group(path, group, column)[row - starts[group]].as_py()
    else:
        value = _arrow(path).column(column)[row].as_py()
    value = value[int(item)] if item else value
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise ValueError(f"{path}: row {row} has no bytes in {column!r}")
    return data


@lru_cache(maxsize=256)
def _group_starts(path: str) -> list[int]:
    """The first row of each row group, and the number of rows."""
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    return list(accumulate(sizes, initial=0))


@lru_cache(maxsize=CHUNKS)
def _read_group(path: str, group: int, column: str) -> pa.ChunkedArray:
    with pq.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).column(column)


@lru_cache(maxsize=CHUNKS)
def _arrow(path: str) -> pa.Table:
    """An Arrow stream, as `datasets` stores it: mapped, not read."""
    try:
        return pa.ipc.open_stream(pa.memory_map(path)).read_all()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not an Arrow stream: {error}") from None
