"""Edit photographs with EditMGT from the command line: one image, a folder of them, or a JSONL list of jobs.

A JSONL line is `{"image": PATH, "instruction": TEXT}` with, optionally, "mask" (an image, white where the edit may be),
"seed" and "output" (a file name). Paths are relative to the list. Outputs of a folder or list are PNGs named after
their images. Failures are reported on stderr, the rest is done, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import cv2
import numpy as np
from PIL import Image as Pillow

from crispedit import console, jsonl, parts
from crispedit.editmgt.options import SamplingOptions, Schedule, sampling_options
from crispedit.images import decode_mask, encode_jpeg
from crispedit.normalise import SUFFIXES, normalise
from crispedit.outcome import each
from crispedit.record import Image, Mask
from crispedit.shards import journal

if TYPE_CHECKING:
    from crispedit.editmgt.pipeline import Edited

WRITTEN = (".png", ".jpg", ".jpeg", ".webp")
MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class EditRequest:
    """One image to edit. `where` names it in messages."""

    image: Path
    instruction: str
    output: Path
    mask: Path | None
    seed: int
    where: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", type=Path, metavar="IMAGE", help="an image, a folder of images, or a .jsonl list of jobs")
    add("instruction", nargs="?", help="what to change; a .jsonl list brings its own")
    add("-o", "--output", type=Path, required=True, help="the file to write; a folder for a folder or list")
    add("--model", required=True, help="a checkpoint folder, a hub repository, or the name of a shipped model")
    add("--llm", help="the language model, if the checkpoint does not include it")
    add("--mask", type=Path, help="an image of the same size, white where the edit may be")
    add("--seed", type=int, default=0, help="seed of each image's first answer (default 0)")
    add("--count", type=int, default=1, help="answers per image, with consecutive seeds")
    add("--words", nargs="+", help="find the place to edit by these words of the instruction only")
    add("--map", action="store_true", help="also write where the instruction looked, as OUTPUT.map.png")
    add("--batch-size", type=int, default=1, help="answers sampled at once (default 1)")
    add("--device", default="auto", help='"cpu", "cuda", ...; default: the GPU if there is one')
    add("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16 on a GPU, else float32")
    add("--compile", action="store_true", help="compile the transformer: slow to start, faster after")
    sampling = parser.add_argument_group("sampling (default: the checkpoint's own)")
    for name, field in SamplingOptions.model_fields.items():
        kind: dict[str, Any] = {"type": type(field.default)}
        if isinstance(field.default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        elif name == "temperature":
            kind = {"type": float, "nargs": 2, "metavar": ("FIRST", "LAST")}
        elif name == "schedule":
            kind = {"choices": get_args(Schedule)}
        sampling.add_argument(f"--{name.replace('_', '-')}", default=None, help=field.description, **kind)


def run(args: argparse.Namespace) -> int:
    """Edit all requested images. ValueError for a mistake in the request."""
    requests = list(_requests(args))
    if not requests:
        raise ValueError(f"{args.input} holds no images ({', '.join(SUFFIXES)})")
    _check(requests, args)
    edit = _loaded(args)
    failed = 0
    together = max(1, args.batch_size // args.count)
    for start in range(0, len(requests), together):
        batch = requests[start : start + together]
        for request, edited in zip(batch, each(edit, batch), strict=True):
            if isinstance(edited, Exception):
                print(f"error: {request.where}: {edited}", file=sys.stderr)
                failed += 1
            else:
                _write_answers(request.output, *edited, args)
    return 1 if failed else 0


def _loaded(args: argparse.Namespace) -> Callable[[Sequence[EditRequest]], list[tuple[Image, list[Edited]]]]:
    """The loaded model, as a function that gives each image and its answers."""
    changes = {name: getattr(args, name) for name in SamplingOptions.model_fields}
    given = sampling_options(changes)  # checks values before the model is loaded
    from crispedit.editmgt.pipeline import EditMGTPipeline

    with parts.loading(str(args.model)):
        pipeline = EditMGTPipeline.from_pretrained(args.model, llm=args.llm, device=args.device, dtype=args.dtype)
    if args.compile:
        pipeline.transformer.compile_step()

    def edit(batch: Sequence[EditRequest]) -> list[tuple[Image, list[Edited]]]:
        sources = [
            normalise(one.image.read_bytes(), max_pixels=MAX_PIXELS, max_short_side_px=None).image for one in batch
        ]
        answers = pipeline(
            sources,
            [one.instruction for one in batch],
            given.over(pipeline.sampling),
            mask=[_read_mask(one.mask, source) for one, source in zip(batch, sources, strict=True)],
            seed=[one.seed for one in batch],
            images_per_prompt=args.count,
            words=args.words,
            batch_size=args.batch_size,
            progress=console.shows_progress(),
        )
        return [(source, answers[n * args.count : (n + 1) * args.count]) for n, source in enumerate(sources)]

    return edit


def _write_answers(output: Path, source: Image, answers: Sequence[Edited], args: argparse.Namespace) -> None:
    for number, answer in enumerate(answers):
        path = output.with_stem(f"{output.stem}-{number}") if args.count > 1 else output
        _write(path, answer.image)
        if args.map:
            _write(path.with_suffix(".map.png"), _heat(answer.localisation, source))
        print(f"{path}  {answer.steps} steps, {answer.held_fraction:.0%} of the tokens held")


def _requests(args: argparse.Namespace) -> Iterator[EditRequest]:
    source: Path = args.input
    if source.suffix.lower() == ".jsonl":
        yield from _listed(source, args)
        return
    if not args.instruction:
        raise ValueError('say what to change: crispedit edit IMAGE "INSTRUCTION" -o OUTPUT --model PATH')
    if not source.exists():
        raise ValueError(f"{source} does not exist")
    images = [source]
    if source.is_dir():
        images = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    for image in images:
        output: Path = args.output
        if source.is_dir():
            output = args.output / image.relative_to(source).with_suffix(".png")
        elif output.is_dir():
            output = output / f"{image.stem}.png"
        yield EditRequest(image, args.instruction, output, args.mask, args.seed, str(image))


def _listed(path: Path, args: argparse.Namespace) -> Iterator[EditRequest]:
    for number, row in jsonl.read(path, "a list of jobs"):
        where = f"{path}: line {number}"
        _check_row(row, where)
        image = path.parent / row["image"]
        name = row.get("output", f"{image.stem}.png")
        if Path(name).name != name or name in ("", ".", ".."):
            raise ValueError(f"{where}: output {name!r} must be a file name: it is written below {args.output}")
        mask = path.parent / row["mask"] if "mask" in row else args.mask
        instruction = row.get("instruction", args.instruction)
        if not instruction:
            raise ValueError(f"{where}: no instruction, and none was given for all")
        yield EditRequest(image, instruction, args.output / name, mask, row.get("seed", args.seed), where)


def _check_row(row: dict[str, Any], where: str) -> None:
    kinds = {"image": str, "instruction": str, "mask": str, "seed": int, "output": str}
    if "image" not in row:
        raise ValueError(f'{where}: no "image"')
    for name, value in row.items():
        if name not in kinds:
            raise ValueError(f"{where}: unknown key {name!r}; choose from {', '.join(kinds)}")
        if not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise ValueError(f"{where}: {name} must be {kinds[name].__name__}, not {value!r}")


def _check(requests: Sequence[EditRequest], args: argparse.Namespace) -> None:
    """Find mistakes that would otherwise show only after minutes of work."""
    seen: dict[Path, str] = {}
    for request in requests:
        if request.output.suffix.lower() not in WRITTEN:
            raise ValueError(f"{request.output}: choose one of {', '.join(WRITTEN)}")
        if request.output in seen:
            raise ValueError(f"{seen[request.output]} and {request.where} would both be {request.output}")
        seen[request.output] = request.where
        if request.output.resolve() == request.image.resolve():
            raise ValueError(f"{request.output} is the source itself; choose another output")
    if args.count < 1 or args.batch_size < 1:
        raise ValueError("count and batch-size must be at least 1")


def _read_mask(path: Path | None, source: Image) -> Mask | None:
    if path is None:
        return None
    mask = decode_mask(path.read_bytes())
    if mask.shape != source.shape[:2]:
        raise ValueError(f"the mask {path} is {mask.shape} and its image {source.shape[:2]}: sizes differ")
    return mask


def _heat(localisation: np.ndarray[Any, np.dtype[np.float32]], source: Image) -> Image:
    """The map at the source's size, grey."""
    grey = np.rint(localisation * 255).astype(np.uint8)
    large = cv2.resize(grey, source.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.repeat(np.asarray(large, np.uint8)[..., None], 3, 2)


def _write(path: Path, image: Image) -> None:
    """Write an image; the file is never incomplete."""
    with journal.replaced(path) as out:
        if path.suffix.lower() in (".jpg", ".jpeg"):
            out.write(encode_jpeg(image))
        else:
            Pillow.fromarray(image).save(out, path.suffix[1:].upper())
