"""`crispedit evaluate`: controls, counts, resume, several editors, multi-turn, and folders of results."""

import argparse
import io
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import killed_at_its_second
from PIL import Image as Pillow

from crispedit import benchmarks as benchmark_folder
from crispedit import images, parts
from crispedit.benchmark import Benchmark
from crispedit.compositor.landscape import landscape
from crispedit.editmgt.preset import build
from crispedit.pipelines import evaluate
from crispedit.record import content_key
from crispedit.shards import pack
from crispedit.shards.pack import Pair, finish, write_shard

ROOT = Path(__file__).parents[2]


def pair(number, category):
    """A landscape whose middle is inverted; a style pair is inverted all over, and one has no mask."""
    source = landscape(number, 96, 64)
    mask = np.zeros((64, 96), bool)
    mask[16:48, 24:72] = True
    if category == "style":
        mask[:] = True
    return Pair(
        key=content_key("pair", str(number)),
        category=category,
        source_jpeg=images.encode_jpeg(source),
        edited_jpeg=images.encode_jpeg(np.where(mask[..., None], 255 - source, source)),
        mask_png=None if number == 5 else images.encode_mask(mask),
        meta={
            "instruction": f"invert number {number}",
            "source_caption": "a photograph",
            "target_caption": None,
            "source_key": f"photograph {number // 2}",
        },
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Six pairs: three that add, two in style, one that adds without a mask."""
    folder = tmp_path_factory.mktemp("shards")
    pairs = [pair(n, "style" if n in (2, 3) else "add") for n in range(6)]
    keys = {c: [p.key for p in pairs if p.category == c] for c in ("add", "style")}
    by_key = {p.key: p for p in pairs}
    planned = pack.plan(keys, 10, 0, {p.key for p in pairs if p.mask_png is not None})
    entries = [write_shard(folder, shard, (by_key[k] for k in shard.keys), "d") for shard in planned]
    finish(folder, entries, {})
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    pipeline = build("editmgt-tiny", seed=1)
    pipeline.resolution = 64
    pipeline.save_pretrained(folder)
    return folder


def editmgt(checkpoint, **options):
    return {"editor": "editmgt", "model": str(checkpoint), "steps": 2, "device": "cpu", **options}


def evaluated(recipe):
    """The JSON of an evaluation."""
    evaluate.evaluate(evaluate.EvaluationRecipe(kept=Path(recipe["out"]) / "replies", **recipe))
    return json.loads((Path(recipe["out"]) / "results.json").read_text())


def parts_of(out, table):
    return {p.name for p in Path(out).rglob(f"{table}/part-*.parquet")}


def test_the_controls_score_as_they_must(tmp_path, shards):
    found = evaluated({"out": tmp_path, "benchmarks": {"shards": {"path": str(shards)}}})
    rows = found["shards"]["shards"]["rows"]
    copied, truth = rows["copy-source"]["metrics"], rows["ground-truth"]["metrics"]
    for row in rows.values():
        assert (row["cases"], row["scored"], row["missing"], row["black"], row["unparsed"]) == (6, 6, 0, 0, 0)
    assert (truth["inside_l1"]["mean"], truth["inside_l1"]["n"]) == (0, 5)  # one pair has no mask
    assert truth["inside_ssim"]["mean"] == pytest.approx(1)
    assert truth["inside_psnr"]["mean"] == pytest.approx(58.92, abs=0.01)
    assert truth["leakage"]["mean"] == 0
    assert (copied["leakage"]["mean"], copied["leakage"]["n"]) == (0, 3)  # style has no outside
    assert copied["outside_l1"]["mean"] == 0
    assert copied["inside_l1"]["mean"] > 0.2
    assert copied["clip_i"]["mean"] is None
    assert found["shards"]["shards"]["null"]["clip_i"] == "the recipe names no models.clip"
    page = (tmp_path / "results.md").read_text()
    assert "| copy-source | 6 | 6 | 0 | 0 | 0 |" in page
    assert "of 3" in page


def test_several_editors_are_compared_and_nothing_is_done_twice(tmp_path, shards, checkpoint):
    held = editmgt(checkpoint, hold=0.9, paste_untouched=True)
    recipe = {
        "out": tmp_path,
        "benchmarks": {"shards": {"path": str(shards), "categories": ["add"]}},
        "editors": {"off": editmgt(checkpoint)},
    }
    first = evaluated(recipe)
    answers, scores = parts_of(tmp_path, "answers"), parts_of(tmp_path, "scores")
    assert evaluated(recipe) == first
    assert (parts_of(tmp_path, "answers"), parts_of(tmp_path, "scores")) == (answers, scores)
    found = evaluated(recipe | {"editors": {"off": editmgt(checkpoint), "on": held}})["shards"]["shards"]
    added = parts_of(tmp_path, "answers") - answers
    rows = [pq.read_metadata(p).num_rows for p in tmp_path.rglob("answers/*.parquet") if p.name in added]
    assert sum(rows) == 4  # the four pairs that add, of the new editor only
    assert found["rows"]["off"] == first["shards"]["shards"]["rows"]["off"]
    leaks = {name: row["metrics"]["leakage"]["mean"] for name, row in found["rows"].items()}
    assert leaks["on"] < leaks["off"]  # random weights draw nonsense, which a hold keeps in
    assert {(d["editor"], d["minus"]) for d in found["differences"]} == {
        ("off", "copy-source"),
        ("on", "copy-source"),
        ("on", "off"),
    }
    assert re.search(r"\| shards \| off \d+\.\d\d, on \d+\.\d\d \|", (tmp_path / "results.md").read_text())


def test_a_killed_evaluation_goes_on_to_the_same_tables(tmp_path, shards, checkpoint):
    recipe = {
        "benchmarks": {"shards": {"path": str(shards)}},
        "editors": {"off": editmgt(checkpoint, steps=48)},
        "engine": {"kind": "inprocess", "rows_per_part": 1},
    }
    whole = evaluated(recipe | {"out": str(tmp_path / "whole")})
    recipe |= {"edits": str(tmp_path / "edits-of-the-killed")}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe | {"out": str(tmp_path / "killed")}))
    threads = str(torch.get_num_threads())  # rounding depends on them
    killed_at_its_second(r"answers/part-.*\.parquet$", "evaluate", str(file), OMP_NUM_THREADS=threads)
    left = parts_of(tmp_path / "killed", "answers")
    assert left
    assert not (tmp_path / "killed" / "results.json").exists()
    assert (
        evaluated(recipe | {"out": str(tmp_path / "killed")})["shards"]["shards"]["rows"]
        == (whole["shards"]["shards"]["rows"])
    )
    assert left < parts_of(tmp_path / "killed", "answers")


def test_an_editor_that_fails_is_missing_with_its_reason_and_tried_again(tmp_path, shards):
    recipe = {
        "out": tmp_path,
        "benchmarks": {"shards": {"path": str(shards)}},
        "editors": {"c": {"editor": "compositor"}},  # which needs a plan that shards do not hold
    }
    row = evaluated(recipe)["shards"]["shards"]["rows"]["c"]
    assert (row["scored"], row["missing"]) == (0, 6)
    assert all("has no plan of the compositor" in reason for reason in row["reasons"])
    before = parts_of(tmp_path, "answers")
    assert evaluated(recipe)["shards"]["shards"]["rows"]["c"] == row
    assert before < parts_of(tmp_path, "answers")


def emu(folder, count=4):
    """A folder of Emu Edit's generations."""

    def cell(number):
        data = io.BytesIO()
        Pillow.fromarray(landscape(number, 48, 32)).save(data, "PNG")
        return {"bytes": data.getvalue(), "path": None}

    rows = [
        {"instruction": "edit", "image": cell(n), "edited_image": cell(50 + n), "task": "add", "idx": n}
        | {"input_caption": "a lake", "output_caption": "a hill"}
        for n in range(count)
    ]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "validation-00000-of-00001.parquet")
    return folder


