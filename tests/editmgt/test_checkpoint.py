"""Checkpoints: what is written is read back, whole or sharded; what does not fit is named."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from crispedit.editmgt.checkpoint import INDEX, WEIGHTS, load_transformer, save_transformer, with_connector
from crispedit.editmgt.transformer import Transformer, TransformerConfig

SMALL = TransformerConfig(
    num_layers=1,
    num_single_layers=1,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=28,
    pooled_projection_dim=12,
    axes_dims_rope=(4, 6, 6),
    vocab_size=40,
    codebook_size=32,
)


def fresh(**changes) -> Transformer:
    model = Transformer(SMALL.model_copy(update=changes))
    model.initialize(torch.Generator().manual_seed(1))
    return model


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("connector", ["none", "linear", "mlp", "fmlp", "qformer"])
def test_round_trip(tmp_path, connector):
    model = fresh(connector_type=connector, attention_head_dim=32, axes_dims_rope=(8, 12, 12))
    save_transformer(model, tmp_path)
    again = load_transformer(tmp_path)
    assert same(model, again)
    assert again.config.connector_type == connector
    assert again.config.downsample


def test_shards(tmp_path):
    model = fresh()
    save_transformer(model, tmp_path, max_shard_size="40KB")
    index = json.loads((tmp_path / INDEX).read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert same(model, load_transformer(tmp_path))
    save_transformer(model, tmp_path)  # whole again, and no stale shard
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", WEIGHTS]
    half = load_transformer(tmp_path, dtype=torch.bfloat16)
    assert half.context_embedder.weight.dtype == torch.bfloat16


def test_reads_a_released_folder(tmp_path, golden, manifest):
    """The reference's own configuration and weights: its keys, its silence about the connector's width."""
    (tmp_path / "config.json").write_text(json.dumps(manifest["configs"]["tiny_down"]))
    save_file(golden("weights_down"), tmp_path / WEIGHTS)
    model = load_transformer(tmp_path)
    assert model.config.joint_attention_dim == 48
    assert model.config.dim == 64
    assert not any(p.requires_grad for p in model.parameters())


def test_what_does_not_fit_is_named(tmp_path):
    save_transformer(fresh(), tmp_path)
    weights = load_file(tmp_path / WEIGHTS)

    def damaged(change, match):
        state = dict(weights)
        change(state)
        save_file(state, tmp_path / WEIGHTS)
        with pytest.raises(ValueError, match=match):
            load_transformer(tmp_path)

    damaged(lambda s: s.pop("mlm_layer.conv2.weight"), r"mlm_layer\.conv2\.weight is missing")
    damaged(lambda s: s.update(extra=torch.zeros(1)), "extra is not part of the model")
    damaged(
        lambda s: s.update({"context_embedder.bias": torch.zeros(3)}),
        r"context_embedder\.bias has shape \(3,\), expected \(32,\)",
    )
    damaged(
        lambda s: s["mlm_layer.conv2.weight"].view(-1)[3].fill_(torch.nan),
        r"mlm_layer\.conv2\.weight holds numbers that are not finite",
    )
    (tmp_path / WEIGHTS).write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match=f"{WEIGHTS} cannot be read"):
        load_transformer(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    (tmp_path / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(ValueError, match="must be safetensors"):
        load_transformer(tmp_path)


def test_an_index_cannot_point_elsewhere(tmp_path):
    save_transformer(fresh(), tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"x": f"../{WEIGHTS}"}}))
    with pytest.raises(ValueError, match="not a file beside it"):
        load_transformer(tmp_path)


def test_a_model_without_a_connector_is_given_one():
    old = fresh(connector_type="none", joint_attention_dim=32)
    new = with_connector(old, "linear", text_dim=20)
    assert new.config.joint_attention_dim == 20
    assert new.connector.projector.weight.shape == (32, 20)
    assert new.connector.projector.weight.std() > 0
    added = {"connector.projector.weight", "connector.projector.bias"}
    assert set(new.state_dict()) - set(old.state_dict()) == added
    assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())
    with pytest.raises(ValueError, match="has a connector already"):
        with_connector(new, "linear", text_dim=20)
    with pytest.raises(ValueError, match="reads text 28 wide, and a connector gives 32"):
        with_connector(fresh(connector_type="none"), "linear", text_dim=20)


def released_context(folder, text):
    """The text's way into the model, by the released layout alone: what its configuration says decides what is built.

    With "CLIP_Gemma2" a linear connector leads from `joint_attention_dim` to heads x head dim, and the context embedder
    is square; with "CLIP" there is no connector, and the context embedder reads `joint_attention_dim`.
    """
    config, state = json.loads((folder / "config.json").read_text()), load_file(folder / WEIGHTS)
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    width = config["joint_attention_dim"]
    if config["text_encoder_architecture"] == "CLIP_Gemma2":
        connector = torch.nn.Linear(width, dim)
        connector.weight.data, connector.bias.data = (
            state[f"connector.projector.{name}"] for name in ("weight", "bias")
        )
        text, width = connector(text), dim
    embedder = torch.nn.Linear(width, dim)
    embedder.load_state_dict({name: state[f"context_embedder.{name}"] for name in ("weight", "bias")})
    return torch.nn.functional.rms_norm(embedder(text), (dim,), state.get("encoder_proj_layer_norm.weight"), 1e-6)


@pytest.mark.parametrize(("connector", "width"), [("linear", 28), ("linear", 32), ("none", 28)])
def test_the_released_layout_reads_what_we_write(tmp_path, connector, width):
    """Also where the text is as wide as the model: the configuration says that there is a connector."""
    model = fresh(connector_type=connector, joint_attention_dim=width)
    save_transformer(model, tmp_path)
    text = torch.randn(1, 5, width)
    ours = model.context_embedder(text if model.connector is None else model.connector(text, torch.zeros(1)))
    ours = model.encoder_proj_layer_norm(ours)
    with torch.inference_mode():
        assert torch.allclose(released_context(tmp_path, text), ours, atol=1e-6)
    assert load_transformer(tmp_path).config == model.config
