"""Generated photo-like pairs and small shard sets for the tests of shards/."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from crispedit import images
from crispedit.record import content_key, seed_of
from crispedit.shards.pack import Pair, ShardEntry, finish, plan, write_shard


def photograph(key: str, width: int, height: int) -> np.ndarray:
    """[height, width, 3] of fractal noise with a disc, from the key alone."""
    generator = np.random.default_rng(seed_of(key, "photograph"))
    image = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 6):
        noise = generator.random((2**octave + 1, 2**octave + 1, 3), dtype=np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    image = 255 * (image - image.min()) / (np.ptp(image) + 1e-6)
    colour = [int(c) for c in generator.integers(0, 256, 3)]
    cv2.circle(image, (width // 3, height // 2), max(2, min(width, height) // 4), colour, -1)
    return image.astype(np.uint8)


def make_pair(name: str, category: str = "add", masked: bool = True, width: int = 96, height: int = 64) -> Pair:
    """A pair whose edit is a rectangle, with everything that the pipeline stores about one."""
    key = content_key("test", category, name)
    source = photograph(key, width, height)
    edited = source.copy()
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 2, width // 4 : width // 2] = True
    edited[mask] = 255 - edited[mask]
    return Pair(
        key=key,
        category=category,
        source_jpeg=images.encode_jpeg(source),
        edited_jpeg=images.encode_jpeg(edited),
        mask_png=images.encode_mask(mask) if masked else None,
        meta={
            "instruction": f"invert the rectangle of {name}",
            "source_caption": None,
            "target_caption": f"a disc and an inverted rectangle, {name}",
            "editor": "test",
            "editor_options": {"strength": 1},
            "scores": {"alignment_px": 0, "preservation_ssim": 0.5 if masked else None},
            "licence": None,
        },
    )


def write_pairs(folder: Path | str, pairs: list[Pair], pairs_per_shard: int, seed: int = 0) -> list[ShardEntry]:
    """Write these pairs as a finished set into a folder."""
    by_key: Mapping[str, Pair] = {pair.key: pair for pair in pairs}
    keys: dict[str, list[str]] = {}
    for pair in pairs:
        keys.setdefault(pair.category, []).append(pair.key)
    masked = {pair.key for pair in pairs if pair.mask_png is not None}
    entries = [
        write_shard(folder, shard, (by_key[key] for key in shard.keys), "digest")
        for shard in plan(keys, pairs_per_shard, seed, masked)
    ]
    finish(folder, entries, {"recipe": "test"})
    return entries
