"""Make `editmgt-tiny` from nothing: render pairs, train the image tokenizer, then transformer and text encoders.

    python -m crispedit.pipelines.shipped.train_tiny OUT --work FOLDER [--steps 4000] [--landscapes 3000]

OUT becomes a checkpoint's folder. FOLDER keeps what is needed to resume: the instructions, the tokenizer and a
savepoint. Landscapes are rendered by another process while the first ones are trained on, so two runs do not give the
same weights. Matrix products run in bf16: a CPU with AMX does ten times as many of them a second as in fp32.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from crispedit.editmgt.examples import Examples
from crispedit.editmgt.frame import mask_to_tokens
from crispedit.editmgt.masking import mask_tokens
from crispedit.editmgt.objective import MaskedBatch, default_capture, losses
from crispedit.editmgt.options import SamplingOptions
from crispedit.editmgt.pipeline import SCORE, EditMGTPipeline
from crispedit.editmgt.preset import build_transformer, byte_tokenizer, fresh_text, fresh_vq, read_preset
from crispedit.editmgt.settings import Objective
from crispedit.editmgt.text import TextEncoder, hidden_states, token_ids
from crispedit.editmgt.transformer import Transformer
from crispedit.editmgt.vq import VQ
from crispedit.pipelines.shipped.descent import Descent
from crispedit.pipelines.shipped.rendered import SHAPE, RenderedPair, Rendering, cropped, rendered, resized, stacked
from crispedit.pipelines.shipped.train_vq import Images, codebook, codes_of, measure, train_decoder, write_transform
from crispedit.shards import journal

PRESET = "editmgt-tiny"
SAMPLING = SamplingOptions(
    steps=24, guidance=2.0, reference_strength=1.0, hold=0.4, hold_peak=3.0, paste_untouched=True,
    temperature=(0.5, 0.0), token_temperature=0.1, speed="fast",
)  # fmt: skip
"""What a model this small samples best with. `fast` decides held tokens at the first step, because later steps
attend to the very subject that a new background should keep."""
OBJECTIVE = Objective(drop_text=0.1, edit_weight=3, localise=0.3)
KEPT = 0.34  # of the masked tokens that were not edited, the share that the loss is computed for; each counts 1 / KEPT
CODEBOOK_PAIRS = 1500
EMA = 0.9985


class Tokens(NamedTuple):
    """Pairs as tensors: M of them, of h x w tokens."""

    source: Tensor  # [M, h, w] int16
    edited: Tensor
    region: Tensor  # [M, h, w] bool
    clip_ids: Tensor
    llm_ids: Tensor


def crops(pairs: Sequence[RenderedPair], count: int, rng: np.random.Generator) -> list[RenderedPair]:
    """`count` crops of each pair, every second one mirrored."""
    made = (cropped(pair, rng, flip=bool(number % 2)) for number in range(count) for pair in pairs)
    return [pair for pair in made if pair is not None]


def tokenise(vq: VQ, text: TextEncoder, pairs: Sequence[RenderedPair]) -> Tokens:
    source, edited, masks = stacked(pairs)
    rows, columns = (side // vq.pixels for side in SHAPE)
    regions = np.stack([mask_to_tokens(mask, rows, columns) for mask in masks])
    clip_ids, llm_ids = ids_of(text, [pair.instruction for pair in pairs])
    before, after = (codes_of(images, vq.codebook).short() for images in (source, edited))
    return Tokens(before, after, torch.from_numpy(regions), clip_ids, llm_ids)


def ids_of(text: TextEncoder, instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The ids [M, L] for CLIP and for the language model."""
    clip_ids = token_ids(text.clip_tokenizer, list(instructions), text.clip_tokens)
    return clip_ids, token_ids(text.llm_tokenizer, list(instructions), text.llm_tokens)


