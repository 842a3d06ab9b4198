"""The scoreboard: means, intervals and paired tests from outcomes, and the page that shows them."""

import pytest

from crispedit import benchmarks, parts
from crispedit.benchmark import Benchmark, Case, Protocol
from crispedit.measures import Models
from crispedit.pipelines.evaluation import report, scoreboard, statistics
from crispedit.pipelines.evaluation.runner import COPY, TRUTH, Outcome

PLAIN = Protocol("how near", {"l1": "lower", "dino": "higher"}, "l1")


def outcome(number, value, group="a", family="", **more):
    case = Case(str(number), "edit", None, group=group, family=family, protocols=("p",))
    return Outcome(case, values={"p": {"l1": value, "dino": None}}, **more)


def board(outcomes, protocol=PLAIN, level=0.95):
    return scoreboard.protocol_board("p", protocol, outcomes, Models(), level)


def l1(found, editor="mine"):
    return found["rows"][editor]["metrics"]["l1"]


def test_a_mean_has_an_interval_that_holds_it_and_is_the_same_twice():
    outcomes = {"mine": [outcome(n, n / 10) for n in range(40)]}
    found = l1(board(outcomes))
    assert found["mean"] == pytest.approx(1.95)
    assert found["low"] < 1.95 < found["high"]
    # Of a mean of 40 values with a standard deviation of 1.154: about 1.96 * 0.182 to either side.
    assert found["high"] - found["low"] == pytest.approx(2 * 2.023 * 0.1848, rel=0.01)  # t with 39 degrees
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
    alone = {"mean": 1.0, "low": None, "high": None, "n": 1}  # one case has no interval
    assert board(outcomes)["rows"]["mine"]["groups"]["a"]["l1"] == alone


def test_what_is_not_known_is_left_out_and_counted():
    mine = [
        outcome(0, 0.5),
        Outcome(
            Case("1", "edit", None, group="a", protocols=("p",)), "the judge's reply cannot be read", kind="unparsed"
        ),
        outcome(2, 0.0, black=True),
        Outcome(Case("3", "edit", None, protocols=("p",)), "no image in the folder", kind="missing"),
        Outcome(Case("4", "edit", None, protocols=("other",))),
    ]
    row = board({"mine": mine})["rows"]["mine"]
    counts = {name: row[name] for name in ("cases", "scored", "missing", "black", "unparsed")}
    assert counts == {"cases": 4, "scored": 2, "missing": 1, "black": 1, "unparsed": 1}
    assert row["reasons"] == {"no image in the folder": 1, "the judge's reply cannot be read": 1}
    assert (row["metrics"]["l1"]["mean"], row["metrics"]["l1"]["n"]) == (0.25, 2)
    assert row["metrics"]["dino"] == {"mean": None, "low": None, "high": None, "n": 0}
    dropping = Protocol("how near", {"l1": "lower", "dino": "higher"}, "l1", drops_black=True)
    row = board({"mine": mine}, dropping)["rows"]["mine"]
    assert (row["metrics"]["l1"]["mean"], row["black"], row["scored"]) == (0.5, 1, 2)


def test_a_metric_without_its_model_is_null_with_the_reason():
    found = board({"mine": [outcome(0, 0.5)]})
    assert found["null"] == {"dino": "the recipe names no models.dino"}
    assert "dino is null: the recipe names no models.dino" in report.markdown({"b": {"p": found}}, 0.95)


def test_the_page_says_which_models_measured():
    from crispedit.measures import ClipSpec

    protocol = Protocol("how near", {"l1": "lower", "clip_i": "higher"}, "l1", models={"clip": "ViT-B-32 openai"})
    case = Case("1", "edit", None, protocols=("p",))
    outcomes = {"mine": [Outcome(case, values={"p": {"l1": 0.5, "clip_i": 0.5}})]}
    models = Models(clip=ClipSpec(model="embedded"))
    found = scoreboard.protocol_board("p", protocol, outcomes, models, 0.95)
    assert found["models"] == {"clip": {"used": "embedded", "published": "ViT-B-32 openai"}}
    assert "- clip: embedded; published with ViT-B-32 openai" in report.markdown({"b": {"p": found}}, 0.95)
    assert found["null"] == {}


