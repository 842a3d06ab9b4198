"""Savepoints: whole or not there, the last few kept, and only gone on with by what they are of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crispedit.editmgt import savepoint
from crispedit.editmgt.optimiser import EMA


def trained(steps: int = 2, shape: tuple[int, int] = (3, 2)) -> tuple[dict, torch.optim.Optimizer, EMA]:
    torch.manual_seed(0)
    weights = {"a": torch.nn.Parameter(torch.randn(shape)), "b": torch.nn.Parameter(torch.randn(3))}
    optimizer = torch.optim.AdamW(weights.values(), lr=0.1)
    ema = EMA(weights, 0.5)
    for step in range(1, steps + 1):
        sum(weight.square().sum() for weight in weights.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update(weights, step)
    return weights, optimizer, ema


def test_restored_training_goes_on_as_it_would_have(tmp_path: Path):
    weights, optimizer, ema = trained(2)
    path = savepoint.write(tmp_path, 2, savepoint.files(weights, optimizer, ema), {"reader": {"epoch": 1}})
    others, other_optimizer, other_ema = trained(0)
    state = savepoint.restore(path, others, other_optimizer, other_ema)
    assert (state["step"], state["reader"]) == (2, {"epoch": 1})
    for each, by in ((weights, optimizer), (others, other_optimizer)):
        sum(weight.square().sum() for weight in each.values()).backward()
        by.step()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert all(torch.equal(ema.weights[name], other_ema.weights[name]) for name in weights)


def test_the_last_ones_stay_and_half_written_ones_go(tmp_path: Path):
    files = savepoint.files(*trained())
    for step in (1, 2, 10):
        savepoint.write(tmp_path, step, files, {})
    half = tmp_path / ".step-00000011.x.tmp"
    half.mkdir()
    (half / savepoint.WEIGHTS).write_bytes(b"half")
    assert [path.name for path in savepoint.paths(tmp_path)][-1] == "step-00000010"
    savepoint.sweep(tmp_path, keep=2)
    assert [path.name for path in savepoint.paths(tmp_path)] == ["step-00000002", "step-00000010"]
    assert not half.exists()
    savepoint.write(tmp_path, 10, files, {"again": True})
    assert savepoint.read_state(savepoint.paths(tmp_path)[-1])["again"]


def test_another_models_is_refused(tmp_path: Path):
    weights, optimizer, ema = trained()
    path = savepoint.write(tmp_path, 1, savepoint.files(weights, optimizer, None), {})
    with pytest.raises(ValueError, match=r"other trained weights \(b differs"):
        savepoint.restore(path, {"a": weights["a"]}, optimizer, None)
    with pytest.raises(ValueError, match=r"a is \(3, 2\), not \(2, 3\)"):
        savepoint.restore(path, trained(0, (2, 3))[0], optimizer, None)
    with pytest.raises(ValueError, match="trained without ema"):
        savepoint.restore(path, weights, optimizer, ema)
    savepoint.restore(path, weights, optimizer, None)


@pytest.mark.parametrize("name", [savepoint.WEIGHTS, savepoint.OPTIMIZER, savepoint.AVERAGES, savepoint.STATE])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99, None])
def test_a_torn_one_is_told_and_nothing_of_it_is_used(tmp_path: Path, name: str, kept: float | None):
    path = savepoint.write(tmp_path, 1, savepoint.files(*trained()), {})
    whole = (path / name).read_bytes()
    if kept is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes(whole[: int(kept * len(whole))])
    weights, optimizer, ema = trained(0)
    tensors = [*weights.values(), *ema.weights.values()]
    before = [tensor.clone() for tensor in tensors]
    with pytest.raises(savepoint.TornError, match=name):
        savepoint.restore(path, weights, optimizer, ema)
    assert all(torch.equal(*pair) for pair in zip(before, tensors, strict=True))
    assert not optimizer.state
    (path / name).write_bytes(whole)
    savepoint.restore(path, weights, optimizer, ema)


def test_one_that_was_set_aside_is_no_more_found(tmp_path: Path):
    for _ in range(2):
        savepoint.set_aside(savepoint.write(tmp_path, 1, savepoint.files(*trained()), {}))
        assert savepoint.paths(tmp_path) == []
        assert [path.name for path in tmp_path.iterdir()] == ["torn-step-00000001"]


def test_a_process_that_writes_nothing_keeps_nothing():
    files = savepoint.files(*trained(), keep=False)
    assert set(files) == set(savepoint.files(*trained()))
    assert not any(files.values())
