"""The trainer: one curve whatever the processes and whatever stopped them, on a small model and generated examples."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from functools import partialmethod
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from crispedit.editmgt import savepoint
from crispedit.editmgt.trainer import make_accelerator, rebuilt
from crispedit.editmgt.transformer import Transformer
from editmgt.small_training import CONFIG, curve, examples, launch, settings, trainer


def weights(run: Path, name: str = savepoint.WEIGHTS) -> dict[str, torch.Tensor]:
    return load_file(savepoint.paths(run / "savepoints")[-1] / name)


LORA = "lora={rank: 2, dropout: 0.2}"


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], atol: float = 0.0) -> bool:
    return ours.keys() == theirs.keys() and all(
        torch.allclose(ours[name], theirs[name], rtol=0, atol=atol) for name in ours
    )


def test_one_process_and_two_whole_or_in_shares_give_one_curve(tmp_path: Path):
    one, ddp, fsdp = (tmp_path / name for name in ("one", "ddp", "fsdp"))
    trainer(settings(one, "steps=8", "ema=0.9")).train()
    assert launch((ddp, ["ema=0.9"]), (fsdp, ["ema=0.9", "sharding=full"]), processes=2) == [0, 0]
    assert curve(ddp) == pytest.approx(curve(one)[:6], rel=1e-5)
    assert curve(fsdp) == pytest.approx(curve(ddp), rel=1e-5)
    assert curve(fsdp, "grad_norm") == pytest.approx(curve(one, "grad_norm")[:6], rel=1e-5)
    # What two processes have saved, in shares, one goes on with.
    trainer(settings(fsdp, "steps=8", "ema=0.9")).train()
    assert curve(fsdp) == pytest.approx(curve(one), rel=1e-5)
    assert same(weights(one, savepoint.AVERAGES), weights(fsdp, savepoint.AVERAGES), atol=1e-6)


def test_adapters_and_averages_go_from_one_process_to_two_in_shares_and_back(tmp_path: Path):
    one, changing = tmp_path / "one", tmp_path / "changing"
    options = [LORA, "ema=0.9", "optimiser.rate=0.01"]
    trainer(settings(one, *options)).train()
    trainer(settings(changing, *options, "steps=2")).train()
    assert launch((changing, [*options, "steps=4", "sharding=full"]), processes=2) == [0, 0]
    trainer(settings(changing, *options)).train()
    assert curve(changing) == pytest.approx(curve(one), rel=1e-5)
    for name in (savepoint.WEIGHTS, savepoint.AVERAGES):
        assert all("lora_" in key for key in weights(one, name))
        assert same(weights(one, name), weights(changing, name), atol=1e-5)
    assert not same(weights(one), weights(one, savepoint.AVERAGES), atol=1e-3)


def test_bf16_stays_near_fp32_on_two_processes_too(tmp_path: Path):
    """bf16 keeps 8 bits: a rounding is off by up to 0.4 %, and of a mean over many tokens far less is left."""
    fp32, ddp, fsdp = (tmp_path / name for name in ("fp32", "ddp", "fsdp"))
    trainer(settings(fp32, "steps=4")).train()
    options = ["steps=4", "precision=bf16"]
    assert launch((ddp, options), (fsdp, [*options, "sharding=full"]), processes=2) == [0, 0]
    for run in (ddp, fsdp):
        assert curve(run) == pytest.approx(curve(fp32), rel=4e-3)
        assert curve(run) != pytest.approx(curve(fp32), rel=1e-5)
        assert curve(run, "grad_norm") == pytest.approx(curve(fp32, "grad_norm"), rel=4e-2)
        assert {value.dtype for value in weights(run, savepoint.OPTIMIZER).values()} == {torch.float32}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, precision: str):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = ["steps=9", "ema=0.9", LORA, "optimiser={warmup_steps: 5}", f"precision={precision}"]
    assert launch((broken, options), kill=5) == [-signal.SIGKILL]
    assert len(curve(broken)) == 5
    assert savepoint.paths(broken / "savepoints")[-1].name == "step-00000004"
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed while it wrote
    assert launch((whole, options), (broken, options)) == [0]
    assert curve(broken) == curve(whole)
    assert curve(broken, "rate") == curve(whole, "rate")
    for name in (savepoint.WEIGHTS, savepoint.AVERAGES, savepoint.OPTIMIZER):
        assert same(weights(broken, name), weights(whole, name))


def test_a_damaged_savepoint_is_skipped(tmp_path: Path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    trainer(settings(whole, "steps=8")).train()
    trainer(settings(torn)).train()
    found = savepoint.paths(torn / "savepoints")
    assert [path.name for path in found] == ["step-00000002", "step-00000004", "step-00000006"]
    os.truncate(found[-1] / savepoint.OPTIMIZER, 1000)
    with pytest.warns(UserWarning, match=r"damaged savepoint.*step-00000006/optimizer.safetensors"):
        trainer(settings(torn, "steps=8")).train()
    assert curve(torn) == curve(whole)
    assert (torn / "savepoints" / "torn-step-00000006" / savepoint.WEIGHTS).is_file()
    assert same(weights(torn), weights(whole))

    for path in savepoint.paths(torn / "savepoints"):
        (path / savepoint.WEIGHTS).unlink()
    with (
        pytest.warns(UserWarning, match="skipping a damaged savepoint"),
        pytest.raises(ValueError, match="all savepoints are damaged"),
    ):
        trainer(settings(torn, "steps=9")).train()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_call_goes_on(tmp_path: Path, number: signal.Signals):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    trainer(settings(whole)).train()

    def terminate(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    assert trainer(settings(stopped), terminate).train() == "stopped"
    assert signal.getsignal(number) is handler
    assert savepoint.paths(stopped / "savepoints")[-1].name == "step-00000003"
    assert trainer(settings(stopped)).train() == "finished"
    assert curve(stopped) == curve(whole)


def test_what_is_not_finite_is_skipped_and_counted(tmp_path: Path):
    def poisoned(number: int, step: int):
        found = examples(number)
        return replace(found, pooled=found.pooled * float("nan")) if step in bad else found

    bad = {2, 4}
    one = trainer(settings(tmp_path / "one", "save.every=1", "save.keep=9"), encode=poisoned)
    assert one.train() == "finished"
    assert curve(tmp_path / "one", "skipped") == [0, 0, 1, 1, 2, 2]
    assert [loss is None for loss in curve(tmp_path / "one")] == [step in bad for step in range(6)]
    saved = [load_file(path / savepoint.WEIGHTS) for path in savepoint.paths(tmp_path / "one" / "savepoints")]
    name = "embed.embeddings.weight"
    moved = [not torch.equal(before[name], after[name]) for before, after in pairwise(saved)]
    assert moved == [True, False, True, False, True]

    bad = {2, 3}
    assert trainer(settings(tmp_path / "two", "max_skipped=2"), encode=poisoned).train() == "finished"
    with pytest.raises(RuntimeError, match=r"step 3: .* not finite for 2 steps in a row"):
        trainer(settings(tmp_path / "three", "max_skipped=1"), encode=poisoned).train()


def test_it_learns_and_is_looked_at_as_averaged(tmp_path: Path):
    """What is to be said is always one of four tokens, which takes a model a few steps to learn."""

    def four(number: int, step: int):
        found = examples(number)
        return replace(found, edited=found.edited % 4)

    def look(model, step):
        looks.append(model.mlm_layer.conv2.weight.clone())
        return {"held_out_loss": 1.0}, None

    looks: list[torch.Tensor] = []
    options = ("steps=30", "optimiser={rate: 0.01, clip: 1}", "ema=0.9", "watch.sample_every=15")
    made = trainer(settings(tmp_path, *options), encode=four, observe=look)
    made.train()
    losses = [row["loss"] for row in rows(tmp_path) if "loss" in row]
    assert losses[0] > 3.3  # of 32 tokens: ln 32 = 3.47
    assert sum(losses[-5:]) / 5 < 1.6  # of 4: ln 4 = 1.39
    assert (
        sum("held_out_loss" in row for row in rows(tmp_path)) == len(looks) == 3
    )  # with the first savepoint, at 15 and at 30
    assert made.ema is not None
    assert torch.equal(looks[-1], made.ema.weights["mlm_layer.conv2.weight"])
    assert not torch.equal(looks[-1], made.model.mlm_layer.conv2.weight)


def test_only_what_is_named_is_trained(tmp_path: Path):
    made = trainer(settings(tmp_path, "trainable=[mlm_layer., project_from_hidden.]", "steps=2"))
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    made.train()
    moved = {name for name, value in made.model.state_dict().items() if not torch.equal(value, before[name])}
    head = {"mlm_layer.conv1.weight", "mlm_layer.layer_norm.weight", "mlm_layer.conv2.weight"}
    assert moved == {*head, "project_from_hidden.weight"}
    with pytest.raises(ValueError, match=r"trainable: no parameter's name begins"):
        trainer(settings(tmp_path / "none", "trainable=[nothing]"))


def test_gradient_checkpointing_computes_the_same(tmp_path: Path):
    trainer(settings(tmp_path / "a", "steps=2")).train()
    trainer(settings(tmp_path / "b", "steps=2", "gradient_checkpointing=true")).train()
    assert curve(tmp_path / "a") == curve(tmp_path / "b")


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # read by the tracing
def test_a_compiled_model_computes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The graphs that torch.compile traces are run as they are: making code of them would take minutes."""
    monkeypatch.setattr(Transformer, "compile_step", partialmethod(Transformer.compile_step, backend="eager"))
    plain = trainer(settings(tmp_path / "plain", "steps=1"))
    compiled = trainer(settings(tmp_path / "c", "steps=1", "compile=true"))
    for made in (plain, compiled):
        assert made.train() == "finished"
    assert [row["loss"] for row in rows(tmp_path / "c")] == pytest.approx(
        [row["loss"] for row in rows(tmp_path / "plain")], rel=1e-4
    )


