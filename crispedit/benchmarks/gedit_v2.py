"""GEditBench v2: 1,200 edits of 23 tasks, on which a judge compares two editors' answers at a time.

Paper: "GEditBench v2: A Human-Aligned Benchmark for General Image Editing" (Jiang et al. 2026). Data: `metadata.jsonl`
and `images/source` of GEditBench-v2/GEditBench-v2, whose `images/edited/MODEL` are folders of results for this
benchmark.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field

from crispedit import jsonl, prompts, replies
from crispedit.benchmark import (
    REVERSED,
    AnswerPair,
    Better,
    Case,
    Compared,
    JudgedBenchmark,
    Protocol,
    fields,
    picture_in,
    read_json,
)
from crispedit.chat import Chat, ChatError, Reply
from crispedit.judge import NO_USAGE, JudgeReply, Question
from crispedit.measures import Measures
from crispedit.record import Image, content_key
from crispedit.replies import Winner

Dimension = Literal["instruction_following", "visual_quality", "visual_consistency"]
OWN = "judge/gedit-v2"
DIMENSIONS: tuple[Dimension, ...] = ("instruction_following", "visual_quality", "visual_consistency")
ASSET = "vlm/assessment/{dimension}/pairwise/v1.yaml"
"""A published prompt's path among the assets."""
PLACES = ("<instruction>", "{instruction}")
METRICS: Mapping[str, Better] = {"elo": "higher"}


class Verdict(Reply):
    """Which of two edits is better."""

    reasoning: str
    winner: Literal["Image A", "Image B", "Tie"]


