"""GEditBench v2 (pairwise) and Edit-Compass: their cases from published layouts, and a judge's replies as results."""

import json
import re

import numpy as np
import published_sets as sets
import pytest
from chat_server import Said, serving

from crispedit import benchmarks, parts
from crispedit.benchmark import AnswerPair, Benchmark
from crispedit.judge import JudgeModel
from crispedit.measures import Measures, Models


def make(name, path, **options):
    return parts.make(benchmarks, name, Benchmark, {"path": path, **options})


def measuring(server):
    measures = Measures(Models(judge=server.spec))
    assert isinstance(measures.judge, JudgeModel)
    return measures


def pair(case, first=40, second=60):
    return AnswerPair(sets.answer(case, sets.picture(first)), sets.answer(case, sets.picture(second)))


def verdict(winner):
    return json.dumps({"reasoning": "x", "winner": winner})


def test_gedit_v2_reads_its_files(tmp_path):
    cases = make("gedit_v2", sets.gedit_v2(tmp_path)).cases()
    assert [(case.id, case.group) for case in cases[:2]] == [
        ("subject_addition_000000", "subject_addition"),
        ("subject_addition_000001", "openset"),
    ]
    assert np.array_equal(cases[1].source.image(), sets.picture(1))
    lines = (tmp_path / "metadata.jsonl").read_text().splitlines()
    (tmp_path / "metadata.jsonl").write_text("\n".join([lines[0], "{no json"]))
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        make("gedit_v2", tmp_path).cases()


def test_gedit_v2_reads_its_published_prompts_or_says_where_they_are(tmp_path):
    assets = tmp_path / "assets"
    benchmark = make("gedit_v2", sets.gedit_v2(tmp_path / "set"), prompts=assets)
    assets.mkdir()
    with pytest.raises(ValueError, match=r"pairwise/v1\.yaml is missing: clone https://github"):
        benchmark.identity()
    for dimension in benchmark.dimensions:
        file = assets / "vlm" / "assessment" / dimension / "pairwise" / "v1.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(f"version: v1\nsystem_prompt: You judge.\nuser_prompt: 'Compare {dimension}: <instruction>'\n")
    assert benchmark.prompt_for("visual_quality", "add a cat") == "You judge.\n\nCompare visual_quality: add a cat"
    assert list(benchmark.protocols) == ["gedit-v2"]
    file.write_text("user_prompt: which is better?\n")
    with pytest.raises(ValueError, match="has no <instruction> or"):
        benchmark.prompt_for("visual_consistency", "add a cat")


def test_gedit_v2_asks_in_both_orders_and_takes_a_contradiction_for_a_tie(tmp_path):
    benchmark = make("gedit_v2", sets.gedit_v2(tmp_path))
    case = benchmark.cases()[0]

    def reply(asked):
        if "carries out the instruction better" in asked.text:
            return verdict("Image A")  # always what it is shown first
        first = asked.images[1]
        quality = "better made picture" in asked.text
        return verdict("Tie" if quality else "Image A" if first == better[0] else "Image B")

    with serving(reply) as server:
        measures = measuring(server)
        better = [None]
        # To learn what the first answer looks like on the wire: asked in one order, it is always shown first.
        make("gedit_v2", tmp_path, both_orders=False).compare([pair(case)], measures)
        better[0] = server.asked[0].images[1]
        server.asked.clear()
        (found,) = benchmark.compare([pair(case)], measures)
        assert len(server.asked) == 6
    assert found.winners == {"instruction_following": "tie", "visual_quality": "tie", "visual_consistency": "first"}
    assert found.in_order["instruction_following"] == "first"
    assert found.reversed["instruction_following"] == "second"
    assert not found.unparsed