def test_8_bit_moments_train_and_are_resumed(tmp_path: Path):
    pytest.importorskip("bitsandbytes", reason="pip install 'crispedit[faster]'")
    whole, options = tmp_path / "whole", ["optimiser={bits: 8, rate: 0.01}", "steps=8"]
    trainer(settings(whole, *options)).train()
    assert rows(whole)[-1]["loss"] < rows(whole)[0]["loss"]
    part = tmp_path / "part"
    trainer(settings(part, options[0], "steps=4")).train()
    moments = load_file(max((part / "savepoints").iterdir()) / "optimizer.safetensors")
    assert torch.uint8 in {tensor.dtype for tensor in moments.values()}
    trainer(settings(part, *options)).train()
    assert [row["loss"] for row in rows(part)] == [row["loss"] for row in rows(whole)]
    with pytest.raises(ValueError, match=r"trained with other `optimiser.bits`"):
        trainer(settings(part, "steps=9")).train()
    with pytest.raises(ValueError, match="8-bit moments cannot be sharded"):
        settings(part, options[0], "sharding=full")


def test_pairs_without_a_source_are_trained_as_text_to_image(tmp_path: Path):
    def alone(number: int, step: int):
        return replace(examples(number), source=None)

    made = trainer(settings(tmp_path, "objective={localise: 0.5}"), encode=alone)
    assert made.train() == "finished"
    assert all(math.isfinite(row["loss"]) for row in rows(tmp_path))


