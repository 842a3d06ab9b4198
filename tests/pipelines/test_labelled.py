"""Labels in any layout, and bounds that are learned from them."""

import json

import pytest

from crispedit import recipe
from crispedit.pipelines.calibration import labelled, labels
from crispedit.pipelines.calibration.judgement import wilson
from crispedit.pipelines.recipe import Recipe

RECIPE = """
run: run
source: {kind: folder, path: photos}
categories: {add: 1, style: 1}
curate: {filters: {}}
filters:
  sharpness: {bounds: {outside: {min: 0.99}}}
  exposure: {bounds: {drift: {max: 4}}}
engine: {kind: inprocess}
"""


def cascade():
    return recipe.parse(Recipe, RECIPE, [], name="recipe").pair_cascade


def row(number, good, sharpness, drift=1.0, regime="regenerated", category="add", verdict="low quality"):
    return {
        "id": f"pair {number}",
        "category": category,
        "good": good,
        "verdict": "good" if good else verdict,
        "group": f"model {number % 4}",
        "regeneration.regime": regime,
        "sharpness.outside": sharpness,
        "exposure.drift": drift,
    }


def soft_but_good():
    """Regenerated pairs: the good ones are softened to 0.7-0.9, the bad ones drift; exact pairs are sharp."""
    rows = [row(n, True, 0.7 + 0.01 * (n % 20)) for n in range(40)]
    rows += [row(40 + n, False, 0.8, drift=8 + n % 3) for n in range(12)]
    rows += [row(60 + n, True, 0.995 + 0.0001 * n, regime="exact") for n in range(20)]
    rows += [row(80 + n, False, 0.5, regime="exact") for n in range(8)]
    return rows


def test_bounds_are_learned_for_each_regime():
    learned = labelled.learn(soft_but_good(), cascade(), 0.1)
    regenerated, exact = learned.cells["regenerated", "add"], learned.cells["exact", "add"]
    assert regenerated["sharpness.outside"].min <= 0.7
    assert 1 <= regenerated["exposure.drift"].max < 8
    assert exact == cascade().bounds_of("add")


def test_a_held_out_model_is_judged_by_what_the_others_taught():
    report = labelled.judged(soft_but_good(), cascade(), 0.1)
    recipe_, held_out = report["recipe"], report["held_out"]
    assert report["groups"] == 4
    assert recipe_["good_rejected"]["regenerated"]["share"] == 1
    assert held_out["good_rejected"]["all"]["share"] <= 0.1
    assert held_out["detected"]["low quality"]["share"] > 0.9
    assert held_out["kappa"] > 0.8 > recipe_["kappa"]
    assert set(held_out["groups"]) == {f"model {n}" for n in range(4)}
    low, high = (held_out["good_rejected"]["all"][side] for side in ("low", "high"))
    assert 0 <= low <= held_out["good_rejected"]["all"]["share"] <= high <= 1
    assert set(report["bounds"]) == {"regenerated"}  # the recipe's bounds are right for exact pairs
    json.dumps(report)


def test_a_single_bad_pair_moves_no_bound():
    rows = [row(n, True, 0.995) for n in range(20)] + [row(20, False, 0.995, drift=2.0)]
    report = labelled.judged(rows, cascade(), 0.1)
    assert report["held_out"]["detected"]["low quality"]["share"] == 0


@pytest.mark.parametrize(("editors", "tightened"), [("ab", False), ("abc", True)])
def test_a_bound_is_tightened_for_bad_pairs_of_three_editors(editors, tightened):
    rows = [row(n, True, 0.995) | {"group": "abc"[n % 3]} for n in range(20)]
    rows += [row(20 + n, False, 0.995, drift=3.0) | {"group": editors[n % len(editors)]} for n in range(6)]
    drift = labelled.learn(rows, cascade(), 0.1).cells["regenerated", "add"]["exposure.drift"]
    assert drift.max == (2.0 if tightened else 4)  # halfway between the good and the bad pairs


