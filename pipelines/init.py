"""crispedit init: inspects a folder and writes a recipe for it, based on a shipped recipe."""

import argparse
import json
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from crispedit.filters.resolution import Resolution
from crispedit.pipelines import recipe, sources
from crispedit.pipelines.sources import FolderSource, ParquetSource, PhotoSource, Skipped, WebDatasetSource, layout
from crispedit.pipelines.sources.pairs import PairsSource

SAMPLES = 20
"""Photographs that are opened to learn their sizes."""
SHORT_SIDE_PX = int(Resolution.bounds["short_side_px"].min or 0)
"""The filter's default bound on the short side."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", help="a folder or URL of photographs, of pairs, or of tars or parquet files of them")
    add("-o", "--output", type=Path, default=Path("recipe.yaml"), help="the recipe to write (recipe.yaml)")
    add("--run", help="the recipe's run directory (default: runs/ and the folder's name)")
    add("--force", action="store_true", help="replace an existing recipe")


def run(args: argparse.Namespace) -> int:
    """Write the recipe, and print what was found and the next command."""
    if args.output.exists() and not args.force:
        raise ValueError(f"{args.output} exists already; --force replaces it, -o writes another")
    seen, text = recipe_for(args.folder, args.run)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text, encoding="utf-8")
    recipe.load(str(args.output))
    print(f"{seen}\n\nwrote {args.output}; look at it, then: crispedit build {shlex.quote(str(args.output))}")
    return 0


def recipe_for(folder: str, run_folder: str | None = None) -> tuple[str, str]:
    """A description of a folder's content, and the text of a recipe for it. ValueError if there is nothing to build
    from."""
    files = sources.files(folder, Skipped())
    source, seen, shipped, least = _inspected(folder, files)
    text = (resources.files("crispedit.configs") / f"{shipped}.yaml").read_text(encoding="utf-8")
    _, _, body = text.partition("\nrun: ")
    _, _, rest = body.partition("\nsource: ")
    if least is not None:
        seen += f"\nmost are smaller than the usual {SHORT_SIDE_PX} px, so the recipe takes images from {least} px on"
        rest = rest.replace(
            "resolution: {}", f"resolution: {{bounds: {{short_side_px: {{min: {least}}}}}}} # as the smallest seen"
        )
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(folder.rstrip("/")).name).strip("-.") or "mine"
    head = [
        f"# A recipe for {folder}, written by `crispedit init`. Seen there:",
        *(f"#   {line}" for line in seen.splitlines()),
        f"run: {json.dumps(run_folder or f'runs/{name}')}",
        f"source: {json.dumps(source)}",
    ]
    return seen, "\n".join(head) + "\n" + rest.partition("\n")[2]


def _inspected(folder: str, files: Sequence[sources.File]) -> tuple[dict[str, Any], str, str, int | None]:
    """The source section, a description, the name of the fitting shipped recipe, and, if most images are smaller than
    it takes, their smallest short side in pixels."""
    try:
        pairs = layout.detected(PairsSource(path=folder))
    except layout.AmbiguousError:
        raise
    except ValueError as no_pairs:
        photographs = _photographs(folder, files)
        try:
            listing = sources.listing(photographs)
        except ValueError as no_photographs:
            raise ValueError(f"{folder} has neither pairs nor photographs. {no_pairs}. {no_photographs}") from None
        sides = layout.short_sides(sources.read(listing.entries[:SAMPLES]))
        seen = f"{len(listing.entries)} photographs ({photographs.kind})"
        if sides:
            seen += f"; the short sides of the first {len(sides)}: {min(sides)} to {max(sides)} px"
        if skipped := listing.skipped.text():
            seen += f"\n{skipped}"
        section = photographs.model_dump(exclude_defaults=True) | {"kind": photographs.kind}
        return section, seen, "embedded", _least(sides)
    columns = pairs.columns.model_dump(exclude_none=True)
    section = {"kind": "pairs", "path": folder, "layout": pairs.layout, "columns": columns}
    survey = layout.survey(pairs)
    return section, survey.text(), "refilter-crispedit2m", _least(survey.short_sides)


def _least(sides: Sequence[int]) -> int | None:
    """The smallest short side, if most are smaller than the usual bound."""
    return min(sides) if sides and statistics.median(sides) < SHORT_SIDE_PX else None


def _photographs(folder: str, files: Sequence[sources.File]) -> PhotoSource:
    """The source kind of most files."""
    counts = Counter(sources.suffix_of(file.uri) for file in files)
    images = sum(counts[suffix] for suffix in sources.IMAGE_SUFFIXES)
    if counts[".tar"] > images:
        return WebDatasetSource(path=folder)
    if counts[".parquet"] > images:
        return ParquetSource(path=folder)
    return FolderSource(path=folder)
