"""Contact sheets: pairs beside each other, with the mask laid over the edited image and the instruction
below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from crispedit.shards.read import DecodedPair

MARGIN_PX = 8
TEXT_PX = 14
TEXT_LINES = 3
OVERLAY = (255, 32, 64)


def contact_sheet(pairs: Sequence[DecodedPair], columns: int, thumbnail_px: int) -> Image.Image:
    """Pairs as cells of source | edited | mask over edited, each at most thumbnail_px in size, `columns`
    cells a row.

    Where no mask is known, the third image is left out. ValueError if there are no pairs.
    """
    if not pairs:
        raise ValueError("there are no pairs to show")
    cell_width = 3 * (thumbnail_px + MARGIN_PX) + MARGIN_PX
    cells = [_thumbnails(pair, thumbnail_px) for pair in pairs]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(image.height for cell in row for image in cell) for row in rows]
    below = TEXT_LINES * (TEXT_PX + 4) + 2 * MARGIN_PX
    sheet = Image.new(
        "RGB", (min(columns, len(pairs)) * cell_width, sum(heights) + len(rows) * below), "white"
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(TEXT_PX)
    top = MARGIN_PX
    for number, (pair, cell) in enumerate(zip(pairs, cells, strict=True)):
        left = number % columns * cell_width + MARGIN_PX
        for place, image in enumerate(cell):
            sheet.paste(image, (left + place * (thumbnail_px + MARGIN_PX), top))
        text = f"{pair.category}: {pair.meta.get('instruction', '')}  [{pair.key[:12]}]"
        lines = textwrap.wrap(text, cell_width // (TEXT_PX // 2), max_lines=TEXT_LINES, placeholder=" ...")
        height = heights[number // columns]
        draw.text((left, top + height + 4), "\n".join(lines), "black", font)
        if number % columns == columns - 1:
            top += height + below
    return sheet


def _thumbnails(pair: DecodedPair, size_px: int) -> list[Image.Image]:
    views = [pair.source, pair.edited]
    if pair.mask is not None:
        views.append(overlaid(pair.edited, pair.mask))
    thumbnails = [Image.fromarray(view) for view in views]
    for image in thumbnails:
        image.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    return thumbnails


def overlaid(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """[H, W, 3] the image with the masked region tinted and what is outside it darkened."""
    tinted = 0.5 * image + 0.5 * np.array(OVERLAY)
    return np.where(mask[..., None], tinted, 0.6 * image).astype(np.uint8)
