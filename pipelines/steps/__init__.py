"""The steps of a run, one per file. `of` lists those that make and measure, in order."""

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
    """The steps that make and measure, in order. Existing pairs are imported instead of made; candidates are compared
    only with `select.judge`."""
    imported = run.recipe.imports_pairs
    making = (ImportedJobsStep, ImportedImagesStep) if imported else (AnnotateStep, EditStep)
    comparing = (CompareStep,) if run.recipe.judge is not None else ()
    return [step(run) for step in (CurateStep, *making, ScoreStep, *comparing)]


def identities(steps: Sequence[Step]) -> Mapping[str, Identity]:
    """What determines each step's output."""
    return {step.name: step.identity() for step in steps}


def fingerprint(run: Run) -> str:
    """A digest of everything that determined the pairs' content, for the shards' metadata."""
    parts = {name: identity for name, identity in identities(of(run)).items() if name != "compare"}
    return content_key(canonical_json(parts))