def test_differences_are_paired():
    base = [outcome(n, 1.0 + n) for n in range(20)]
    better = [outcome(n, 0.5 + n) for n in range(20)]
    half = [outcome(n, (1.0 + n) / 2) for n in range(15)]  # five are missing
    found = board({COPY: base, TRUTH: [outcome(0, 0.0)], "better": better, "half": half})["differences"]
    by = {(row["editor"], row["minus"]): row["metrics"]["l1"] for row in found}
    assert set(by) == {("better", COPY), ("half", COPY), ("half", "better")}
    against_copy = by["better", COPY]
    # Equal differences tell nothing of their spread: there is no interval and no p.
    assert [against_copy[key] for key in ("mean", "low", "high", "p")] == [-0.5, None, None, None]
    ratio = by["half", COPY]["ratio"]
    assert [ratio[key] for key in ("mean", "low", "high")] == [0.5, None, None]
    assert by["half", COPY]["n"] == 15
    zeros = board({COPY: [outcome(0, 0.0)], "mine": [outcome(0, 1.0)]})["differences"]
    assert zeros[0]["metrics"]["l1"]["ratio"] is None


def test_the_page_keeps_its_cells():
    case = Case("1", "edit", None, group="<script>", protocols=("p",))
    rows = [
        Outcome(case, values={"p": {"l1": 0.5, "dino": None}}),
        outcome(2, 0.5, "b|c"),
        Outcome(case, "a | b\nc", kind="unjudged"),
    ]
    page = report.markdown({"b": {"p": board({"x|y": rows})}}, 0.95)
    assert "<script>" not in page
    assert "x\\|y" in page
    assert "a \\| b c" in page
    assert "| x\\|y | 2 | 2 | 0 | 0 | 0 | 0.5000 |" in page


def test_an_interval_needs_two_families():
    assert l1(board({"mine": [outcome(0, 0.5)]})) == {"mean": 0.5, "low": None, "high": None, "n": 1}
    turns = [outcome(n, n / 3, family="one session") for n in range(3)]
    assert l1(board({"mine": turns}))["low"] is None


def test_groups_of_one_case_vary_among_each_other():
    grouped = Protocol("how near", {"l1": "lower", "dino": "higher"}, "l1", by_group=True)
    found = l1(board({"mine": [outcome(n, float(n), f"kind {n}") for n in range(5)]}, grouped))
    apart = statistics.mean([0, 1, 2, 3, 4], list("abcde"))
    assert (found["low"], found["high"]) == pytest.approx((apart.low, apart.high))


def test_a_missing_group_has_no_overall_figure():
    grouped = Protocol("how near", {"l1": "lower", "dino": "higher"}, "l1", by_group=True)
    mine = [outcome(0, 0.5), outcome(1, 0.5), Outcome(outcome(2, 0, "b").case, "refused", kind="refused")]
    found = board({COPY: [outcome(n, 1.0, "b" if n == 2 else "a") for n in range(3)], "mine": mine}, grouped)
    figure = found["rows"]["mine"]["metrics"]["l1"]
    assert (figure["mean"], figure["error"]) == (None, "nothing is known of b")
    assert found["rows"]["mine"]["groups"]["a"]["l1"]["mean"] == 0.5
    assert "mine has no overall figure: nothing is known of b" in report.markdown({"b": {"p": found}}, 0.95)


def test_refusing_improves_nothing():
    """A missing answer counts as the source; where copying is perfect, as the worst value."""
    copied = [outcome(n, 0.4) for n in range(4)]
    mine = [outcome(0, 0.2), outcome(1, 0.2)]
    mine += [Outcome(one.case, "no", kind="refused") for one in copied[2:]]
    row = board({COPY: copied, "mine": mine})["rows"]["mine"]
    assert row["metrics"]["l1"]["mean"] == 0.2
    assert row["with_missing"]["l1"]["mean"] == pytest.approx(0.3)
    perfect = Protocol("p", {"l1": "lower", "dino": "higher"}, "l1", perfect_by_copying=frozenset({"l1"}))
    row = board({COPY: [outcome(n, 0.0) for n in range(4)], "mine": mine}, perfect)["rows"]["mine"]
    assert row["with_missing"]["l1"]["mean"] == pytest.approx((0.2 + 0.2 + 1 + 1) / 4)
    assert board({"mine": mine})["rows"]["mine"]["with_missing"]["l1"]["mean"] is None  # no control to count as
    assert board({COPY: copied})["rows"][COPY]["with_missing"] is None


