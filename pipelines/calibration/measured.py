"""Measured: the scores of good pairs and of every defect made from them, and the detection of near-duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from crispedit import console, images
from crispedit.cascade import Cascade
from crispedit.change import estimate
from crispedit.filters.duplicate import phash
from crispedit.pipelines.calibration import defects
from crispedit.pipelines.calibration.defects import Good
from crispedit.pipelines.calibration.good_pairs import GoodPair
from crispedit.record import Sample, seed_of

GOOD = "good"


def measure(cascade: Cascade, pairs: Sequence[GoodPair], *, masks: bool = True) -> list[dict[str, Any]]:
    """Every score of every good pair and of every defect made from it; a row also has key, photograph, category and
    defect (`good` for none). A filter's exception goes into its error column, as in a run."""
    for filter_ in cascade.filters.values():
        filter_.load()
    rows = []
    for pair in tqdm(pairs, desc="calibrate", unit="pair", disable=not console.shows_progress()):
        for defect, sample in _with_defects(pair, pairs):
            if not masks:
                sample = Sample(**{**_stored(sample), "mask_png": None})
            row: dict[str, Any] = {"category": pair.category}
            cascade.measure([sample], [row], everything=True)
            row |= {"key": sample.key, "photograph": pair.photograph, "defect": defect}
            rows.append(row)
    return rows


def _with_defects(pair: GoodPair, pairs: Sequence[GoodPair]) -> Iterator[tuple[str, Sample]]:
    sample = Sample(**pair.stored)
    yield GOOD, sample
    if sample.source.shape != sample.edited.shape:
        return  # a misaligned pair is not a good pair
    good = Good(sample.source, sample.edited, edit_of(sample))
    for name, make in defects.STRUCTURAL.items():
        made = make(good, np.random.default_rng(seed_of(sample.key, name)))
        if made is None:
            continue
        source, edited = made
        yield (
            name,
            Sample(
                **{
                    **pair.stored,
                    "source_jpeg": sample.source_jpeg if source is good.source else images.encode_jpeg(source),
                    "edited_jpeg": images.encode_jpeg(edited),
                }
            ),
        )
    for name, mix in defects.SEMANTIC.items():
        other = other_for(name, pair, pairs)
        mixed = mix(pair.stored, None if other is None else other.stored)
        if mixed is not None:
            yield name, Sample(**mixed)


def other_for(defect: str, pair: GoodPair, pairs: Sequence[GoodPair]) -> GoodPair | None:
    """The pair that a semantic defect confuses with this one: of the same category (another, for `wrong_instruction`),
    with another target caption, and if possible on the same photograph, which is harder to detect."""
    fit = [
        other
        for other in pairs
        if (other.category != pair.category) == (defect == "wrong_instruction")
        and other.stored["target_caption"] != pair.stored["target_caption"]
    ]
    near = [other for other in fit if other.photograph == pair.photograph] or fit
    return near[seed_of(str(pair.stored["key"]), defect) % len(near)] if near else None


def edit_of(sample: Sample) -> NDArray[np.bool_]:
    """[H, W] where the edit is: the true mask, or the estimated one."""
    if sample.mask is not None:
        return sample.mask
    height, width = sample.source.shape[:2]
    small = estimate(sample.changed).view(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST) > 0


def _stored(sample: Sample) -> dict[str, Any]:
    return {name: getattr(sample, name) for name in sample.__dataclass_fields__}


def near_duplicates(pairs: Sequence[GoodPair], bits: int) -> dict[str, Any]:
    """The shares that `select` would call duplicates at this many bits, if instructions were equal: of re-encoded
    copies 2 % smaller, and of pairs of other photographs."""
    hashes, copies = [], []
    for pair in pairs:
        sample = Sample(**pair.stored)
        copied = [defects.near_copy(image) for image in (sample.source, sample.edited)]
        hashes.append([phash(sample.source_gray), phash(sample.edited_gray)])
        copies.append([phash(images.gray(image)) for image in copied])

    def alike(a: Sequence[int | None], b: Sequence[int | None]) -> bool:
        return all(
            x is not None and y is not None and ((x ^ y) & (2**64 - 1)).bit_count() <= bits
            for x, y in zip(a, b, strict=True)
        )

    strangers = [
        alike(hashes[i], hashes[j])
        for i in range(len(pairs))
        for j in range(i)
        if pairs[i].photograph != pairs[j].photograph
    ]
    return {
        "bits": bits,
        "detected": float(np.mean([alike(a, b) for a, b in zip(hashes, copies, strict=True)])),
        "false": float(np.mean(strangers)) if strangers else None,
    }