def merges(texts: Sequence[str], count: int) -> list[tuple[str, str]]:
    """The byte-level BPE merges of these texts, most frequent first; after them a word in common use is a token."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=256 + count, min_frequency=0, show_progress=False)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def fresh_readers(texts: Sequence[str], preset: dict[str, Any]) -> TextEncoder:
    """Text encoders with fresh weights, and tokenizers whose merges are those of these texts."""
    encoder = fresh_text(preset)
    learnt = merges(sorted(set(texts)), int(preset["text_merges"]))
    encoder.llm_tokenizer = byte_tokenizer(encoder.llm_tokens, learnt)
    encoder.clip_tokenizer = byte_tokenizer(encoder.clip_tokens, learnt)
    return encoder


class Learner(nn.Module):
    """Transformer and text encoders as one function from ids to the loss: they are trained together."""

    def __init__(self, transformer: Transformer, text: TextEncoder) -> None:
        super().__init__()
        self.transformer, self.clip, self.llm = transformer, text.clip, text.llm
        self.empty = ids_of(text, [""])

    def read(self, clip_ids: Tensor, llm_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The sequence [B, L, C] and the pooled vector [B, P], as `TextEncoder` gives them."""
        return hidden_states(self.llm, llm_ids), self.clip(clip_ids).text_embeds

    def forward(self, batch: Tokens) -> dict[str, Tensor]:
        """The terms of the loss, each a mean: `all` (weighted), `localisation`; and to watch, `edited` and `rest`."""
        size, device = len(batch.source), batch.source.device
        source, edited, region = batch.source.long(), batch.edited.long(), batch.region
        dropped = torch.rand(size, device=device) < OBJECTIVE.drop_text
        clip_ids, llm_ids = (
            torch.where(dropped[:, None], empty.to(device), ids)
            for empty, ids in zip(self.empty, (batch.clip_ids, batch.llm_ids), strict=True)
        )
        sequence, pooled = self.read(clip_ids, llm_ids)
        time, order = torch.rand(size, device=device), torch.rand(size, edited[0].numel(), device=device)
        masked, timestep = mask_tokens(time, order)
        masked = masked.view_as(edited)
        inputs = torch.where(masked, self.transformer.config.mask_id, edited)
        micro = torch.tensor([SHAPE[1], SHAPE[0], 0.0, 0.0, SCORE], device=device).expand(size, -1)
        chosen = masked & (region | (torch.rand(region.shape, device=device) < KEPT))
        # A new style edits 300 tokens and a new colour 20. The root keeps styles from dominating the loss.
        share = region.flatten(1).float().mean(1).clamp(min=1 / region[0].numel())
        edited_weight = OBJECTIVE.edit_weight * share.rsqrt()[:, None, None]
        weight = torch.where(region, edited_weight, 1 / KEPT)[chosen]
        examples = Examples((), (), source, edited, region, sequence, pooled, micro)
        masked_batch = MaskedBatch(examples, inputs, timestep, chosen, weight, ~dropped)
        capture = default_capture(self.transformer.config, masked_batch)
        losses_M, localisation_B = losses(self.transformer, masked_batch, capture)
        inside = region[chosen]
        return {
            "all": (losses_M * weight).sum() / weight.sum(),
            "localisation": localisation_B.mean(),
            "edited": losses_M[inside].mean().detach(),
            "rest": losses_M[~inside].mean().detach(),
        }


