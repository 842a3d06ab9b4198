"""The presets have the sizes that they claim."""

from __future__ import annotations

import pytest
import torch
import yaml
from diffusers import VQModel

from crispedit.editmgt.preset import build, build_transformer, byte_tokenizer, read_preset
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


def weights(pipeline, part):
    for name in part.split("."):
        pipeline = getattr(pipeline, name)
    return torch.cat([p.flatten() for p in pipeline.parameters()])


def test_the_tiny_preset_is_tiny_and_reproducible():
    """The seed makes the transformer; what reads images and instructions ships trained."""
    before = torch.random.get_rng_state()
    one, two, other = build("editmgt-tiny", 1), build("editmgt-tiny", 1), build("editmgt-tiny", 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    for part in ("transformer", "vq.model", "text.clip", "text.llm"):
        assert torch.equal(weights(one, part), weights(two, part))
        assert torch.equal(weights(one, part), weights(other, part)) == (part != "transformer")
    assert 6e6 < sum(p.numel() for p in one.transformer.parameters()) < 9e6


def test_without_shipped_encoders_they_start_fresh(tmp_path):
    preset = {key: value for key, value in read_preset("editmgt-tiny").items() if key != "encoders"}
    path = tmp_path / "fresh.yaml"
    path.write_text(yaml.safe_dump(preset))
    one, other = build(path, 1), build(path, 2)
    for part in ("transformer", "vq.model", "text.clip", "text.llm"):
        assert not torch.equal(weights(one, part), weights(other, part))


def test_tokens_that_look_alike_begin_alike():
    pipeline = build("editmgt-tiny")
    codes, rows = pipeline.vq.codebook, pipeline.transformer.mlm_layer.conv2.weight.flatten(1)
    quarter = pipeline.transformer.config.dim // 4  # which a token has to itself in a window of four
    rows = rows[:, :quarter]
    embedded = pipeline.transformer.embed.embeddings.weight[: len(rows), :quarter]
    torch.testing.assert_close(rows / rows.norm(dim=1, keepdim=True), embedded / embedded.norm(dim=1, keepdim=True))
    order = torch.cdist(codes, codes).argsort(1)
    likeness = torch.nn.functional.cosine_similarity
    near, far = likeness(rows, rows[order[:, 1]]), likeness(rows, rows[order[:, 512]])
    assert near.mean() > 0.3
    assert far.mean().abs() < 0.15


@torch.no_grad()
def test_a_fresh_model_answers_with_the_reference():
    """It has only edits to learn. What it is told and what is known of the image do not matter yet."""
    model = build("editmgt-tiny").transformer
    generator = torch.Generator().manual_seed(0)
    reference = torch.randint(0, 1024, (2, 14, 20), generator=generator)
    masked = torch.full_like(reference, model.config.mask_id)
    text, pooled = torch.randn(2, 8, 128, generator=generator), torch.randn(2, 128, generator=generator)
    micro, time = torch.tensor([[160.0, 112.0, 0.0, 0.0, 6.0]] * 2), torch.full((2,), 1000.0)
    answer = model(masked, text, pooled, micro, time, reference).argmax(-1)
    assert (answer == reference).float().mean() > 0.7
    assert (answer == reference.flip(0)).float().mean() < 0.01


def test_what_cannot_begin_by_copying_says_so():
    preset = read_preset("editmgt-tiny")
    preset["transformer"] |= {"num_layers": 0}
    with pytest.raises(ValueError, match="only a model with double blocks"):
        build_transformer(preset).begin_by_copying(torch.zeros(1024, 8))


def test_every_block_of_a_fresh_model_learns():
    model = build("editmgt-tiny").transformer.requires_grad_(True)
    tokens = torch.randint(0, 2048, (1, 4, 4))
    logits = model(tokens, torch.randn(1, 8, 128), torch.randn(1, 128), torch.ones(1, 5), torch.ones(1), tokens)
    assert logits.shape == (1, 4, 4, 2048)
    logits.logsumexp(-1).sum().backward()
    assert model.embed.embeddings.weight.grad.abs().sum() > 0
    for block in (*model.transformer_blocks, *model.single_transformer_blocks):
        assert block.attn.to_v.weight.grad.abs().sum() > 0
    assert model.connector.projector.weight.grad.abs().sum() > 0


def test_bytes_round_trip():
    tokenizer = byte_tokenizer(77)
    prompt = "Ersetze den Hund 🐕 durch 猫."
    ids = tokenizer(prompt)["input_ids"]
    assert len(ids) == len(prompt.encode()) + 2
    assert tokenizer.decode(ids, skip_special_tokens=True) == prompt