class GEditV2(JudgedBenchmark):
    """In each of three dimensions a judge sees the source and two answers and names the better one, or a tie. Strengths
    come from Davidson's extension of the Bradley-Terry model to ties, fitted as in the published script: one strength
    over all dimensions with equal weights, on Elo's scale.

    `both_orders` shows each pair in both orders and counts two different verdicts as a tie; the published script shows
    one order, drawn per case. The published judge for consistency is PVC-Judge. Without `prompts`, our own prompts are
    used, under another id.
    """

    questions: ClassVar[float] = 6.0
    pairwise: ClassVar[bool] = True
    own_prompts: ClassVar[tuple[str, ...]] = (OWN,)

    path: Path
    """The folder with `metadata.jsonl`."""
    prompts: Path | None = None
    """The published prompts: the folder `src/prompts/assets` of the repository ZhangqiJiang07/GEditBench_v2 (they ship
    neither with its data nor with CrispEdit), or a JSON of prompts by dimension, with <instruction> as its placeholder.
    """
    dimensions: tuple[Dimension, ...] = Field(DIMENSIONS, min_length=1)
    both_orders: bool = True

    @property
    def _id(self) -> str:
        name = "gedit-v2" if self.both_orders else "gedit-v2-one-order"
        return name if self.prompts is not None else f"{name}-own-prompts"

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        about = "a judge's comparisons of two answers at a time; strengths of Davidson's model on Elo's scale"
        published = {"judge": "PVC-Judge (consistency)"}
        return {self._id: Protocol(about, METRICS, "elo", models=published, published_as="gedit-v2-one-order")}

    def cases(self) -> Sequence[Case]:
        cases = []
        for number, row in jsonl.read(self.path / "metadata.jsonl", "the items of GEditBench v2"):
            where = f"{self.path}/metadata.jsonl: line {number}"
            key, task, instruction, source = fields(row, ("key", "task", "instruction", "source_image"), where)
            cases.append(Case(key, instruction, picture_in(self.path, source, where), task, protocols=(self._id,)))
        return cases

    def compare(self, pairs: Sequence[AnswerPair], measures: Measures) -> list[Compared | Exception]:
        if measures.judge is None:
            nobody: dict[str, Winner | None] = dict.fromkeys(self.dimensions)
            return [Compared(nobody, nobody, nobody) for _ in pairs]
        results = measures.judge.ask([question for pair in pairs for question in self._questions(pair)])
        each = len(results) // len(pairs)
        return [self._compared(results[start : start + each]) for start in range(0, len(results), each)]

    def _questions(self, pair: AnswerPair) -> list[Question[Winner]]:
        """The question of every dimension, then, with `both_orders`, the same in the other order."""
        shown = [pair.first.source, pair.first.edited, pair.second.edited]
        texts = [self.prompt_for(dimension, pair.first.case.instruction) for dimension in self.dimensions]
        asked = [in_both_orders(shown, text, pair.first.repeat, self.prompts is None) for text in texts]
        return [orders[n] for n in range(1 + self.both_orders) for orders in asked]

    def _compared(self, results: Sequence[JudgeReply[Winner] | ChatError]) -> Compared | Exception:
        replied = []
        for one in results:
            if isinstance(one, ChatError):
                return one  # no reply: the judge will be asked again
            replied.append(one)
        names: Sequence[str] = self.dimensions
        verdicts = [one.value for one in replied]
        swapped = [None if value is None else REVERSED[value] for value in verdicts[len(names) :]]
        in_order, other = (dict(zip(names, side, strict=False)) for side in (verdicts, swapped))
        winners = {d: agreed(winner, other.get(d, winner)) for d, winner in in_order.items()}
        usage = sum((one.usage for one in replied), NO_USAGE)
        return Compared(winners, in_order, other, None in verdicts, tuple(one.text for one in replied), usage)

    def prompt_for(self, dimension: str, instruction: str) -> str:
        """The text of a question. ValueError if the published prompt is unreadable or has no placeholder."""
        if self.prompts is None:
            return prompts.render(OWN, instruction=instruction, dimension=dimension)
        text = self._prompt(dimension)
        if not any(place in text for place in PLACES):
            raise ValueError(f"{self.prompts}: the prompt for {dimension!r} has no {' or '.join(PLACES)}")
        for place in PLACES:
            text = text.replace(place, instruction)
        return text

    def _prompt(self, dimension: str) -> str:
        assert self.prompts is not None
        if not self.prompts.is_dir():
            by_dimension = read_json(self.prompts, "the published prompts by dimension")
            return str(fields(by_dimension, (dimension,), str(self.prompts))[0])
        file = self.prompts / ASSET.format(dimension=dimension)
        try:
            asset = yaml.safe_load(file.read_text(encoding="utf-8"))
            return "\n\n".join(filter(None, [asset.get("system_prompt"), asset["user_prompt"]]))
        except OSError:
            raise ValueError(
                f"{file} is missing: clone https://github.com/ZhangqiJiang07/GEditBench_v2 and set prompts to its "
                "src/prompts/assets; without prompts we ask in words of our own, as gedit-v2-own-prompts"
            ) from None
        except (yaml.YAMLError, KeyError, AttributeError, TypeError):
            raise ValueError(f"{file} is no prompt of GEditBench v2: it has no user_prompt") from None

    def request(self, chat: Chat) -> Mapping[str, Any]:
        order = "source, A, B, text" + (", then B before A" if self.both_orders else "")
        return self.asked(chat, None, order, "a winner")

    def published(self) -> str:
        return content_key(*map(self._prompt, self.dimensions))


def in_both_orders(shown: Sequence[Image], text: str, repeat: int, tell_shape: bool = True) -> list[Question[Winner]]:
    """Which of two edits is better? The question about (source, first, second), and with the edits swapped."""
    source, first, second = shown
    return [
        Question([source, a, b, text], replies.winner, shape=Verdict, tell_shape=tell_shape, repeat=repeat)
        for a, b in ((first, second), (second, first))
    ]


def agreed(one: Winner | None, other: Winner | None) -> Winner | None:
    """The verdict of both orders; a tie if they differ, None if either is unknown."""
    if one is None or other is None:
        return None
    return one if one == other else "tie"
