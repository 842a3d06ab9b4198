"""The text encoders: CLIP's pooled vector, and a language model's next-to-last hidden states.

As released: CLIP reads 77 tokens and gives `text_embeds`; Gemma-2 reads 256, padded to that length without an attention
mask, and gives `hidden_states[-2]`, the input of its last layer. That layer, the final norm and the LM head do not run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LLM_TOKENS = 256
PADDED: dict[str, Any] = {"padding": "max_length", "truncation": True}


@dataclass(frozen=True)
class TextFeatures:
    sequence: Tensor  # [B, L, text_dim]
    pooled: Tensor  # [B, pooled]

    def to(self, device: torch.device) -> TextFeatures:
        return TextFeatures(self.sequence.to(device), self.pooled.to(device))


@dataclass(eq=False, repr=False)
class TextEncoder:
    """Both text encoders and their tokenizers. Without a language model (Meissonic), CLIP gives the sequence too."""

    clip_tokenizer: Any
    clip: Any  # a `CLIPTextModelWithProjection`
    llm_tokenizer: Any = None
    llm: Any = None  # any decoder of transformers with a list of layers, with or without its head
    llm_tokens: int = LLM_TOKENS
    remember: int = 64  # prompts whose features are cached

    def __post_init__(self) -> None:
        for model in (self.clip, self.llm):
            if model is not None:
                model.eval().requires_grad_(False)
        self._cached: dict[str, tuple[Tensor, Tensor]] = {}

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """Features of the prompts, in order.

        Each distinct prompt is encoded once and alone, so that its features do not depend on a batch.
        """
        features = []
        for prompt in prompts:
            features.append(self._cached.pop(prompt) if prompt in self._cached else self._encode_one(prompt))
            self._cached[prompt] = features[-1]  # in order of last use
            if len(self._cached) > self.remember:
                del self._cached[next(iter(self._cached))]
        return TextFeatures(*(torch.cat(parts) for parts in zip(*features, strict=True)))

    def forget(self) -> None:
        """Clear the cache; needed after the encoders moved or changed."""
        self._cached.clear()

    @torch.inference_mode()
    def _encode_one(self, prompt: str) -> tuple[Tensor, Tensor]:
        ids = token_ids(self.clip_tokenizer, prompt, self.clip_tokens).to(self.clip.device)
        if self.llm is None:
            out = self.clip(ids, output_hidden_states=True)
            return out.hidden_states[-2], out.text_embeds
        pooled = self.clip(ids).text_embeds
        ids = token_ids(self.llm_tokenizer, prompt, self.llm_tokens).to(self.llm.device)
        return hidden_states(self.llm, ids), pooled

    @property
    def clip_tokens(self) -> int:
        return int(self.clip.config.max_position_embeddings)

    def rows(self, prompt: str, words: Sequence[str] | None = None, padding: bool = True) -> Tensor:
        """[L] weight of each text token in the localisation; they add up to 1.

        words: weigh only the tokens of these words. padding: without `words`, weigh padding like text, as released.
        ValueError if a word is not in the prompt.
        """
        tokenizer, length = self.llm_tokenizer, self.llm_tokens
        if self.llm is None:
            tokenizer, length = self.clip_tokenizer, self.clip_tokens
        encoded = tokenizer(prompt, **PADDED, max_length=length, return_offsets_mapping=True)
        weights = torch.ones(length)
        if words:
            weights.zero_()
            weights[_positions(prompt, words, encoded["offset_mapping"])] = 1.0
        elif not padding:
            weights = torch.tensor(encoded["attention_mask"], dtype=torch.float32)
            if not weights.any():
                raise ValueError(f"the prompt {prompt!r} has no tokens but padding")
        return weights / weights.sum()


def token_ids(tokenizer: Any, prompts: str | list[str], length: int) -> Tensor:
    """[B, length] the tokens of the prompts, padded or cut."""
    return tokenizer(prompts, **PADDED, max_length=length, return_tensors="pt")["input_ids"]


def _positions(prompt: str, words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The tokens of these words, at each occurrence. Case is ignored; "cat" does not match "category"."""
    positions: set[int] = set()
    for word in words:
        spans = [m.span() for m in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE)]
        if not word.strip() or not spans:
            raise ValueError(f"the word {word!r} is not in the prompt {prompt!r}")
        touched = {i for i, (a, b) in enumerate(offsets) for start, stop in spans if a < stop and start < b}
        if not touched:
            raise ValueError(
                f"the word {word!r} is not within the first {len(offsets)} tokens of the prompt; the rest is not read"
            )
        positions |= touched
    return sorted(positions)


class _ReachedError(Exception):
    """Carries the last layer's input out of a forward pass that stops there."""


def hidden_states(llm: Any, input_ids: Tensor) -> Tensor:
    """`hidden_states[-2]` of any decoder: the input of its last layer, [B, L, width]. Nothing after it is computed."""
    decoder = llm.get_decoder() if hasattr(llm, "get_decoder") else llm
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        raise ValueError(f"{type(llm).__name__} has no list of layers; give a decoder such as Gemma-2")

    def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _ReachedError(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])

    handle = layers[-1].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        decoder(input_ids=input_ids, use_cache=False)
    except _ReachedError as reached:
        return reached.args[0]
    finally:
        handle.remove()
    raise AssertionError("the decoder did not run its last layer")
