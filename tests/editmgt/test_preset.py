"""The presets have the sizes that they claim."""

from __future__ import annotations

import torch
from diffusers import VQModel

from crispedit.editmgt.preset import build, byte_tokenizer, read_preset
from crispedit.editmgt.transformer import Transformer, TransformerConfig


def test_the_large_preset_has_the_released_dimensions():
    preset = read_preset("editmgt-1b")
    with torch.device("meta"):
        model = Transformer(TransformerConfig(**preset["transformer"]))
        vq = VQModel(**preset["vqvae"])
    connector = sum(p.numel() for name, p in model.named_parameters() if name.startswith("connector."))
    assert connector == 2_360_320
    assert sum(p.numel() for p in model.parameters()) - connector == 1_006_946_304
    assert vq.config.num_vq_embeddings == preset["transformer"]["codebook_size"]
    assert len(vq.config.block_out_channels) == 5


def test_the_tiny_preset_is_tiny_and_reproducible():
    before = torch.random.get_rng_state()
    one, two, other = build("editmgt-tiny", 1), build("editmgt-tiny", 1), build("editmgt-tiny", 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    for part in ("transformer", "vq.model", "text.clip", "text.llm"):
        weights = []
        for pipeline in (one, two, other):
            for name in part.split("."):
                pipeline = getattr(pipeline, name)
            weights.append(torch.cat([p.flatten() for p in pipeline.parameters()]))
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])
    assert 4e6 < sum(p.numel() for p in one.transformer.parameters()) < 8e6


def test_a_fresh_model_predicts_before_it_is_trained():
    """Modulations start at 0, so that blocks are the identity, yet every parameter but those behind a gate learns."""
    model = build("editmgt-tiny").transformer.requires_grad_(True)
    tokens = torch.randint(0, 1024, (1, 4, 4))
    logits = model(
        tokens, torch.randn(1, 8, 128), torch.randn(1, 128), torch.ones(1, 5), torch.ones(1), tokens
    )
    assert logits.shape == (1, 4, 4, 1024)
    logits.logsumexp(-1).sum().backward()
    assert model.embed.embeddings.weight.grad.abs().sum() > 0
    assert model.transformer_blocks[0].norm1.linear.weight.grad.abs().sum() > 0


def test_bytes_round_trip():
    tokenizer = byte_tokenizer(77)
    prompt = "Ersetze den Hund 🐕 durch 猫."
    ids = tokenizer(prompt)["input_ids"]
    assert len(ids) == len(prompt.encode()) + 2
    assert tokenizer.decode(ids, skip_special_tokens=True) == prompt
