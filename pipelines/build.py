"""build: all steps of a run, wave by wave; also the script to submit to a Ray cluster.

    python pipelines/build.py configs/embedded.yaml source.path=photos run=runs/photos
    ray job submit --working-dir . -- python pipelines/build.py configs/embedded.yaml source.path=/data/photos ...

do the same as `crispedit build`.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # When run as a file, Python puts `pipelines/` on the path; the checkout is needed there instead.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    import os

    from crispedit import machine

    os.environ.update({**machine.alike(), **os.environ})  # before numpy and OpenCV are imported

import argparse
from collections.abc import Sequence
from contextlib import nullcontext

from crispedit.pipelines import audit, engine, recipe, steps
from crispedit.pipelines.building.stream import Build
from crispedit.pipelines.recipe import EngineSpec, Recipe
from crispedit.pipelines.run import Run
from crispedit.pipelines.sources import layout
from crispedit.pipelines.sources.pairs import PairsSource
from crispedit.pipelines.steps import pack, select
from crispedit.pipelines.steps.step import Step
from crispedit.pipelines.viewing import report

SELECT, PACK = "select", "pack"
"""The steps that make no rows."""


def build(run: Run, *, retry_errors: bool = False, log_json: bool = False) -> None:
    """Curate, annotate, edit, score and compare wave by wave, then select and pack.

    An existing run is resumed: committed rows are not made again, except those with transient errors (with
    `retry_errors`, all errors).
    """
    step(run, None, retry_errors=retry_errors, log_json=log_json)


def build_recipe(made: Recipe) -> Run:
    """Build a loaded recipe, and return the run: its folder is `root`, its shard set `shards`."""
    run = Run(made)
    build(run)
    return run


def step(run: Run, name: str | None, *, retry_errors: bool = False, log_json: bool = False) -> None:
    """One step of a run, on what the earlier steps have committed; None: all steps."""
    settings = run.recipe.engine
    with run.locked():
        identities = steps.identities(steps.of(run))
        flow = None
        if name not in (SELECT, PACK):
            if name not in (None, *identities):
                raise ValueError("select.judge is false: no candidates are to be compared")
            run.begin(identities if name is None else {name: identities[name]})
            # Errors of the source show before Ray starts and anything is stored.
            flow = Build(run, None if name is None else [name], retry_errors=retry_errors)
        run.store_recipe(identities)
        with nullcontext() if name == SELECT else engine.cluster(settings):
            if flow is not None:
                preflight(flow.active, settings)
                engine.run_flow(flow, settings, run.root, log_json)
            if name in (None, SELECT):
                select.select(run)
            if name in (None, PACK):
                pack.pack(run)


def preflight(of: Sequence[Step], settings: EngineSpec) -> None:
    """ValueError, with the arithmetic, if a stage does not fit the cluster; called before any work."""
    if settings.kind == "ray":
        import ray

        for one in of:
            for stage in one.stages:
                engine.placement(one.name, [stage], ray.cluster_resources())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_progress(parser)
    add = parser.add_argument
    add("--dry-run", type=int, metavar="N", help="build a sample of N photographs and project the full run")
    add("--gpu-hour-price", type=float, metavar="PRICE", help="price of a GPU-hour, for the projection")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that takes a recipe."""
    parser.add_argument("recipe", help="a recipe file, the name of a shipped one (embedded), or a run's directory")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as source.path=photos run=runs/mine")


def add_progress(parser: argparse.ArgumentParser) -> None:
    """The flags of commands that make rows."""
    add = parser.add_argument
    retried = "retry rows that ended in a permanent error; transient errors are always retried"
    add("--retry", choices=["errors"], help=retried)
    add("--log-json", action="store_true", help="log progress as one JSON object per minute, in place of text")


def surveyed(of: Recipe, source: PairsSource) -> str:
    """A description of a source's first pairs, and how many are too small for the recipe. ValueError if none can be
    read."""
    survey = layout.survey(source)
    wanted = {}
    for place, cascade in (("curate.filters", of.source_cascade), ("filters", of.pair_cascade)):
        bound = cascade.default_bounds.get("resolution.short_side_px")
        if bound is not None and bound.min is not None:
            wanted[place] = bound.min
    small = sum(side < max(wanted.values(), default=0) for side in survey.short_sides)
    if not small:
        return survey.text()
    both = " and ".join(f"{place}.resolution wants {size:g} px" for place, size in wanted.items())
    ways = " ".join(f"{place}.resolution.bounds.short_side_px.min=N" for place in wanted)
    return (
        f"{survey.text()}\ntoo small, and rejected: {small} of these {len(survey.short_sides)}. {both}; "
        f"all apply: {ways}"
    )


def run(args: argparse.Namespace) -> int:
    """The command: build, then show what was kept and where the shards are."""
    made = Run(recipe.load(args.recipe, args.overrides))
    if isinstance(made.recipe.source, PairsSource):
        print(surveyed(made.recipe, made.recipe.source))
    if args.dry_run is not None:
        from crispedit.pipelines import dry_run  # which builds

        print(dry_run.text(dry_run.dry_run(made, args.dry_run, args.gpu_hour_price)))
        return 0
    build(made, retry_errors=args.retry == "errors", log_json=args.log_json)
    status = show(made)
    print(f"\nshards: {made.shards}\nreport: {report.path_of(made)}")
    return status


def show(made: Run) -> int:
    """Show what a run kept, and write its report. The exit status is 1 if it kept nothing."""
    result = audit.audit(made)
    print(audit.summary(result))
    report.write(made, result)
    if (why := audit.useless(result)) is not None:
        print(f"error: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    from crispedit.pipelines import cli

    raise SystemExit(cli.main(["build", *sys.argv[1:]]))
