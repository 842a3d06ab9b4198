"""The dry run: a sample's projection holds for the full run, within the interval that it states."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_run

sys.path.insert(0, str(Path(__file__).parents[1]))
import images_server
from chat_server import Asked, Said, serving
from PIL import Image as Pillow

from crispedit.compositor.landscape import landscape
from crispedit.images import encode_jpeg
from crispedit.pipelines import audit, build, cli, steps
from crispedit.pipelines.dry_run import Range, dry_run, mean_range, ratio_range
from crispedit.pipelines.dry_run import text as dry_run_text
from crispedit.pipelines.run import Run

PHOTOGRAPHS, SAMPLED = 20, 10


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for seed in range(PHOTOGRAPHS):
        (folder / f"{seed}.jpg").write_bytes(encode_jpeg(landscape(seed, 272, 256)))
    return folder


CATEGORIES = "categories={color: {jobs: 1, quota: 12}, style: 1, add: 0.5}"  # to draw things costs most


def test_the_full_run_lies_in_the_samples_intervals(many: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", many, CATEGORIES)
    found = dry_run(run, SAMPLED, gpu_hour_price=2.0)
    assert not run.root.exists()
    build.build(run)
    lines = [c for c in audit.audit(run).counts if c.step == "select"]
    kept, candidates = sum(c.kept for c in lines), sum(c.rows for c in lines)
    unlimited = kept + sum(c.rejected.get("quota", 0) for c in lines)
    assert (found.sampled, found.photographs) == (SAMPLED, PHOTOGRAPHS)
    assert found.keep_rate.low <= unlimited / candidates <= found.keep_rate.high
    assert found.keep_rate.high - found.keep_rate.low < 0.6
    for line in lines:
        assert found.pairs[line.category].low <= line.kept <= found.pairs[line.category].high
    assert found.pairs["color"].high <= 12
    assert found.total_pairs.low <= kept <= found.total_pairs.high
    written = {s.step: s.gigabytes * 1e9 for s in found.steps}
    for name in ("curate", "edit"):
        size = sum(path.stat().st_size for path in run.folder(name).rglob("*") if path.is_file())
        assert written[name] == pytest.approx(size, rel=0.3)
    rows = {s.step: s.rows for s in found.steps}
    assert rows["curate"] == PHOTOGRAPHS
    assert rows["edit"] == pytest.approx(candidates, rel=0.3)
    assert all(s.wall_h is not None and s.wall_h > 0 and s.cpu_h and s.gpu_h == 0 for s in found.steps)
    assert found.cost_per_pair == 0  # no step holds a GPU


def test_a_sample_of_everything_is_the_run_itself(photos: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", photos, "categories={style: 1, add: 0.5}")
    found = dry_run(run, 100)
    build.build(run)
    lines = {c.category: c.kept for c in audit.audit(run).counts if c.step == "select"}
    assert {name: range_ for name, range_ in found.pairs.items()} == {
        name: Range(kept, kept, kept) for name, kept in lines.items()
    }
    assert found.cost_per_pair is None


def test_the_command_prints_and_keeps_the_projection_and_refuses_a_second(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = make_run(tmp_path / "run", photos, "categories={style: 1}")
    run.root.mkdir()
    run.store_recipe(steps.identities(steps.of(run)))
    assert cli.main(["build", str(run.root), "--dry-run", "2"]) == 0
    said = capsys.readouterr().out
    assert "projected from 2 of 4 photographs" in said
    folder = tmp_path / "run-dry-run-2"
    stored = json.loads((folder / "projection.json").read_text())
    assert stored["photographs"] == 4
    assert stored["cost_per_pair"] is None
    assert Run(run.recipe).folder("curate").exists() is False
    assert cli.main(["build", str(run.root), "--dry-run", "2"]) == 2
    assert "holds an earlier dry run" in capsys.readouterr().err
    assert cli.main(["build", str(run.root), "--dry-run", "0"]) == 2
    assert cli.main(["build", str(run.root), f"source.path={tmp_path / 'absent'}", "--dry-run", "3"]) == 2
    assert not (tmp_path / "run-dry-run-3").exists()


def test_a_judge_that_was_not_reached_costs_nothing_and_the_whole_is_priced(photos: Path, tmp_path: Path):
    """An editor that changes nothing: no pair comes as far as the judge, and each edit is paid for."""
    with serving(judged) as chat, images_server.serving(lambda form: images_server.b64(form.files["image"])) as images:
        judge = {"chat": {**chat.spec, "price_per_million_input": 2.0}, "facts": False}
        api = {"editor": "images_api", "model": "tiny", "base_url": images.url, "price_per_image": 0.04}
        filters = f"filters={json.dumps({'unchanged': {}, 'judge': judge})}"
        run = make_run(
            tmp_path / "run", photos, f"edit.editors={json.dumps({'api': api})}", "categories={color: 1}", filters
        )
        found = dry_run(run, 4)
    assert found.server_costs == {"score: judge": 0.0, "edit: api": pytest.approx(0.16)}
    assert "no pair was kept; the whole would cost 0.16 (score: judge 0, edit: api 0.16)" in dry_run_text(found)


def test_a_dry_run_that_cannot_edit_leaves_nothing_so_that_it_can_be_repeated(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    api = {"editor": "images_api", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "NO_SUCH_KEY"}
    run = make_run(tmp_path / "run", photos, f"edit.editors={json.dumps({'api': api})}", "categories={color: 1}")
    for _ in range(2):
        with pytest.raises(ValueError, match="set the environment variable NO_SUCH_KEY"):
            dry_run(run, 2)
    assert not list(tmp_path.iterdir())


def test_intervals_cover_what_they_say():
    """Photographs whose candidates share a fate: an interval that took them for independent is too short."""
    rng = np.random.default_rng(0)
    covered, naive = 0, 0
    for _ in range(300):
        good = rng.random(2000) < 0.6
        kept = np.where(good, 4.0, 0.0)
        drawn = kept[rng.permutation(2000)[:60]]
        found = ratio_range(drawn, [4.0] * 60, 2000 / 60)
        covered += found.low <= good.mean() <= found.high
        half = 1.96 * np.sqrt(0.24 / 240)
        naive += abs(drawn.mean() / 4 - good.mean()) <= half
    assert covered / 300 > 0.92
    assert naive / 300 < 0.8


def test_an_interval_knows_its_limits():
    none = ratio_range([0, 0, 0], [2, 2, 2], 100)
    assert none.estimate == none.low == 0
    assert 0.3 < none.high < 1
    assert ratio_range([], [], 10) == Range(0.0, 0.0, 1.0)
    assert ratio_range([1, 0], [1, 1], 1) == Range(0.5, 0.5, 0.5)
    assert mean_range([2, 1], 4, 4) == Range(0.75, 0.75, 0.75)
    wide = mean_range([2, 1], 4, 400)
    assert wide.low < 0.75 < wide.high <= 2


def test_imported_pairs_are_projected_too(tmp_path: Path):
    """Two pairs of each photograph, in a folder's parquet: one that edits it and one that does not."""
    rows = []
    for seed in range(6):
        source = landscape(seed, 288, 256)
        ball = source.copy()
        ball[90:170, 100:190] = (225, 40, 35)
        rows += [
            {"input_img": encode_jpeg(source), "output_img": encode_jpeg(edited), "instruction": text, "type": "add"}
            for edited, text in ((ball, "Add a red box."), (source, "Add a red ball."))
        ]
    (tmp_path / "pairs").mkdir()
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([(n, image if n.endswith("img") else pa.string()) for n in rows[0]])
    stored = [{n: {"bytes": v, "path": None} if n.endswith("img") else v for n, v in row.items()} for row in rows]
    pq.write_table(pa.Table.from_pylist(stored, schema), tmp_path / "pairs" / "data.parquet")
    pairs = f"source={{kind: pairs, mapping: crispedit-2m, path: {tmp_path / 'pairs'}}}"
    run = make_run(tmp_path / "run", tmp_path, pairs, "categories={add: 1}", "curate.filters.duplicate=null")
    found = dry_run(run, 6)
    build.build(run)
    (line,) = (c for c in audit.audit(run).counts if c.step == "select")
    assert (found.sampled, found.photographs, line.rows) == (6, 12, 12)
    assert 0 < line.kept < line.rows
    assert found.pairs["add"].low <= line.kept <= found.pairs["add"].high


