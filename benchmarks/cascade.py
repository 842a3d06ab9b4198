"""What the cascade saves: work of the model filters on a corpus of which 40 % is bad, against measuring everything.

    python -m benchmarks.cascade [--photos FOLDER] [--jobs 3] [--categories add,style]

Pairs are the compositor's, on photographs or on rendered landscapes; of four in ten a defect is made, each kind of
`pipelines/calibration/defects.py` in turn. The CPU filters of
`configs/calibrate.yaml` run, then two filters with a model: `clip`,
which carries a bound, and `aesthetic`, which only tells, with a head that stands for LAION's (the small CLIP's own
direction of "a sharp photograph": what it prefers does not matter here). The same rows are measured four times: by
everything or by the cascade, each thing embedded for every pair anew or once. The kept pairs must be the same, or the
run fails.

"Model work" is images through a vision tower and texts through a text tower, counted where they pass; CPU seconds are
those of the model filters, decoding and resizing for them included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from crispedit import clip, images
from crispedit.bounds import Bound
from crispedit.cascade import Cascade
from crispedit.compositor.landscape import landscape
from crispedit.filters.aesthetic import Aesthetic
from crispedit.filters.clip import Clip
from crispedit.outcome import KEPT
from crispedit.pipelines import recipe
from crispedit.pipelines.calibration import defects, good_pairs
from crispedit.pipelines.calibration import measured as defects_of
from crispedit.pipelines.calibration.defects import Good
from crispedit.pipelines.calibration.good_pairs import GoodPair
from crispedit.pipelines.run import Run
from crispedit.record import Sample, content_key, seed_of

BAD = 0.4
BATCH = 8
CATEGORIES = ("add", "remove", "replace", "color", "background", "style", "motion")
MODELS = ("clip", "aesthetic")


@dataclass
class Work:
    """What passed the models in one measurement of the corpus."""

    images: int = 0
    texts: int = 0
    cpu_s: float = 0.0


def corpus(pairs: Sequence[GoodPair]) -> Iterator[dict[str, Any]]:
    """The stored fields of each pair, by photograph, every one in BAD of them with a defect."""
    ordered = sorted(pairs, key=lambda pair: content_key("bad", str(pair.stored["key"])))
    bad = {str(pair.stored["key"]): turn for turn, pair in enumerate(ordered[: round(BAD * len(ordered))])}
    for pair in sorted(pairs, key=lambda pair: (pair.photograph, str(pair.stored["key"]))):
        turn = bad.get(str(pair.stored["key"]))
        yield dict(pair.stored) if turn is None else defective(pair, pairs, turn)


def defective(pair: GoodPair, pairs: Sequence[GoodPair], turn: int) -> dict[str, Any]:
    """The pair with the defect whose turn it is, or the next that can be shown on it."""
    names = [*defects.STRUCTURAL, *defects.SEMANTIC]
    sample = Sample(**pair.stored)
    for name in names[turn % len(names) :] + names:
        if name in defects.SEMANTIC:
            other = defects_of.other_for(name, pair, pairs)
            mixed = defects.SEMANTIC[name](pair.stored, None if other is None else other.stored)
            if mixed is not None:
                return dict(mixed)
            continue
        good = Good(sample.source, sample.edited, defects_of.edit_of(sample))
        made = defects.STRUCTURAL[name](good, np.random.default_rng(seed_of(sample.key, name)))
        if made is not None:
            source = pair.stored["source_jpeg"] if made[0] is good.source else images.encode_jpeg(made[0])
            return {**pair.stored, "source_jpeg": source, "edited_jpeg": images.encode_jpeg(made[1])}
    raise AssertionError(f"no defect can be shown on {sample.key}")


def measured(
    stored: Sequence[dict[str, Any]], cascade: Cascade, *, everything: bool, once: bool
) -> tuple[list[str], Work]:
    """The kept keys, and the model work. `once`: embeddings are remembered across pairs."""
    clip.REMEMBERED = 512 if once else 0
    work = Work()
    for name in MODELS:
        cascade.filters[name].load()
        count(cascade.filters[name], work)
    kept = []
    size = BATCH if once else 1
    for start in range(0, len(stored), size):
        samples = [Sample(**fields) for fields in stored[start : start + size]]
        rows: list[dict[str, Any]] = [{"category": sample.category} for sample in samples]
        cascade.measure(samples, rows, own=[n for n in cascade.filters if n not in MODELS], everything=everything)
        begun = time.process_time()
        cascade.measure([undecoded(sample) for sample in samples], rows, own=MODELS, everything=everything)
        work.cpu_s += time.process_time() - begun
        kept += [sample.key for sample, row in zip(samples, rows, strict=True) if cascade.verdict(row) == (KEPT, None)]
    return kept, work


def undecoded(sample: Sample) -> Sample:
    """The sample as an actor of a model filter gets it: bytes alone."""
    return Sample(**{name: getattr(sample, name) for name in Sample.__dataclass_fields__})


def count(filter_: Any, work: Work) -> None:
    """Have the filter's towers count what passes through them."""
    network = filter_._images._embed.__self__.network

    def image(*_: Any) -> None:
        work.images += 1

    def text(*_: Any) -> None:
        work.texts += 1

    network.visual.register_forward_hook(image)
    network.transformer.register_forward_hook(text)


