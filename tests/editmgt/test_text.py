"""Text features: the right hidden states and no more work than they need; words found where they are."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaModel

from crispedit.editmgt.preset import BOS, EOS, PAD, byte_tokenizer, fresh_text, read_preset
from crispedit.editmgt.text import TextEncoder, hidden_states

SMALL = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

TINY = read_preset("editmgt-tiny") | {"llm_tokens": 128}


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    torch.manual_seed(0)
    return fresh_text(TINY)


@pytest.mark.parametrize("kind", ["gemma2", "llama"])
def test_hidden_states_are_the_last_layers_input(kind):
    """With Gemma-2's LM head attached and its last layer broken: neither is run."""
    torch.manual_seed(0)
    if kind == "gemma2":
        llm = Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8)).eval()
        last = llm.model.layers[-1]
    else:
        llm = LlamaModel(LlamaConfig(**SMALL)).eval()
        last = llm.layers[-1]
    ids = torch.randint(0, 259, (2, 12))
    with torch.inference_mode():
        expected = llm(ids, output_hidden_states=True).hidden_states[-2]
        ran = []
        last.self_attn.register_forward_pre_hook(lambda *_: ran.append("layer"))
        assert torch.equal(hidden_states(llm, ids), expected)
    assert not ran


def test_features(text):
    out = text.encode(["make it red", "remove the dog", "make it red"])
    assert out.sequence.shape == (3, 128, 128)
    assert out.pooled.shape == (3, 128)
    assert torch.equal(out.sequence[0], out.sequence[2])
    assert not torch.equal(out.pooled[0], out.pooled[1])


def test_features_are_padded_without_a_mask_and_truncated(text):
    """As released: pads are read like any token, so that the features of the prompt's own tokens ignore them."""
    prompt = "x" * 500
    out = text.encode([prompt])
    assert (text.rows(prompt, padding=False) > 0).all()
    assert out.sequence.shape == (1, 128, 128)
    ids = text.llm_tokenizer("ab", padding="max_length", max_length=128)["input_ids"]
    assert ids == [BOS, 97 - 33, 98 - 33, EOS] + [PAD] * 124


def test_features_of_the_last_prompts_are_cached():
    clip, passes = fresh_text(TINY).clip, []
    clip.register_forward_hook(lambda *_: passes.append(1))
    encoder = TextEncoder(byte_tokenizer(77), clip, remember=2)
    first = encoder.encode(["a", "b", "c", "b"])
    assert len(passes) == 3
    assert torch.equal(encoder.encode(["c", "a"]).pooled[1:], first.pooled[:1])
    assert len(passes) == 4, "only the oldest, a, was computed again"
    encoder.forget()
    encoder.encode(["a"])
    assert len(passes) == 5


def test_meissonic_reads_clip_alone():
    clip = fresh_text(TINY).clip
    out = TextEncoder(byte_tokenizer(77), clip).encode(["a red dog"])
    assert out.sequence.shape == (1, 77, 128)
    assert out.pooled.shape == (1, 128)


def test_rows(text):
    prompt = "Make the cat a category of cats"
    everything = text.rows(prompt)
    assert torch.allclose(everything, torch.full((128,), 1 / 128))
    real = text.rows(prompt, padding=False)
    assert (real > 0).tolist() == [True] * (len(prompt) + 2) + [False] * (126 - len(prompt))
    assert real.sum().item() == pytest.approx(1)
    cat = text.rows(prompt, ["CAT"])
    start = 1 + prompt.index("cat")  # one token per byte, after the begin token
    assert cat.nonzero().flatten().tolist() == [start, start + 1, start + 2]
    both = text.rows(prompt, ["cat", "cats"])
    assert (both > 0).sum() == 7


def test_rows_of_a_tokenizer_that_pads_left():
    """Released: positions are found in CLIP's tokens and used on Gemma's rows, which pads left: they are pads."""
    encoder = fresh_text(TINY)
    encoder.llm_tokenizer.padding_side = "left"
    rows = encoder.rows("add a hat", ["hat"])
    assert rows.nonzero().flatten().tolist() == [124, 125, 126]


def test_a_word_that_is_not_there_is_an_error(text):
    """Released: no match gives NaN scores and silently no hold."""
    with pytest.raises(ValueError, match="'dog' is not in the prompt"):
        text.rows("remove the hotdogs", ["dog"])
    with pytest.raises(ValueError, match="not within the first 128 tokens"):
        text.rows("x" * 200 + " dog", ["dog"])
