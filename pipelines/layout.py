"""Layout: what kind of pairs lie at a place, and which of their columns hold what, found by looking.

A newcomer names a folder; `detected` says which files there hold pairs and guesses the columns by the names that public
datasets use. `survey` looks at the first pairs before a build starts, says what was found, and stops where none of them
can be read.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from crispedit.category import Category, resolve
from crispedit.classifier import needs_second_image
from crispedit.pipelines import pairs, sources
from crispedit.pipelines.pairs import Columns, PairsSource
from crispedit.pipelines.sources import IMAGE_SUFFIXES, File, Skipped, suffix_of, tar, texts

LAYOUTS = {".parquet": "parquet", ".jsonl": "jsonl", ".csv": "csv", ".tar": "webdataset", ".json": "jsonl"}
"""Which layout files of a suffix have; the first that is there counts."""

NAMES = {
    "source": """source source_image src_image src_img source_img input_image input_img original_image original_img
        original before before_image image_before input src image_file source_path input_path source_file
        source_file_name source_image_path local_input_image init_image image""",
    "edited": """edited edited_image edit_image edited_img edit_img output_image output_img target_image target_img target
        after after_image image_after output tgt edited_file edited_path output_path target_path edited_file_name
        edited_image_path generated_image result result_image""",
    "instruction": """instruction edit_instruction edit_prompt prompt_en prompt text edit instructions edit_text
        input_prompt editing_instruction caption txt""",
    "mask": "edit_mask mask_png",
    "category": "category edit_type edit_task edit_subtask task type task_type edit_category",
    "id": "id uid uuid key sample_id pair_id image_id omni_edit_id idx",
    "licence": "licence license",
    "dataset": "dataset source_dataset dataset_name",
}
"""What the columns of public datasets are called, likeliest first."""

LOOK = 300
"""How many pairs `survey` looks at."""
FEW = 20
"""How many of them it reads at once, until one is whole."""


def detected(source: PairsSource) -> PairsSource:
    """The source with its layout and columns filled in. ValueError says which column was not found, and lists those
    that are there."""
    if source.layout is not None and source.columns.complete:
        return source
    files = sources.files(source.path, Skipped())
    layout = source.layout or _layout(source, files)
    settled = source.model_copy(update={"layout": layout})
    there = _columns(settled, pairs.files(settled, Skipped()))
    guessed = {part: _guess(there, names.split()) for part, names in NAMES.items()}
    given = {part: name for part, name in source.columns.model_dump().items() if name is not None}
    taken = set(given.values())
    columns = Columns(**({part: name for part, name in guessed.items() if name and name not in taken} | given))
    for part in ("source", "edited", "instruction"):
        if getattr(columns, part) is None:
            raise ValueError(
                f"source.columns.{part}: no column looks like it; set it to one of {', '.join(there) or 'none'} "
                f"(layout {layout}, from {source.path!r})"
            )
    return settled.model_copy(update={"columns": columns})


def _layout(source: PairsSource, files: Sequence[File]) -> str:
    counts = Counter(suffix_of(file.uri) for file in files)
    for suffix, layout in LAYOUTS.items():
        if counts[suffix]:
            return layout
    if any(counts[suffix] for suffix in IMAGE_SUFFIXES):
        return "folder"
    there = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in counts.most_common(5))
    raise ValueError(
        f"source.path: no pairs in {source.path!r}: looked for {', '.join(LAYOUTS)} and images; it has {there or 'no file'}"
    )


def _columns(source: PairsSource, files: Iterable[File]) -> list[str]:
    """The columns, fields or member extensions of the first file that can be read."""
    for file in files:
        if file.error is not None:
            continue
        if source.layout == "folder":
            return pairs.endings(source.path)
        with sources.open_file(file.path) as opened:
            if source.layout == "parquet":
                return list(pq.ParquetFile(opened).schema_arrow.names)
            if source.layout == "webdataset":
                return _members(opened)
            row = next(iter(pairs.rows_of(file, opened)), None)
            return _leaves(row) if isinstance(row, Mapping) else []
    return []


def _members(opened: Any) -> list[str]:
    """The extensions of the first sample of a tar, and the fields of its JSON."""
    key, extensions = None, list[str]()
    for member in itertools.islice(tar.members(opened), LOOK):
        name, extension = sources.split_member(member.name)
        if key not in (None, name):
            break
        key = name
        extensions.append(extension)
        if extension.endswith("json"):
            row = json.loads(texts.decode(member.read()))
            extensions += [f"{extension}.{field}" for field in _leaves(row)] if isinstance(row, Mapping) else []
    return extensions


def _leaves(row: Mapping[str, Any]) -> list[str]:
    """The paths of a JSON object, one step into lists and objects: `input_images.0`, `meta.id`."""
    found = []
    for name, value in row.items():
        if isinstance(value, list) and value:
            found.append(f"{name}.0")
        elif isinstance(value, Mapping):
            found += [f"{name}.{inner}" for inner in value]
        else:
            found.append(name)
    return found


def _guess(there: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of the names that is a column, whatever its case, and for a path its last name: `json.prompt`,
    `source.jpg`, `input_images.0`."""
    plain: dict[str, str] = {}
    for column in there:
        steps = [step for step in column.casefold().split(".") if step not in IMAGE_STEPS]
        for name in (column.casefold(), *steps):
            plain.setdefault(name.rstrip("s") if column.endswith(".0") else name, column)
    return next((plain[name] for name in names if name in plain), None)
