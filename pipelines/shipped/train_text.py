"""Train the text encoders of `editmgt-tiny`: on the instructions of shards.

    python -m crispedit.pipelines.shipped.train_text SHARDS... OUT

writes what a fresh `editmgt-tiny` reads instructions with: a byte-level BPE tokenizer, a small Gemma-2 that has learnt
to go on with an instruction (its hidden states are the sequence features), and a small CLIP text tower that has learnt
to say which tokens an instruction has (its projection is the pooled feature). Minutes on one core. Same shards and
library versions: the same weights.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispedit.editmgt.preset import byte_tokenizer, fresh_text, read_preset
from crispedit.editmgt.text import TextEncoder
from crispedit.shards.read import ShardReader

PRESET = "editmgt-tiny"


def instructions(shards: Sequence[str]) -> list[str]:
    """Every distinct instruction of these shards, sorted."""
    with ShardReader(shards, decode=False) as reader:
        return sorted({str(pair.meta["instruction"]) for pair in reader if pair.meta.get("instruction")})


def merges(texts: Sequence[str], count: int) -> list[tuple[str, str]]:
    """The byte-level BPE merges of these texts, most frequent first; after them a word in common use is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + count, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def read(tokenizer: Any, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """[N, L] ids, and which of them are no padding."""
    found = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    return found["input_ids"], found["attention_mask"].bool()


def train(
    encoder: TextEncoder, texts: Sequence[str], steps: int, batch: int, rate: float
) -> dict[str, float]:
    """Both encoders in place; the mean loss of the last tenth of the steps, in bits a token (and a token asked)."""
    ids_NL, real_NL = read(encoder.llm_tokenizer, texts, encoder.llm_tokens)
    vocabulary, width = encoder.llm.config.vocab_size, encoder.clip.config.projection_dim
    said_NV = torch.zeros(len(texts), vocabulary).scatter_(1, ids_NL, 1.0)
    ask = nn.Linear(width, vocabulary)
    modules = [encoder.clip.requires_grad_(True).train(), encoder.llm.requires_grad_(True).train(), ask]
    learned = [p for module in modules for p in module.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    last: list[tuple[float, float]] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (1 + math.cos(math.pi * step / steps)) / 2
        chosen = torch.randint(len(texts), (batch,), generator=generator)
        ids_BL, real_BL = ids_NL[chosen], real_NL[chosen]
        used = int(real_BL.sum(1).max())
        ids_BL, real_BL = ids_BL[:, :used], real_BL[:, :used]
        hidden = encoder.llm(input_ids=ids_BL).last_hidden_state
        logits = hidden[:, :-1] @ encoder.llm.get_input_embeddings().weight.T
        follows = F.cross_entropy(logits[real_BL[:, 1:]], ids_BL[:, 1:][real_BL[:, 1:]])
        pooled = encoder.clip(input_ids=ids_BL).text_embeds
        said = (
            F.binary_cross_entropy_with_logits(ask(pooled), said_NV[chosen], reduction="none").sum(1).mean()
        )
        loss = follows + 0.1 * said
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        if step >= steps * 9 // 10:
            last.append((follows.item(), said.item()))
        if step % 50 == 49:
            print(
                f"step {step + 1}/{steps}  next token {follows.item():.3f}  said {said.item():.3f}",
                flush=True,
            )
    encoder.clip.requires_grad_(False).eval()
    encoder.llm.requires_grad_(False).eval()
    encoder.forget()
    follows_mean, said_mean = (sum(column) / len(last) / math.log(2) for column in zip(*last, strict=True))
    return {"next_token_bits": follows_mean, "said_bits": said_mean}


def save(encoder: TextEncoder, folder: Path) -> None:
    """The three folders of a checkpoint that hold the text encoders."""
    encoder.clip.save_pretrained(folder / "text_encoder")
    encoder.clip_tokenizer.save_pretrained(folder / "tokenizer")
    encoder.llm.save_pretrained(folder / "llm_encoder")
    encoder.llm_tokenizer.save_pretrained(folder / "llm_encoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shards", nargs="+", help="shard sets")
    parser.add_argument("out", type=Path, help="a checkpoint's folder, or what shall become one")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=48, help="instructions a step")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    args = parser.parse_args()
    preset = read_preset(PRESET)
    texts = instructions(args.shards)
    torch.manual_seed(0)
    encoder = fresh_text(preset)
    learnt = merges(texts, int(preset["text_merges"]))
    encoder.llm_tokenizer = byte_tokenizer(encoder.llm_tokens, learnt)
    encoder.clip_tokenizer = byte_tokenizer(encoder.clip_tokens, learnt)
    facts = train(encoder, texts, args.steps, args.batch, args.rate)
    save(encoder, args.out)
    print(f"{len(texts)} instructions; bits: {facts}")


if __name__ == "__main__":
    main()