@pytest.mark.parametrize(("editors", "loosened"), [("a", False), ("ab", True)])
def test_a_bound_is_loosened_for_good_pairs_of_two_editors(editors, loosened):
    rows = [row(n, True, 0.995) | {"group": "abc"[n % 3]} for n in range(15)]
    rows += [row(15 + n, True, 0.8) | {"group": editors[n % len(editors)]} for n in range(6)]
    sharpness = labelled.learn(rows, cascade(), 0.1).cells["regenerated", "add"]["sharpness.outside"]
    assert sharpness.min == (0.8 if loosened else 0.99)


def test_a_bound_is_loosened_for_the_only_editor():
    rows = [row(n, True, 0.8) | {"group": "a"} for n in range(20)]
    assert labelled.learn(rows, cascade(), 0.1).cells["regenerated", "add"]["sharpness.outside"].min == 0.8


def test_a_score_that_tells_nothing_ends_with_a_bound_that_rejects_no_good_pair():
    rows = [row(n, n % 2 == 0, 0.5 + 0.02 * (n // 2)) for n in range(40)]
    learned = labelled.learn(rows, cascade(), 0.02).cells["regenerated", "add"]
    assert all(learned["sharpness.outside"].min <= r["sharpness.outside"] for r in rows if r["good"])


def test_labels_are_read_from_json_lines_with_the_users_own_columns(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text(
        '{"id": "a", "verdict": "good", "repo": "x"}\n\n{"id": "b", "verdict": "leaks outside", "repo": "y"}\n'
        '{"id": "c", "verdict": "unsure", "repo": "\u2028"}\n'
    )
    a, b = labels.read(path, group="repo")
    assert (a.names, a.good, a.group) == (("a",), True, "x")
    assert (b.good, b.verdict, b.group) == (False, "leaks outside", "y")
    with pytest.raises(ValueError, match=r"row 1: no column model to group by; it has id, verdict, repo"):
        labels.read(path, group="model")


def test_the_last_row_of_a_pair_counts_and_an_empty_verdict_takes_it_back(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(
        "\ufeffkey,id,verdict,reason\n1,a,good,\n2,b,bad,leaks\n1,a,bad,misaligned\n2,b,,\n3,c,good,\n", "utf-8"
    )
    a, c = labels.read(path)
    assert (a.names, a.good) == (("1", "a"), False)
    assert c.names == ("3", "c")


def test_labels_find_their_pairs_by_key_id_or_uri(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("id,verdict\nmine,good\npairs.jsonl#7,bad\nkey2,good\nnobody,good\n")
    names = {"key0": ["mine", "pairs.jsonl#3"], "key1": [None, "pairs.jsonl#7"], "key2": [None, "x"]}
    found = labels.match(labels.read(path), names.items())
    assert {key: label.good for key, label in found.items()} == {"key0": True, "key1": False, "key2": True}
    twice = {"key0": ["mine", None], "key3": ["mine", None]}
    with pytest.raises(ValueError, match="the label 'mine' fits 2 pairs; label them by key: key0, key3"):
        labels.match(labels.read(path), twice.items())
    path.write_text("key,id,verdict\nkey0,mine,bad\n")  # as `crispedit view` writes them
    assert list(labels.match(labels.read(path), twice.items())) == ["key0"]


def test_what_is_no_table_of_labels_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the file of labels .* does not exist"):
        labels.read(tmp_path / "gone.csv")
    (tmp_path / "x.jsonl").write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1: expected an object, not list"):
        labels.read(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_text("{broken\n")
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        labels.read(tmp_path / "x.jsonl")


def test_wilson_is_the_published_interval():
    assert wilson(0, 0) == (0, 1)
    low, high = wilson(3, 10)
    assert (low, high) == (pytest.approx(0.1078, abs=1e-3), pytest.approx(0.6032, abs=1e-3))
    assert wilson(10, 10)[1] == 1


def test_a_bound_at_a_good_pairs_score_still_keeps_it_when_it_is_written_down():
    rows = [row(n, True, 0.4999997 + n / 1e6) for n in range(8)]  # finer than six digits
    found = labelled.fragment(rows, labelled.learn(rows, cascade(), 0.1), cascade())
    assert 0.49999 < found["regenerated"]["add"]["sharpness.outside"]["min"] <= 0.4999997
