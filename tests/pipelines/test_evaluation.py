"""The tables of an evaluation: which result belongs to which case, the order of turns, and what keys are made of."""

import numpy as np
import pytest
from PIL import Image as Pillow

from crispedit.benchmark import Case, Picture
from crispedit.benchmarks.shards import Shards
from crispedit.pipelines.evaluation.recipe import EvaluationRecipe
from crispedit.pipelines.evaluation.runner import Evaluation


def case(name, after=None, **more):
    source = None if after else Picture(f"{name}.png")
    return Case(name, "edit", source, after=after, target=Picture("target.png"), protocols=("shards",), **more)


def evaluation(tmp_path, *cases, **options):
    recipe = EvaluationRecipe(out=tmp_path, benchmarks={"shards": {"path": "x", **options}})
    return Evaluation(recipe, "shards", Shards(path="x", **options), cases)


def write(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.full((4, 4, 3), level, np.uint8)).save(path)


def names(given):
    return {
        name: None if one.picture is None else one.picture.path.rpartition("results/")[2] for name, one in given.items()
    }


def test_results_are_found_by_the_whole_id(tmp_path):
    made = evaluation(tmp_path, case("add/000"), case("style/000"), case("style/001"))
    results = tmp_path / "results"
    write(results / "fullset" / "add" / "000.png", 1)
    assert names(made.found_in(results)) == {
        "add/000": "fullset/add/000.png",
        "style/000": None,  # never the other kind's
        "style/001": None,
    }
    write(results / "fullset" / "style" / "000.webp", 2)
    write(results / "001.png", 3)  # the only case of that name
    assert names(made.found_in(results)) == {
        "add/000": "fullset/add/000.png",
        "style/000": "fullset/style/000.webp",
        "style/001": "001.png",
    }
    write(results / "again" / "001.png", 4)  # now two files could be meant
    assert names(made.found_in(results))["style/001"] is None


def test_a_replaced_result_is_another_answer(tmp_path):
    made = evaluation(tmp_path, case("a"))
    write(tmp_path / "results" / "a.png", 1)
    before = made.found_in(tmp_path / "results")["a"].key
    assert made.found_in(tmp_path / "results")["a"].key == before
    write(tmp_path / "results" / "a.png", 2)
    assert made.found_in(tmp_path / "results")["a"].key != before


def test_turns_wait_for_what_they_continue(tmp_path):
    made = evaluation(tmp_path, case("1"), case("x"), case("2", after="1"), case("3", after="2"))
    assert [[c.id for c in wave] for wave in made.waves()] == [["1", "x"], ["2"], ["3"]]
    assert names(made.copied()[0])["3"] == "1.png"
    assert names(made.truth()[0])["3"] == "target.png"
    with pytest.raises(ValueError, match="case 2 comes before 1, which it continues"):
        evaluation(tmp_path, case("2", after="1"), case("1")).waves()


def test_two_cases_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two cases have the id 'a'"):
        evaluation(tmp_path, case("a"), case("b"), case("a"))
    evaluation(tmp_path, case("a"), case("b"))


def test_a_key_is_of_what_decides_the_row(tmp_path):
    one, other = case("1"), case("1", target_caption="a hill")
    plain, scaled = evaluation(tmp_path, one), evaluation(tmp_path, one, short_side_px=64)
    assert plain.answer_key(one, "{}") != plain.answer_key(one, '{"steps": 2}')
    assert plain.answer_key(one, "{}") != scaled.answer_key(one, "{}")
    assert plain.answer_key(one, "{}") == plain.answer_key(other, "{}")  # captions are scored by, not edited by
    assert plain.answer_key(one, "{}", 0) != plain.answer_key(one, "{}", 1)  # another seed
    given = plain.copied()[0]["1"]
    assert plain.key(one, given) != plain.key(other, given)
    assert plain.key(one, given) != plain.key(one, plain.truth()[0]["1"])
    assert plain.key(one, given, repeat=0) != plain.key(one, given, repeat=1)  # another judgement


def test_a_result_that_two_cases_share_is_found_for_both(tmp_path):
    made = evaluation(tmp_path, case("add/000", result="add/000"), case("add/000~2", result="add/000"))
    write(tmp_path / "results" / "add" / "000.png", 1)
    assert set(names(made.found_in(tmp_path / "results")).values()) == {"add/000.png"}
