"""Pictures of pairs as JPEG or PNG: thumbnails, masks and maps of change."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

from crispedit.images import decode_mask
from crispedit.pipelines.viewing import queries
from crispedit.pipelines.viewing.snapshot import Snapshot
from crispedit.shards import journal, sheet

WIDTHS = (240, 320, 480, 640, 960, 1280)
"""The widths that a picture may be requested at; 0 is its own size."""
SIDES = ("source", "edited", "mask", "change", "overlay")
CACHE_BYTES = 96 << 20


def stored(snapshot: Snapshot, row: queries.Row, side: str) -> bytes | None:
    """The stored bytes of a pair's source, edited or mask; None if there is none. ValueError if they are damaged."""
    if row.get(side) is None:
        return None
    if snapshot.reader is not None:
        pair = snapshot.reader.get(row["key"])
        return {"source": pair.source_jpeg, "edited": pair.edited_jpeg, "mask": pair.mask_png}[side]
    assert snapshot.run is not None
    return journal.read_blob(snapshot.run.root, row[side])


def drawn(snapshot: Snapshot, row: queries.Row, side: str, width: int, quality: int = sheet.QUALITY) -> bytes | None:
    """One of `SIDES` at a width, as JPEG; `overlay` is the mask over the edited image, or the map of change without a
    mask. None if there is no such picture."""
    if side in ("source", "edited"):
        data = stored(snapshot, row, side)
        return None if data is None else sheet.thumbnail(data, width, quality)
    edited = stored(snapshot, row, "edited")
    mask = stored(snapshot, row, "mask") if side != "change" else None
    if edited is None or (side == "mask" and mask is None):
        return None
    if mask is not None:
        shown = sheet.pixels(edited, width)
        return sheet.encoded(sheet.overlaid(shown, sheet.fitted(decode_mask(mask), shown)))
    source = stored(snapshot, row, "source")
    if source is None:
        return None
    return sheet.encoded(sheet.change_map(sheet.pixels(source, width), sheet.pixels(edited, width)))


def of_pair(snapshot: Snapshot, key: str, side: str, width: int) -> bytes | None:
    """`drawn` of the pair with this key. KeyError for an unknown key."""
    return drawn(snapshot, snapshot.pictured(key), side, width)


def photograph(snapshot: Snapshot, key: str, width: int) -> bytes | None:
    """A photograph of the run at a width; None if it has no picture. KeyError for an unknown key."""
    row = snapshot.of_key("SELECT image FROM photograph WHERE key = ? ORDER BY image IS NULL LIMIT 1", key)
    if row["image"] is None or snapshot.run is None:
        return None
    return sheet.thumbnail(journal.read_blob(snapshot.run.root, row["image"]), width)


class Recent:
    """A cache of the latest pictures, up to `CACHE_BYTES`."""

    def __init__(self) -> None:
        self._held: OrderedDict[Any, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, name: Any, draw: Callable[[], bytes | None]) -> bytes | None:
        """The picture of that name, drawn if it is not cached."""
        with self._lock:
            if name in self._held:
                self._held.move_to_end(name)
                return self._held[name]
        data = draw()
        if data is not None:
            with self._lock:
                self._bytes += len(data) - len(self._held.get(name, b""))
                self._held[name] = data
                while self._bytes > CACHE_BYTES:
                    self._bytes -= len(self._held.popitem(last=False)[1])
        return data