def darker(form: images_server.Form) -> images_server.Sent:
    return images_server.b64(images_server.png(Pillow.fromarray(np.asarray(form.image.convert("RGB")) // 2)))


def judged(asked: Asked) -> Said:
    """A judge that likes every second pair, and says what it took."""
    if asked.is_hello:
        return Said('{"ready": true}')
    good = 9 if "instruction_following" in asked.text else 8
    answer = dict.fromkeys(re.findall(r'"(\w+)":\{"maximum":10', asked.text.replace(" ", "")), good)
    return Said(json.dumps(answer), usage={"prompt_tokens": 1000, "completion_tokens": 100})


def test_a_recipe_of_servers_is_priced_beside_one_of_gpus(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """By the price of an image and of the judge's tokens, and by the GPU-hours that an editor holds."""
    with serving(judged) as chat, images_server.serving(darker) as images:
        priced = {"price_per_million_input": 2.0, "price_per_million_output": 8.0}
        judge = {"chat": {**chat.spec, **priced}, "facts": False}
        api = {"editor": "images_api", "model": "tiny", "base_url": images.url, "price_per_image": 0.04}
        common = ("categories={color: 1}", f"filters={json.dumps({'unchanged': {}, 'judge': judge})}")
        by_api = make_run(tmp_path / "api", photos, f"edit.editors={json.dumps({'api': api})}", *common)
        found = dry_run(by_api, 4, gpu_hour_price=3.0)
        print(dry_run_text(found))
        local = "{own: {editor: compositor, pool: {gpus: 1}}}"
        by_gpu = make_run(tmp_path / "local", photos, f"edit.editors={local}", *common)
        beside = dry_run(by_gpu, 4, gpu_hour_price=3.0)
        print(dry_run_text(beside))
        pairs, questions = found.total_pairs.estimate, len(chat.asked)
    edits = found.server_costs["edit: api"]
    assert edits == pytest.approx(0.04 * len(images.forms))
    # Two questions a pair: 2,000 tokens at 2 a million, and 200 at 8.
    assert found.server_costs["score: judge"] == pytest.approx(0.0056 * len(images.forms))
    assert questions == 2 * len(images.forms) + 2 * beside.steps[2].rows + 2  # and one hello for each recipe
    assert found.cost_per_pair == pytest.approx(sum(found.server_costs.values()) / pairs)
    gpu_h = sum(step.gpu_h for step in beside.steps)
    assert gpu_h > 0
    assert set(beside.server_costs) == {"score: judge"}
    expected = (3.0 * gpu_h + beside.server_costs["score: judge"]) / beside.total_pairs.estimate
    assert beside.cost_per_pair == pytest.approx(expected)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cost of a kept pair")]
    assert len(said) == 2
    assert "edit: api 0.04" in said[0]
    assert "GPUs at 3 an hour" in said[1]


def test_what_has_no_price_is_said_and_not_counted(photos: Path, tmp_path: Path):
    with serving(judged) as chat:
        judge = {"chat": chat.spec, "facts": False}
        run = make_run(tmp_path / "run", photos, "categories={color: 1}", f"filters={json.dumps({'judge': judge})}")
        found = dry_run(run, 2)
    assert found.server_costs == {"score: judge": None}
    assert found.cost_per_pair is None
    assert "not in the cost: score: judge (no price is set" in dry_run_text(found)