def test_gedit_v2_of_one_order_and_dimension(tmp_path):
    folder = sets.gedit_v2(tmp_path)
    (folder / "prompts.json").write_text('{"visual_quality": "Which? <instruction>"}')
    options = {"dimensions": ["visual_quality"], "both_orders": False, "prompts": folder / "prompts.json"}
    benchmark = make("gedit_v2", folder, **options)
    assert list(benchmark.protocols) == ["gedit-v2-one-order"]
    with serving(lambda asked: verdict("B") if "edit 0." in asked.text else "who knows") as server:
        cases = benchmark.cases()
        found = benchmark.compare([pair(cases[0]), pair(cases[1])], measuring(server))
        assert "Which? edit 0." in [asked.text for asked in server.asked]  # questions come in any order
    assert [one.winners for one in found] == [{"visual_quality": "second"}, {"visual_quality": None}]
    assert [one.unparsed for one in found] == [False, True]


def test_edit_compass_reads_what_needs_one_image(tmp_path):
    folder = sets.edit_compass(tmp_path)
    cases = make("edit_compass", folder, prompts=folder / "Prompt").cases()
    assert [case.id for case in cases][::2] == [
        "Part1/Style_Transfer/s0",
        "Part3/Temporal/s0",
        "Part6/Complex_Paint_en/s0",
    ]


def compass(asked):
    """Marks by aspect, and the differences that the first question of two asks for."""
    if asked.text.startswith("What differs?"):
        return 'I see.\n### RESULT ###\n["a hat"]'
    marks = {"IF": 4, "WA": 2, "URC": 3, "IC": 5, "VQ": 4}
    return json.dumps({"analysis": {"score": 1}, "score": marks[asked.text.split()[0]]})


def test_edit_compass_marks_and_weighs_as_published(tmp_path):
    folder = sets.edit_compass(tmp_path)
    benchmark = make("edit_compass", folder, prompts=folder / "Prompt")
    cases = benchmark.cases()[::2]
    with serving(compass) as server:
        found = benchmark.score([sets.answer(case, sets.picture(77)) for case in cases], measuring(server))
        asked = server.asked
    style, reasoning, painted = (dict(one.values["edit-compass"]) for one in found)
    assert (style["IF"], style["VQ"], style["IC"], style["VC"]) == (4, 4, None, None)
    assert style["overall"] == pytest.approx(4**0.7 * 4**0.3)
    assert reasoning["overall"] == pytest.approx(3**0.5 * 4**0.3 * 4**0.2)  # (IF + WA) / 2, (IC + URC) / 2, VQ
    assert painted["overall"] == pytest.approx(4**0.4 * 4**0.4 * 4**0.2)
    texts = [one.text for one in asked]
    temporal = next(text for text in texts if text.startswith("URC Single_image_prompt"))
    assert re.search(r'Image Difference between Source Image and Edited Image: \["a hat"\]', temporal)
    assert "Hints: it is noon." in temporal
    assert any(text.startswith("IF Complex_painting_prompt") for text in texts)
    assert all(one.body["temperature"] == 0 and "response_format" not in one.body for one in asked)
    quality = next(one for one in asked if one.text.startswith("VQ"))
    assert len(quality.images) == 1


def test_edit_compass_lowest_mark_is_the_overall_one_and_garbage_is_null(tmp_path):
    folder = sets.edit_compass(tmp_path)
    benchmark = make("edit_compass", folder, prompts=folder / "Prompt")
    case = benchmark.cases()[2]

    def score(reply):
        with serving(reply) as server:
            return benchmark.score([sets.answer(case, sets.picture(77))], measuring(server))[0]

    low = score(lambda a: '{"score": 1}' if a.text.startswith("VQ") else compass(a))
    assert low.values["edit-compass"]["overall"] == 1
    unread = score(lambda a: "no" if a.text.startswith("VQ") else compass(a))
    assert (unread.unparsed, unread.values["edit-compass"]["overall"]) == (True, None)
    assert unread.values["edit-compass"]["IF"] == 4
    down = score(lambda a: Said(status=400) if a.text.startswith("VQ") else compass(a))
    assert isinstance(down, Exception)


def test_edit_compass_names_a_prompt_that_is_missing(tmp_path):
    folder = sets.edit_compass(tmp_path)
    (folder / "Prompt" / "Visual_Quality.py").unlink()
    with pytest.raises(ValueError, match=r"not the published Prompt/Visual_Quality.py"):
        make("edit_compass", folder, prompts=folder / "Prompt").identity()
