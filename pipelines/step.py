"""One step of a run as a command: `crispedit curate|annotate|edit|score|select|pack`."""

from __future__ import annotations

import argparse

from pipelines import audit, build, recipe
from pipelines.build import add_arguments
from pipelines.run import Run


def run(args: argparse.Namespace) -> int:
    """Do the step on what the steps before it committed; after select and pack, show what was kept."""
    made = Run(recipe.load(args.recipe, args.overrides))
    build.step(made, args.command)
    if args.command in ("select", "pack"):
        print(audit.summary(audit.audit(made)))
    return 0


__all__ = ["add_arguments", "run"]
