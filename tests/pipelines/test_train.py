"""crispedit train and tokenize: from shards to a model that edits, on the smallest model there is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import yaml
from editmgt.small_training import read_by_peft
from safetensors.torch import load_file
from training_pairs import losses, pair, recipe_file, rows, write_set

from crispedit import images
from crispedit.editmgt.checkpoint import load_transformer
from crispedit.editmgt.lora import merge_lora
from crispedit.editmgt.pipeline import EditMGTPipeline
from crispedit.pipelines import cli, train
from crispedit.pipelines.training import recipe as train_recipe
from crispedit.pipelines.training.source import ShardSource
from crispedit.shards.read import ShardReader, read_shards
from crispedit.shards.remote import Cache
from crispedit.shards.verify import verify


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("shards"))


def test_a_trained_model_edits(tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]):
    recipe = recipe_file(tmp_path, shards)
    command = ["train", str(recipe), f"data.held_out={shards}", "ema=0.9", "watch.tracker=tensorboard"]
    assert cli.main(command) == 0
    run = tmp_path / "run"
    assert f"model: {run / 'model'}" in capsys.readouterr().out
    assert len(losses(run)) == 4
    looked = [row for row in rows(run) if "held_out_loss" in row]
    assert [row["step"] for row in looked] == [2, 4]  # with the first savepoint, and at the end
    assert {"edit_l1_inside", "copy_l1_inside", "edit_l1_outside"} < set(looked[-1])
    assert 0 < looked[-1]["copy_l1_inside"] < 1
    assert (run / "samples" / "step-00000004.png").is_file()
    assert list((run / "tracker").rglob("events.*"))

    edit = EditMGTPipeline.from_pretrained(run / "model")
    image = images.decode_jpeg(pair(0, "add").source_jpeg)
    (answer,) = edit(image, "brighten", edit.sampling.changed(steps=2))
    assert answer.image.shape == image.shape
    trained = load_transformer(run / "model" / "transformer").mlm_layer.conv2.weight
    fresh = train.starting_model(train_recipe.load(str(recipe))).transformer.mlm_layer.conv2.weight
    assert trained.shape == fresh.shape
    assert not torch.equal(trained, fresh)
    from_folder = train_recipe.load(str(recipe), [f"model.start={run / 'model'}"])
    assert torch.equal(train.starting_model(from_folder).transformer.mlm_layer.conv2.weight, trained)

    # The run's folder is a recipe itself; more steps go on from where it ended.
    assert cli.main(["train", str(run), "steps=5"]) == 0
    assert len(losses(run)) == 5
    assert yaml.safe_load((run / "recipe.yaml").read_text())["steps"] == 5


def test_what_is_looked_at_is_of_all_categories(tmp_path: Path, shards: Path):
    """Shards hold one category after another, and the first pairs of a set are all of one."""
    recipe = train_recipe.load(
        str(recipe_file(tmp_path, shards)), [f"data.held_out={shards}", "watch.held_out_pairs=8"]
    )
    batches = list(train.pairs_to_watch(recipe))
    assert {category for batch in batches for category in batch.categories} == {"add", "color"}
    assert sum(len(batch.keys) for batch in batches) < 12  # fewer than one category has
    assert [batch.keys for batch in batches] == [batch.keys for batch in train.pairs_to_watch(recipe)]


def test_pairs_are_held_out_by_default(tmp_path: Path, shards: Path):
    recipe = train_recipe.load(str(recipe_file(tmp_path, shards)), ["data.held_out=32"])
    held = {key for batch in train.pairs_to_watch(recipe) for key in batch.keys}
    trained = train.training_reader(recipe, tokenised=False)
    assert len(held) == 2  # a tenth of 24
    assert held.isdisjoint(trained.index.keys.to_pylist())
    assert len(trained.index) == 22
    everything = train.training_reader(
        train_recipe.load(str(recipe_file(tmp_path, shards)), ["data.held_out=0"]), tokenised=False
    )
    assert len(everything.index) == 24


def test_a_mixture_gives_each_set_its_weight(tmp_path: Path, shards: Path):
    other = write_set(tmp_path / "other")  # the same pairs under another path
    (other / "manifest.json").unlink()
    first = sorted(other.glob("*.tar"))[0]
    recipe = train_recipe.load(str(recipe_file(tmp_path, shards)), [f"data.shards={{{first}: 2.0}}", "data.held_out=0"])
    assert len(train.training_reader(recipe, tokenised=False)) == 6  # 6 pairs, twice, in batches of 2


def test_stored_tokens_train_as_images_do(tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]):
    recipe, out = recipe_file(tmp_path, shards), tmp_path / "tokens"
    tokenize = ["tokenize", str(shards), str(out), "--recipe", str(recipe)]
    assert cli.main(tokenize) == 0
    assert "24 pairs in 4 shards" in capsys.readouterr().out
    report = verify(str(out), deep=True, threads=1, cache=Cache())
    assert report.ok, report.problems
    assert report.pairs == 24
    with read_shards(shards, decode=False) as given, read_shards(out, decode=False) as written:
        for before, after in zip(given, written, strict=True):
            assert after.tokens
            assert (before.key, before.source_jpeg, before.meta) == (after.key, after.source_jpeg, after.meta)
    made = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert cli.main(tokenize) == 0
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")} == made

    assert cli.main(["train", str(recipe)]) == 0
    tokens = recipe_file(tmp_path, out, "from_tokens")
    assert cli.main(["train", str(tokens)]) == 0
    assert losses(tmp_path / "from_tokens") == losses(tmp_path / "run")

    capsys.readouterr()
    assert cli.main(["train", str(tokens), "data.resolution=128", "run=" + str(tmp_path / "other")]) == 2
    assert "tokenised with other buckets" in capsys.readouterr().err
    assert cli.main(["train", str(tokens), "seed=1", "run=" + str(tmp_path / "other")]) == 2
    assert "tokenised with other tokenizers" in capsys.readouterr().err  # a fresh model's, made from the seed
    assert cli.main(["train", str(tokens), "data.crop=1.2", "run=" + str(tmp_path / "other")]) == 2
    assert "cannot be cropped" in capsys.readouterr().err


def test_a_damaged_shard_does_not_stop_training_and_adapters_are_merged(
    tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]
):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in shards.rglob("*"):
        if path.is_file():
            (broken / path.relative_to(shards)).parent.mkdir(exist_ok=True)
            (broken / path.relative_to(shards)).write_bytes(path.read_bytes())
    (tar,) = broken.glob("*add-000000.tar")
    tar.write_bytes(tar.read_bytes()[:2000])
    recipe, run = recipe_file(tmp_path, broken), tmp_path / "run"
    lora = ["lora={rank: 2, alpha: 64, targets: [project_from_hidden, to_q]}", "optimiser.rate=0.05", "watch.samples=0"]
    assert cli.main(["train", str(recipe), "steps=7", *lora]) == 0
    assert len(losses(run)) == 7
    assert "left out as unreadable: " in capsys.readouterr().err

    start = train.starting_model(train_recipe.load(str(recipe))).transformer
    before = {name: value.clone() for name, value in start.state_dict().items()}
    merged = merge_lora(read_by_peft(start, run / "lora")).state_dict()
    written = load_transformer(run / "model" / "transformer").state_dict()
    assert written.keys() == merged.keys() == before.keys()
    assert all(torch.allclose(written[name], merged[name], atol=1e-6) for name in merged)
    assert any(not torch.equal(written[name], before[name]) for name in before)


def test_the_script_under_accelerate_launch_makes_the_model_of_one_process(tmp_path: Path, shards: Path):
    """Two processes, each with a share of the weights (FSDP2); adapters and averages. It is torchrun that it starts."""
    recipe = recipe_file(tmp_path, shards, "two")
    options = ["lora={rank: 2, targets: [project_from_hidden, to_q]}", "ema=0.9", "optimiser.rate=0.02"]
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=0"]
    launched = subprocess.run(
        [sys.executable, *launcher, train.__file__, recipe, *options, "sharding=full"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout == f"model: {tmp_path / 'two' / 'model'}\n"
    assert cli.main(["train", str(recipe_file(tmp_path, shards, "one")), *options]) == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    for name in ("model/transformer/diffusion_pytorch_model.safetensors", "lora/adapter_model.safetensors"):
        one, two = (load_file(tmp_path / run / name) for run in ("one", "two"))
        assert one.keys() == two.keys()
        assert all(torch.allclose(one[key], two[key], rtol=0, atol=1e-5) for key in one)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_is_told_to_the_scheduler(
    number: signal.Signals, tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]
):
    recipe, run = str(recipe_file(tmp_path, shards)), tmp_path / "run"

    over = threading.Event()

    def terminate() -> None:
        while not (run / "metrics.jsonl").is_file() or len(losses(run)) < 2:
            if over.wait(0.01):
                return
        os.kill(os.getpid(), number)

    terminator = threading.Thread(target=terminate)
    terminator.start()
    try:
        assert cli.main(["train", recipe, "steps=1000000"]) == train.STOPPED
    finally:
        over.set()
        terminator.join()
    assert "the same command resumes" in capsys.readouterr().err
    assert not (run / "model").exists()
    done = len(losses(run))
    assert done >= 2
    assert cli.main(["train", recipe, f"steps={done + 2}"]) == 0
    assert (run / "model").is_dir()
    whole = recipe_file(tmp_path, shards, "whole")
    assert cli.main(["train", str(whole), f"steps={done + 2}"]) == 0
    assert losses(run) == losses(tmp_path / "whole")


def source(shards: Path, batches_per_step: int) -> ShardSource:
    reader = ShardReader(shards, batch_size=2, shapes=[(64, 80), (80, 64)], shuffle=True, seed=3, coverage="equal")
    return ShardSource(reader, batches_per_step)


@pytest.mark.parametrize("processes", [2, 5])
def test_steps_are_the_same_for_any_number_of_processes(shards: Path, processes: int):
    """12 full batches an epoch and 5 a step: steps reach over the end of epochs."""
    count = 5 if processes == 5 else 4
    alone = source(shards, count).steps(None, 0, 1)
    shared = [source(shards, count).steps(None, rank, processes) for rank in range(processes)]
    for step in range(7):
        batches, state = next(alone)
        parts = [next(one) for one in shared]
        assert [batch.keys for part, _ in parts for batch in part] == [batch.keys for batch in batches]
        assert all(other == state for _, other in parts)
        if step == 3:
            resumed = source(shards, count).steps(json.loads(json.dumps(state)), 0, 1)
        if step > 3:
            assert [b.keys for b in next(resumed)[0]] == [b.keys for b in batches]


def test_a_set_without_a_full_batch_is_refused(shards: Path):
    with pytest.raises(ValueError, match="do not make one full batch"):
        ShardSource(ShardReader(shards, batch_size=50, shapes=[(64, 64)], coverage="equal"), 1)


@pytest.mark.parametrize(("name", "steps"), [("stage1-adapt", 5000), ("stage2-full", 50000), ("stage3-refine", 1000)])
def test_the_papers_stages(name: str, steps: int):
    recipe = train_recipe.load(name, ["shards=anywhere"])
    assert (recipe.steps, recipe.optimiser.rate, recipe.optimiser.clip) == (steps, 1e-4, 10)
    assert (recipe.batch, recipe.global_batch, recipe.precision) == (4, 4 * 8 * 8, "fp32")
    assert (recipe.optimiser.schedule, recipe.optimiser.warmup_steps) == ("constant", 0)
    assert recipe.data.shards == {"anywhere": 1.0}
    assert recipe.data.held_out  # every stage measures what it does not train on


def test_a_misspelt_key_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"objective.drop_txt: there is no such key; choose from drop_text"):
        train_recipe.load("tiny", ["objective.drop_txt=1"])
    assert train_recipe.load("tiny").model.start == "editmgt-tiny"
