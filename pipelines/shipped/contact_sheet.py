"""Contact sheets of the compositor: a JPEG per category, of rows source | edited | mask under their instruction.

`python pipelines/shipped/contact_sheet.py docs/contact-sheets` makes them from rendered landscapes, the same
ones every time; with a folder of photographs as second argument, from those.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont, ImageOps

from crispedit import images
from crispedit.annotators.compositor import CompositorAnnotator
from crispedit.compositor.landscape import KINDS, landscape
from crispedit.editors.compositor import CompositorEditor
from crispedit.record import Edit, Image, Job, Sample, seed_of, source_key

CATEGORIES = ("add", "remove", "replace", "color", "background", "style", "motion")
_WIDTH_PX, _COLUMNS, _TEXT_PX = 280, 2, 44
_LEFT_OUT = ("lake",)
_MAX_BYTES = 390_000


def photographs(folder: Path | None) -> Iterator[Sample]:
    """The landscapes, or the folder's photographs, at 1024 pixels on the short side."""
    if folder is None:
        pictures: Iterator[Image] = (
            landscape(20 + i, 1280, 1024, kind) for i, kind in enumerate(KINDS) if kind not in _LEFT_OUT
        )
    else:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        pictures = (_read(path) for path in files)
    for picture in pictures:
        jpeg = images.encode_jpeg(picture)
        yield Sample(key=source_key(jpeg), source_jpeg=jpeg)


def _read(path: Path) -> Image:
    with Pillow.open(path) as opened:
        picture = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    scale = 1024 / min(picture.shape[:2])
    return picture if scale >= 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def row(source: Image, job: Job, edit: Edit) -> Image:
    """One pair with its mask at half size, the instruction above."""
    shown = source if edit.source is None else edit.source
    size = _WIDTH_PX, round(_WIDTH_PX * shown.shape[0] / shown.shape[1])
    sides = [cv2.resize(side, size, interpolation=cv2.INTER_AREA) for side in (shown, edit.edited)]
    mask = np.full((size[1], _WIDTH_PX // 2, 3), 255, np.uint8)
    assert edit.mask is not None
    white = np.repeat(edit.mask[..., None].astype(np.uint8) * 255, 3, axis=2)
    small = cv2.resize(white, (_WIDTH_PX // 2, size[1] // 2), interpolation=cv2.INTER_AREA)
    mask[: small.shape[0]] = small
    pair = np.concatenate([*sides, mask], axis=1)
    caption = Pillow.new("RGB", (pair.shape[1], _TEXT_PX), "white")
    text = "\n".join(textwrap.wrap(job.instruction, 96)[:2])
    ImageDraw.Draw(caption).text((4, 6), text, fill="black", font=ImageFont.load_default(14))
    return np.concatenate([np.asarray(caption), pair])


def sheet(category: str, photos: list[Sample], each: int) -> Image:
    """All rows of a category, in columns."""
    rows = []
    for photo in photos:
        for job in CompositorAnnotator().annotate([photo], [[category] * each])[0]:
            if isinstance(job, Job):
                edit = CompositorEditor().edit([photo.source], [job], [seed_of(job.key)])[0]
                if isinstance(edit, Edit):
                    rows.append(row(photo.source, job, edit))
    tallest = max(r.shape[0] for r in rows)
    padded = [cv2.copyMakeBorder(r, 0, tallest - r.shape[0], 0, 8, cv2.BORDER_CONSTANT, value=(255,) * 3) for r in rows]
    padded += [np.full_like(padded[0], 255)] * (-len(padded) % _COLUMNS)
    lines = [np.concatenate(padded[i : i + _COLUMNS], axis=1) for i in range(0, len(padded), _COLUMNS)]
    return np.concatenate(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder that the sheets are written to")
    parser.add_argument("photos", type=Path, nargs="?", help="folder of photographs (default: rendered landscapes)")
    parser.add_argument("--each", type=int, default=1, help="edits of each photograph")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    photos = list(photographs(chosen.photos))
    for category in CATEGORIES:
        path = chosen.out / f"{category}.jpg"
        picture = sheet(category, photos, chosen.each)
        tries = (images.encode_jpeg(picture, quality) for quality in range(80, 40, -5))
        path.write_bytes(next((jpeg for jpeg in tries if len(jpeg) < _MAX_BYTES), images.encode_jpeg(picture, 40)))
        print(path)


if __name__ == "__main__":
    main()
