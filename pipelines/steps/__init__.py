"""The steps of a run: each one file; what makes and measures, in the order of the work, is `of`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crispedit.pipelines.run import Identity, Run
from crispedit.pipelines.steps.annotate import AnnotateStep
from crispedit.pipelines.steps.compare import CompareStep
from crispedit.pipelines.steps.curate import CurateStep
from crispedit.pipelines.steps.edit import EditStep
from crispedit.pipelines.steps.imported import ImportedImagesStep, ImportedJobsStep
from crispedit.pipelines.steps.score import ScoreStep
from crispedit.pipelines.steps.step import Step
from crispedit.record import canonical_json, content_key


def of(run: Run) -> list[Step]:
    """The steps that make and measure, in order. Existing pairs are imported in place of being made, and candidates
    are compared only where the judge chooses."""
    made: list[Step] = (
        [ImportedJobsStep(run), ImportedImagesStep(run)]
        if run.recipe.imports_pairs
        else [AnnotateStep(run), EditStep(run)]
    )
    compared: list[Step] = [CompareStep(run)] if run.recipe.judge is not None else []
    return [CurateStep(run), *made, ScoreStep(run), *compared]


def identities(steps: Sequence[Step]) -> Mapping[str, Identity]:
    """What decides the bytes that each step writes."""
    return {step.name: step.identity() for step in steps}


def fingerprint(run: Run) -> str:
    """One word for everything that decided the pairs' content, for the shards' metadata."""
    made = {name: identity for name, identity in identities(of(run)).items() if name != "compare"}
    return content_key(canonical_json(made))
