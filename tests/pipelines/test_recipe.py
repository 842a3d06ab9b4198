"""Recipes: a wrong key, part, option or bound fails at load, named, with the choices."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RECIPE

from crispedit.pipelines import cli, engine, recipe
from crispedit.pipelines.recipe import EngineSpec, Recipe
from crispedit.recipe import parse

ROOT = Path(__file__).parents[2]


def load(*overrides: str) -> Recipe:
    return parse(Recipe, RECIPE, ["run=r", *overrides]).check()


def test_overrides_are_yaml_and_make_sections():
    made = load("pack.pairs_per_shard=7", "curate.max_short_side_px=null", "source.path=a=b", "categories.add=2")
    assert made.pack.pairs_per_shard == 7
    assert made.curate.max_short_side_px is None
    assert made.source.path == "a=b"
    assert made.categories["add"].jobs == 2
    assert load("filters.unchanged.bounds.changed_fraction.min=0.5").pair_cascade.bounds_of("add")[
        "unchanged.changed_fraction"
    ].min == pytest.approx(0.5)


def test_a_part_is_taken_out_with_null():
    assert "alignment" not in load("filters.alignment=null").pair_cascade.filters


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("packk.seed=1", r"packk: there is no such key; choose from annotate, categories, curate"),
        ("pack.sed=1", r"pack\.sed: there is no such key; choose from pairs_per_shard, seed"),
        ("source.pathh=1", r"source\.pathh: there is no such key; choose from .*path"),
        ("source.kind=ftp", r"source: .*'folder'.*'parquet'"),
        ("pack.seed=abc", r"pack\.seed: .*integer.*got 'abc'"),
        ("filters.unchanged.bounds.changed_fraction.mn=1", r"choose from max, min"),
        ("filters.unchanged.bounds.changed=1", r"got 1"),
        ("filters.unchanged.bounds.zzz.min=1", r"unchanged measures no such score; choose from .*changed_fraction"),
        ("filters.unchange={}", r"there is no filter 'unchange'; choose from .*unchanged"),
        ("filters.unchanged.colour=1", r"filter 'unchanged': colour: .*\(its options: "),
        ("curate.filters.unchanged={}", r"'unchanged' does not measure a source"),
        ("edit.editors.photoshop={}", r"there is no editor 'photoshop'; choose from .*compositor"),
        ("annotate.annotator=me", r"there is no annotator 'me'; choose from .*compositor"),
        ("categories.dance=1", r"categories\.dance: there is no such category; choose from add, background"),
        ("categories={add:1}", r"categories\.add:1: .*write a space after the colon"),
        ("source.path=", r"  source\.path: Input should be a valid string"),
        ("engine.kind=slurm", r"engine\.kind: .*'ray' or 'inprocess'"),
        ("source.path=s3://me:secret@bucket/x", r"source\.path holds a password"),
        ("source={kind: parquet, path: x, pathh: 1}", r"source\.pathh: there is no such key; choose from caption, "),
        ("pack", r"written key=value"),
        ("pack.seed.x=1", r"'seed' is"),
        ("pack.seed=[", r"not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_the_choices(override: str, message: str):
    with pytest.raises(ValueError, match=message):
        load("pack.seed=0", override)


def test_a_job_of_ray_does_not_write_into_its_temporary_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`ray job submit --working-dir .` runs in such a folder: a relative `run` would be lost with it."""
    folder = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    load("pack.to=s3://bucket/set", f"run={tmp_path / 'run'}")
    with pytest.raises(ValueError, match=r"run: runs/mine would be in Ray's temporary copy .* give an absolute path"):
        load("pack.seed=0", "run=runs/mine")
    with pytest.raises(ValueError, match=r"pack\.to: set would be in"):
        load("pack.to=set", f"run={tmp_path / 'run'}")


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("train tiny shards=set run=runs/mine", "run: runs/mine would be in Ray's temporary copy"),
        ("tokenize set tokens --recipe tiny", "out: tokens would be in Ray's temporary copy"),
        ("evaluate tiny out=/runs/evaluation kept=replies", "kept: replies would be in Ray's temporary copy"),
    ],
)
def test_no_command_of_a_job_writes_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, refused: str
):
    (folder := tmp_path / "working_dir_files/_ray_pkg_1").mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert cli.main(line.split()) == 2
    assert f"error: {refused}" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_named_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # no one listens there
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(ValueError, match=f"Ray cannot be joined at {address}: .*refused"),
            engine.cluster(EngineSpec(address=address)),
        ):
            pass


