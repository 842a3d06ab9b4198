"""Train the small CLIP that ships: on pairs that the compositor makes of rendered landscapes, and their captions.

    python -m crispedit.pipelines.shipped.train_clip WORK --chunks 0 1 2 3 4 --steps 600

renders the pairs into WORK (resumable: a chunk that is there is kept), trains, measures retrieval on pairs of held-out
landscapes, and writes weights, configuration and card to WORK/clip; copy that folder to `crispedit/weights/clip` to
ship it. No photograph is used, so the weights are free of anybody's licence. Same arguments and library versions: the
same weights.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file

from crispedit import torchvision_ops
from crispedit.annotators.compositor import CompositorAnnotator
from crispedit.compositor.landscape import landscape
from crispedit.editors.compositor import CompositorEditor
from crispedit.images import encode_jpeg
from crispedit.pipelines.shipped.train_vq import rate_at
from crispedit.record import Edit, Job, Sample, seed_of, source_key

torchvision_ops.declare()

import open_clip  # noqa: E402  (imports torchvision: see crispedit.torchvision_ops)

SIZE = 112
RENDERED = (256, 192)
"""Width and height of the landscapes in pixels; pairs are squashed to SIZE, as `filters.clip` does."""
CHUNK = 20
"""Landscapes a file."""
HELD_OUT = 5
"""Chunks whose number this divides are not trained on."""
CATEGORIES = ("add", "remove", "replace", "color", "background", "style", "motion")
CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {"context_length": 48, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 2},
}
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic", "resize_mode": "squash"}


@dataclass(frozen=True)
class Pairs:
    """P pairs: images [P, 2, SIZE, SIZE, 3] (source, edited) and captions [P][2]."""

    images: NDArray[np.uint8]
    captions: list[tuple[str, str]]


def render(seed: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], Job]]:
    """One landscape's pairs: source and edited [SIZE, SIZE, 3], and the job."""
    jpeg = encode_jpeg(landscape(seed, *RENDERED))
    sample = Sample(key=source_key(jpeg), source_jpeg=jpeg)
    for job in CompositorAnnotator().annotate([sample], [CATEGORIES])[0]:
        if not isinstance(job, Job):
            continue
        edit = CompositorEditor().edit([sample.source], [job], [seed_of(job.key)])[0]
        if isinstance(edit, Edit):
            source = sample.source if edit.source is None else edit.source
            small = [cv2.resize(side, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for side in (source, edit.edited)]
            yield np.asarray(small[0], np.uint8), np.asarray(small[1], np.uint8), job


def render_chunk(path: Path, index: int) -> None:
    pairs = [pair for seed in range(index * CHUNK, (index + 1) * CHUNK) for pair in render(seed)]
    images = np.stack([np.stack([source, edited]) for source, edited, _ in pairs])
    captions = [[job.source_caption, job.target_caption] for _, _, job in pairs]
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, images=images, captions=np.array(captions))
    part.rename(path)


def load(paths: list[Path]) -> Pairs:
    images, captions = [], []
    for path in paths:
        with np.load(path) as chunk:
            images.append(chunk["images"])
            captions += [(str(before), str(after)) for before, after in chunk["captions"]]
    return Pairs(np.concatenate(images), captions)


def to_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """[N, 3, SIZE, SIZE], normalised, of [N, SIZE, SIZE, 3]."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - PREPROCESS["mean"][0]) / PREPROCESS["std"][0]  # type: ignore[operator]


def shifted(images: torch.Tensor, rng: np.random.Generator, by: int = 6) -> torch.Tensor:
    """The images, each moved by a few pixels; never mirrored, because captions say left and right."""
    padded = F.pad(images, (by, by, by, by), mode="replicate")
    corners = rng.integers(0, 2 * by + 1, (len(images), 2))
    return torch.stack([padded[i, :, y : y + SIZE, x : x + SIZE] for i, (y, x) in enumerate(corners)])


def contrast(a_ND: torch.Tensor, b_ND: torch.Tensor, same_NN: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric loss; equal captions all count as right."""
    logits = scale * a_ND @ b_ND.T
    target = same_NN / same_NN.sum(1, keepdim=True)
    rows = -(target * logits.log_softmax(1)).sum(1).mean()
    columns = -(target * logits.T.log_softmax(1)).sum(1).mean()
    return (rows + columns) / 2


