"""GEditBench v2: 1,200 edits of 23 tasks, on which a judge compares two editors' answers at a time.

Paper: "GEditBench v2: A Human-Aligned Benchmark for General Image Editing" (Jiang et al. 2026). Data: `metadata.jsonl`
and `images/source` of GEditBench-v2/GEditBench-v2, whose `images/edited/MODEL` are folders of results for this
benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field

from crispedit import jsonl, judge, prompts, replies
from crispedit.benchmark import AnswerPair, Benchmark, Better, Case, Compared, Protocol, picture_in, read_json
from crispedit.chat import Chat, ChatError, Reply
from crispedit.judge import JudgeReply, Question
from crispedit.measures import Measures
from crispedit.record import content_key
from crispedit.replies import Winner

Dimension = Literal["instruction_following", "visual_quality", "visual_consistency"]
DIMENSIONS: tuple[Dimension, ...] = ("instruction_following", "visual_quality", "visual_consistency")
OWN = "judge/gedit-v2"
ASSET = "vlm/assessment/{dimension}/pairwise/v1.yaml"
"""A published prompt's path among the assets."""
PLACES = ("<instruction>", "{instruction}")
METRICS: Mapping[str, Better] = {"elo": "higher"}
SWAPPED: Mapping[Winner, Winner] = {"first": "second", "second": "first", "tie": "tie"}


class Verdict(Reply):
    """Which of two edits is better."""

    reasoning: str
    winner: Literal["Image A", "Image B", "Tie"]


class GEditV2(Benchmark):
    """In each of three dimensions a judge sees the source and two answers and names the better one, or a tie. Strengths
    come from Davidson's extension of the Bradley-Terry model to ties, fitted as in the published script: one strength
    over all dimensions with equal weights, on Elo's scale.

    `both_orders` shows each pair in both orders and counts two different verdicts as a tie; the published script shows
    one order, drawn per case. The published judge for consistency is PVC-Judge. Without `prompts`, our own prompts are
    used, under another id.
    """

    questions: ClassVar[float] = 6.0
    pairwise: ClassVar[bool] = True

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
            try:
                key, task, instruction, source = (row[n] for n in ("key", "task", "instruction", "source_image"))
            except KeyError as error:
                raise ValueError(f"{self.path}/metadata.jsonl: line {number} has no {error}") from None
            picture = picture_in(self.path, source, f"{self.path}/metadata.jsonl: line {number}")
            cases.append(Case(key, instruction, picture, task, protocols=(self._id,)))
        return cases

    def compare(self, pairs: Sequence[AnswerPair], measures: Measures) -> list[Compared | Exception]:
        if measures.judge is None:
            nobody: dict[str, Winner | None] = dict.fromkeys(self.dimensions)
            return [Compared(nobody, nobody, nobody) for _ in pairs]
        asked = [question for pair in pairs for question in self._questions(pair)]
        results = measures.judge.ask(asked)
        each = len(asked) // len(pairs)
        return [self._compared(results[n * each : (n + 1) * each]) for n in range(len(pairs))]

    def _questions(self, pair: AnswerPair) -> list[Question[Winner]]:
        """The question of every dimension, then, with `both_orders`, the same in the other order."""
        orders = [(pair.first, pair.second), (pair.second, pair.first)][: 2 if self.both_orders else 1]
        return [
            Question(
                [pair.first.source, a.edited, b.edited, self.prompt_for(dimension, a.case.instruction)],
                replies.winner,
                shape=Verdict,
                tell_shape=self.prompts is None,
                repeat=pair.first.repeat,
            )
            for a, b in orders
            for dimension in self.dimensions
        ]

    def _compared(self, results: Sequence[JudgeReply[Winner] | ChatError]) -> Compared | Exception:
        replied = []
        for one in results:
            if isinstance(one, ChatError):
                return one  # no reply: the judge will be asked again
            replied.append(one)
        count = len(self.dimensions)
        verdicts = [one.value for one in replied]
        in_order: dict[str, Winner | None] = dict(zip(self.dimensions, verdicts[:count], strict=True))
        swapped = [None if value is None else SWAPPED[value] for value in verdicts[count:]]
        other: dict[str, Winner | None] = dict(zip(self.dimensions, swapped, strict=self.both_orders))
        winners: dict[str, Winner | None] = {
            d: _agreed(in_order[d], other.get(d, in_order[d])) for d in self.dimensions
        }
        usage = sum((one.usage for one in replied[1:]), replied[0].usage)
        return Compared(winners, in_order, other, None in verdicts, tuple(one.text for one in replied), usage)

    def prompt_for(self, dimension: str, instruction: str) -> str:
        """The text of a question. ValueError if the published prompt is unreadable or has no placeholder."""
        if self.prompts is None:
            return prompts.render(OWN, instruction=instruction, dimension=dimension)
        text = self._published(dimension)
        if not any(place in text for place in PLACES):
            raise ValueError(f"{self.prompts}: the prompt for {dimension!r} has no {' or '.join(PLACES)}")
        for place in PLACES:
            text = text.replace(place, instruction)
        return text

    def _published(self, dimension: str) -> str:
        assert self.prompts is not None
        if not self.prompts.is_dir():
            prompts = read_json(self.prompts, "the published prompts by dimension")
            if dimension not in prompts:
                raise ValueError(f"{self.prompts}: no prompt for {dimension!r}")
            return str(prompts[dimension])
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
        return judge.settings(None, chat) | {
            "order": "source, A, B, text" + (", then B before A" if self.both_orders else ""),
            "schema": "a winner",
            "prompts": "our own" if self.prompts is None else "published",
        }

    def identity(self) -> dict[str, object]:
        identity = super().identity()
        if self.prompts is None:
            return identity | {"prompts": prompts.versions([OWN])}
        return identity | {"prompts": content_key(*(self._published(name) for name in self.dimensions))}


def _agreed(one: Winner | None, other: Winner | None) -> Winner | None:
    """The verdict of both orders; a tie if they differ, None if either is unknown."""
    if one is None or other is None:
        return None
    return one if one == other else "tie"
