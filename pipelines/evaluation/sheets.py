"""Contact sheets of an evaluation: the worst and the best cases of each editor, and those on which two differ most."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from crispedit.benchmark import Benchmark, Case, Picture
from crispedit.pipelines.evaluation.runner import COPY, TRUTH, Evaluation, Outcome
from crispedit.shards import journal

ROWS = 8
"""Cases on a sheet."""
THUMBNAIL_PX = 224
MARGIN_PX = 8
TEXT_PX = 14
QUALITY = 88


Row = tuple[Case, list[tuple[str, Picture]]]
"""A case on a sheet, and its pictures with their captions."""


def write(folder: Path, made: Evaluation, name: str, outcomes: Mapping[str, Sequence[Outcome]]) -> list[Path]:
    """Sheets of one protocol by its headline metric, of seed 0 and judgement 0; returns the files."""
    protocol, sources = made.benchmark.protocols[name], made.sources()
    values = {
        editor: {
            o.case.id: (o.case, value)
            for o in results
            if name in o.case.protocols
            and (o.seed, o.repeat) == (0, 0)
            and o.kind == "scored"
            and (value := o.values[name][protocol.headline]) is not None
        }
        for editor, results in outcomes.items()
        if editor not in (COPY, TRUTH)
    }
    higher = protocol.metrics[protocol.headline] == "higher"

    def shown(case: Case, *editors: str) -> Row:
        pictures = [("source", sources[case.id])]
        for editor in editors:
            caption = f"{editor}: {protocol.headline} {values[editor][case.id][1]:.3g}"
            pictures.append((caption, made.answers[editor][0][case.id].picture))
        pictures.append(("target", case.target))
        return case, [(text, picture) for text, picture in pictures if picture is not None]

    sheets: dict[str, list[Row]] = {}
    for editor, results in values.items():
        order = sorted(results.values(), key=lambda item: (item[1] if higher else -item[1], item[0].id))
        sheets[f"{editor} worst"] = [shown(case, editor) for case, _ in order[:ROWS]]
        sheets[f"{editor} best"] = [shown(case, editor) for case, _ in order[::-1][:ROWS]]
    for one, other in combinations(values, 2):
        both = [case for case in values[one] if case in values[other]]
        both.sort(key=lambda case: (-abs(values[one][case][1] - values[other][case][1]), case))
        sheets[f"{one} against {other}"] = [shown(values[one][case][0], one, other) for case in both[:ROWS]]
    return [
        _save(folder / f"{_file_name(name)} {_file_name(title)}.jpg", results, made.benchmark)
        for title, results in sheets.items()
        if results
    ]


def _save(path: Path, rows: Sequence[Row], benchmark: Benchmark) -> Path:
    font = ImageFont.load_default(TEXT_PX)
    columns = max(len(pictures) for _, pictures in rows)
    line = TEXT_PX + 4
    height = THUMBNAIL_PX + 3 * line + 2 * MARGIN_PX
    width = columns * (THUMBNAIL_PX + MARGIN_PX) + MARGIN_PX
    sheet = Image.new("RGB", (width, height * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (case, pictures) in enumerate(rows):
        top = place * height + MARGIN_PX
        for column, (text, picture) in enumerate(pictures):
            left = MARGIN_PX + column * (THUMBNAIL_PX + MARGIN_PX)
            draw.text((left, top), text[: THUMBNAIL_PX // 7], "black", font)
            image = Image.fromarray(benchmark.image(picture))
            image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
            sheet.paste(image, (left, top + line))
        words = textwrap.wrap(f"{case.id}: {case.instruction}", width // 8, max_lines=2, placeholder=" ...")
        draw.text((MARGIN_PX, top + line + THUMBNAIL_PX + 2), "\n".join(words), "black", font)
    with journal.replaced(path) as out:
        sheet.save(out, "JPEG", quality=QUALITY)
    return path


def _file_name(text: str) -> str:
    """A label made safe as a file name."""
    return re.sub(r"[^\w.+ -]", "_", text)
