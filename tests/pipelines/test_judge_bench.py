"""`crispedit judge-bench`: judges of known error, held against made preferences through a real chat server."""

import argparse
import json
import re
from base64 import b64decode

import numpy as np
import pytest
import simplejpeg
import yaml
from chat_server import serving
from PIL import Image as Pillow

from crispedit.pipelines import judge_bench


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


def judge(error, bias):
    """Sees the brighter one, but errs about a share of the pairs, and takes the first of another share."""

    def reply(asked):
        if asked.is_hello:
            return '{"ready": true}'
        number = int(re.search(r'"edit (\d+)\.', asked.text)[1])
        light = [simplejpeg.decode_jpeg(b64decode(u.partition(",")[2])).mean() for u in asked.images[1:]]
        winner = "Image A" if light[0] > light[1] else "Image B"
        draw = number * 7 % 10 / 10
        if draw < error:
            winner = {"Image A": "Image B", "Image B": "Image A"}[winner]
        elif draw < error + bias:
            winner = "Image A"
        return json.dumps({"reasoning": "x", "winner": winner})

    return reply


def test_the_true_accuracy_lies_in_the_interval_and_a_position_bias_is_found(tmp_path):
    folder = made(tmp_path / "set", 60)
    recipe = {"out": tmp_path / "out", "sets": {"made": folder}}
    with serving(judge(0.2, 0.0)) as fair, serving(judge(0.1, 0.3)) as biased:
        judges = {"fair": fair.spec, "biased": biased.spec | {"model": "biased"}}
        found = judge_bench.bench(judge_bench.Recipe(judges=judges, **recipe))["made"]
        asked = len(fair.asked)
        assert (
            judge_bench.bench(judge_bench.Recipe(judges=judges, **recipe))["made"]["fair"]["all"]
            == found["fair"]["all"]
        )
        assert len(fair.asked) == asked + 1  # hello: replies are kept
    agreement = found["fair"]["all"]["agreement"]
    assert agreement["low"] < 0.8 < agreement["high"]
    assert found["fair"]["first_preferred"] == pytest.approx(0.5)
    assert found["fair"]["orders_agree"] == 1
    assert found["biased"]["first_preferred"] > 0.6
    assert found["biased"]["orders_agree"] < 0.8
    assert set(found["fair"]["categories"]) == {"add", "remove"}
    page = (tmp_path / "out" / "judge-bench.md").read_text()
    assert page.index("| fair |") < page.index("| biased |")


def test_each_layout_of_preferences_is_read(tmp_path):
    made(tmp_path, 2)
    compass = [
        {
            "source_image": "images/0.png",
            "prompt": "edit",
            "winner": "images/0-0.png",
            "loser": "images/0-1.png",
        }
        | {"label": label, "dimension": "IA"}
        for label in ("preference", "tie")
    ]
    (tmp_path / "compass.json").write_text(json.dumps(compass))
    first, tie = judge_bench.read(tmp_path / "compass.json")
    better = first.first if first.preference.winner == "first" else first.second
    assert better.path.endswith("0-0.png")
    assert (tie.preference.winner, tie.preference.dimension) == ("tie", "instruction_following")
    (tmp_path / "own.csv").write_text(
        "case,instruction,source,first,second,winner\n1,edit,images/0.png,images/0-0.png,images/0-1.png,second\n"
    )
    assert judge_bench.read(tmp_path / "own.csv")[0].preference.winner == "second"
    (tmp_path / "own.csv").write_text(
        "case,instruction,source,first,second,winner\n1,edit,../x.png,images/0-0.png,images/0-1.png,second\n"
    )
    with pytest.raises(ValueError, match=r"row 1: '../x.png' leaves the folder"):
        judge_bench.read(tmp_path / "own.csv")


def test_a_judge_that_says_nothing_is_a_failure(tmp_path, capsys):
    folder = made(tmp_path / "set", 3)
    with serving(lambda asked: '{"ready": true}' if asked.is_hello else "no idea") as server:
        recipe = {
            "out": str(tmp_path / "out"),
            "sets": {"made": str(folder)},
            "judges": {"mute": server.spec},
        }
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        parser = argparse.ArgumentParser()
        judge_bench.add_arguments(parser)
        assert judge_bench.run(parser.parse_args([str(tmp_path / "recipe.yaml")])) == 1
    assert "made, mute: no verdict could be had" in capsys.readouterr().err
