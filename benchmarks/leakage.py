"""Is leakage sound? The share of photographs that `metrics.changed` calls visibly changed, after invisible changes and
after visible ones.

    python -m benchmarks.leakage --photos DIR [--model CHECKPOINT] [--short-side-px 512]

--model adds the round trip through a checkpoint's image tokenizer. The last column is the share at the threshold of a
just-noticeable difference (Lab 2.3) over single pixels, which is too high without averages.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pillow

from crispedit import metrics

JND = 2.3


def jpeg(quality, subsampling):
    def change(image):
        data = io.BytesIO()
        Pillow.fromarray(image).save(data, "JPEG", quality=quality, subsampling=subsampling)
        return np.asarray(Pillow.open(data).convert("RGB"))

    return change


def resampled(factor):
    def change(image):
        height, width = image.shape[:2]
        small = cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)

    return change


def added(*levels):
    return lambda image: np.clip(image.astype(int) + np.array(levels), 0, 255).astype(np.uint8)


def noise(image):
    return np.clip(image + np.random.default_rng(0).normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def round_trip(model):
    """Through the tokenizer of a checkpoint and back, at its own size."""
    import torch

    from crispedit.editmgt.pipeline import EditMGTPipeline

    vq = EditMGTPipeline.from_pretrained(model).vq

    def change(image):
        height, width = image.shape[:2]
        size = width // vq.pixels * vq.pixels, height // vq.pixels * vq.pixels
        pixels = torch.from_numpy(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        with torch.inference_mode():
            decoded = vq.decode(vq.encode(pixels.permute(2, 0, 1)[None].float() / 255))[0]
        drawn = (decoded.permute(1, 2, 0) * 255).round().clamp(0, 255).byte().numpy()
        return cv2.resize(drawn, (width, height), interpolation=cv2.INTER_CUBIC)

    return change


def pixelwise(a, b):
    """The share of pixels beyond the just-noticeable difference, without any averaging."""
    lab = [cv2.cvtColor(x.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) for x in (a, b)]
    return float((np.linalg.norm(lab[0] - lab[1], axis=2) > JND).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--short-side-px", type=int, default=512)
    args = parser.parse_args()
    changes = {
        "JPEG, quality 95": jpeg(95, 0),
        "JPEG, quality 75, 4:2:0": jpeg(75, 2),
        "JPEG, quality 30, 4:2:0": jpeg(30, 2),
        "noise of 6 levels": noise,
        "halved and enlarged": resampled(2),
        "quartered and enlarged": resampled(4),
        "3 levels brighter": added(3, 3, 3),
        "20 levels brighter": added(20, 20, 20),
        "30 levels redder": added(30, 0, 0),
    }
    if args.model:
        changes["tokenizer round trip"] = round_trip(args.model)
    photographs = []
    for path in sorted(args.photos.iterdir()):
        with Pillow.open(path) as opened:
            image = opened.convert("RGB")
            scale = args.short_side_px / min(image.size)
            size = round(image.width * scale), round(image.height * scale)
            photographs.append(np.asarray(image.resize(size, Pillow.Resampling.BICUBIC)))
    print(f"{len(photographs)} photographs, short side {args.short_side_px} px")
    print(f"{'':26} {'mean':>8} {'worst':>8} {'pixels > 2.3':>14}")
    for name, change in changes.items():
        pairs = [(image, change(image)) for image in photographs]
        shares = [float(metrics.changed(a, b).mean()) for a, b in pairs]
        single = float(np.mean([pixelwise(a, b) for a, b in pairs]))
        print(f"{name:26} {np.mean(shares):8.2%} {max(shares):8.2%} {single:14.1%}")


if __name__ == "__main__":
    main()
