"""Edit-Compass: 2,388 edits of six kinds, from adding an object to reasoning about algorithms, marked from 1 to 5.

Paper: "Edit-Compass & EditReward-Compass" (Bai et al. 2026). Data: `PartN/TASK/TASK.json` of DogNeverSleep/Edit-Compass
and the images that they name. Prompts: the folder `Prompt` of the published evaluation, whose files are read as data,
never run. Part 5 needs several images to edit and is left out, as the published script does for such editors.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from crispedit import replies
from crispedit.benchmark import (
    Answer,
    Better,
    Case,
    JudgedBenchmark,
    Protocol,
    Scored,
    fields,
    picture_in,
    read_json,
    text_constants,
)
from crispedit.chat import Chat, ChatError, Published
from crispedit.judge import JudgeReply, Question
from crispedit.measures import Measures
from crispedit.record import Image, Score, content_key

ASPECTS: Mapping[str, str] = {
    "IF": "Instruction_Following.py",
    "WA": "World_Knowledge_Aware.py",
    "URC": "Unedited_Region_Consistency.py",
    "IC": "Identify_Consistecy.py",
    "VQ": "Visual_Quality.py",
}
"""The marked aspects, and the published prompt of each."""
METRICS: Mapping[str, Better] = dict.fromkeys((*ASPECTS, "VC", "overall"), "higher")
WEIGHTS: Mapping[str, tuple[float, float, float]] = {
    **dict.fromkeys(("Part1", "Part2", "Part6"), (0.4, 0.4, 0.2)),
    "Part3": (0.5, 0.3, 0.2),
    "Part4": (0.6, 0.2, 0.2),
}
"""Exponents of instruction, consistency and quality in the overall mark."""
STYLE = "Style_Transfer"
STYLE_WEIGHTS = (0.7, 0.0, 0.3)
AS_PUBLISHED = Published("png", temperature=0.0)
NOTE = re.compile(r"### RESULT ###\s*(\[.*?\])", re.DOTALL)
"""The differences in the reply to the first question about the unedited region."""


class EditCompass(JudgedBenchmark):
    """A judge marks the aspects that each item asks for. Overall, per item: the lowest mark if it is 1, else the
    weighted geometric mean of instruction (mean of IF and WA), consistency (mean of IC and URC) and quality (VQ), with
    exponents by kind; per task the mean, then the unweighted mean of tasks, which is ours.

    Questions are sent as by the published client: PNG, temperature 0, images within the text. Deviation: the published
    summary leaves URC out of consistency and stops at items without IC; the paper's consistency has both.
    """

    questions: ClassVar[float] = 4.0

    path: Path
    """The folder with `Part1` to `Part6`."""
    prompts: Path
    """The published folder `Prompt`."""
    language: Literal["en", "cn"] = "en"

    @property
    def _id(self) -> str:
        return "edit-compass" if self.language == "en" else "edit-compass-cn"

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        about = "a judge's marks, 1-5, by aspect; overall by the published exponents; the mean of the tasks' means"
        models, perfect = {"judge": "gemini-3.1-pro-preview"}, frozenset(METRICS)
        return {self._id: Protocol(about, METRICS, "overall", True, models=models, perfect_by_copying=perfect)}

    def cases(self) -> Sequence[Case]:
        return [case for case, _ in self._items.values()]

    @cached_property
    def _items(self) -> dict[str, tuple[Case, Mapping[str, Any]]]:
        files = sorted(self.path.glob("Part[12346]/*/*.json"))
        if not files:
            raise ValueError(f"{self.path}: no PartN/TASK/TASK.json of Edit-Compass")
        items: dict[str, tuple[Case, Mapping[str, Any]]] = {}
        for file in files:
            task, part = file.stem, file.parts[-3]
            for number, item in enumerate(read_json(file, "the items of a task")):
                names = ("save_id", "source_image", f"prompt_{self.language}", *ASPECTS)
                name, source, instruction, *_ = fields(item, names, f"{file}: item {number}")
                picture = picture_in(self.path, source, str(file))
                case = Case(f"{part}/{task}/{name}", instruction, picture, task, protocols=(self._id,))
                items[case.id] = case, item
        return items

    def score(self, answers: Sequence[Answer], measures: Measures) -> list[Scored | Exception]:
        if measures.judge is None:
            return super().score(answers, measures)
        asked = [(answer, self._items[answer.case.id][1]) for answer in answers]
        # The unedited region is judged in two steps: the differences, then the mark.
        noted = iter(measures.judge.ask([self._differences(answer, item) for answer, item in asked if item["URC"]]))
        notes = [next(noted) if item["URC"] else None for _, item in asked]
        questions = [
            [self._question(aspect, answer, item, note) for aspect in ASPECTS if item[aspect]]
            for (answer, item), note in zip(asked, notes, strict=True)
        ]
        results = iter(measures.judge.ask([question for some in questions for question in some]))
        return [
            self.scored(answer.case, [next(results) for _ in some], note)
            for answer, note, some in zip(answers, notes, questions, strict=True)
        ]

    def _shown(self, answer: Answer, item: Mapping[str, Any]) -> tuple[Image, Image | None]:
        """(source, marked source): tasks with drawn marks include a source without them."""
        if item.get("edit_type") != "Complex_paint":
            return answer.source, None
        kind = "CN" if item.get("sub_type") == "Complex_paint_cn" else "EN"
        plain = picture_in(self.path, item["source_image"].replace(kind, "image"), str(self.path))
        return plain.image(), answer.source

    def _differences(self, answer: Answer, item: Mapping[str, Any]) -> Question[str]:
        source, _ = self._shown(answer, item)
        text = self._constants("URC")["first_stage_prompt"]
        return Question([text, source, " ", answer.edited], _note, AS_PUBLISHED, repeat=answer.repeat)

    def _question(
        self, aspect: str, answer: Answer, item: Mapping[str, Any], note: JudgeReply[str] | ChatError | None
    ) -> Question[int]:
        source, marked = self._shown(answer, item)
        is_complex = "Complex" in answer.case.group
        kind = "Complex_Instructions_Prompt" if is_complex else "Single_image_prompt"
        system = self._constants(aspect)[kind if marked is None else "Complex_painting_prompt"]
        if aspect == "VQ":
            return Question([system, answer.edited], replies.score, AS_PUBLISHED, repeat=answer.repeat)
        lines: list[tuple[str, Image | None]] = [("Source Image: ", source), ("Edited Image: ", answer.edited)]
        if marked is None:
            lines.insert(0, (f"Edit Instruction: {answer.case.instruction},", None))
        else:
            lines.insert(1 if aspect == "URC" else 2, ("Annotated Instruction(with visual markers): ", marked))
        if aspect == "URC":
            differs = note.value if isinstance(note, JudgeReply) else ""
            lines.append((f"Image Difference between Source Image and Edited Image: {differs}.", None))
        if item.get("hints"):
            lines.append((f"Hints: {item['hints']}.", None))
        parts: list[str | Image] = [system]
        for number, (text, picture) in enumerate(lines, 1):
            parts += [f"\n{number}. {text}"] if picture is None else [f"\n{number}. {text}", picture]
        return Question(parts, replies.score, AS_PUBLISHED, repeat=answer.repeat)

    def _constants(self, aspect: str) -> Mapping[str, str]:
        return text_constants(self.prompts / ASPECTS[aspect], f"the published Prompt/{ASPECTS[aspect]}")

    def marks(self, case: Case, values: Sequence[int | None]) -> dict[str, Score]:
        item = self._items[case.id][1]
        marks = dict(zip((aspect for aspect in ASPECTS if item[aspect]), values, strict=True))
        known = {aspect: float(mark) for aspect, mark in marks.items() if mark is not None}
        overall = overall_mark(known, case) if len(known) == len(marks) else {}
        return dict.fromkeys(METRICS) | marks | overall

    def request(self, chat: Chat) -> Mapping[str, Any]:
        return self.asked(chat, AS_PUBLISHED, "text with the images in it", "none")

    def published(self) -> dict[str, str]:
        return {name: content_key(str(self._constants(aspect))) for aspect, name in ASPECTS.items()}


def overall_mark(marks: Mapping[str, float], case: Case) -> dict[str, float | None]:
    """The overall mark of an item and its consistency; None if a needed aspect was not asked for."""
    style = case.group == STYLE
    if_w, vc_w, vq_w = STYLE_WEIGHTS if style else WEIGHTS[case.id.partition("/")[0]]
    sides = [_mean(marks, names) for names in (("IF", "WA"), ("IC", "URC"), ("VQ",))]
    instruction, consistency, quality = sides
    if instruction is None or quality is None or (consistency is None and not style):
        return {"VC": consistency, "overall": None}
    counted = [mark for aspect, mark in marks.items() if not style or aspect not in ("IC", "URC")]
    if min(counted) <= 1:
        return {"VC": consistency, "overall": min(counted)}
    kept = 1.0 if consistency is None or vc_w == 0 else consistency**vc_w
    return {"VC": consistency, "overall": instruction**if_w * kept * quality**vq_w}


def _mean(marks: Mapping[str, float], names: Sequence[str]) -> float | None:
    known = [marks[name] for name in names if name in marks]
    return sum(known) / len(known) if known else None


def _note(text: str) -> str | None:
    """The differences that a reply lists; None if it has another form, as in the published client."""
    match = NOTE.search(replies.answer(text))
    return match.group(1) if match else ""
