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


def test_what_says_nothing_is_no_evidence_and_what_is_missing_is_null():
    assert category("add", "xyzzy") == pytest.approx(1 / 7, abs=1e-5)
    assert category("add", None) is None
    assert category("relight", "Add a red ball.") is None


def test_the_shares_that_its_docstring_tells():
    with ROWS.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    own = [category(row["category"], row["instruction"]) for row in rows]
    others = [
        category(name, row["instruction"])
        for row in rows
        for name in {row["category"] for row in rows} - {row["category"]}
    ]
    for bound, false, found in ((0.05, 0.038, 0.982), (0.02, 0.019, 0.66)):
        assert sum(value < bound for value in own) / len(own) == pytest.approx(false, abs=0.002)
        assert sum(value < bound for value in others) / len(others) == pytest.approx(found, abs=0.005)