def test_a_recipe_file_that_is_missing_or_no_mapping_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no recipe file .*nowhere\.yaml; the shipped ones are .*embedded"):
        recipe.load(str(tmp_path / "nowhere.yaml"))
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ValueError, match=r"list\.yaml must be a mapping"):
        recipe.load(str(tmp_path / "list.yaml"))
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"broken\.yaml is not YAML"):
        recipe.load(str(tmp_path / "broken.yaml"))


def test_the_shipped_recipe_loads_by_path_and_by_name():
    assert recipe.load("configs/embedded.yaml", ["source.path=x"]) == recipe.load("embedded", ["source.path=x"])


def test_a_resolved_recipe_is_a_recipe():
    made = load("categories.add={jobs: 2, quota: 5}")
    assert Recipe(**recipe.resolved(made)) == made


def test_one_part_stands_in_a_recipe_under_two_names():
    spec = "{{editor: diffusers, pipeline: {}, model: m}}"
    editors = load(f"edit.editors={{mild: {spec.format('P')}, wild: {spec.format('Q')}}}").editors
    made = {name: editor.identity()["options"]["pipeline"] for name, editor in editors.items()}
    assert made == {"mild": "P", "wild": "Q"}


def test_filters_with_actors_of_their_own_stand_in_the_cascades_order():
    from crispedit.pipelines.run import Run
    from crispedit.pipelines.steps.curate import CurateStep
    from crispedit.pipelines.steps.score import ScoreStep

    def pools(*overrides: str) -> list[tuple[str, list[str]]]:
        run = Run(load("filters={unchanged: {}, alignment: {}, duplicate: {}, clip: {}}", *overrides))
        stages = ScoreStep(run).stages
        return [(stage.name, list(stage.own)) for stage in stages]  # type: ignore[attr-defined]

    shared = ["duplicate", "unchanged", "alignment", "clip"]
    assert pools() == [("score:filters", shared)]
    assert pools("filters.clip.pool.gpus=0.1") == [("score:filters", shared[:3]), ("score:clip", ["clip"])]
    assert pools("filters.unchanged.pool.batch=1") == [
        ("score:filters", ["duplicate"]),
        ("score:unchanged", ["unchanged"]),
        ("score:filters from alignment", ["alignment", "clip"]),
    ]
    apart = CurateStep(Run(load("curate.filters.content.pool.batch=1")))
    assert [stage.name for stage in apart.stages] == ["normalise", "curate:content"]


@pytest.mark.parametrize(
    ("part", "said"),
    [("dino: {}", "filters.dino cannot measure anything: no model is named"), ("judge: {}", "set its `chat`")],
)
def test_a_filter_that_could_measure_nothing_is_refused(part: str, said: str):
    with pytest.raises(ValueError, match=said):
        load(f"filters={{unchanged: {{}}, {part}}}")


def test_clip_without_its_libraries_is_refused(tmp_path: Path):
    """In a process that finds no open_clip, as in an environment without the extra."""
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'open_clip' else find(name, *rest)\n"
        "from crispedit.pipelines import cli\n"
        f"raise SystemExit(cli.main(['build', 'calibrate', 'run={tmp_path}/run', 'source.path={tmp_path}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "filters.clip cannot measure anything: open_clip not installed" in done.stderr
    assert "pip install 'crispedit[models]'" in done.stderr


def test_a_pool_that_starts_servers_says_how_many():
    own = "{own: {editor: images_api, model: tiny, serve: 'serve --port {port}', pool: %s}}"
    assert load(f"edit.editors={own % '{}'}").editors["own"].gpus == 1
    assert load(f"edit.editors={own % '{gpus: 0, actors: 1}'}")
    with pytest.raises(ValueError, match=r"edit\.editors\.own\.pool: .*say how many with `actors`"):
        load(f"edit.editors={own % '{gpus: 0}'}")
