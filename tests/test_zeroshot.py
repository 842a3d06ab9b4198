"""Zero-shot classification through a real (tiny, untrained) open_clip text tower."""

import pytest
import tiny_clip

from crispedit import clip
from crispedit.category import Category, load_categories
from crispedit.zeroshot import ZeroShot

CATEGORIES = load_categories()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return clip.load(f"local-dir:{tiny_clip.save(tmp_path_factory.mktemp('clip') / 'tiny')}")


def test_each_instruction_gets_its_best_two_in_order(model):
    reader = ZeroShot(model, CATEGORIES)
    instructions = ["add a hat", "make it night", "turn this into a watercolour"]
    answers = reader.classify(instructions)
    assert [reader.classify([text])[0] for text in instructions] == answers
    for answer in answers:
        assert {answer.category, answer.runner_up} <= set(CATEGORIES)
        assert answer.category != answer.runner_up
        assert 0 < answer.runner_up_score <= answer.score < 1
    assert reader.classify([]) == []


def test_a_categorys_own_words_lie_nearest_to_it(model):
    alone = {
        name: Category(name=name, definition=f"{text}.", prompt="p")
        for name, text in (
            ("relight", "the light falls from elsewhere"),
            ("crowd", "many more people are there"),
        )
    }
    reader = ZeroShot(model, alone)
    answers = reader.classify(["the light falls from elsewhere", "many more people are there"])
    assert [answer.category for answer in answers] == ["relight", "crowd"]


def test_one_category_is_no_choice(model):
    with pytest.raises(ValueError, match="at least two"):
        ZeroShot(model, {"add": CATEGORIES["add"]})