def equal(captions: list[str]) -> torch.Tensor:
    """[N, N], 1 where two captions are the same."""
    numbers = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    ids = torch.tensor([numbers[caption] for caption in captions])
    return (ids[:, None] == ids[None]).float()


def train(pairs: Pairs, steps: int, batch: int, rate: float) -> Any:
    """The model after `steps` steps of `batch` pairs: contrast over all 2 x batch images and captions, so that the
    other side of its pair is an image's hardest negative, and contrast of the pairs' differences (CLIP-dir)."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = open_clip.model.CLIP(**CONFIG)
    model.visual.to(memory_format=torch.channels_last)
    tokenize = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])
    tokens = tokenize([caption for both in pairs.captions for caption in both]).reshape(len(pairs.captions), 2, -1)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    began, average = time.monotonic(), None
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(rate, step + 1, steps, warmup=40)
        chosen = rng.choice(len(pairs.captions), batch, replace=False)
        images = shifted(to_tensor(pairs.images[chosen].reshape(-1, SIZE, SIZE, 3)), rng)
        images = images.contiguous(memory_format=torch.channels_last)
        images_ND = model.encode_image(images, normalize=True)
        texts_ND = model.encode_text(tokens[chosen].reshape(2 * batch, -1), normalize=True)
        said = [pairs.captions[i] for i in chosen]
        scale = model.logit_scale.exp()
        loss = contrast(images_ND, texts_ND, equal([caption for both in said for caption in both]), scale)
        moved = [F.normalize(x[1::2] - x[::2], dim=-1, eps=1e-4) for x in (images_ND, texts_ND)]
        loss = loss + 0.5 * contrast(moved[0], moved[1], equal([f"{a}|{b}" for a, b in said]), scale.clamp(max=20))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        average = loss.item() if average is None else 0.95 * average + 0.05 * loss.item()
        if step % 20 == 19:
            print(f"step {step + 1}/{steps}  loss {average:.3f}  {time.monotonic() - began:.0f} s", flush=True)
    seen = torch.zeros(CONFIG["text_cfg"]["vocab_size"], dtype=torch.bool)
    seen[tokens.unique()] = True
    with torch.no_grad():  # an unseen word contributes nothing instead of noise
        model.token_embedding.weight[~seen] = 0
    return model.eval()


@torch.inference_mode()
def measure(model: Any, pairs: Pairs, among: int = 64) -> dict[str, float]:
    """On held-out pairs: how often the right caption is first (and in the first five) among `among` different ones,
    how often an image prefers its own caption to its pair's other one, and how often an edit's direction fits its
    own captions better than another edit's."""
    tokenize = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])
    pixels = pairs.images.reshape(-1, SIZE, SIZE, 3)
    parts = [model.encode_image(to_tensor(pixels[i : i + 64]), normalize=True) for i in range(0, len(pixels), 64)]
    images = torch.cat(parts).reshape(len(pairs.images), 2, -1)
    flat = [caption for both in pairs.captions for caption in both]
    parts = [model.encode_text(tokenize(flat[i : i + 64]), normalize=True) for i in range(0, len(flat), 64)]
    texts = torch.cat(parts).reshape(len(pairs.captions), 2, -1)
    first: dict[str, int] = {}
    for index, (_, target) in enumerate(pairs.captions):
        first.setdefault(target, index)
    unique = list(first.values())
    top1 = top5 = total = 0
    for start in range(0, len(unique) - among + 1, among):
        group = unique[start : start + among]
        ranks = (images[group, 1] @ texts[group, 1].T).argsort(1, descending=True)
        hits = ranks == torch.arange(among)[:, None]
        top1, top5, total = top1 + int(hits[:, 0].sum()), top5 + int(hits[:, :5].sum()), total + among
    differ = torch.tensor([before != after for before, after in pairs.captions])
    cosines = torch.einsum("pid,pjd->pij", images, texts)[differ]
    prefer = torch.stack([cosines[:, 0, 0] > cosines[:, 0, 1], cosines[:, 1, 1] > cosines[:, 1, 0]]).float().mean()
    moved = [F.normalize(x[:, 1] - x[:, 0], dim=-1)[differ] for x in (images, texts)]
    own = (moved[0] * moved[1]).sum(1)
    other = (moved[0] * moved[1].roll(1, 0)).sum(1)
    return {
        "pairs": len(pairs.captions),
        "top1": top1 / max(1, total),
        "top5": top5 / max(1, total),
        "prefers_own_caption": float(prefer),
        "direction_beats_another": float((own > other).float().mean()),
        "mean_direction": float(own.mean()),
        "mean_direction_of_another": float(other.mean()),
    }


