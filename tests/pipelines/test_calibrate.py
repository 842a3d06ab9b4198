"""calibrate, end to end on rendered photographs: report, labels, flips, and their errors."""

import argparse
import json
import shutil

import pytest

from crispedit import recipe
from crispedit.compositor.landscape import landscape
from crispedit.images import encode_jpeg
from crispedit.pipelines import recipe as recipes
from crispedit.pipelines.calibration import calibrate, known_defects, measured, text
from crispedit.pipelines.calibration.measured import GoodPair
from crispedit.pipelines.recipe import Recipe
from crispedit.pipelines.run import Run
from crispedit.record import Sample

RECIPE = """
run: run
source: {kind: folder, path: photos}
categories: {add: 1, color: 1}
curate: {filters: {}}
filters:
  unchanged: {}
  alignment: {}
  sharpness: {}
  artefacts: {}
  patches: {}
  instruction: {}
engine: {kind: inprocess}
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrate")
    (folder / "photos").mkdir()
    for seed, kind in enumerate(("meadow", "mountains", "room", "desert")):
        (folder / "photos" / f"{kind}.jpg").write_bytes(encode_jpeg(landscape(seed, 512, 384, kind)))
    (folder / "recipe.yaml").write_text(RECIPE)
    run(
        folder / "recipe.yaml", f"run={folder / 'run'}", f"source.path={folder / 'photos'}", "--json", folder / "a.json"
    )
    return folder


def run(*arguments):
    parser = argparse.ArgumentParser()
    calibrate.add_arguments(parser)
    return calibrate.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_report_tells_defects_from_good_pairs(report):
    found = json.loads((report / "a.json").read_text())
    assert found["pairs"] == 8
    assert found["photographs"] == 4
    rejected = {entry["defect"]: entry["rejected"] for entry in found["defects"]}
    assert rejected["no_op"] == rejected["squeezed"] == rejected["bordered"] == 1
    assert rejected["shift"] > 0.8
    assert rejected["good"] < 0.5
    assert set(found["defects"][0]["categories"]) == {"add", "color"}
    assert len(found["verdicts"]) == sum(entry["rows"] for entry in found["defects"])
    unchanged = next(s for s in found["scores"] if s["score"] == "unchanged.largest_region_fraction")
    assert unchanged["defects"]["no_op"]["auc"] == 1
    assert unchanged["defects"]["no_op"]["detected"] == 1


def test_a_run_that_lacks_edits_gets_them_first(report, tmp_path):
    """Those that it had were taken for all good pairs."""
    (tmp_path / "photos").mkdir()
    pairs = []
    of = [f"run={tmp_path / 'run'}", f"source.path={tmp_path / 'photos'}"]
    for kind in ("meadow", "room"):
        shutil.copy(report / "photos" / f"{kind}.jpg", tmp_path / "photos")
        pairs.append(measured.run_pairs(Run(recipes.load(str(report / "recipe.yaml"), of))))
    assert [len(of_run) for of_run in pairs] == [2, 4]


def test_semantic_defects_are_told_by_the_scores_that_see_them(report):
    found = json.loads((report / "a.json").read_text())
    told = {entry["defect"]: entry for entry in found["semantic"] if entry["score"] == "instruction.category"}
    # Of 8 pairs; a trained model reads the words now, and a grammar that was fitted to them reached 1.
    assert told["wrong_instruction"]["auc"] > 0.95
    assert told["wrong_instruction"]["side"] == "min"
    assert told["wrong_instruction"]["detected_held_out"] >= 0.75
    assert told["wrong_instruction"]["false_rejects_held_out"] < 0.5
    assert set(told["wrong_instruction"]["categories"]) == {"add", "color"}
    assert told["swapped"]["auc"] == 0.5  # the words are still the pair's own
    rejected = {entry["defect"]: entry["rejected"] for entry in found["defects"]}
    assert rejected["wrong_instruction"] == rejected["good"]  # no bound stands on that score
    table = text.table(found)
    assert "wrong_instruction instruction.category:min" in " ".join(table.split())


def test_the_defects_as_markdown(report):
    lines = text.markdown(json.loads((report / "a.json").read_text())).splitlines()
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    assert lines[0] == "8 good pairs of 4 photographs."
    assert rows["no_op"].startswith("| no_op | 8 | 100.0% |")
    assert "`unchanged`" in rows["no_op"]
    assert rows["near duplicate"].startswith("| near duplicate | 8 |")
    assert rows["wrong_instruction"].startswith("| wrong_instruction | `instruction.category` | ")


def test_a_semantic_defect_mixes_a_pair_up_with_one_of_its_photograph_if_it_can():
    def pair(photograph, category, caption):
        key = f"{photograph} {category} {caption}"
        return GoodPair(photograph, Sample(key, b"", category=category, target_caption=caption))

    own, twin = pair("a", "add", "a kite"), pair("b", "add", "a kite")
    near, far = pair("a", "add", "a ball"), pair("b", "add", "a boat")
    style = pair("a", "style", "a sketch")
    assert measured.other_for("wrong_edit", own, [own, twin, near, far, style]) is near
    assert measured.other_for("wrong_edit", own, [own, twin, far, style]) is far
    assert measured.other_for("wrong_edit", own, [own, twin, style]) is None
    assert measured.other_for("wrong_instruction", own, [own, twin, near, far, style]) is style


def test_labels_that_agree_have_a_kappa_of_one(report, capsys):
    verdicts = json.loads((report / "a.json").read_text())["verdicts"]
    keys = sorted(verdicts)
    lines = [f"{key},{'keep' if verdicts[key] == 'kept' else 'reject'}" for key in keys]
    (report / "labels.csv").write_text("key,label\n" + "\n".join(lines) + "\nunheard,keep\n")
    run(report / "a.json", "--labels", report / "labels.csv")
    told = capsys.readouterr().out
    assert "agreement 100.0%, Cohen's kappa 1.000" in told
    assert f"{len(keys)} of {len(keys) + 1} labelled" in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,label\nx,keep\n", "row 2: no key or id or uri; it has the columns name, label"),
        ("key,opinion\nx,keep\n", "row 2: no column verdict or label; it has key, opinion"),
        ("key,label\nx,perhaps\n", "row 2: label 'perhaps'"),
        ("key,label\nx,keep\n", "none of its 1 keys has a verdict"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(report, content, message):
    (report / "wrong.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        run(report / "a.json", "--labels", report / "wrong.csv")


def test_flips_between_a_report_and_a_moved_verdict(report, capsys):
    found = json.loads((report / "a.json").read_text())
    key = next(key for key, verdict in found["verdicts"].items() if verdict == "kept")
    found["verdicts"][key] = "unchanged.mean_abs:low"
    (report / "b.json").write_text(json.dumps(found))
    run(report / "a.json", report / "b.json", "--flips")
    told = capsys.readouterr().out
    assert "1 differ, 1 between kept and not" in told
    assert "kept -> unchanged.mean_abs:low" in told


def test_verdicts_of_something_else_are_refused(report):
    (report / "no.json").write_text("[]")
    with pytest.raises(ValueError, match="neither a run nor a report"):
        run(report / "no.json", report / "a.json", "--flips")
    with pytest.raises(ValueError, match="has no selection"):
        run(report / "run", report / "a.json", "--flips")


def test_a_defect_teaches_the_score_that_tells_it_best_alone():
    cascade = recipe.parse(Recipe, RECIPE, [], name="recipe").pair_cascade
    rows = [
        {
            "category": category,
            "defect": defect,
            "patches.blocking": blocking + 0.01 * i,
            "artefacts.banding": banding + 0.001 * i,
        }
        for category in ("add", "color")
        for defect, blocking, banding in (("good", 0, 0), ("blocky", 3, 0.08), ("banded", 0, 0.3))
        for i in range(10)
    ]
    bounds = known_defects.learn_bounds(rows, cascade, 0.02)["add"]
    assert bounds["patches.blocking"].max == pytest.approx((0.09 + 3) / 2, abs=0.01)
    assert bounds["artefacts.banding"].max == pytest.approx((0.009 + 0.3) / 2, abs=0.01)  # not (0.009 + 0.08) / 2
    assert bounds["sharpness.outside"] == cascade.default_bounds["sharpness.outside"]  # nothing taught it


def test_halves_are_equal_and_do_not_depend_on_order():
    names = [f"photograph {i}" for i in range(9)]
    split = known_defects.halves(names)
    assert split == known_defects.halves(names[::-1])
    assert abs(sum(split.values()) - 4.5) == 0.5
