"""build: every step of a run, in order and wave by wave; also the script that a Ray cluster is given.

    python pipelines/build.py configs/embedded.yaml source.path=photos run=runs/photos
    ray job submit --working-dir . -- python pipelines/build.py configs/embedded.yaml source.path=/data/photos ...

does what `crispedit build` does.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Run as a file, Python puts `pipelines/` on the path; what must be there is the checkout around it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse

from crispedit.pipelines import audit, dry_run, engine, layout, recipe
from crispedit.pipelines.pairs import PairsSource
from crispedit.pipelines.recipe import Recipe
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps import annotate, compare, curate, edit, pack, score, select

ENGINE_STEPS = {"curate": curate, "annotate": annotate, "edit": edit, "score": score, "compare": compare}


def build(run: Run) -> None:
    """Curate, annotate, edit, score and compare in waves of sources, then select and pack.

    Waves are cut from the listing by what is committed, and one is finished before the next: a resumed run asks each
    photograph for what an uninterrupted one would, though `annotate` asks no more of a category that is full by then.
    """
    settings = run.recipe.engine
    with run.locked():
        for name in run.engine_steps:
            run.begin(name)
        run.store_recipe()
        size = settings.wave_sources
        # The rest of the wave under way. What is wrong with the source shows before Ray starts.
        wave = curate.work(run, None if size is None else -curate.committed(run) % size)
        with engine.cluster(settings):
            for name in run.engine_steps:  # all of them, before any costs anything
                engine.preflight(name, ENGINE_STEPS[name].stages(run), settings)
            for stage in edit.later_stages(run):
                engine.preflight("edit", [stage], settings)
            while True:
                engine.run(wave, settings)
                for module in (annotate, edit, score, *(edit, score) * len(edit.later_stages(run)), compare):
                    engine.run(module.work(run), settings)
                if size is None or not (wave := curate.work(run, size)).plan:
                    break
            select.select(run)
            pack.pack(run)


def step(run: Run, name: str) -> None:
    """One step of a run, on what the steps before it have committed."""
    settings = run.recipe.engine
    with run.locked():
        if name in ENGINE_STEPS:
            run.begin(name)
        run.store_recipe()
        if name == "select":
            select.select(run)
        elif name == "pack":
            with engine.cluster(settings):
                pack.pack(run)
        else:
            work = ENGINE_STEPS[name].work(run)
            with engine.cluster(settings):
                engine.preflight(name, work.stages, settings)
                engine.run(work, settings)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument(
        "--dry-run", type=int, metavar="N", help="build N photographs beside the run and project the whole"
    )
    parser.add_argument(
        "--gpu-hour-price", type=float, metavar="PRICE", help="what a GPU-hour costs, for the projection"
    )


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that works by a recipe."""
    parser.add_argument(
        "recipe", help="a recipe file, the name of one that ships (embedded), or a run's directory"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as source.path=photos run=runs/mine"
    )


def surveyed(of: Recipe, source: PairsSource) -> str:
    """What the first pairs of a source look like, and which of them are too small for the recipe. ValueError if none of
    them can be read."""
    found = layout.survey(source)
    lines = [found.text()]
    score = "resolution.short_side_px"
    least = {
        "curate.filters": of.source_cascade.default_bounds.get(score),
        "filters": of.pair_cascade.default_bounds.get(score),
    }
    wanted = {
        place: bound.min for place, bound in least.items() if bound is not None and bound.min is not None
    }
    small = sum(side < max(wanted.values(), default=0) for side in found.short_sides)
    if small:
        both = " and ".join(f"{place}.resolution wants {size:g} px" for place, size in wanted.items())
        ways = " ".join(f"{place}.{score.replace('.', '.bounds.')}.min=N" for place in wanted)
        lines.append(
            f"too small, and rejected: {small} of these {len(found.short_sides)}. {both}; all apply: {ways}"
        )
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """The command: build, then show what was kept and where the shards are."""
    made = Run(recipe.load(args.recipe, args.overrides))
    if isinstance(made.recipe.source, PairsSource):
        print(surveyed(made.recipe, made.recipe.source))
    if args.dry_run is not None:
        print(dry_run.text(dry_run.dry_run(made, args.dry_run, args.gpu_hour_price)))
        return 0
    build(made)
    report = audit.audit(made)
    print(audit.summary(report))
    audit.write_report(made, report)
    print(f"\nshards: {made.folder('shards')}\nreport: {made.folder('audit') / 'report.html'}")
    return 0


if __name__ == "__main__":
    from crispedit.pipelines import cli

    raise SystemExit(cli.main(["build", *sys.argv[1:]]))
