"""The scoreboard: means, intervals and differences from outcomes, and the page that shows them."""

import pytest

from crispedit import benchmarks, parts
from crispedit.benchmark import Benchmark, Case, Protocol
from crispedit.measures import Models
from crispedit.pipelines.evaluation import scoreboard
from crispedit.pipelines.evaluation.runner import COPY, TRUTH, Outcome

PLAIN = Protocol("how near", {"l1": "lower", "dino": "higher"}, "l1")


def outcome(number, value, group="a", family="", **more):
    case = Case(str(number), "edit", None, group=group, family=family, protocols=("p",))
    return Outcome(case, values={"p": {"l1": value, "dino": None}}, **more)


def board(outcomes, protocol=PLAIN, draws=400, level=0.95):
    return scoreboard.protocol_board("p", protocol, outcomes, Models(), draws, level)


def l1(found, editor="mine"):
    return found["rows"][editor]["metrics"]["l1"]


def test_a_mean_has_an_interval_that_holds_it_and_is_the_same_twice():
    outcomes = {"mine": [outcome(n, n / 10) for n in range(40)]}
    found = l1(board(outcomes))
    assert found["mean"] == pytest.approx(1.95)
    assert found["low"] < 1.95 < found["high"]
    # Of a mean of 40 values with a standard deviation of 1.154: about 1.96 * 0.182 to either side.
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.182, rel=0.15)
    assert l1(board(outcomes)) == found
    assert l1(board({"mine": outcomes["mine"][::-1]}))["mean"] == pytest.approx(found["mean"])
    narrow = l1(board(outcomes, level=0.5))
    assert narrow["high"] - narrow["low"] < (found["high"] - found["low"]) / 2


def test_a_family_is_drawn_together():
    alone = [outcome(n, n % 10) for n in range(40)]
    together = [outcome(n, n % 10, family=str(n % 10)) for n in range(40)]
    wide, narrow = l1(board({"mine": together})), l1(board({"mine": alone}))
    assert wide["mean"] == narrow["mean"] == 4.5
    assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])


def test_groups_weigh_alike_where_the_protocol_says_so():
    outcomes = {"mine": [outcome(0, 1.0, "a"), *(outcome(n, 0.0, "b") for n in range(1, 10))]}
    assert l1(board(outcomes))["mean"] == pytest.approx(0.1)
    grouped = Protocol("how near", {"l1": "lower", "dino": "higher"}, "l1", by_group=True)
    assert l1(board(outcomes, grouped))["mean"] == pytest.approx(0.5)
    assert board(outcomes)["rows"]["mine"]["groups"]["a"]["l1"] == {"mean": 1.0, "n": 1}


def test_what_is_not_known_is_left_out_and_counted():
    mine = [
        outcome(0, 0.5),
        outcome(1, None, unparsed=True),
        outcome(2, 0.0, black=True),
        Outcome(Case("3", "edit", None, protocols=("p",)), "no image in the folder"),
        Outcome(Case("4", "edit", None, protocols=("other",))),
    ]
    row = board({"mine": mine})["rows"]["mine"]
    counts = {name: row[name] for name in ("cases", "scored", "missing", "black", "unparsed")}
    assert counts == {"cases": 4, "scored": 3, "missing": 1, "black": 1, "unparsed": 1}
    assert row["reasons"] == {"no image in the folder": 1}
    assert (row["metrics"]["l1"]["mean"], row["metrics"]["l1"]["n"]) == (0.25, 2)
    assert row["metrics"]["dino"] == {"mean": None, "low": None, "high": None, "n": 0}
    dropping = Protocol("how near", {"l1": "lower", "dino": "higher"}, "l1", drops_black=True)
    row = board({"mine": mine}, dropping)["rows"]["mine"]
    assert (row["metrics"]["l1"]["mean"], row["black"], row["scored"]) == (0.5, 1, 3)


