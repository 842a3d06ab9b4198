"""A complete evaluation of three editors by two seeds in every published layout, and each of its outputs."""

import codecs
import csv
import json
import re

import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow
from starlette.testclient import TestClient

from benchmarks import evaluator
from crispedit import images
from crispedit.pipelines import view
from crispedit.pipelines.evaluation import preferences, statistics
from crispedit.pipelines.evaluation.preferences import Preference
from crispedit.pipelines.viewing import evaluation
from crispedit.pipelines.viewing.guard import Guard

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
    table = pq.read_table(out / "cases.parquet").to_pylist()
    if layout == "gedit_v2":
        assert not sheets
        assert {row["metric"] for row in table} == {"preferred"}
        shares = {(row["case"], row["editor"]): row["value"] for row in table if row["editor"] != "copy-source"}
        assert all(0 <= value <= 1 for value in shares.values())
        assert all(shares[case, "faint"] > shares[case, "strong"] for case, editor in shares if editor == "strong")
        return
    assert {(row["seed"], row["judgement"]) for row in table if row["editor"] == "faint"} >= {(0, 0), (1, 0)}
    assert {row["kind"] for row in table if row["editor"] == "strong"} >= {"scored"}
    assert all((row["value"] is None) <= bool(row["reason"] or row["kind"] == "scored") for row in table)
    assert {"faint against middling", "strong worst", "strong best"} <= {
        sheet.stem.partition(" ")[2] for sheet in sheets
    }
    with Pillow.open(sheets[0]) as image:
        assert image.width > 400


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_browser_opens_every_evaluation(made, layout):
    folder, _ = made
    out = folder / "evaluations" / layout
    assert view.is_evaluation(str(out))
    shown = evaluation.EvaluationResults(out)
    client = TestClient(Guard(evaluation.EvaluationSite(shown).app(), "127.0.0.1", None), base_url="http://127.0.0.1")
    assert "strong" in client.get("/").text
    for protocol, board in shown.boards[layout].items():
        address = f"/cases?protocol={protocol}&order=worst&editor=strong"
        assert client.get(address).status_code == 200
        wanted = shown.wanted({"protocol": protocol, "order": "worst", "editor": "strong"})
        names, total = shown.cases(wanted)
        assert len(names) == min(total, evaluation.PAGE) > 0
        cases = shown.answers(wanted, names)
        assert [case["case"] for case in cases] == names
        assert {a["editor"] for a in cases[0]["answers"]} >= {"faint", "middling", "strong"}
        better = 1 if shown.metrics(layout, protocol)[wanted.metric] == "higher" else -1
        values = [_mean(case, "strong", wanted.metric) for case in cases]
        known = [better * value for value in values if value is not None]
        assert known == sorted(known)
        assert values[len(known) :] == [None] * (len(values) - len(known))  # cases without a value come last
        apart, _ = shown.cases(shown.wanted({"protocol": protocol, "order": "apart", "editor": "strong"}))
        assert set(apart) == set(names)
        page = client.get("/cases/one", params={"protocol": protocol, "case": names[0]})
        assert page.status_code == 200
        places = re.findall(r'src="(/picture/[^"]+)"', page.text)
        assert len(places) >= 4
        assert images.decode_jpeg(client.get(places[0].replace("&amp;", "&")).content).size > 0
        judged = [a for case in cases for a in case["answers"] if a["words"]]
        assert bool(judged) == (layout in ("gedit", "imgedit", "gedit_v2", "edit_compass")), board["about"]
        assert all(a["words"][0] for a in judged)
    for path in ("/cases/one?case=nothing", "/picture/999999/source", "/picture/0/..%2fresults.json", "/results.json"):
        assert client.get(path).status_code == 404, path
    for path in ("/cases?benchmark=x", "/cases?order=x", "/cases?editor=x", "/picture/0/source?w=3"):
        assert client.get(path).status_code == 400, path


def _mean(case, editor, metric):
    """An editor's value of a case over its seeds."""
    values = [a["marks"].get(metric) for a in case["answers"] if a["editor"] == editor]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def test_the_made_judge_ranks_the_editors_as_they_were_made(made):
    folder, _ = made

    def board(layout, protocol):
        return json.loads((folder / "evaluations" / layout / "results.json").read_text())[layout][protocol]

    marks = board("gedit", "gedit-official")["rows"]
    assert marks["faint"]["metrics"]["O"]["mean"] > marks["middling"]["metrics"]["O"]["mean"]
    assert "nothing is known of" in marks["strong"]["metrics"]["O"]["error"]  # the only case of a group is missing
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
    file.write_text("case,first,second,winner,category\n1,a,b,a,x\n1,b,a,a,x\n1,a,b,tie,x\n2,b,a,second,y\n2,a,b,b,y\n")
    file.write_bytes(codecs.BOM_UTF8 + file.read_bytes().replace(b",", b";"))  # as a spreadsheet saves it
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
        statistics.PairwiseResult(m.case, m.dimension, m.second, m.first, preferences.REVERSED[m.outcome])
        for m in matches
    ]
    again = statistics.strengths(turned, draws=2)
    assert [again[p].elo for p in sorted(again)] == pytest.approx([found[p].elo for p in sorted(found)], abs=1e-3)
    assert statistics.strengths([]) == {}
    alone = [statistics.PairwiseResult("1", "d", "a", "b", "first")]
    assert statistics.strengths(alone)["a"].low is None  # one case
