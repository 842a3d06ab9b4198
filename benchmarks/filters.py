"""What the CPU filters cost: milliseconds of one core per pair, each and together, against decoding the pair.

    python -m benchmarks.filters [--photos FOLDER] [--pairs 12] [--side 1024]

Pairs are made by the compositor, on photographs or on rendered landscapes, and stored as a run stores them. Shared
arrays (grey, smaller sizes, motion, change, outside) are computed once a pair and listed as "shared". "Together" is one
pass of all filters over a decoded pair, as a build measures it. A pair is two JPEGs and, for most, a mask's PNG; the
ratio against the JPEGs alone counts the mask's decoding as a filter's work. Times are CPU time, the least of several
runs each, so that other work on the machine enters little.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from crispedit import filters, images, machine, parts
from crispedit.annotators.compositor import CompositorAnnotator
from crispedit.compositor.landscape import landscape
from crispedit.editors.compositor import CompositorEditor
from crispedit.normalise import normalise
from crispedit.parts import Filter
from crispedit.record import Job, Refusal, Sample, seed_of, source_key

NAMES = (
    "resolution",
    "region",
    "preservation",
    "exposure",
    "duplicate",
    "sharpness",
    "regeneration",
    "unchanged",
    "watermark_text",
    "patches",
    "structure",
    "artefacts",
    "alignment",
    "upscaled",
)
SHARED = (
    "source_gray",
    "edited_gray",
    "edited_fitted",
    "source_half",
    "edited_half",
    "source_middle",
    "edited_middle",
    "tracks",
    "motion",
    "source_small",
    "edited_small",
    "source_lab",
    "edited_lab",
    "lab_difference",
    "change",
    "look",
    "texture",
    "noise",
    "changed",
    "changed_areas",
    "outside",
    "blocks",
)
CATEGORIES = ("add", "remove", "replace", "color", "background", "style", "motion")


def photographs(folder, side):
    """[side, side, 3] crops of a folder's photographs, or rendered landscapes for ever."""
    if folder is None:
        yield from (landscape(seed, side, side) for seed in range(10_000))
    for file in sorted(Path(folder).iterdir()):
        image = normalise(file.read_bytes(), max_pixels=200_000_000, max_short_side_px=side).image
        if min(image.shape[:2]) >= side:
            yield np.ascontiguousarray(image[:side, :side])


def pairs(folder, side, count):
    """The fields of a sample, for each of so many pairs, over the categories in turn."""
    made = []
    for image in photographs(folder, side):
        if len(made) == count:
            break
        jpeg = images.encode_jpeg(image)
        key = source_key(jpeg)
        for category in CATEGORIES[len(made) % len(CATEGORIES) :]:
            job = CompositorAnnotator().annotate([Sample(key, jpeg)], [[category]])[0][0]
            if not isinstance(job, Job):
                continue
            edit = CompositorEditor().edit([images.decode_jpeg(jpeg)], [job], [seed_of(job.key)])[0]
            if isinstance(edit, Refusal):
                continue
            made.append(
                {
                    "key": job.key,
                    "source_jpeg": jpeg if edit.source is None else images.encode_jpeg(edit.source),
                    "edited_jpeg": images.encode_jpeg(edit.edited),
                    "mask_png": None if edit.mask is None else images.encode_mask(edit.mask),
                    "category": category,
                }
            )
            break
    return made


def milliseconds(prepare, work, repeat=9):
    """The least CPU time of `work` on a freshly prepared argument."""
    best = float("inf")
    for _ in range(repeat):
        argument = prepare()
        start = time.thread_time()
        work(argument)
        best = min(best, time.thread_time() - start)
    return 1000 * best


def warmed(fields, *names):
    sample = Sample(**fields)
    for name in names:
        getattr(sample, name)
    return sample


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="a folder of photographs; without it, rendered landscapes")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--side", type=int, default=1024, help="pixels")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    machine.keep_memory()  # as a build's processes do
    made = pairs(args.photos, args.side, args.pairs)
    jpegs = ("source", "edited")
    decoded = (*jpegs, "mask")

    def mean(work, *ready):
        return float(np.mean([milliseconds(lambda f=f: warmed(f, *ready), work) for f in made]))

    decode = mean(lambda sample: [getattr(sample, name) for name in decoded])
    decode_jpegs = mean(lambda sample: [getattr(sample, name) for name in jpegs])
    shared = mean(lambda sample: [getattr(sample, name) for name in SHARED], *decoded)
    print(f"{len(made)} pairs of {args.side}x{args.side} px, one core, milliseconds a pair")
    print(f"{'decode':<18}{decode:>8.2f}{decode_jpegs:>8.2f} without the mask")
    print(f"{'shared':<18}{shared:>8.2f}{shared / decode:>8.0%} of decoding")
    cpu_filters = {name: parts.find(filters, name, Filter)() for name in NAMES}
    for name, part in cpu_filters.items():
        cost = mean(lambda sample, part=part: part.measure([sample]), *decoded, *SHARED)
        print(f"{name:<18}{cost:>8.2f}{cost / decode:>8.0%}")
    total = mean(lambda sample: [part.measure([sample]) for part in cpu_filters.values()], *decoded)
    print(f"{'together':<18}{total:>8.2f}{total / decode:>8.2f} times decoding")
    print(f"{'':<26}{(total + decode - decode_jpegs) / decode_jpegs:>8.2f} times decoding the JPEGs")


if __name__ == "__main__":
    main()
