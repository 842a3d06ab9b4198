"""Measured: the good pairs of a run or a shard set, and their scores: of the pairs, of every defect made from them, and
of those with a person's label; and the detection of near-duplicates."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from crispedit import change, console, images
from crispedit.cascade import Cascade
from crispedit.filters.duplicate import phash
from crispedit.pipelines import build, tables
from crispedit.pipelines.calibration import defects
from crispedit.pipelines.calibration.defects import Good
from crispedit.pipelines.calibration.labels import Label
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.select import SELECTION
from crispedit.record import Sample, content_key, seed_of
from crispedit.shards import journal
from crispedit.shards.read import ShardReader

GOOD = "good"


@dataclass(frozen=True)
class GoodPair:
    """A good pair and the key of its photograph. Pixels are decoded in copies of the sample, so that many fit into
    memory."""

    photograph: str
    sample: Sample


def run_pairs(of: Run) -> list[GoodPair]:
    """Every edited candidate of a run, in key order. A run without a selection is built, or resumed, up to edit."""
    if not (of.folder("select") / SELECTION).exists():
        for step in ("curate", "annotate", "edit"):
            build.step(of, step)
    rows = tables.connect(of).sql("""
        SELECT source_key, source AS source_jpeg, edited AS edited_jpeg, mask AS mask_png,
               key, category, instruction, source_caption, target_caption
        FROM candidate WHERE edited IS NOT NULL ORDER BY key""")
    pairs = []
    for row in rows.to_arrow_table().to_pylist():
        for blob in ("source_jpeg", "edited_jpeg", "mask_png"):
            row[blob] = row[blob] and journal.read_blob(of.root, row[blob])
        pairs.append(GoodPair(row.pop("source_key"), Sample(**row)))
    return pairs


def shard_pairs(path: str) -> list[GoodPair]:
    """Every pair of a shard set, in key order. Photographs are identified by `source_key`; without it, all count as
    different."""
    pairs = []
    for pair in ShardReader(path, decode=False):
        texts = {text: pair.meta.get(text) for text in ("instruction", "source_caption", "target_caption")}
        sample = Sample(pair.key, pair.source_jpeg, pair.edited_jpeg, pair.mask_png, pair.category, **texts)
        pairs.append(GoodPair(str(pair.meta.get("source_key") or pair.key), sample))
    return sorted(pairs, key=lambda pair: pair.sample.key)


def spread(pairs: Sequence[GoodPair], limit: int | None) -> list[GoodPair]:
    """At most `limit` pairs, from as many photographs and categories as possible."""
    turn: Counter[tuple[str, str | None]] = Counter()
    ranked: list[tuple[int, int, GoodPair]] = []
    for pair in sorted(pairs, key=lambda pair: content_key("calibrate", pair.sample.key)):
        ranked.append((turn[pair.photograph, pair.sample.category], len(ranked), pair))
        turn[pair.photograph, pair.sample.category] += 1
    return [pair for _, _, pair in sorted(ranked, key=lambda entry: entry[:2])[:limit]]


def names(of: Run) -> dict[str, list[str | None]]:
    """The other names of each candidate's pair, by key: the user's own id, and its uri in the source."""
    extract = "json_extract_string(options, ['$.id', '$.uri'])"
    return dict(tables.connect(of).sql(f"SELECT key, {extract} FROM edit ORDER BY key").fetchall())


def measure(cascade: Cascade, pairs: Sequence[GoodPair], *, masks: bool = True) -> list[dict[str, Any]]:
    """Every score of every good pair and of every defect made from it; a row also has key, photograph, category and
    defect (`good` for none). A filter's exception goes into its error column, as in a run."""
    return [
        _scored(cascade, sample if masks else replace(sample, mask_png=None), {})
        | {"key": sample.key, "photograph": pair.photograph, "defect": defect}
        for pair in _loaded(cascade, pairs)
        for defect, sample in _with_defects(pair, pairs)
    ]


