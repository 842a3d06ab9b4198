"""Inverse instructions: what the rules rewrite, and what they leave alone."""

import pytest

from crispedit.classifier import classify
from crispedit.inverse import invert

REWRITTEN = [
    ("add", "Add a red ball on the grass.", "remove", "Remove the red ball on the grass."),
    ("add", "Could you place an owl to the left of the tree?", "remove", "Remove the owl to the left of the tree."),
    ("add", "Add a straw hat to the man.", "remove", "Remove the straw hat from the man."),
    ("add", "please put a lamp at the top. It should look natural.", "remove", "Remove the lamp at the top."),
    ("remove", "Remove the old car from the street.", "add", "Add an old car to the street."),
    ("remove", "I'd like you to erase the dog in the middle.", "add", "Add a dog in the middle."),
    ("replace", "Replace the dog with a cat.", "replace", "Replace the cat with a dog."),
    (
        "replace",
        "Swap the orange cone on the left for a bench.",
        "replace",
        "Replace the bench on the left with an orange cone.",
    ),
    ("color", "Change the car on the left from red to blue.", "color", "Change the car on the left from blue to red."),
    ("color", "Make the red car blue", "color", "Make the blue car red."),
    ("color", "Change the colour of the red car to green.", "color", "Change the colour of the green car to red."),
]


@pytest.mark.parametrize(("category", "instruction", "inverse_category", "inverse"), REWRITTEN)
def test_the_inverse_undoes_the_edit(category: str, instruction: str, inverse_category: str, inverse: str):
    undone = invert(category, instruction)
    assert undone is not None
    assert (undone.category, undone.instruction) == (inverse_category, inverse)


@pytest.mark.parametrize(
    ("category", "instruction"),
    [
        ("color", "Make the car blue."),  # nothing says what colour it was
        ("color", "Make the red car red."),
        ("color", "Change the red car from red to blue."),
        ("add", "Add a hat and remove the dog."),
        ("add", "Add a hat. Then make the sky red."),
        ("add", "Add two birds."),
        ("add", "Add a dog next to its owner."),
        ("remove", "Remove the birds."),
        ("remove", "Remove the people in the background."),
        ("replace", "Replace the dogs with a cat."),
        ("replace", "Replace the background with a beach."),
        ("style", "Make it a painting."),
        ("add", ""),
    ],
)
def test_what_no_rule_undoes_is_left_alone(category: str, instruction: str):
    assert invert(category, instruction) is None


def test_an_inverse_asks_for_its_category():
    for _, _, category, instruction in REWRITTEN:
        assert classify(instruction).category == category
