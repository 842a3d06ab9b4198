"""`crispedit judge-bench`: judges of known error, held against made preferences through a real chat server."""

import argparse
import json
import re
import threading
from base64 import b64decode

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
import yaml
from chat_server import Said, serving
from PIL import Image as Pillow

from crispedit.pipelines.evaluation import judge_bench
from crispedit.record import content_key, seed_of


def made(folder, count):
    """Preferences in VCReward-Bench's layout: the brighter edit is the better one; red tells their number."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(count):
        better = int(rng.integers(2))
        names = [f"images/{number}-{place}.png" for place in range(2)]
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for place, name in enumerate([f"images/{number}.png", *names]):
            level = 60 if place == 0 else 220 if place - 1 == better else 120
            Pillow.fromarray(np.full((16, 16, 3), (number % 250, level, level), np.uint8)).save(folder / name)
        row = {"key": str(number), "task": ("add", "remove")[number % 2], "instruction": f"edit {number}."}
        winner = ("Image A", "Image B")[better]
        lines.append(row | {"source_image": f"images/{number}.png", "edited_images": names, "winner": winner})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def judge(error, bias, ties=0.0, usage=None):
    """Sees the brighter one, but errs on a share of the pairs, and on others takes the first or says tie. Which pairs
    these are is drawn by their number, so that both orders and all votes meet the same judge."""
    draws = np.random.default_rng(5).permutation(COUNT) / COUNT

    def reply(asked):
        if asked.is_hello:
            return '{"ready": true}'
        number = int(re.search(r'"edit (\d+)\.', asked.text)[1])
        light = [simplejpeg.decode_jpeg(b64decode(u.partition(",")[2])).mean() for u in asked.images[1:]]
        winner = "Image A" if light[0] > light[1] else "Image B"
        if draws[number] < error:
            winner = {"Image A": "Image B", "Image B": "Image A"}[winner]
        elif draws[number] < error + bias:
            winner = "Image A"
        elif draws[number] < error + bias + ties:
            winner = "Tie"
        return Said(json.dumps({"reasoning": "x", "winner": winner}), usage=usage)

    return reply


COUNT = 400


def test_the_true_accuracy_lies_in_the_interval_and_a_position_bias_is_found(tmp_path):
    """A judge that errs on 20 % of 400; and one that errs on 10 %, takes the first one of 30 % and says tie of 10 %."""
    folder = made(tmp_path / "set", COUNT)
    recipe = {"out": tmp_path / "out", "sets": {"made": folder}}
    cost = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}
    with serving(judge(0.2, 0.0, usage=cost)) as fair, serving(judge(0.1, 0.3, ties=0.1)) as biased:
        judges = {
            name: server.spec | {"model": name, "concurrency": 8}
            for name, server in (("fair", fair), ("biased", biased))
        }
        price = {"fair": {"prompt_per_million": 2.0, "answer_per_million": 8.0}}
        options = judge_bench.JudgeBenchRecipe(judges=judges, price=price, **recipe)
        found = judge_bench.bench(options)["made"]
        asked = len(fair.asked)
        again = judge_bench.bench(options)["made"]["fair"]
        assert len(fair.asked) == asked + 1  # hello: replies are kept
    assert again["all"] == found["fair"]["all"]
    assert again["price"] is None  # nothing was asked, so nothing is known of it
    for name, accuracy in (("fair", 0.8), ("biased", 0.5)):
        agreement = found[name]["all"]["agreement"]
        assert found[name]["preferences"] == agreement["n"] == COUNT
        assert agreement["low"] < accuracy < agreement["high"]
        assert agreement["high"] - agreement["low"] < 0.1
        assert set(found[name]["categories"]) == {"add", "remove"}
    assert found["fair"]["first_preferred"]["mean"] == 0.5
    bias = found["biased"]["first_preferred"]
    assert 0.5 < bias["low"] < 0.5 + 0.3 / 0.9 / 2 < bias["high"]
    assert found["fair"]["orders_agree"] == 1
    assert found["biased"]["orders_agree"] == pytest.approx(0.7)
    assert found["biased"]["all"]["ties"] == {"people": 0, "judge": pytest.approx(0.4 * COUNT)}
    assert found["fair"]["price_per_verdict"] == pytest.approx(0.0024)
    assert found["fair"]["price"] == pytest.approx(2 * COUNT * 0.0024)
    assert found["fair"]["seconds_per_verdict"] > 0
    page = (tmp_path / "out" / "judge-bench.md").read_text()
    assert page.index("| fair |") < page.index("| biased |")


def test_several_votes_are_more_often_right_than_one(tmp_path):
    """A judge that errs in each question anew: in both orders alike 0.7^2 + 0.3^2 of the time."""
    folder = made(tmp_path / "set", 40)
    asked_before: dict[str, int] = {}

    def reply(asked):
        if asked.is_hello:
            return '{"ready": true}'
        light = [simplejpeg.decode_jpeg(b64decode(u.partition(",")[2])).mean() for u in asked.images[1:]]
        first = light[0] > light[1]
        shown = asked.text + "".join(asked.images)
        with lock:
            asked_before[shown] = asked_before.get(shown, 0) + 1
            draw = seed_of(content_key(shown, str(asked_before[shown])), "judge") % 10
        return json.dumps({"reasoning": "x", "winner": "Image A" if first == (draw >= 3) else "Image B"})

    lock = threading.Lock()
    with serving(reply) as server:
        agreements = [
            judge_bench.bench(
                judge_bench.JudgeBenchRecipe(
                    judges={"noisy": server.spec | {"concurrency": 1}},  # the order of its errors
                    sets={"made": folder},
                    votes=votes,
                    out=tmp_path / str(votes) / "out",
                )
            )["made"]["noisy"]["all"]["agreement"]["mean"]
            for votes in (1, 3)
        ]
    assert agreements[0] < 0.65
    assert agreements[1] > agreements[0]


def test_editreward_bench_is_read_from_its_tables(tmp_path):
    made(tmp_path, 2)
    names = ["images/0.png", "images/0-0.png", "images/0-1.png"]
    pictures = [{"bytes": (tmp_path / name).read_bytes(), "path": None} for name in names]
    columns = ("id", "instruction", "ranking", "comparison_type", "source_image", "candidate_1", "candidate_2")
    given = (("7_AvsB", "A>B", "AvsB"), ("7_BvsC", "C>B", "BvsC"), ("8", "A=B", None))
    rows = [dict(zip(columns, (name, "edit", ranking, kind, *pictures), strict=True)) for name, ranking, kind in given]
    (tmp_path / "bench" / "3pair").mkdir(parents=True)
    table = tmp_path / "bench" / "3pair" / "train-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table)
    read = judge_bench.read(tmp_path / "bench")
    assert [one.preference.winner for one in read] == ["first", "second", "tie"]
    assert [one.preference.case for one in read] == ["7", "7", "8"]
    for picture, name in zip((read[1].source, read[1].first, read[1].second), names, strict=True):
        assert picture.read() == (tmp_path / name).read_bytes()
    pq.write_table(pa.Table.from_pylist([rows[0] | {"ranking": "left"}]), table)
    with pytest.raises(ValueError, match=r"row 0: the ranking 'left' is not like A>B"):
        judge_bench.read(tmp_path / "bench")


def test_editscores_bench_is_read_from_the_files_of_datasets(tmp_path):
    """The first of two is the better one there; here the order is drawn, so that no judge can profit from it."""
    made(tmp_path, 8)
    rows = {
        "key": [[f"{n}-a", f"{n}-b"] for n in range(8)],
        "instruction": ["edit"] * 8,
        "input_image": [str(tmp_path / f"images/{n}.png") for n in range(8)],
        "output_images": [[str(tmp_path / f"images/{n}-{place}.png") for place in range(2)] for n in range(8)],
        "task_type": ["add"] * 8,
        "dimension": ["prompt_following", "overall"] * 4,
    }
    image = datasets.Image()
    text = datasets.Value("string")
    features = {name: text for name in rows} | {"key": [text], "input_image": image, "output_images": [image]}
    datasets.Dataset.from_dict(rows, datasets.Features(features)).save_to_disk(str(tmp_path / "bench"))
    read = judge_bench.read(tmp_path / "bench")
    assert {one.preference.winner for one in read} == {"first", "second"}
    for number, one in enumerate(read):
        better = one.first if one.preference.winner == "first" else one.second
        assert better.read() == (tmp_path / f"images/{number}-0.png").read_bytes()
        assert one.source.read() == (tmp_path / f"images/{number}.png").read_bytes()
    assert read[0].preference.dimension == "instruction_following"
    assert (read[1].preference.dimension, read[1].preference.category) == ("", "add")


def test_each_layout_of_preferences_is_read(tmp_path):
    made(tmp_path, 2)
    compass = [
        {"source_image": "images/0.png", "prompt": "edit", "winner": "images/0-0.png", "loser": "images/0-1.png"}
        | {"label": label, "dimension": "IA"}
        for label in ("preference", "tie")
    ]
    (tmp_path / "compass.json").write_text(json.dumps(compass))
    first, tie = judge_bench.read(tmp_path / "compass.json")
    better = first.first if first.preference.winner == "first" else first.second
    assert better.path.endswith("0-0.png")
    assert (tie.preference.winner, tie.preference.dimension) == ("tie", "instruction_following")
    (tmp_path / "own.csv").write_text(
        'case,instruction,source,first,second,winner\n1,"edit\nit",images/0.png,images/0-0.png,images/0-1.png,second\n'
    )
    (own,) = judge_bench.read(tmp_path / "own.csv")
    for line, said in (
        (
            "1,edit,images/0.png,images/0-0.png,images/0-1.png,frist",
            "row 1: the winner 'frist' is none of first, second",
        ),
        ("1,edit,images/0.png,,images/0-1.png,first", "row 1: no column 'first'; it has case, instruction"),
        ("", "holds no preferences"),
    ):
        (tmp_path / "wrong.csv").write_text(f"case,instruction,source,first,second,winner\n{line}\n")
        with pytest.raises(ValueError, match=said):
            judge_bench.read(tmp_path / "wrong.csv")
    assert (own.preference.winner, own.instruction) == ("second", "edit\nit")
    (tmp_path / "own.csv").write_text(
        "case,instruction,source,first,second,winner\n1,edit,../x.png,images/0-0.png,images/0-1.png,second\n"
    )
    with pytest.raises(ValueError, match=r"row 1: '../x.png' leaves the folder"):
        judge_bench.read(tmp_path / "own.csv")


def test_a_judge_that_says_nothing_is_a_failure(tmp_path, capsys):
    folder = made(tmp_path / "set", 3)
    with serving(lambda asked: '{"ready": true}' if asked.is_hello else "no idea") as server:
        recipe = {"out": str(tmp_path / "out"), "sets": {"made": str(folder)}, "judges": {"mute": server.spec}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        parser = argparse.ArgumentParser()
        judge_bench.add_arguments(parser)
        assert judge_bench.run(parser.parse_args([str(tmp_path / "recipe.yaml")])) == 1
    assert "made, mute: no verdict was given" in capsys.readouterr().err


def test_a_pair_whose_image_is_missing_is_left_out_and_counted(tmp_path, capsys):
    folder = made(tmp_path / "set", 4)
    (folder / "images" / "2-1.png").unlink()
    right = lambda asked: '{"ready": true}' if asked.is_hello else '{"reasoning": "x", "winner": "Image A"}'  # noqa: E731
    with serving(right) as server:
        options = judge_bench.JudgeBenchRecipe(judges={"one": server.spec}, sets={"s": folder}, out=tmp_path / "out")
        found = judge_bench.bench(options)["s"]["one"]
    assert (found["preferences"], found["unreadable"], found["all"]["agreement"]["n"]) == (4, 1, 3)
    assert "2-1.png" in capsys.readouterr().err
