"""AnyBench (AnyEdit-Test): edits of many types against a ground truth, type by type.

Paper: "AnyEdit: Mastering Unified High-Quality Image Editing for Any Idea" (Yu et al., CVPR 2025). Data: the
AnyEdit-Test set, a folder per type with its `edit_result.json`. Types whose instruction is a second picture
(`visual_*`) are left out: editors here get text.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from crispedit import metrics
from crispedit.benchmark import MODELS, Answer, Benchmark, Better, Case, Picture, Protocol, Scored, fields, read_json
from crispedit.measures import Measures

TYPES = (
    *("replace", "add", "remove", "color_alter", "appearance_alter", "material_change", "action_change"),
    *("counting", "textual_change", "tone_transfer", "background_change", "style_change", "movement"),
    *("outpaint", "resize", "rotation_change", "relation", "implicit_change"),
)
METRICS: Mapping[str, Better] = {"l1": "lower", "clip_i": "higher", "dino": "higher", "clip_t": "higher"}
ID = "anybench-anysd"


class AnyBench(Benchmark):
    """AnySD's protocol: the answer against the ground truth, which is resized to the answer (not the other way round);
    all-black answers are left out. Published type by type; the mean over types is ours."""

    path: Path
    """The folder with one folder per type; the files that they name are in it or beside it."""
    types: tuple[str, ...] = TYPES

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        about = "against the ground truth, at the answer's size; the mean of the types' means"
        return {ID: Protocol(about, METRICS, "clip_i", by_group=True, drops_black=True, models=MODELS)}

    def cases(self) -> Sequence[Case]:
        there = [kind for kind in self.types if (self.path / kind).is_dir()]
        if not there:
            raise ValueError(f"{self.path}: no folder of an edit type of AnyEdit-Test, such as {self.types[0]}")
        return [case for kind in there for case in self._cases(kind)]

    def _cases(self, kind: str) -> Iterator[Case]:
        listed = read_json(self.path / kind / "edit_result.json", "the cases of this edit type")
        seen: Counter[str] = Counter()
        for number, row in enumerate(listed):
            where = f"{self.path / kind}/edit_result.json: item {number}"
            source, target, instruction = fields(row, ("image_file", "edited_file", "edit"), where)
            # File names repeat within a type; the published script writes their answers to one file.
            name = f"{kind}/{PurePosixPath(source).stem}"
            seen[name] += 1
            yield Case(
                id=name if seen[name] == 1 else f"{name}~{seen[name]}",
                result=name,
                instruction=instruction,
                source=self._picture(source),
                group=kind,
                target=self._picture(target),
                source_caption=row.get("input"),
                target_caption=row.get("output"),
                protocols=(ID,),
            )

    def _picture(self, name: str) -> Picture:
        """File names are relative to the data set's root: this folder or its parent."""
        for root in (self.path, self.path.parent):
            path = (root / name).resolve()
            if path.is_relative_to(root.resolve()) and path.is_file():
                return Picture(str(path))
        return Picture(str(self.path / PurePosixPath(name).name))

    def score_one(self, answer: Answer, measures: Measures) -> Scored:
        assert answer.target is not None
        scores = {
            "l1": metrics.l1(answer.edited, metrics.resized(answer.target, answer.edited)),
            "clip_i": measures.clip_image("clip", answer.edited, answer.target),
            "dino": measures.dino_image(answer.edited, answer.target),
            "clip_t": measures.clip_text("clip", answer.edited, answer.case.target_caption),
        }
        return Scored({ID: scores})
