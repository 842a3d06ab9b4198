"""MagicBrush's test set: 535 sessions of up to three turns of real edits, 1,053 in all.

Paper: "MagicBrush: A Manually Annotated Dataset for Instruction-Guided Image Editing" (Zhang et al., NeurIPS 2023).
Data: `test.zip` of osunlp/MagicBrush, unpacked. Licence: CC-BY-4.0.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from crispedit import benchmark
from crispedit.benchmark import AGAINST, MODELS, Answer, Benchmark, Case, Picture, Protocol, Scored
from crispedit.measures import Measures

SINGLE, MULTI, ANYSD = "magicbrush-official", "magicbrush-official-multi", "magicbrush-anysd"


class MagicBrush(Benchmark):
    """The official protocol: an answer against the session's ground truth of that turn, captions per target.

    `magicbrush-anysd` is AnySD's variant: single turns, without all-black answers. Its script defaults to
    ViT-B/32 and DINO ViT-S/16, but its published call uses ViT-L/14 and DINO ViT-B/16: use the models of the figures
    that you compare with.

    Single-turn edits every turn from the ground truth of the turn before. Multi-turn edits from the editor's own
    previous answer, and scores the last. Ids are the official file names (`30_1`, `139_inde_2`, `139_iter_2`, each in a
    folder of its session), so that a folder of results in the official layout can be scored.
    """

    path: Path
    """The folder with `edit_sessions.json`, the descriptions and `images/`."""
    captions: Literal["local_descriptions.json", "global_descriptions.json"] = "local_descriptions.json"
    multi_turn: bool = True

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        about = {
            SINGLE: "single-turn: each turn from the ground truth before it, against its ground truth",
            ANYSD: "single-turn, as AnySD scores it: without all-black answers",
            MULTI: "multi-turn: each turn edits the editor's previous answer; the last against the last ground truth",
        }
        return {
            name: Protocol(text, AGAINST, "l1", drops_black=name == ANYSD, models=MODELS)
            for name, text in about.items()
            if name != MULTI or self.multi_turn
        }

    def cases(self) -> Sequence[Case]:
        sessions = benchmark.read_json(self.path / "edit_sessions.json", "the sessions of MagicBrush's test.zip")
        captions = benchmark.read_json(self.path / self.captions, "the captions of MagicBrush's test.zip")
        turns = [
            (name, number, turn, number == len(session))
            for name, session in sorted(sessions.items())
            for number, turn in enumerate(session, 1)
        ]
        # Turn by turn, not session by session, so that a turn comes long after the answer that it needs.
        turns.sort(key=lambda item: item[1])
        return [case for item in turns for case in self._turn(*item, captions)]

    def _turn(
        self, session: str, number: int, turn: Mapping[str, str], last: bool, captions: Mapping[str, Any]
    ) -> list[Case]:
        where = f"{self.path}: session {session}, turn {number}"
        instruction, source, target = benchmark.fields(turn, ("instruction", "input", "output"), where)
        (texts,) = benchmark.fields(captions, (session,), where)
        shared: dict[str, Any] = {
            "instruction": instruction,
            "group": f"turn {number}",
            "family": session,
            "target": self._picture(session, target),
            "source_caption": texts.get(source),
            "target_caption": benchmark.fields(texts, (target,), where)[0],
        }
        first, both = number == 1, (SINGLE, ANYSD)
        name = f"{session}/{session}_1" if first else f"{session}/{session}_inde_{number}"
        scored = (*both, MULTI) if first and last and self.multi_turn else both
        single = Case(name, source=self._picture(session, source), protocols=scored, **shared)
        if first or not self.multi_turn:
            return [single]
        before = f"{session}/{session}_1" if number == 2 else f"{session}/{session}_iter_{number - 1}"
        chained = f"{session}/{session}_iter_{number}"
        return [single, Case(chained, source=None, after=before, protocols=(MULTI,) if last else (), **shared)]

    def _picture(self, session: str, name: str) -> Picture:
        return Picture(str(self.path / "images" / Path(session).name / Path(name).name))

    def score_one(self, answer: Answer, measures: Measures) -> Scored:
        assert answer.target is not None
        scores = benchmark.against(answer.target, answer.edited, answer.case.target_caption, measures)
        return Scored(dict.fromkeys(answer.case.protocols, scores))