def test_the_first_point_is_at_step_1(tmp_path: Path):
    trainer(settings(tmp_path, "watch.log_every=4")).train()
    assert [row["step"] for row in rows(tmp_path) if "pairs_per_s" in row] == [1, 4, 6]


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="global_batch 3 must be a multiple of batch 2"):
        settings(tmp_path, "global_batch=3")


def test_sharing_a_model_out_is_the_recipes_and_not_the_launchers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_accelerator(settings(tmp_path))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as `accelerate launch --use_fsdp` does
    with pytest.raises(ValueError, match=r"configured to use FSDP: turn it off.*sharding: full"):
        make_accelerator(settings(tmp_path))


def test_the_trainer_measures(tmp_path: Path):
    trainer(settings(tmp_path, "watch.log_every=3")).train()
    (row,) = [row for row in rows(tmp_path) if row["step"] == 3]
    assert row["mfu"] is None or row["mfu"] > 0
    assert set(row["loss_by_category"]) == {"add", "style"}
    assert all(0 < loss < 2 * 3.5 for loss in row["loss_by_category"].values())
    assert 0 <= row["data_wait_share"] < 1
    assert row["tokens_per_s"] / row["pairs_per_s"] == pytest.approx((2 * 16 + 5 + 2 * 12 + 5) / 2)
    assert row["memory_gb"] > 0


def rows(run: Path):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_rebuilt_model_is_the_same(tmp_path: Path):
    made = trainer(settings(tmp_path, "lora={rank: 2}"))
    copy = rebuilt(made.model, {name: value.detach() for name, value in made.model.named_parameters()})
    batch = examples(1)
    inputs = (batch.edited, batch.sequence, batch.pooled, batch.micro, torch.tensor([300.0, 700.0]), batch.source)
    with torch.no_grad():
        assert torch.equal(copy(*inputs), made.model(*inputs))
    assert copy.config == CONFIG
