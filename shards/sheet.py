"""Drawing pairs: thumbnails, overlays of masks and changes, and contact sheets.

The browser (`crispedit view`), the report, the dataset card and `crispedit inspect` all draw with this.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from crispedit import change
from crispedit.shards.read import DecodedPair

Pixels = NDArray[np.uint8]
"""[H, W, 3] RGB."""

MARGIN_PX = 12
TEXT_PX = 14
TEXT_LINES = 2
INK, FAINT, PAPER, CARD, LINE = ((28, 30, 36), (96, 102, 114), (246, 247, 249), (255, 255, 255), (222, 225, 231))
OVERLAY = (255, 32, 96)
QUALITY = 82
"""Of thumbnails: they are looked at, never measured."""


def pixels(data: bytes, width: int) -> Pixels:
    """A JPEG at most `width` pixels wide (0: as it is). ValueError if it does not decode.

    The decoder itself halves the image while that leaves enough pixels, which costs a fraction of a whole decode.
    """
    image = simplejpeg.decode_jpeg(data, colorspace="RGB", min_width=width, min_factor=1)
    if not width or image.shape[1] <= width:
        return image
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    near = image.shape[1] < 1.5 * width  # so little is shrunk that areas look like points, for a fifth of their price
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR if near else cv2.INTER_AREA)


def encoded(image: Pixels, quality: int = QUALITY) -> bytes:
    """A JPEG for display."""
    image = np.ascontiguousarray(image)
    return simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling="420")


def thumbnail(data: bytes, width: int, quality: int = QUALITY) -> bytes:
    """A JPEG of at most `width` pixels; the bytes themselves where that is 0."""
    return data if not width else encoded(pixels(data, width), quality)


def fitted(mask: NDArray[np.bool_], image: Pixels) -> NDArray[np.bool_]:
    """The mask at the image's size."""
    height, width = image.shape[:2]
    return cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0


def overlaid(image: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """The image with the masked region in colour under a tint and an outline, and what is outside it darkened."""
    tinted = 0.62 * image + 0.38 * np.array(OVERLAY)
    blended = np.where(mask[..., None], tinted, 0.45 * image).astype(np.uint8)
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(blended, outlines, -1, OVERLAY, max(1, image.shape[1] // 320))
    return blended


STRONG = 25.0
"""The Lab distance beyond visible that is drawn in the brightest colour."""


def change_map(source: Pixels, edited: Pixels) -> Pixels:
    """Where and how much the pair differs, from yellow to white over the darkened grey of the edited image; black
    noise and JPEG error count for nothing (`crispedit.change`)."""
    height, width = edited.shape[:2]
    if source.shape != edited.shape:
        source = cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA)
    size = max(1, width // 2), max(1, height // 2)
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (source, edited)]
    distance = change.distance(change.lab(small[0]) - change.lab(small[1]), 3)
    strength = np.clip((distance - change.VISIBLE / 2) / STRONG, 0, 1)
    strength = cv2.resize(strength, (width, height), interpolation=cv2.INTER_LINEAR)
    heat = cv2.cvtColor(cv2.applyColorMap((255 * strength).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(edited, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    shown = np.minimum(1, 2 * strength)[..., None]
    return ((1 - shown) * 0.4 * grey + shown * heat).astype(np.uint8)


def contact_sheet(pairs: Sequence[DecodedPair], columns: int, thumbnail_px: int) -> Image.Image:
    """Pairs as cards of source | edited | mask over edited (or the map of change where no mask is known), each at most
    thumbnail_px in size, `columns` cards a row, the instruction and its category below.

    ValueError if there are no pairs.
    """
    if not pairs:
        raise ValueError("there are no pairs to show")
    card_width = 3 * thumbnail_px + 4 * MARGIN_PX
    cells = [_thumbnails(pair, thumbnail_px) for pair in pairs]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    text_height = TEXT_LINES * (TEXT_PX + 5) + MARGIN_PX
    heights = [max(image.height for cell in row for image in cell) + text_height + 2 * MARGIN_PX for row in rows]
    across = min(columns, len(pairs))
    size = across * (card_width + MARGIN_PX) + MARGIN_PX, sum(heights) + (len(rows) + 1) * MARGIN_PX
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.font = ImageFont.load_default(TEXT_PX)
    top = MARGIN_PX
    for number, (pair, cell) in enumerate(zip(pairs, cells, strict=True)):
        row, column = divmod(number, columns)
        left = MARGIN_PX + column * (card_width + MARGIN_PX)
        draw.rounded_rectangle((left, top, left + card_width, top + heights[row]), 8, CARD, LINE)
        tallest = heights[row] - text_height - 2 * MARGIN_PX
        for place, image in enumerate(cell):
            x = left + MARGIN_PX + place * (thumbnail_px + MARGIN_PX) + (thumbnail_px - image.width) // 2
            sheet.paste(image, (x, top + MARGIN_PX + (tallest - image.height) // 2))
        _caption(draw, pair, left + MARGIN_PX, top + tallest + 2 * MARGIN_PX, card_width - 2 * MARGIN_PX)
        if column == columns - 1:
            top += heights[row] + MARGIN_PX
    return sheet


def _caption(draw: ImageDraw.ImageDraw, pair: DecodedPair, left: int, top: int, width: int) -> None:
    """The instruction, and in fainter ink the category and the start of the key."""
    end = f"{pair.category} · {pair.key[:8]}"
    room = width - draw.textlength(end) - 2 * MARGIN_PX
    lines = [""]
    for word in str(pair.meta.get("instruction") or "").split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer) <= room or not lines[-1]:
            lines[-1] = longer
        elif len(lines) < TEXT_LINES:
            lines.append(word)
        else:
            lines[-1] += " …"
            break
    draw.multiline_text((left, top), "\n".join(lines), INK, spacing=5)
    draw.text((left + width, top), end, FAINT, anchor="ra")


def _thumbnails(pair: DecodedPair, size_px: int) -> list[Image.Image]:
    last = change_map(pair.source, pair.edited) if pair.mask is None else overlaid(pair.edited, pair.mask)
    thumbnails = [Image.fromarray(view) for view in (pair.source, pair.edited, last)]
    for image in thumbnails:
        image.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    return thumbnails
