"""Made-up replies of judges: the mark that each says, or null."""

import pytest

from crispedit import replies

NAMES = ("Prompt Compliance", "Visual Naturalness", "Physical & Detail Integrity")
LINES = (
    "Brief reasoning: The car is red now.\nPrompt Compliance: 5\nVisual Naturalness: 4\nPhysical & Detail Integrity: 4"
)


@pytest.mark.parametrize(
    ("reply", "marks"),
    [
        ('{"score": [8, 6], "reasoning": "because"}', [8, 6]),
        ('```json\n{"reasoning": "fine", "score": [7.5, 9]}\n```', [7.5, 9]),
        ('||V^=^V||\n{"reasoning": "x", "score": [4, 9]}\n||V^=^V||', [4, 9]),
        ("[6, 0]", [6, 0]),
        ("The scores are [6, 0].", [6, 0]),
        ("7", [7]),
        ('{"score": 7}', [7]),
        ('{"score": [3, 4], "confidence": "high"}', [3, 4]),
        ('{"reasoning": "two\nlines", "score": [5, 5]}', [5, 5]),
        ('{"reasoning": "x", "score": [5, 6,],}', [5, 6]),
        ('Draft: {"score": [2, 2]}. I looked again.\n{"score": [8, 9]}', [8, 9]),
        ('<think>{"score": [1, 1]}, no</think>{"score": [9, 9]}', [9, 9]),
        # What is not said is not guessed.
        ("I would say eight.", None),
        ("I'm sorry, I cannot rate pictures of people.", None),
        ('{"score": "8/10"}', None),
        ('{"score": [8, 11]}', None),
        ('{"score": []}', None),
        ('{"score": [8, 6], "reasoning": "the edit fol', None),  # cut off
        ('{"score": [2, 2]} is my draft. {"reasoning": "in the end", "score": [8', None),
        ("<think>The edit is good, so [8, 8] may be", None),
        ("", None),
    ],
)
def test_viescore(reply, marks):
    assert replies.viescore(reply) == marks


@pytest.mark.parametrize(
    ("reply", "marks"),
    [
        (LINES, [5, 4, 4]),
        (LINES.replace("Prompt", "**Prompt").replace("Compliance:", "Compliance**:"), [5, 4, 4]),
        ('{"reasoning": "x", "scores": [3, 2, 2]}', [3, 2, 2]),  # a judge that is held to a schema
        ('{"Prompt Compliance": 5, "Visual Naturalness": 3, "Physical & Detail Integrity": 2}', [5, 3, 2]),
        (f"{LINES}\nOn reflection:\n{LINES.replace(': 5', ': 2').replace(': 4', ': 1')}", [2, 1, 1]),
        (LINES.rpartition("\n")[0], None),  # cut off
        (LINES.replace(": 5", ": 7"), None),
        ("I cannot help with that.", None),
    ],
)
def test_imgedit(reply, marks):
    assert replies.lines(reply, NAMES) == marks


@pytest.mark.parametrize(
    ("reply", "mark"),
    [
        ('```json\n{"analysis": {"score": 2, "tasks": []}, "reasoning": "x", "score": 4}\n```', 4),
        ('{"reasoning": "x", "score": 5,}', 5),
        ('{"analysis": {"score": 2}}', None),
        ('{"score": 6}', None),
        ('{"reasoning": "cut', None),
    ],
)
def test_edit_compass(reply, mark):
    assert replies.score(reply) == mark


@pytest.mark.parametrize(
    ("reply", "winner"),
    [
        ('{"reasoning": "sharper", "winner": "Image A"}', "first"),
        ('{"winner": "B"}', "second"),
        ("They are alike.\nWinner: Tie", "tie"),
        ('{"winner": "both"}', None),
        ("Image A is better than image B in most ways", None),
    ],
)
def test_gedit_v2(reply, winner):
    assert replies.winner(reply) == winner


def test_imgedits_own_script_counts_every_line_that_ends_in_digits():
    assert replies.published_lines(LINES) == [5, 4, 4]
    assert replies.published_lines(f"Number of cars: 12\n{LINES}") == [12, 5, 4, 4]
    assert replies.published_lines("**Prompt Compliance**: 5/5") is None
