"""What every part promises, tested for whatever lies in the folders: a new part is tested at birth."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import HEIGHT, WIDTH
from pydantic import ValidationError

from crispedit import annotators as annotator_folder
from crispedit import editors as editor_folder
from crispedit import filters as filter_folder
from crispedit import parts
from crispedit.cascade import Cascade
from crispedit.compositor.landscape import landscape
from crispedit.images import encode_jpeg, encode_mask
from crispedit.parts import Annotator, Editor, Filter, Part
from crispedit.record import Edit, Job, Refusal, Sample, content_key, seed_of

CATEGORIES = ("add", "remove", "replace", "color", "background", "style", "motion")
FAMILIES = ((filter_folder, Filter), (annotator_folder, Annotator), (editor_folder, Editor))
NEEDS_WEIGHTS = {"chat", "clip", "aesthetic", "copies", "editmgt", "diffusers", "dino", "images_api"}
"""Parts that cannot be made from their defaults; their own tests make them, with tiny weights or a folder."""


def every(kind: type[Part]) -> list[Any]:
    package = next(package for package, family in FAMILIES if family is kind)
    return [pytest.param(parts.find(package, name, kind), id=name) for name in parts.names(package)]


def all_parts() -> list[Any]:
    return [param for _, kind in FAMILIES for param in every(kind)]


def usable(kind: type[Part]) -> list[Any]:
    return [param for param in every(kind) if param.id not in NEEDS_WEIGHTS]


def photographs() -> list[Sample]:
    samples = []
    for seed in range(4):
        jpeg = encode_jpeg(landscape(seed, WIDTH, HEIGHT))
        key = content_key("photo", str(seed))
        samples.append(Sample(key=key, source_jpeg=jpeg, original_width=WIDTH, original_height=HEIGHT))
    return samples


def jobs() -> list[tuple[Sample, Job]]:
    annotator = parts.make(annotator_folder, "compositor", Annotator, {})
    samples = photographs()
    answers = annotator.annotate(samples, [CATEGORIES] * len(samples))
    return [(s, job) for s, found in zip(samples, answers, strict=True) for job in found if isinstance(job, Job)]


def pairs() -> list[Sample]:
    editor = parts.make(editor_folder, "compositor", Editor, {})
    made = jobs()
    edits = editor.edit([s.source for s, _ in made], [j for _, j in made], [seed_of(j.key) for _, j in made])
    found = []
    for (sample, job), edit in zip(made, edits, strict=True):
        if isinstance(edit, Refusal):
            continue
        found.append(
            Sample(
                key=job.key,
                source_jpeg=encode_jpeg(sample.source if edit.source is None else edit.source),
                edited_jpeg=encode_jpeg(edit.edited),
                mask_png=None if edit.mask is None else encode_mask(edit.mask),
                category=job.category,
                instruction=job.instruction,
                source_caption=job.source_caption,
                target_caption=job.target_caption,
            )
        )
    return found


@pytest.fixture(scope="module")
def samples() -> dict[str, list[Sample]]:
    return {"source": photographs(), "pair": pairs()}


def fresh(samples: list[Sample]) -> list[Sample]:
    """The same samples with nothing decoded yet."""
    names = Sample.__dataclass_fields__
    return [Sample(**{name: getattr(sample, name) for name in names}) for sample in samples]


@pytest.mark.parametrize("cls", all_parts())
def test_a_part_says_what_it_is_and_forbids_unknown_options(cls: type[Part]):
    module = importlib.import_module(cls.__module__)
    assert module.__doc__
    assert cls.__doc__
    assert cls.version >= 1
    with pytest.raises(ValidationError):
        cls(no_such_option=1)


@pytest.mark.parametrize("cls", all_parts())
def test_a_part_pickles_and_has_a_stable_identity(cls: type[Part]):
    if parts.name_of(cls) in NEEDS_WEIGHTS and any(f.is_required() for f in cls.model_fields.values()):
        return
    part = cls()
    assert pickle.loads(pickle.dumps(part)).identity() == part.identity()


@pytest.mark.parametrize("cls", every(Filter))
def test_a_filter_bounds_only_what_it_measures(cls: type[Filter]):
    assert set(cls.bounds) <= set(cls.scores)
    assert cls.cost > 0
    assert cls.scope <= {"source", "pair"}


@pytest.mark.parametrize("cls", usable(Filter))
def test_a_filter_answers_each_sample_alike_alone_in_a_batch_and_reversed(
    cls: type[Filter], samples: dict[str, list[Sample]]
):
    made = cls()
    made.load()
    for scope in cls.scope:
        whole = made.measure(fresh(samples[scope]))
        assert [set(answer) - set(cls.notes) for answer in whole] == [set(cls.scores)] * len(whole)
        rows: list[dict[str, Any]] = [{} for _ in whole]
        Cascade.of({"f": made}, {}, {}).measure(fresh(samples[scope]), rows, everything=True)
        assert all(row["f.error"] is None for row in rows)
        assert [made.measure([sample])[0] for sample in fresh(samples[scope])] == whole
        assert made.measure(fresh(samples[scope])[::-1])[::-1] == whole


@pytest.mark.parametrize("cls", usable(Filter))
def test_a_filter_measures_a_tiny_image_or_says_it_is_too_small(cls: type[Filter]):
    made = cls()
    made.load()
    jpeg = encode_jpeg(np.full((3, 5, 3), 100, np.uint8))
    pair = dict(edited_jpeg=jpeg, mask_png=encode_mask(np.zeros((3, 5), bool)), category="add")
    for scope in cls.scope:
        rows: list[dict[str, Any]] = [{}]
        sample = Sample(key="k", source_jpeg=jpeg, **(pair if scope == "pair" else {}))
        Cascade.of({"f": made}, {}, {}).measure([sample], rows, everything=True)
        assert rows[0]["f.measured"]
        assert rows[0]["f.error"] is None or "too small" in rows[0]["f.error"]


def same(answers: list[Any], again: list[Any], equal: Callable[[Any, Any], bool]) -> bool:
    return len(answers) == len(again) and all(equal(a, b) for a, b in zip(answers, again, strict=True))


@pytest.mark.parametrize("cls", usable(Annotator))
def test_an_annotator_answers_each_photograph_alike_alone_and_in_a_batch(cls: type[Annotator]):
    made = cls()
    made.load()
    requests = [CATEGORIES, ("style", "add", "add"), (), ("motion",)]
    whole = made.annotate(photographs(), requests)
    assert [len(answers) for answers in whole] == [len(request) for request in requests]
    assert [made.annotate([s], [r])[0] for s, r in zip(photographs(), requests, strict=True)] == whole
    made_jobs = [job for answers in whole for job in answers if isinstance(job, Job)]
    assert len({job.key for job in made_jobs}) == len(made_jobs)


def equal_edits(a: Edit | Refusal, b: Edit | Refusal) -> bool:
    if isinstance(a, Refusal) or isinstance(b, Refusal):
        return a == b
    return all(
        np.array_equal(x, y) if x is not None and y is not None else x is y
        for x, y in ((a.edited, b.edited), (a.mask, b.mask), (a.source, b.source))
    )


@pytest.mark.parametrize("cls", usable(Editor))
def test_an_editor_answers_each_job_alike_alone_and_in_a_batch(cls: type[Editor]):
    made = cls()
    made.load()
    work = jobs()[:7]
    sources, wanted = [s.source for s, _ in work], [j for _, j in work]
    seeds = [seed_of(j.key) for j in wanted]
    before = [source.copy() for source in sources]
    whole = made.edit(sources, wanted, seeds)
    alone = [made.edit([s], [j], [n])[0] for s, j, n in zip(sources, wanted, seeds, strict=True)]
    assert same(whole, alone, equal_edits)
    assert same(sources, before, np.array_equal)  # an editor does not draw on its input
    for edit, source in zip(whole, sources, strict=True):
        if isinstance(edit, Edit):
            assert edit.edited.dtype == np.uint8
            assert edit.edited.shape == (source if edit.source is None else edit.source).shape
            assert edit.mask is None or (edit.mask.dtype == bool and edit.mask.shape == edit.edited.shape[:2])
