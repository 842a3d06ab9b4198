"""The tiny preset's text encoders: a tokenizer of the words in use, encoders that learn them, a folder that loads."""

from __future__ import annotations

import json

import pytest
import torch

from crispedit.editmgt.pipeline import load_text
from crispedit.editmgt.preset import byte_tokenizer, fresh_text, read_preset
from crispedit.pipelines.shipped.train_text import merges, save, train

TEXTS = [
    f"{verb} the {colour} {thing} {where}"
    for verb in ("remove", "enlarge")
    for colour in ("red", "blue", "green")
    for thing in ("ball", "kite", "barrel")
    for where in ("on the left", "on the right")
]


def test_a_word_in_use_is_a_token_and_any_text_can_be_read():
    tokenizer = byte_tokenizer(32, merges(TEXTS, 60))
    known = tokenizer("remove the blue kite")["input_ids"]
    assert len(known) < 10
    assert len(byte_tokenizer(32)("remove the blue kite")["input_ids"]) == 22
    odd = "Ersetze 🐕"
    assert tokenizer.decode(tokenizer(odd)["input_ids"], skip_special_tokens=True) == odd


def test_encoders_learn_and_load_as_they_were_saved(tmp_path):
    preset = {key: value for key, value in read_preset("editmgt-tiny").items() if key != "encoders"}
    torch.manual_seed(0)
    encoder = fresh_text(preset | {"text_merges": 60})
    learnt = merges(TEXTS, 60)
    encoder.llm_tokenizer = byte_tokenizer(encoder.llm_tokens, learnt)
    encoder.clip_tokenizer = byte_tokenizer(encoder.clip_tokens, learnt)
    early = train(encoder, TEXTS, 1, 16, 2e-3)
    late = train(encoder, TEXTS, 40, 16, 2e-3)
    assert late["next_token_bits"] < early["next_token_bits"] - 1
    assert late["said_bits"] < early["said_bits"] / 2
    features = encoder.encode(TEXTS[:2])
    assert not torch.allclose(features.pooled[0], features.pooled[1])
    save(encoder, tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"llm_tokens": encoder.llm_tokens}))
    loaded = load_text(tmp_path).encode(TEXTS[:2])
    assert torch.equal(loaded.sequence, features.sequence)
    assert torch.equal(loaded.pooled, features.pooled)


def test_a_folder_without_encoders_is_refused(tmp_path):
    with pytest.raises(ValueError, match="text_encoder"):
        load_text(tmp_path)
