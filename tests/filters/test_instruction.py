"""The instruction filter reads whether the words ask for the pair's category, and knows what it cannot know."""

import csv
from pathlib import Path

import pytest

from crispedit.filters.instruction import Instruction
from crispedit.record import Sample

ROWS = Path(__file__).parents[1] / "data/instructions.csv"


def category(filed_under, instruction):
    sample = Sample("pair", b"", b"", category=filed_under, instruction=instruction)
    return Instruction().measure([sample])[0]["category"]


@pytest.mark.parametrize(
    ("instruction", "right", "wrong"),
    [
        ("Add a red ball next to the dog.", "add", "remove"),
        ("Get rid of the parked car.", "remove", "replace"),
        ("Turn the bike into a horse.", "replace", "color"),
        ("Paint the door blue.", "color", "add"),
        ("Make her wave at the camera.", "motion", "style"),
    ],
)
def test_its_own_category_is_likely_and_another_is_not(instruction, right, wrong):
    assert category(right, instruction) > 0.5
    assert category(wrong, instruction) < 0.05


def test_what_cannot_be_known_is_null():
    assert category("add", "xyzzy") is None
    assert category("add", "Füge dem Bild einen Hut hinzu.") is None
    assert category("add", None) is None
    assert category("relight", "Add a red ball.") is None


def test_both_edits_of_a_compound_instruction_are_asked_for():
    assert category("remove", "Remove the lamp, then make the wall green.") > 0.5
    assert category("color", "Remove the lamp, then make the wall green.") > 0.5


def test_its_weights_are_part_of_what_it_is():
    assert len(Instruction().identity()["weights"]) == 32


def test_few_held_out_instructions_are_held_against_their_own_category():
    with ROWS.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    own = [category(row["category"], row["instruction"]) for row in rows]
    others = [
        category(name, row["instruction"])
        for row in rows
        for name in {row["category"] for row in rows} - {row["category"]}
    ]
    assert sum(value is not None and value < 0.05 for value in own) / len(own) < 0.04
    assert sum(value is None or value < 0.05 for value in others) / len(others) > 0.9
