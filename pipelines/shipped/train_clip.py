"""Train the small CLIP that ships: on pairs that the compositor makes of rendered landscapes, and their captions.

    python -m crispedit.pipelines.shipped.train_clip WORK --chunks 0 1 2 3 4 --steps 600

renders the pairs into WORK (resumable: a chunk that is there is kept), trains, measures retrieval on pairs of held-out
landscapes, and writes weights, configuration and card to WORK/clip; copy that folder to `crispedit/weights/clip` to
ship it. No photograph is used, so the weights are free of anybody's licence. Same arguments and library versions: the
same weights.
"""

import argparse
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file

from crispedit import torchvision_ops as torchvision_ops  # before open_clip
from crispedit.compositor.landscape import landscape
from crispedit.editmgt.vq import rgb
from crispedit.images import encode_jpeg
from crispedit.pipelines.shipped.descent import Descent
from crispedit.pipelines.shipped.rendered import edits_of
from crispedit.record import Sample, seed_of, source_key
from crispedit.shards import journal

# isort: split
import open_clip

SIZE = 112
RENDERED = (256, 192)
"""Width and height of the landscapes in pixels; pairs are squashed to SIZE, as `filters.clip` does."""
CHUNK = 20  # landscapes a file
HELD_OUT = 5  # chunks whose number this divides are not trained on
CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {"context_length": 48, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 2},
}
MEAN, STD = 0.5, 0.25
PREPROCESS = {"mean": [MEAN] * 3, "std": [STD] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


@dataclass(frozen=True)
class Pairs:
    """P pairs: images [P, 2, SIZE, SIZE, 3] (source, edited) and captions [P, 2]."""

    images: NDArray[np.uint8]
    captions: NDArray[np.str_]


def render(seeds: Iterable[int]) -> Pairs:
    """The pairs of these landscapes."""
    images, captions = [], []
    for seed in seeds:
        jpeg = encode_jpeg(landscape(seed, *RENDERED))
        sample = Sample(key=source_key(jpeg), source_jpeg=jpeg)
        for job, source, edit in edits_of(sample, lambda job: seed_of(job.key)):
            sides = (source, edit.edited)
            images.append([cv2.resize(side, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for side in sides])
            captions.append((job.source_caption, job.target_caption))
    return Pairs(np.array(images), np.array(captions))


def load(paths: list[Path]) -> Pairs:
    chunks = [np.load(path) for path in paths]
    return Pairs(*(np.concatenate([chunk[name] for chunk in chunks]) for name in ("images", "captions")))


def to_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """[N, 3, SIZE, SIZE], normalised, of [N, SIZE, SIZE, 3]."""
    return (rgb(images) - MEAN) / STD


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
    texts = np.array(captions)
    return torch.from_numpy(texts[:, None] == texts).float()


def train(pairs: Pairs, steps: int, batch: int, rate: float) -> Any:
    """The model after `steps` steps of `batch` pairs: contrast over all 2 x batch images and captions, so that the
    other side of its pair is an image's hardest negative, and contrast of the pairs' differences (CLIP-dir)."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = open_clip.model.CLIP(**CONFIG)
    model.visual.to(memory_format=torch.channels_last)
    tokenize = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])
    tokens = tokenize(pairs.captions.flatten().tolist()).reshape(len(pairs.captions), 2, -1)
    descent = Descent(model.parameters(), rate, steps, warmup=40)
    began, average = time.monotonic(), None
    for step in range(steps):
        chosen = rng.choice(len(pairs.captions), batch, replace=False)
        images = shifted(to_tensor(pairs.images[chosen].reshape(-1, SIZE, SIZE, 3)), rng)
        images = images.contiguous(memory_format=torch.channels_last)
        images_ND = model.encode_image(images, normalize=True)
        texts_ND = model.encode_text(tokens[chosen].reshape(2 * batch, -1), normalize=True)
        said = pairs.captions[chosen]
        scale = model.logit_scale.exp()
        loss = contrast(images_ND, texts_ND, equal(said.flatten().tolist()), scale)
        moved = [F.normalize(x[1::2] - x[::2], dim=-1, eps=1e-4) for x in (images_ND, texts_ND)]
        loss = loss + 0.5 * contrast(moved[0], moved[1], equal([f"{a}|{b}" for a, b in said]), scale.clamp(max=20))
        descent.step(loss, step + 1)
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
    captions = pairs.captions.flatten().tolist()
    parts = [slice(start, start + 64) for start in range(0, len(pixels), 64)]
    seen = torch.cat([model.encode_image(to_tensor(pixels[part]), normalize=True) for part in parts])
    read = torch.cat([model.encode_text(tokenize(captions[part]), normalize=True) for part in parts])
    images, texts = (side.reshape(len(pairs.captions), 2, -1) for side in (seen, read))
    unique = np.sort(np.unique(pairs.captions[:, 1], return_index=True)[1])
    groups = unique[: len(unique) // among * among].reshape(-1, among)
    ranks = (images[groups, 1] @ texts[groups, 1].mT).argsort(2, descending=True)
    hits = (ranks == torch.arange(among)[:, None]).double()
    differ = torch.from_numpy(pairs.captions[:, 0] != pairs.captions[:, 1])
    cosines = torch.einsum("pid,pjd->pij", images, texts)[differ]
    prefer = torch.stack([cosines[:, 0, 0] > cosines[:, 0, 1], cosines[:, 1, 1] > cosines[:, 1, 0]]).float().mean()
    moved = [F.normalize(x[:, 1] - x[:, 0], dim=-1)[differ] for x in (images, texts)]
    own, other = ((moved[0] * captions_moved).sum(1) for captions_moved in (moved[1], moved[1].roll(1, 0)))
    return {
        "pairs": len(pairs.captions),
        "top1": float(hits[..., 0].mean()),
        "top5": float(hits[..., :5].sum(2).mean()),
        "prefers_own_caption": float(prefer),
        "direction_beats_another": float((own > other).float().mean()),
        "mean_direction": float(own.mean()),
        "mean_direction_of_another": float(other.mean()),
    }


def write(folder: Path, model: Any, facts: dict[str, Any]) -> None:
    """The model in open_clip's `local-dir` layout, with its card and the measurements."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_file({name: value.contiguous() for name, value in half.items()}, folder / "open_clip_model.safetensors")
    layout = {"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(layout, indent=2) + "\n")
    (folder / "measured.json").write_text(json.dumps(facts, indent=2) + "\n")
    card = (resources.files(__package__) / "clip_card.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(card.format(**facts))


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
            pairs = render(range(index * CHUNK, (index + 1) * CHUNK))
            with journal.replaced(path) as file:
                np.savez(file, images=pairs.images, captions=pairs.captions)
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