CARD = """# The small CLIP that ships with CrispEdit

An open_clip model of {parameters:.1f} million parameters (a ResNet of width 16 at {size} px, a text transformer of
width 48), trained from scratch by `python -m crispedit.pipelines.shipped.train_clip` and stored in fp16. It exists so
that the `clip` filter and everything around it runs anywhere, offline, in seconds. **It
is no substitute for published CLIP weights.**

## Data
{train_pairs} pairs of {train_photos} landscapes that the compositor rendered, edited and captioned in all seven
categories; {steps} steps of {batch} pairs, AdamW at {rate:g}. No photograph was used, so nobody's licence binds the
weights.

## Measured on {pairs} pairs of landscapes it was not trained on
| | this model | chance |
|---|---|---|
| the right caption first, of 64 different ones | {top1:.1%} | 1.6 % |
| the right caption in the first five of 64 | {top5:.1%} | 7.8 % |
| an image prefers its own caption to its pair's other one | {prefers_own_caption:.1%} | 50 % |
| an edit's direction fits its own captions better than another edit's | {direction_beats_another:.1%} | 50 % |

The mean cosine of direction is {mean_direction:.3f} with the edit's own captions, {mean_direction_of_another:.3f} with
another's.

## Limits
- It knows what the compositor makes: its objects, colors, places, styles and ways of saying so. A word that it never
  read has a zero embedding, and says nothing.
- On real photographs it tells colors and some of the compositor's additions; it recognises nothing else.
- Its cosines lie elsewhere than OpenAI's, so published bounds (0.2, 0.7) do not apply to it.
- It must not be used to curate a dataset for publication: set `clip: {{model: ViT-L-14, pretrained: openai}}`.
"""


def write(folder: Path, model: Any, facts: dict[str, Any]) -> None:
    """The model in open_clip's `local-dir` layout, with its card and the measurements."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_file({name: value.contiguous() for name, value in half.items()}, folder / "open_clip_model.safetensors")
    layout = {"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(layout, indent=2) + "\n")
    (folder / "measured.json").write_text(json.dumps(facts, indent=2) + "\n")
    (folder / "README.md").write_text(CARD.format(**facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("work", type=Path, help="folder for the rendered pairs and the result")
    parser.add_argument("--chunks", type=int, nargs="+", default=range(30), help=f"which {CHUNK} landscapes each")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=20, help="pairs a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    paths = {index: args.work / f"pairs-{index:04d}.npz" for index in sorted(set(args.chunks))}
    for index, path in paths.items():
        if not path.exists():
            render_chunk(path, index)
            print(f"rendered {path.name}, of {len(paths)}", flush=True)
    training = load([path for index, path in paths.items() if index % HELD_OUT])
    held_out = load([path for index, path in paths.items() if index % HELD_OUT == 0])
    model = train(training, args.steps, args.batch, args.rate)
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "size": SIZE,
        "train_pairs": len(training.captions),
        "train_photos": CHUNK * sum(index % HELD_OUT > 0 for index in paths),
        "chunks": list(paths),
        "steps": args.steps,
        "batch": args.batch,
        "rate": args.rate,
        **measure(model, held_out),
    }
    write(args.work / "clip", model, facts)
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
