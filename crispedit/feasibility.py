"""Feasibility: whether an instruction can be carried out on a photograph. A chat model states facts; code decides.

It is asked before an edit is made (the `chat` annotator) and of finished pairs (the `judge` filter). The checks are
those of the paper's instruction validation (arXiv 2605.10859, stage 4), and one more: whether the photograph already
satisfies the instruction, which is the most frequent defect of the released data.
"""

from typing import Literal

from pydantic import Field

from crispedit import prompts
from crispedit.chat import ChatRequest, Reply
from crispedit.record import Image

PROMPTS = ("feasibility",)

Fact = Literal["yes", "no", "unsure"]
"""A model that cannot tell answers "unsure", which counts neither as yes nor as no."""
UNSURE = "unsure"


class Feasibility(Reply):
    """Facts about an instruction and the photograph that it is for."""

    object_present: Literal["yes", "no", "unsure", "not_needed"] = Field(
        description="Is everything that the instruction speaks of as being in the photograph there? "
        "not_needed if it speaks of nothing that must be there."
    )
    already_true: Fact = Field(description="Does the photograph already look as the instruction wants it?")
    contradictory: Fact = Field(description="Does it contradict itself, or ask for what cannot be shown?")
    ambiguous: Fact = Field(description="Could two careful people edit different things?")
    unsafe: Fact = Field(description="Does it ask for something sexual, hateful, cruel or degrading?")


def question(image: Image, instruction: str, category: str | None) -> ChatRequest[Feasibility]:
    """The question for the facts. `category` is a word such as "add", if it is known."""
    prompt = prompts.render("feasibility", instruction=instruction, category=category)
    return ChatRequest(prompt, Feasibility, [image])


def problem(facts: Feasibility) -> str | None:
    """The instruction's problem as a stable word; "unsure" if only a fact is missing; None if there is none."""
    answers = facts.model_dump()
    if answers.pop("object_present") == "no":
        return "object_absent"
    reason = next((word for word, answer in answers.items() if answer == "yes"), None)
    return reason or (UNSURE if UNSURE in (facts.object_present, *answers.values()) else None)
