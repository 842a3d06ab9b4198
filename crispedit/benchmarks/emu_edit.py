"""The Emu Edit test set: edits of eight tasks in words, with captions of both images and no ground truth.

Paper: "Emu Edit: Precise Image Editing via Recognition and Generation Tasks" (Sheynin et al., CVPR 2024).
Data: parquet files of facebook/emu_edit_test_set or facebook/emu_edit_test_set_generations (the latter with Emu Edit's
own answers), as downloaded. Licence: CC-BY-NC-4.0. The two sets name their splits the other way round: the 3,589 rows
that papers report are `validation` of the generations.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from crispedit.benchmark import AGAINST, MODELS, Answer, Benchmark, Case, Picture, Protocol, Scored, against, rows
from crispedit.measures import Measures
from crispedit.record import Score

SOURCE, ANYSD, DIRECTION = "emu-source", "emu-anysd", "clipdir-ip2p"
COLUMNS = ("idx", "instruction", "task", "input_caption", "output_caption")


class EmuEdit(Benchmark):
    """Three protocols, which published tables mix.

    `emu-source` compares the answer with the source, as UltraEdit's authors do: copying the source is perfect except on
    clip_t. `emu-anysd` compares with Emu Edit's own answer, as AnySD's script does, without all-black answers (its
    clip_t, which scores Emu Edit's image instead of the model's, is repaired). `clipdir-ip2p` is InstructPix2Pix's
    direction. A direction is None where the two captions are equal, which some are.
    """

    path: Path
    """The folder of parquet files."""
    split: Literal["validation", "test"] = "validation"

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        direction = Protocol(
            "the change of the images against the change of the captions",
            {"clip_dir": "higher"},
            "clip_dir",
            models={"clip_large": "ViT-L-14-quickgelu openai"},
        )
        copied = frozenset(AGAINST) - {"clip_t"}
        source = Protocol("against the source image", AGAINST, "clip_t", models=MODELS, perfect_by_copying=copied)
        anysd = Protocol("against Emu Edit's own answer", AGAINST, "clip_t", drops_black=True, models=MODELS)
        has_answers = "edited_image" in pq.read_schema(self._files[0]).names
        return {SOURCE: source, DIRECTION: direction} | ({ANYSD: anysd} if has_answers else {})

    @property
    def _files(self) -> list[Path]:
        paths = sorted(self.path.rglob(f"{self.split}-*.parquet"))
        if not paths:
            raise ValueError(f"{self.path}: no {self.split}-*.parquet of facebook/emu_edit_test_set(_generations)")
        return paths

    def cases(self) -> Sequence[Case]:
        protocols = tuple(self.protocols)
        answers = ANYSD in protocols
        return [
            Case(
                id=str(row["idx"]),
                instruction=row["instruction"],
                source=Picture(str(file), row=number, column="image"),
                group=row["task"],
                target=Picture(str(file), row=number, column="edited_image") if answers else None,
                source_caption=row["input_caption"],
                target_caption=row["output_caption"],
                protocols=protocols,
            )
            for file, number, row in rows(self._files, COLUMNS)
        ]

    def score_one(self, answer: Answer, measures: Measures) -> Scored:
        case = answer.case
        captions = case.source_caption, case.target_caption
        pair = answer.source, answer.edited
        scores: dict[str, dict[str, Score]] = {
            SOURCE: against(answer.source, answer.edited, case.target_caption, measures),
            DIRECTION: {"clip_dir": measures.clip_direction("clip_large", pair, captions)},
        }
        if answer.target is not None:
            scores[ANYSD] = against(answer.target, answer.edited, case.target_caption, measures)
        return Scored(scores)