def test_a_metric_without_its_model_is_null_with_the_reason():
    found = board({"mine": [outcome(0, 0.5)]})
    assert found["null"] == {"dino": "the recipe names no models.dino"}
    assert "dino is null: the recipe names no models.dino" in scoreboard.markdown({"b": {"p": found}}, 0.95)


def test_the_page_says_which_models_measured():
    from crispedit.measures import ClipSpec

    protocol = Protocol(
        "how near", {"l1": "lower", "clip_i": "higher"}, "l1", models={"clip": "ViT-B-32 openai"}
    )
    case = Case("1", "edit", None, protocols=("p",))
    outcomes = {"mine": [Outcome(case, values={"p": {"l1": 0.5, "clip_i": 0.5}})]}
    models = Models(clip=ClipSpec(model="embedded"))
    found = scoreboard.protocol_board("p", protocol, outcomes, models, 200, 0.95)
    assert found["models"] == {"clip": {"used": "embedded", "published": "ViT-B-32 openai"}}
    assert "- clip: embedded; published with ViT-B-32 openai" in scoreboard.markdown(
        {"b": {"p": found}}, 0.95
    )
    assert found["null"] == {}


def test_differences_are_paired():
    base = [outcome(n, 1.0 + n) for n in range(20)]
    better = [outcome(n, 0.5 + n) for n in range(20)]
    half = [outcome(n, (1.0 + n) / 2) for n in range(15)]  # five are missing
    found = board({COPY: base, TRUTH: [outcome(0, 0.0)], "better": better, "half": half})["differences"]
    by = {(row["editor"], row["minus"]): row["metrics"]["l1"] for row in found}
    assert set(by) == {("better", COPY), ("half", COPY), ("half", "better")}
    against_copy = by["better", COPY]
    assert [against_copy[key] for key in ("mean", "low", "high")] == pytest.approx([-0.5, -0.5, -0.5])
    ratio = by["half", COPY]["ratio"]
    assert [ratio[key] for key in ("mean", "low", "high")] == pytest.approx([0.5, 0.5, 0.5])
    assert by["half", COPY]["n"] == 15
    zeros = board({COPY: [outcome(0, 0.0)], "mine": [outcome(0, 1.0)]})["differences"]
    assert zeros[0]["metrics"]["l1"]["ratio"] is None


def test_the_page_keeps_its_cells():
    case = Case("1", "edit", None, group="<script>", protocols=("p",))
    rows = [
        Outcome(case, values={"p": {"l1": 0.5, "dino": None}}),
        outcome(2, 0.5, "b|c"),
        Outcome(case, "a | b\nc"),
    ]
    page = scoreboard.markdown({"b": {"p": board({"x|y": rows})}}, 0.95)
    assert "<script>" not in page
    assert "x\\|y" in page
    assert "a \\| b c" in page
    assert "0.5000 [0.5000, 0.5000]" in page


def test_published_figures_are_of_known_protocols_and_metrics(tmp_path):
    options = {"gedit": {"prompts": "p.py"}, "imgedit": {"prompts": "p.json"}}
    known: dict[str, Protocol] = {}
    for name in ("magicbrush", "anybench", "shards", "gedit", "imgedit"):
        known |= parts.make(benchmarks, name, Benchmark, {"path": "x", **options.get(name, {})}).protocols
    editmgt = {"path": "x", "prompts": "p.py", "protocol": "gedit-editmgt"}
    known |= parts.make(benchmarks, "gedit", Benchmark, editmgt).protocols
    emu = {"emu-source": {"l1", "l2", "clip_i", "dino", "clip_t"}, "clipdir-ip2p": {"clip_dir"}}
    metrics = {name: set(protocol.metrics) for name, protocol in known.items()} | emu
    for protocol, rows in scoreboard.published().items():
        for row in rows:
            assert set(row["values"]) <= metrics[protocol]
            assert row["source"]