def test_seeds_and_judgements_are_one_value_a_case_with_their_variances():
    def cell(case, seed, repeat, value):
        return Outcome(outcome(case, 0).case, values={"p": {"l1": value, "dino": None}}, seed=seed, repeat=repeat)

    cells = [
        cell(case, seed, repeat, case + (seed - 0.5) * 2 + (repeat - 0.5) * 0.2)
        for case in range(6)
        for seed in range(2)
        for repeat in range(2)
    ]
    row = board({"mine": cells})["rows"]["mine"]
    assert (row["cases"], row["seeds"], row["judgements"], row["scored"]) == (6, 2, 2, 12)
    assert (row["metrics"]["l1"]["mean"], row["metrics"]["l1"]["n"]) == (2.5, 6)
    found = row["variances"]["l1"]
    assert found["judgements"] == pytest.approx(0.02)
    assert found["seeds"] == pytest.approx(2 - 0.02 / 2)
    assert found["cases"] == pytest.approx(3.5 - 1.0)
    assert found["mean_by_seed"] == [1.5, 3.5]
    assert board({"mine": cells[:1]})["rows"]["mine"]["variances"]["l1"]["seeds"] is None


def test_pairs_of_editors_are_tested_and_corrected_for_their_number():
    base = [outcome(n, 1.0 + n % 3 / 10) for n in range(20)]
    better = [outcome(n, 0.9 + n % 3 / 10 + n % 2 / 100) for n in range(20)]
    same = [outcome(n, 1.0 + n % 3 / 10 + (n % 2 - 0.5) / 100) for n in range(20)]
    found = board({COPY: base, "better": better, "same": same})["differences"]
    by = {(row["editor"], row["minus"]): row["metrics"]["l1"] for row in found}
    assert (by["better", COPY]["wins"], by["better", COPY]["losses"]) == (20, 0)
    assert by["better", COPY]["p_corrected"] < 1e-6
    assert by["same", COPY]["p_corrected"] > 0.5
    assert all(row["p_corrected"] >= row["p"] for row in by.values())
    assert statistics.holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06], nan_ok=True)


def test_ranks_bold_and_papers_stand_in_one_table():
    protocol = Protocol("p", {"l1": "lower", "l2": "lower"}, "l1", published_as="magicbrush-official")

    def rows(value):
        return [
            Outcome(Case(str(n), "edit", None, protocols=("p",)), values={"p": {"l1": value, "l2": value}})
            for n in range(2)
        ]

    found = scoreboard.protocol_board("p", protocol, {"a": rows(0.2), "b": rows(0.1)}, Models(), 0.95)
    assert found["ranks"]["l1"] == {"a": 2, "b": 1}
    page = report.markdown({"m": {"p": found}}, 0.95)
    assert "**0.1000**" in page
    assert "*0.1122*" in page
    assert "magicbrush-official; MagicBrush paper, single-turn" in page
    assert "m,p,b,,l1,0.1,,,2,1," in report.table_csv({"m": {"p": found}})
    assert "m,magicbrush-official,InstructPix2Pix,,l1,0.1122" in report.table_csv({"m": {"p": found}})
    tex = report.latex({"m_1": {"p": found}}, 0.95)
    assert "m\\_1, p" in tex
    assert "\\textbf{0.1000}" in tex
    assert tex.index("\\midrule") < tex.index("InstructPix2Pix")


def test_published_figures_are_of_known_protocols_and_metrics(tmp_path):
    (tmp_path / "p.json").write_text("{}")
    options = {
        "gedit": {"prompts": "p.py", "protocol": "gedit-official"},
        "imgedit": {"prompts": tmp_path / "p.json", "protocol": "imgedit-basic-official"},
    }
    known: dict[str, Protocol] = {}
    for name in ("magicbrush", "anybench", "shards", "gedit", "imgedit"):
        known |= parts.make(benchmarks, name, Benchmark, {"path": "x", **options.get(name, {})}).protocols
    editmgt = {"path": "x", "prompts": "p.py", "protocol": "gedit-editmgt-official"}
    known |= parts.make(benchmarks, "gedit", Benchmark, editmgt).protocols
    emu = {"emu-source": {"l1", "l2", "clip_i", "dino", "clip_t"}, "clipdir-ip2p": {"clip_dir"}}
    metrics = {name: set(protocol.metrics) for name, protocol in known.items()} | emu
    for protocol in metrics:
        for row in scoreboard.published(protocol):
            assert set(row["values"]) <= metrics[protocol]
            assert row["source"]