def cascade_of(made: recipe.Recipe, folder: Path) -> Cascade:
    """The recipe's cascade with the two model filters."""
    model = clip.load()
    if model is None:
        raise SystemExit("the embedded CLIP is not there: there is no model work to measure")
    (direction,) = model.texts(["a sharp photograph"])
    head = folder / "head.safetensors"
    save_file({"weight": direction[None], "bias": torch.zeros(1)}, head)
    filters = {
        **made.pair_cascade.filters,
        "clip": Clip(),
        "aesthetic": Aesthetic(head=str(head), model="embedded", pretrained=""),
    }
    # Two of a hundred good pairs lie below this direction (`crispedit calibrate`).
    models = {"clip.direction": Bound(min=-0.15), "aesthetic.source": Bound()}
    bounds = {name: {**made.pair_cascade.bounds_of(name), **models} for name in made.categories}
    return Cascade.of(filters, {}, bounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="a folder of photographs; without it, six rendered landscapes")
    parser.add_argument("--jobs", type=int, default=1, help="a photograph and category")
    parser.add_argument("--categories", default=",".join(CATEGORIES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos = Path(args.photos) if args.photos else folder / "photos"
        if not args.photos:
            photos.mkdir()
            for seed, kind in enumerate(("meadow", "beach", "mountains", "room", "desert", "lake")):
                (photos / f"{kind}.jpg").write_bytes(images.encode_jpeg(landscape(seed, 1280, 1024, kind)))
        jobs = ", ".join(f"{name}: {args.jobs}" for name in args.categories.split(","))
        made = recipe.load("calibrate", [f"source.path={photos}", f"run={folder / 'run'}", f"categories={{{jobs}}}"])
        pairs = good_pairs.run_pairs(Run(made))
        cascade = cascade_of(made, folder)
        stored = list(corpus(pairs))
        shared = len({content_key(fields["source_jpeg"]) for fields in stored})
        print(
            f"{len(stored)} pairs of {len({pair.photograph for pair in pairs})} photographs, {shared} sources;"
            f" {round(BAD * len(stored))} of them bad"
        )
        print(f"{'':<34}{'images':>8}{'texts':>8}{'CPU s':>8}{'images':>9}{'CPU':>8}")
        first: tuple[list[str], Work] | None = None
        for everything in (True, False):
            for once in (False, True):
                kept, work = measured(stored, cascade, everything=everything, once=once)
                first = first or (kept, work)
                if kept != first[0]:
                    raise SystemExit(f"the selections differ: {set(kept) ^ set(first[0])}")
                told = "everything, " if everything else "the cascade, "
                told += "each embedded once" if once else "every pair anew"
                print(
                    f"{told:<34}{work.images:>8}{work.texts:>8}{work.cpu_s:>8.1f}"
                    f"{work.images / first[1].images - 1:>9.0%}{work.cpu_s / first[1].cpu_s - 1:>8.0%}"
                )
        print(f"the same {len(kept)} pairs kept each time")


if __name__ == "__main__":
    main()