def labelled_rows(
    of: Run, labels: Mapping[str, Label], known: Mapping[str, Sequence[str | None]]
) -> list[dict[str, Any]]:
    """The scores of every labelled candidate, with the person's verdict: the rows for `labelled.judged`. Scores that
    the run has not measured are measured now."""
    committed = {row["key"]: row for row in tables.connect(of).sql("SELECT * FROM score").to_arrow_table().to_pylist()}
    cascade = of.recipe.pair_cascade
    rows = []
    for pair in _loaded(cascade, [pair for pair in run_pairs(of) if pair.sample.key in labels]):
        key, label = pair.sample.key, labels[pair.sample.key]
        own = next((name for name in known.get(key, ()) if name is not None), key)
        row = _scored(cascade, replace(pair.sample), committed.get(key, {}))
        row |= {"key": key, "id": own, "good": label.good, "verdict": label.verdict, "group": label.group or own}
        rows.append(row)
    return rows


def _loaded(cascade: Cascade, pairs: Sequence[GoodPair]) -> Iterator[GoodPair]:
    """The pairs, with a progress bar, once the filters are loaded."""
    for filter_ in cascade.filters.values():
        filter_.load()
    yield from tqdm(pairs, desc="measure", unit="pair", disable=not console.shows_progress())


def _scored(cascade: Cascade, sample: Sample, known: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the known scores of a sample and all that were missing."""
    row = {**known, "category": sample.category}
    cascade.measure([sample], [row], everything=True)
    return row


def _with_defects(pair: GoodPair, pairs: Sequence[GoodPair]) -> Iterator[tuple[str, Sample]]:
    sample = replace(pair.sample)
    yield GOOD, sample
    if sample.source.shape != sample.edited.shape:
        return  # a misaligned pair is not a good pair
    good = Good(sample.source, sample.edited, edit_of(sample))
    for name, make in defects.STRUCTURAL.items():
        edited = make(good, np.random.default_rng(seed_of(sample.key, name)))
        if edited is not None:
            yield name, replace(sample, edited_jpeg=images.encode_jpeg(edited))
    for name, mix in defects.SEMANTIC.items():
        other = other_for(name, pair, pairs)
        mixed = mix(sample, None if other is None else other.sample)
        if mixed is not None:
            yield name, mixed


def other_for(defect: str, pair: GoodPair, pairs: Sequence[GoodPair]) -> GoodPair | None:
    """The pair that a semantic defect confuses with this one: of the same category (another, for `wrong_instruction`),
    with another target caption, and if possible on the same photograph, which is harder to detect."""
    fit = [
        other
        for other in pairs
        if (other.sample.category != pair.sample.category) == (defect == "wrong_instruction")
        and other.sample.target_caption != pair.sample.target_caption
    ]
    near = [other for other in fit if other.photograph == pair.photograph] or fit
    return near[seed_of(pair.sample.key, defect) % len(near)] if near else None


def edit_of(sample: Sample) -> NDArray[np.bool_]:
    """[H, W] where the edit is: the true mask, or the estimated one."""
    return change.onto(change.estimate(sample.changed), sample.source.shape) if sample.mask is None else sample.mask


def near_duplicates(pairs: Sequence[GoodPair], bits: int) -> dict[str, Any]:
    """The shares that `select` would call duplicates at this many bits, if instructions were equal: of re-encoded
    copies 2 % smaller, and of pairs of other photographs."""
    hashes, copies = [], []
    for pair in pairs:
        sample = replace(pair.sample)
        copied = [defects.near_copy(image) for image in (sample.source, sample.edited)]
        hashes.append([phash(sample.source_gray), phash(sample.edited_gray)])
        copies.append([phash(images.gray(image)) for image in copied])

    def alike(a: Sequence[int | None], b: Sequence[int | None]) -> bool:
        return all(
            x is not None and y is not None and ((x ^ y) & (2**64 - 1)).bit_count() <= bits
            for x, y in zip(a, b, strict=True)
        )

    strangers = [
        alike(a, b)
        for (one, a), (other, b) in combinations(zip(pairs, hashes, strict=True), 2)
        if one.photograph != other.photograph
    ]
    return {
        "bits": bits,
        "detected": float(np.mean([alike(a, b) for a, b in zip(hashes, copies, strict=True)])),
        "false": float(np.mean(strangers)) if strangers else None,
    }
