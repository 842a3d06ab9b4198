"""LoRA: begins as the identity, is saved, loaded and merged without changing what the model computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crispedit.editmgt.lora import add_lora, merge_lora, save_lora
from crispedit.editmgt.settings import Lora
from crispedit.editmgt.transformer import Transformer
from editmgt.small_training import curve, examples, fresh, read_by_peft, settings, trainer


def base() -> Transformer:
    return fresh().eval().requires_grad_(False)


def logits(model: Transformer) -> torch.Tensor:
    batch = examples(0)
    with torch.no_grad():
        return model(batch.edited, batch.sequence, batch.pooled, batch.micro, torch.tensor([9.0, 99.0]), batch.source)


def adapted(lora: Lora) -> Transformer:
    model = add_lora(base(), lora)
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(generator=generator)
    return model.eval()


def test_it_begins_as_the_identity_and_alone_is_trainable():
    model = add_lora(base(), Lora(rank=2))
    assert torch.equal(logits(model.eval()), logits(base()))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert any("attn.to_out.0.lora_A" in name for name in trained)


def test_round_trip_and_merge(tmp_path: Path):
    model = adapted(Lora(rank=3, alpha=7))
    save_lora(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
    assert (logits(model) - logits(base())).abs().max() > 1e-2
    loaded = read_by_peft(base(), tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    merged = merge_lora(loaded)
    assert set(merged.state_dict()) == set(base().state_dict())
    assert torch.allclose(logits(merged), logits(model), atol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"lora.targets: no layer's name ends in 'to_x'"):
        add_lora(base(), Lora(targets=("to_q", "to_x")))


def test_training_leaves_the_base_alone(tmp_path: Path):
    made = trainer(settings(tmp_path, "lora={rank: 2}", "optimiser.rate=0.01", "steps=4"))
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    made.train()
    for name, value in made.model.state_dict().items():
        assert torch.equal(value, before[name]) == ("lora_" not in name), name
    assert len(curve(tmp_path)) == 4
