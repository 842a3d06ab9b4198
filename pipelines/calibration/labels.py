"""Labels: reads a person's verdicts on pairs from JSON lines or CSV, and matches them to rows of a run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crispedit import jsonl
from crispedit.pipelines.sources import texts

IDS = ("key", "id", "uri")
VERDICTS = ("verdict", "label")
GOOD = frozenset(("good", "keep", "kept", "yes", "true", "1"))
BAD = frozenset(("bad", "reject", "rejected", "no", "false", "0"))
NO_VOTE = frozenset(("", "unsure", "skip"))


@dataclass(frozen=True)
class Label:
    """A person's verdict on one pair."""

    names: tuple[str, ...]
    """The file's name of the pair: its key in a run, the user's own id, or its uri in the source."""
    good: bool
    verdict: str
    """The verdict's word: "good", or the fault."""
    group: str | None
    """Pairs of one group are not independent, such as those of one editing model."""


def read(file: Path, group: str | None = None, verdict: str | None = None) -> list[Label]:
    """The labels of a file in order; the last one of a pair counts, and unsure ones are left out.

    A column `verdict` may have any word; all except "good" ("keep", ...) mean bad. A column `label` must say good or
    bad. ValueError names the file, the row and the existing columns.
    """
    labels: dict[tuple[str, ...], Label | None] = {}
    for number, row in _rows(file):
        place = f"{file}, row {number}"
        ids = tuple(str(row[name]) for name in IDS if row.get(name) not in (None, ""))
        if not ids:
            raise ValueError(f"{place}: no {' or '.join(IDS)}; it has the columns {', '.join(row)}")
        column = verdict or next((name for name in VERDICTS if name in row), None)
        if column is None or column not in row:
            raise ValueError(f"{place}: no column {verdict or 'verdict or label'}; it has {', '.join(row)}")
        if group is not None and group not in row:
            raise ValueError(f"{place}: no column {group} to group by; it has {', '.join(row)}")
        word = str(row[column] if row[column] is not None else "").strip().lower()
        if column == "label" and word not in GOOD | BAD | NO_VOTE:
            raise ValueError(f"{place}: label {word!r} is none of {', '.join(sorted((GOOD | BAD | NO_VOTE) - {''}))}")
        said = Label(ids, word in GOOD, "good" if word in GOOD else word, str(row[group] or "") if group else None)
        labels[ids] = None if word in NO_VOTE else said
    return [label for label in labels.values() if label is not None]


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(number, row) of each row; the first line of a file is row 1."""
    if not file.is_file():
        raise ValueError(f"the file of labels {file} does not exist")
    if file.suffix.lower() in (".jsonl", ".json", ".ndjson"):
        yield from jsonl.read(file, "a label per line")
    else:
        with file.open("rb") as opened:
            yield from enumerate(texts.csv_rows(opened), start=2)


def match(labels: Sequence[Label], names: Iterable[tuple[str, Sequence[str | None]]]) -> dict[str, Label]:
    """The label of each key of a run that has one; `names` are (key, other names of the same pair). ValueError if a
    name fits several pairs, so that nobody knows which of them the person saw."""
    keys: dict[str, list[str]] = {}
    for key, others in names:
        for name in {key, *others} - {None}:
            keys.setdefault(str(name), []).append(key)
    matched = {}
    for label in labels:
        name = next((name for name in label.names if name in keys), None)
        if name is None:
            continue
        if len(keys[name]) > 1:
            raise ValueError(
                f"the label {name!r} fits {len(keys[name])} pairs; label them by key: {', '.join(keys[name][:5])}"
            )
        matched[keys[name][0]] = label
    return matched