def test_a_folder_of_results_is_counted(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    Pillow.fromarray(landscape(0, 48, 32)).save(results / "0.png")
    Pillow.fromarray(np.zeros((32, 48, 3), np.uint8)).save(results / "1.png")
    (results / "2.png").write_bytes(b"no image")
    recipe = {
        "out": tmp_path / "out",
        "benchmarks": {"emu_edit": {"path": emu(tmp_path / "emu")}},
        "editors": {"mine": {"results": results}},
    }
    found = evaluated(recipe)["emu_edit"]
    source, anysd = found["emu-source"]["rows"]["mine"], found["emu-anysd"]["rows"]["mine"]
    for row in (source, anysd):
        assert (row["cases"], row["scored"], row["missing"], row["unjudged"], row["black"]) == (4, 2, 1, 1, 1)
        assert len(row["reasons"]) == 2
        assert any("no image in the folder" in reason for reason in row["reasons"])
        assert any("2.png is not an image" in reason for reason in row["reasons"])
    assert source["metrics"]["l1"]["n"] == 2  # against the source black answers count,
    assert anysd["metrics"]["l1"]["n"] == 1  # and AnySD's script drops them
    assert found["emu-source"]["rows"]["copy-source"]["metrics"]["l1"]["mean"] == 0
    assert found["emu-anysd"]["rows"]["ground-truth"]["metrics"]["l1"]["mean"] == 0
    # A result that is replaced is another answer; one that was unreadable is looked at again.
    Pillow.fromarray(landscape(1, 48, 32)).save(results / "1.png")
    Pillow.fromarray(landscape(2, 48, 32)).save(results / "2.png")
    row = evaluated(recipe)["emu_edit"]["emu-source"]["rows"]["mine"]
    assert (row["scored"], row["black"], row["metrics"]["l1"]["mean"]) == (3, 0, 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no results for emu_edit: its images are named 0\.png"):
        evaluated(recipe | {"editors": {"mine": {"results": tmp_path / "empty"}}})


def gedit(folder, count=4):
    """A folder of GEdit-Bench's rows, all of one group."""
    emu(folder, count)
    file = folder / "validation-00000-of-00001.parquet"
    rows = [
        {"task_type": "color", "key": str(n), "instruction": f"edit {n}.", "instruction_language": "en"}
        | {"Intersection_exist": True, "input_image": row["image"], "input_image_raw": row["image"]}
        for n, row in enumerate(pq.read_table(file).to_pylist())
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return folder


READY = '{"ready": true}'
MARKS = '{"reasoning": "", "score": [4, 9]}'


def copy_row(recipe):
    return evaluated(recipe)["gedit"]["gedit-own-prompts"]["rows"]["copy-source"]


def test_what_a_judge_garbles_or_refuses_has_no_score_and_is_asked_again(tmp_path):
    from chat_server import Said, serving

    down = True

    def reply(asked):
        words = str(asked.body["messages"])
        if asked.is_hello:
            return READY
        if down and "edit 3." in words:
            return Said(status=400)
        return "no idea" if down and "edit 1." in words else MARKS

    recipe = {"out": tmp_path / "out", "benchmarks": {"gedit": {"path": gedit(tmp_path / "set")}}}
    with serving(reply) as server:
        recipe |= {"models": {"judge": server.spec}}
        row = copy_row(recipe)
        counts = {name: row[name] for name in ("cases", "scored", "missing", "unjudged", "unparsed")}
        assert counts == {"cases": 4, "scored": 2, "missing": 0, "unjudged": 1, "unparsed": 1}
        assert (row["metrics"]["O"]["mean"], row["metrics"]["O"]["n"]) == (4, 2)
        down, asked = False, len(server.asked)
        row = copy_row(recipe)
        assert (row["scored"], row["unjudged"], row["unparsed"]) == (4, 0, 0)
        # Hello, and the two questions of which no reply was kept; the pictures' quality was said before.
        assert len(server.asked) - asked == 3


def test_a_judge_that_dies_half_way_and_returns_gives_the_same_results(tmp_path):
    from chat_server import Said, serving

    from crispedit.judge import GIVE_UP

    folder, alive, asked_before_death = gedit(tmp_path / "set", 36), True, 30

    def reply(asked):
        if asked.is_hello:
            return READY
        number = len(server.asked)
        return MARKS if alive or number < asked_before_death else Said(status=400)

    recipe = {"benchmarks": {"gedit": {"path": folder}}, "controls": ["copy-source"], "measure": {"batch": 16}}
    with serving(reply) as server:
        judge = {"judge": server.spec | {"concurrency": 4}}
        whole = evaluated(recipe | {"models": judge, "out": tmp_path / "whole"})
        everything = len(server.asked)
        assert everything == 1 + 2 * 36

        server.asked.clear()
        alive, out = False, tmp_path / "broken"
        broken = recipe | {"models": judge, "out": out, "kept": out / "replies"}
        found = evaluate.evaluate(evaluate.EvaluationRecipe(**broken))
        assert not found.page
        assert "the judge is down" in found.problems[0]
        assert "run the same command again" in found.problems[0]
        assert not (out / "results.json").exists()
        assert len(server.asked) < asked_before_death + GIVE_UP + 4

        spent = len(server.asked)
        with pytest.raises(ValueError, match="cannot be used"):  # still down: its first question is not answered
            evaluate.evaluate(
                evaluate.EvaluationRecipe(
                    **broken | {"models": {"judge": server.spec | {"base_url": "http://127.0.0.1:9/v1", "retries": 0}}}
                )
            )
        assert len(server.asked) == spent

        alive = True
        server.asked.clear()
        evaluate.evaluate(evaluate.EvaluationRecipe(**broken))
        assert len(server.asked) <= everything - (asked_before_death - 6)  # what was said before is not asked again
        assert json.loads((out / "results.json").read_text()) == whole


def test_a_run_that_measures_nothing_fails(tmp_path, capsys):
    """All null: the recipe names no judge."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump({"out": str(tmp_path / "out"), "benchmarks": {"gedit": {"path": str(gedit(tmp_path / "set"))}}})
    )
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    assert evaluate.run(parser.parse_args([str(recipe)])) == 1
    assert "nothing was measured (the recipe names no models.judge" in capsys.readouterr().err


def test_replies_are_shared_by_output_folders_and_protocols_share_answers(tmp_path, checkpoint):
    from chat_server import serving

    folder = gedit(tmp_path / "set", 3)
    recipe = {"benchmarks": {"gedit": {"path": folder}}, "editors": {"mine": editmgt(checkpoint)}}
    with serving(lambda asked: READY if asked.is_hello else MARKS) as server:
        recipe |= {"models": {"judge": server.spec}}
        evaluate.evaluate(evaluate.EvaluationRecipe(out=tmp_path / "one", **recipe))
        first = len(server.asked)
        evaluate.evaluate(evaluate.EvaluationRecipe(out=tmp_path / "two", **recipe | {"editors": {}}))
        assert len(server.asked) == first + 1  # hello: copy-source was judged before, in another folder
        answers = parts_of(tmp_path / "one", "answers")
        recipe["benchmarks"] = {"gedit": {"path": folder, "protocol": "gedit-editmgt"}}
        evaluate.evaluate(evaluate.EvaluationRecipe(out=tmp_path / "one", **recipe))
        assert parts_of(tmp_path / "one", "answers") == answers  # another protocol, the same edits


def test_an_edit_is_paid_for_once_whichever_folder_asks_for_it(tmp_path):
    from images_server import serving

    recipe = {"benchmarks": {"emu_edit": {"path": emu(tmp_path / "emu", 3)}}, "controls": []}
    with serving() as server:
        options = {"editor": "images_api", "model": "m", "base_url": server.url, "seeds": 2}
        recipe["editors"] = {"paid": options}
        evaluate.evaluate(evaluate.EvaluationRecipe(out=tmp_path / "one", **recipe))
        assert len(server.forms) == 6
        two = evaluate.EvaluationRecipe(out=tmp_path / "two", **recipe)
        assert "emu_edit: paid has 0 of 6 edits left" in evaluate.plan(two)
        evaluate.evaluate(two)
        assert len(server.forms) == 6  # the source, the words, the editor and the seed are the same
        results = [(tmp_path / name / "results.json").read_bytes() for name in ("one", "two")]
        assert results[0] == results[1]
        recipe["editors"] = {"paid": options | {"model": "another"}}
        evaluate.evaluate(evaluate.EvaluationRecipe(out=tmp_path / "three", **recipe))
        assert len(server.forms) == 12


def test_the_plan_counts_questions_and_their_price_before_anything_is_paid(tmp_path, checkpoint):
    recipe = {
        "out": tmp_path / "out",
        "benchmarks": {"gedit": {"path": gedit(tmp_path / "set")}},
        "editors": {"mine": editmgt(checkpoint) | {"seeds": 2}},
        "models": {"judge": {"backend": "openai", "model": "gpt-4.1", "base_url": "http://127.0.0.1:9/v1"}},
        "price": {"prompt_per_million": 2.0, "answer_per_million": 8.0},
    }
    lines = evaluate.plan(evaluate.EvaluationRecipe(**recipe))
    assert lines[0] == "gedit: mine has 8 of 8 edits left"
    assert "at most 24 questions to the judge (gpt-4.1), about 0.13 USD" in lines[1]  # copy-source and two seeds
    del recipe["price"]
    assert "set price=" in evaluate.plan(evaluate.EvaluationRecipe(**recipe))[1]


def test_tokens_seconds_and_price_are_told_afterwards(tmp_path, checkpoint):
    from chat_server import Said, serving

    usage = {"prompt_tokens": 1000, "completion_tokens": 50}
    recipe = {
        "out": tmp_path / "out",
        "kept": tmp_path / "kept",
        "benchmarks": {"gedit": {"path": gedit(tmp_path / "set", 2)}},
        "editors": {"mine": editmgt(checkpoint)},
        "price": {"prompt_per_million": 2.0, "answer_per_million": 8.0, "currency": "EUR"},
    }
    with serving(lambda asked: READY if asked.is_hello else Said(MARKS, usage=usage)) as server:
        found = evaluate.evaluate(evaluate.EvaluationRecipe(models={"judge": server.spec}, **recipe))
    cost = json.loads((tmp_path / "out" / "cost.json").read_text())["gedit"]
    assert (cost["asked"], cost["prompt_tokens"], cost["answer_tokens"]) == (8, 8000, 400)
    assert cost["price"] == pytest.approx(0.016 + 0.0032)
    assert cost["seconds_per_edit"]["mine"] > 0
    assert "| 8 | 0 | 8000 | 400 | 0.02 EUR |" in found.page


def test_results_are_the_same_bytes_in_another_run(tmp_path, shards):
    recipe = {"benchmarks": {"shards": {"path": str(shards)}}, "editors": {"c": {"editor": "compositor"}}}
    pages = []
    for out in (tmp_path / "one", tmp_path / "two"):
        evaluated(recipe | {"out": out})
        pages.append((out / "results.json").read_bytes())
    assert pages[0] == pages[1]
    assert b"0x" not in pages[0]


def test_controls_are_chosen(tmp_path, shards):
    recipe = {"out": tmp_path, "benchmarks": {"shards": {"path": str(shards)}}}
    assert set(evaluated(recipe | {"controls": ["ground-truth"]})["shards"]["shards"]["rows"]) == {"ground-truth"}
    rows = evaluated(recipe | {"controls": []} | {"editors": {"x": {"results": results_of(tmp_path / "r", shards)}}})
    assert set(rows["shards"]["shards"]["rows"]) == {"x"}


def results_of(folder, shards, level=0):
    """A folder of results: each pair's edited image, darkened."""
    folder.mkdir()
    for case in evaluate.shard_cases(evaluate.Shards(path=str(shards))):
        image = np.asarray(case.target.image()).astype(int) - level
        Pillow.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / f"{case.id}.png")
    return folder


def magicbrush(folder):
    """One session of two turns and one of one turn."""
    sessions, captions = {}, {}
    for session, count in (("7", 1), ("12", 2)):
        names = [f"{session}-input.png", *(f"{session}-output{k}.png" for k in range(1, count + 1))]
        (folder / "images" / session).mkdir(parents=True)
        for number, name in enumerate(names):
            Pillow.fromarray(landscape(int(session) + number, 96, 64)).save(folder / "images" / session / name)
        sessions[session] = [
            {"input": names[k], "output": names[k + 1], "instruction": f"edit {k}"} for k in range(count)
        ]
        captions[session] = dict.fromkeys(names, "a hill")
    (folder / "edit_sessions.json").write_text(json.dumps(sessions))
    (folder / "local_descriptions.json").write_text(json.dumps(captions))
    return folder


def test_multi_turn_goes_on_from_its_own_answers(tmp_path, checkpoint):
    folder = magicbrush(tmp_path / "set")
    recipe = {
        "out": tmp_path / "out",
        "benchmarks": {"magicbrush": {"path": folder}},
        "editors": {"mine": editmgt(checkpoint)},
    }
    found = evaluated(recipe)["magicbrush"]
    assert found["magicbrush-anysd"]["rows"].keys() == found["magicbrush-official"]["rows"].keys()
    assert {name: row["cases"] for name, row in found["magicbrush-official"]["rows"].items()} == {
        "copy-source": 3,
        "ground-truth": 3,
        "mine": 3,
    }
    multi = found["magicbrush-official-multi"]["rows"]
    assert (multi["mine"]["cases"], multi["mine"]["scored"]) == (2, 2)
    assert multi["ground-truth"]["metrics"]["l1"]["mean"] == 0
    # Copying the source of the first turn is what doing nothing comes to after two.
    truth, input_ = (np.asarray(Pillow.open(folder / f"images/12/12-{n}.png")) for n in ("output2", "input"))
    seven = [np.asarray(Pillow.open(folder / f"images/7/7-{n}.png")) for n in ("output1", "input")]
    expected = [np.abs(a.astype(int) - b).mean() / 255 for a, b in ((truth, input_), seven)]
    assert multi["copy-source"]["metrics"]["l1"]["mean"] == pytest.approx(np.mean(expected))
    # The second turn's score changes with the first turn's answer, which a folder shows exactly.
    results = tmp_path / "results"
    for name, image in (
        ("7/7_1", seven[0]),
        ("12/12_1", input_),
        ("12/12_inde_2", truth),
        ("12/12_iter_2", 255 - truth),
    ):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(image).save(results / f"{name}.png")
    given = evaluated(recipe | {"editors": {"official": {"results": results}}})["magicbrush"]
    last = given["magicbrush-official-multi"]["rows"]["official"]["metrics"]["l1"]["mean"]
    assert last == pytest.approx(np.abs(truth.astype(int) - (255 - truth)).mean() / 255 / 2)


def test_multi_turn_edits_its_own_previous_answer(tmp_path, checkpoint):
    from crispedit import editors, parts
    from crispedit.parts import Editor
    from crispedit.pipelines.evaluation.tables import ANSWERS
    from crispedit.record import Job
    from crispedit.shards import journal

    folder = magicbrush(tmp_path / "set")
    evaluated(
        {
            "out": tmp_path / "out",
            "benchmarks": {"magicbrush": {"path": folder}},
            "editors": {"mine": editmgt(checkpoint, reference_strength=3.0)},
        }
    )
    table = tmp_path / "out" / "magicbrush" / "answers"
    rows = {row["case"]: row for row in journal.read(table, ANSWERS).to_pylist()}
    stored = {
        name: cv2.cvtColor(
            cv2.imdecode(np.frombuffer(journal.read_blob(table, row["image"]), np.uint8), 1), cv2.COLOR_BGR2RGB
        )
        for name, row in rows.items()
    }
    options = editmgt(checkpoint, reference_strength=3.0)
    editor = parts.make(editors, options.pop("editor"), Editor, options)
    from crispedit.record import seed_of

    job = Job("x", "turn 2", "edit 1", "", "")
    seed = seed_of(content_key("evaluate", "12/12_iter_2", "0"), "edit")
    (again,) = editor.edit([stored["12/12_1"]], [job], [seed])
    assert np.array_equal(again.edited, stored["12/12_iter_2"])


def test_pairs_are_scaled_down_when_asked(tmp_path, shards):
    benchmark = {"path": str(shards), "short_side_px": 32}
    found = evaluated({"out": tmp_path, "benchmarks": {"shards": benchmark}})["shards"]["shards"]["rows"]
    assert found["ground-truth"]["metrics"]["inside_l1"]["mean"] == 0
    assert found["copy-source"]["metrics"]["leakage"]["mean"] == 0


def test_a_limit_takes_families_whole(tmp_path, shards):
    recipe = {"out": tmp_path, "benchmarks": {"shards": {"path": str(shards)}}}
    assert evaluated(recipe | {"limit": 2})["shards"]["shards"]["rows"]["copy-source"]["cases"] == 4
    assert evaluated(recipe | {"limit": 99})["shards"]["shards"]["rows"]["copy-source"]["cases"] == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"benchmarks": {"pictionary": {}}}, "no benchmark 'pictionary'; choose from .*magicbrush.*shards"),
        ({"benchmarks": {"shards": {"folder": "x"}}}, "benchmark 'shards': .*its options: .*path"),
        ({"editors": {"x": {"editor": "photoshop"}}}, "no editor 'photoshop'"),
        ({"editors": {"x": {}}}, "editors.x: name an editor, or a folder of results"),
        ({"editors": {"copy-source": {"editor": "compositor"}}}, "name is a control's"),
        ({"editors": {"x": {"results": "/no/such/folder"}}}, "/no/such/folder is not a folder of results"),
        ({"editors": {"x": {"results": "/tmp", "steps": 3}}}, "takes no editor and no options"),
    ],
)
def test_a_wrong_recipe_is_told_what_is_wrong(tmp_path, shards, change, message):
    recipe = {"out": tmp_path, "benchmarks": {"shards": {"path": str(shards)}}} | change
    with pytest.raises(ValueError, match=message):
        evaluate.evaluate(evaluate.EvaluationRecipe(**recipe))


def test_a_second_evaluation_is_kept_out_of_the_folder(tmp_path, shards):
    recipe = {"out": tmp_path, "benchmarks": {"shards": {"path": str(shards)}}}
    lock = evaluate.locked(tmp_path / ".lock", "taken")
    with lock, pytest.raises(ValueError, match="another evaluation is working in"):
        evaluated(recipe)
    evaluated(recipe)


@pytest.mark.parametrize("name", [p.stem for p in (ROOT / "configs/evaluate").glob("*.yaml")])
def test_the_shipped_recipes_load(name):
    if name == "published":
        return
    found = evaluate.load(name, ["out=somewhere"])
    assert found.out == Path("somewhere")
    for benchmark, options in found.benchmarks.items():
        parts.make(benchmark_folder, benchmark, Benchmark, options)


def test_the_command_prints_the_page(tmp_path, shards, capsys):
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    shipped = ["shards", f"out={tmp_path}", f"benchmarks.shards.path={shards}", "models={}", "editors={}"]
    args = parser.parse_args(shipped)
    assert evaluate.run(args) == 0
    assert capsys.readouterr().out.startswith("# Evaluation")