def train(
    model: Learner,
    tokens: Tokens,
    saved: Path,
    steps: int,
    batch: int,
    rate: float,
    more: Callable[[], Tokens | None] = lambda: None,
) -> list[dict[str, float]]:
    """Train up to step `steps`, from the savepoint if there is one; then `model` has averaged weights.

    `more` is asked for further pairs once a minute. Returns what was measured, a row for every 50 steps.
    """
    device = tokens.source.device
    descent = Descent(model.parameters(), rate, steps, warmup=0.03 * steps, average=EMA)
    first, history = 0, []
    if saved.exists():
        state = torch.load(saved, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        descent.optimizer.load_state_dict(state["optimizer"])
        descent.averages, first = state["averages"], state["step"]
    model.train()
    order, place, asked = torch.randperm(len(tokens.source)), 0, time.monotonic()
    sums: dict[str, Tensor] = {}
    for step in range(first + 1, steps + 1):
        if time.monotonic() - asked > 60:
            if (fresh := more()) is not None:
                tokens, place = Tokens(*map(torch.cat, zip(tokens, fresh, strict=True))), len(order)
            asked = time.monotonic()
        if place + batch > len(order):
            order, place = torch.randperm(len(tokens.source)), 0
        chosen, place = order[place : place + batch].to(device), place + batch
        with torch.autocast(device.type, torch.bfloat16):
            terms = model(Tokens(*(column[chosen] for column in tokens)))
        descent.step(terms["all"] + OBJECTIVE.localise * terms["localisation"], step)
        sums = {name: sums.get(name, 0) + value.detach() for name, value in terms.items()}
        if step % 50 == 0:
            row = {name: float(value) / 50 for name, value in sums.items()}
            history.append({"step": step, "pairs": len(tokens.source), **row})
            print("  ".join(f"{name} {value:.4g}" for name, value in history[-1].items()), flush=True)
            sums = {}
        if step % 250 == 0 or step == steps:
            state = {"model": model.state_dict(), "optimizer": descent.optimizer.state_dict()}
            with journal.replaced(saved) as file:
                torch.save(state | {"averages": descent.averages, "step": step}, file)
    descent.finish()
    model.eval()
    return history


def fresh_transformer(preset: dict[str, Any], vq: VQ) -> Transformer:
    """Its transformer, which begins by copying."""
    transformer = build_transformer(preset)
    transformer.begin_by_copying(vq.codebook.cpu())
    return transformer


def tokenizer_of(preset: dict[str, Any], pairs: Sequence[RenderedPair], work: Path, steps: int) -> VQ:
    """The image tokenizer that `work` has, or one that is trained on these pairs."""
    vq = fresh_vq(preset)
    trained = work / "vq.pt"
    if not trained.exists():
        write_transform(vq.model)
        source, edited, mask = stacked(pairs)
        both = Images(np.concatenate([source, edited]), np.concatenate([mask, mask]))
        vq.codebook.copy_(codebook(both, vq.codebook_size))
        train_decoder(vq, both, steps)
        _, images, where = stacked([resized(pair, *SHAPE) for seed in range(24) for pair in rendered(seed)])
        print(f"on held-out images: {measure(vq, Images(images, where))}", flush=True)
        torch.save(vq.model.state_dict(), trained)
    vq.model.load_state_dict(torch.load(trained, weights_only=True))
    return vq


def main() -> None:
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    device, rng = torch.device(args.device), np.random.default_rng(0)
    preset = read_preset(PRESET)
    rendering = Rendering(range(args.first, args.first + args.landscapes), args.processes)
    pairs = rendering.take(CODEBOOK_PAIRS)
    texts = args.work / "texts.json"
    if not texts.exists():
        both = {pair.instruction for pair in crops(pairs, 2, rng)}
        texts.write_text(json.dumps(sorted(both)))
    text = fresh_readers(json.loads(texts.read_text()), preset)
    vq = tokenizer_of(preset, crops(pairs, 1, rng), args.work, args.vq_steps)
    transformer = fresh_transformer(preset, vq)
    print(f"{len(pairs)} pairs; {sum(p.numel() for p in transformer.parameters()) / 1e6:.1f} M parameters", flush=True)
    model = Learner(transformer, text).to(device)
    if not args.eager:
        transformer.compile_step(dynamic=False)

    def on_device(some: Sequence[RenderedPair]) -> Tokens:
        return Tokens(*(column.to(device) for column in tokenise(vq, text, crops(some, args.crops, rng))))

    def more() -> Tokens | None:
        fresh = rendering.take(0)
        return on_device(fresh) if fresh else None

    history = train(model, on_device(pairs), args.work / "savepoint.pt", args.steps, args.batch, args.rate, more)
    rendering.close()
    model.cpu()
    EditMGTPipeline(transformer.half(), vq, text, int(preset["resolution"]), SAMPLING).save_pretrained(args.out)
    (args.work / "history.json").write_text(json.dumps(history, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("out", type=Path)
    add("--work", type=Path, required=True, help="folder for what resuming needs")
    add("--first", type=int, default=1000, help="the first landscape's number; those below 100 are held out")
    add("--landscapes", type=int, default=3000, help="to render, up to seven pairs each")
    add("--processes", type=int, default=1, help="that render")
    add("--crops", type=int, default=2, help="of each pair, every second one mirrored")
    add("--vq-steps", type=int, default=1200, help="of training the image tokenizer's decoder")
    add("--steps", type=int, default=4000, help="of training transformer and text encoders")
    add("--batch", type=int, default=48)
    add("--rate", type=float, default=1.2e-3)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--eager", action="store_true", help="do not compile the transformer")
    return parser.parse_args()


if __name__ == "__main__":
    main()
