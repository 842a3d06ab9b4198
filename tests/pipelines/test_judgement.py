"""Judgement: AUC against its definition, bounds that keep their promise, kappa by hand, flips."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crispedit.pipelines.calibration.judgement import Agreement, auc, bound_at, clearness, flips, learn

VALUES = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=40)


@given(VALUES, VALUES, st.sampled_from(["min", "max"]))
def test_auc_is_the_chance_that_bad_is_worse(good, bad, side):
    worse = [(b > g) if side == "max" else (b < g) for g in good for b in bad]
    ties = [b == g for g in good for b in bad]
    expected = (sum(worse) + sum(ties) / 2) / len(worse)
    assert auc(np.array(good), np.array(bad), side) == pytest.approx(expected)


def test_auc_of_nothing_is_unknown():
    assert auc(np.array([]), np.array([1.0]), "max") is None


@given(VALUES, st.sampled_from(["min", "max"]), st.floats(0.01, 0.5))
def test_a_bound_rejects_no_more_than_it_may_and_none_is_tighter(values, side, share):
    good = np.array(values)
    bound = bound_at(good, side, share)
    beyond = (good > bound) if side == "max" else (good < bound)
    assert beyond.mean() <= share + 1e-9
    tighter = np.unique(good)[np.unique(good) < bound] if side == "max" else np.unique(good)[np.unique(good) > bound]
    for other in tighter:
        worse = (good > other) if side == "max" else (good < other)
        assert worse.mean() > share - 1 / len(good) - 1e-9


def test_a_learned_bound_lies_in_the_gap():
    good, bad = np.linspace(0, 1, 200), np.linspace(3, 9, 200)
    found = learn(good, {"blurred": bad}, 1.2, "max", 0.0)
    assert found == pytest.approx(2.06, abs=0.05)
    mirrored = learn(-good, {"blurred": -bad}, -1.2, "min", 0.0)
    assert mirrored == pytest.approx(-found)


def test_what_a_score_does_not_tell_teaches_it_nothing():
    rng = np.random.default_rng(0)
    same = rng.normal(size=300)
    assert learn(same, {"blurred": rng.normal(size=300)}, 0.0, "max", 0.02) is None
    assert learn(same, {}, 0.0, "max", 0.02) is None


def test_a_defect_that_the_bound_is_not_there_for_does_not_pull_it():
    good, blurred, darker = np.linspace(0, 1, 200), np.linspace(8, 9, 200), np.linspace(1.1, 1.2, 200)
    assert learn(good, {"blurred": blurred, "darker": darker}, 5.0, "max", 0.0) == pytest.approx(4.51, abs=0.05)


def test_the_clearest_score_is_the_surest_then_the_widest_known_then_the_farthest():
    good, near, far = np.linspace(0, 1, 50), np.linspace(2, 3, 50), np.linspace(20, 21, 50)
    mixed, few = np.linspace(0.9, 3, 50), np.linspace(200, 201, 5)
    by_clearness = sorted([few, far, mixed, near], key=lambda bad: clearness(good, bad, "max"))
    assert [values is like for values, like in zip(by_clearness, [mixed, few, near, far], strict=True)] == [True] * 4
    assert clearness(-good, -near, "min") == clearness(good, near, "max")
    assert clearness(good, np.array([]), "max") == (0, 0, 0)


def test_kappa_by_hand():
    # Cohen's own kind of table: 20 both yes, 5 first only, 10 second only, 15 both no: po 0.7, pe 0.5.
    seen = Agreement(20, 5, 10, 15)
    assert seen.agreement == pytest.approx(0.7)
    assert seen.kappa == pytest.approx(0.4)
    assert Agreement.of([True, True, False], [True, False, False]) == Agreement(1, 1, 0, 1)
    assert Agreement(10, 0, 0, 0).kappa is None


@given(st.dictionaries(st.text("ab", max_size=3), st.sampled_from(["kept", "x:low"])))
def test_flips_of_a_thing_with_itself_are_none(verdicts):
    assert flips(verdicts, verdicts) == Counter((v, v) for v in verdicts.values())


def test_flips_count_moves_and_absence():
    moved = flips({"a": "kept", "b": "kept"}, {"a": "x:low", "c": "kept"})
    assert moved == {("kept", "x:low"): 1, ("kept", "absent"): 1, ("absent", "kept"): 1}
