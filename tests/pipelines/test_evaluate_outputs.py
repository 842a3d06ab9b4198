"""A complete evaluation of three editors by two seeds in every published layout, and each of its outputs."""

import csv
import json

import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from benchmarks import evaluator
from crispedit.pipelines.evaluation import preferences, statistics
from crispedit.pipelines.evaluation.preferences import Preference

LAYOUTS = ("magicbrush", "emu_edit", "anybench", "gedit", "imgedit", "gedit_v2", "edit_compass")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, what came of the evaluation of each layout)."""
    folder = tmp_path_factory.mktemp("made")
    return folder, evaluator.made(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_every_output(made, layout):
    folder, found = made
    assert found[layout].problems == []
    out = folder / "evaluations" / layout
    boards = json.loads((out / "results.json").read_text())[layout]
    for board in boards.values():
        if board.get("pairwise"):
            assert set(board["ratings"]) == {"copy-source", "faint", "middling", "strong"}
            continue
        assert {"faint", "middling", "strong"} <= board["rows"].keys()
        for editor in ("faint", "middling", "strong"):
            assert board["rows"][editor]["seeds"] == 2
        assert board["ranks"][board["headline"]].keys() <= {"faint", "middling", "strong"}
    assert (out / "results.tex").read_text().count("\\begin{tabular}") == len(boards)
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["editor"] for row in rows} >= {"faint", "middling", "strong"}
    assert (out / "results.md").read_text() == found[layout].page
    assert json.loads((out / "cost.json").read_text())[layout]["prompt_tokens"] in (0, None)
    sheets = list((out / "sheets").rglob("*.jpg"))
    if layout == "gedit_v2":
        assert not sheets
        return
    table = pq.read_table(out / "cases.parquet").to_pylist()
    assert {(row["seed"], row["judgement"]) for row in table if row["editor"] == "faint"} >= {(0, 0), (1, 0)}
    assert {row["kind"] for row in table if row["editor"] == "strong"} >= {"scored"}
    assert all((row["value"] is None) <= bool(row["reason"] or row["kind"] == "scored") for row in table)
    assert {"faint against middling", "strong worst", "strong best"} <= {
        sheet.stem.partition(" ")[2] for sheet in sheets
    }
    with Pillow.open(sheets[0]) as image:
        assert image.width > 400


def test_the_made_judge_ranks_the_editors_as_they_were_made(made):
    folder, _ = made

    def board(layout, protocol):
        return json.loads((folder / "evaluations" / layout / "results.json").read_text())[layout][protocol]

    marks = board("gedit", "gedit-official")["rows"]
    assert marks["faint"]["metrics"]["O"]["mean"] > marks["middling"]["metrics"]["O"]["mean"]
    assert (
        "nothing is known of" in marks["strong"]["metrics"]["O"]["error"]
    )  # the only case of a group is missing
    assert board("gedit", "gedit-official")["request"]["max_tokens"] == 1400
    duel = board("gedit_v2", "gedit-v2-own-prompts")
    order = sorted(duel["ratings"], key=lambda name: -duel["ratings"][name]["elo"])
    assert order == ["copy-source", "faint", "middling", "strong"]
    assert duel["position"]["orders_agree"] == 1
    assert duel["humans"]["all"]["agreement"]["mean"] == pytest.approx(6 / 7)  # people differ on one case
    pixels = board("magicbrush", "magicbrush-official")
    assert pixels["rows"]["strong"]["missing"] == 2  # of two seeds
    assert pixels["published"][0]["protocol"] == "magicbrush-official"
    assert pixels["rows"]["faint"]["variances"]["l1"]["seeds"] > 0


def test_people_are_read_from_a_table_and_their_majority_counts(tmp_path):
    file = tmp_path / "people.csv"
    file.write_text(
        "case,first,second,winner,category\n1,a,b,a,x\n1,b,a,a,x\n1,a,b,tie,x\n2,b,a,second,y\n2,a,b,b,y\n"
    )
    read = preferences.read(file)
    assert preferences.majority(read) == [
        Preference("1", "a", "b", "first", "x"),
        Preference("2", "a", "b", "tie", "y"),
    ]
    (tmp_path / "people.jsonl").write_text('{"case": "1", "first": "a", "second": "b", "winner": "c"}\n')
    with pytest.raises(ValueError, match="row 1: the winner 'c' is neither 'a', 'b' nor tie"):
        preferences.read(tmp_path / "people.jsonl")
    (tmp_path / "few.csv").write_text("case,first\n1,a\n")
    with pytest.raises(ValueError, match="row 1 has no 'second'"):
        preferences.read(tmp_path / "few.csv")


def test_agreement_counts_ties_and_chance():
    people = [Preference(str(n), "a", "b", ("first", "second", "tie")[n % 3], "x") for n in range(30)]
    exact = preferences.agreement([(one, one.winner) for one in people], 0.95)
    assert (exact["all"]["agreement"]["mean"], exact["all"]["kappa"]) == (1, 1)
    always = preferences.agreement([(one, "first") for one in people], 0.95)
    assert always["all"]["agreement"]["mean"] == pytest.approx(1 / 3)
    assert always["all"]["kappa"] == pytest.approx(0)
    assert always["categories"]["x"]["n"] == 30


def test_strengths_are_found_again_and_do_not_depend_on_who_is_first():
    import numpy as np

    matches = evaluator.simulated_matches(np.random.default_rng(0), [0.8, 0.0, -0.8], cases=100)
    found = statistics.strengths(matches, draws=40)
    assert found["e0"].low < 1000 + 0.8 * statistics.ELO_PER_STRENGTH < found["e0"].high
    assert found["e0"].elo > found["e1"].elo > found["e2"].elo
    turned = [
        statistics.Match(m.case, m.dimension, m.second, m.first, preferences.REVERSED[m.outcome])
        for m in matches
    ]
    again = statistics.strengths(turned, draws=2)
    assert [again[p].elo for p in sorted(again)] == pytest.approx(
        [found[p].elo for p in sorted(found)], abs=1e-3
    )
    assert statistics.strengths([]) == {}
    alone = [statistics.Match("1", "d", "a", "b", "first")]
    assert statistics.strengths(alone)["a"].low is None  # one case
