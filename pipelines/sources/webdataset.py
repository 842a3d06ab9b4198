"""Photographs in tars: lists image members and their captions in one pass."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import IO

from crispedit.pipelines.sources import kinds, tar, texts
from crispedit.pipelines.sources.entry import Entry
from crispedit.pipelines.sources.files import File
from crispedit.pipelines.sources.kinds import Skipped
from crispedit.pipelines.sources.names import escape
from crispedit.pipelines.sources.place import WebDatasetSource

WINDOW = 5000
"""Photographs that may wait for a later caption; WebDataset stores both side by side."""
MOST_CAPTION_BYTES = 1 << 20


def photographs(source: WebDatasetSource, file: File, opened: IO[bytes], skipped: Skipped) -> Iterator[Entry]:
    """The photographs of a tar, in order; damage is an entry with the error."""
    window = _Window(skipped)
    names: Counter[int] = Counter()
    for member in tar.members(opened):
        if any(part.startswith(".") and part.strip(".") for part in member.name.split("/")):
            skipped.add("hidden")  # such as the "._1.jpg" that macOS puts beside each file
            continue
        extension = None if source.caption is None else "." + source.caption
        if member.error is None and extension is not None and member.name.lower().endswith(extension):
            window.caption(member.name[: -len(extension)], _caption(opened, member, source.caption, skipped))
            continue
        if not _is_photograph(opened, member, source.suffixes):
            skipped.add(member.other) if member.other else skipped.file(member.name)
            continue
        names[hash(member.name)] += 1
        count = names[hash(member.name)]
        uri = f"{file.uri}#{escape(member.name)}" + (f"#{count}" if count > 1 else "")
        yield from window.photograph(
            member.name,
            Entry(
                uri=uri,
                path=file.path,
                offset=member.offset,
                size=member.size,
                dataset=source.dataset,
                licence=source.licence,
                error=None if member.error is None else f"{uri}: {member.error}",
            ),
        )
    yield from window.flush()
    window.forget()


def _is_photograph(opened: IO[bytes], member: tar.Member, suffixes: tuple[str, ...] | None) -> bool:
    if member.other is not None:
        return False
    known = kinds.by_name(member.name, suffixes)
    if known is None and member.error is None:
        opened.seek(member.offset)
        return kinds.by_head(opened.read(min(kinds.HEAD, member.size)))
    return member.damage or known is not False  # an unreadable member may have been one


def _caption(opened: IO[bytes], member: tar.Member, extension: str | None, skipped: Skipped) -> str | None:
    """A sidecar's text; None if it does not parse, which leaves the photograph without a caption."""
    if member.size > MOST_CAPTION_BYTES:
        skipped.add("caption longer than 1 MB")
        return None
    opened.seek(member.offset)
    data = opened.read(member.size)
    return texts.of_json(data, "caption") if extension == "json" else texts.decode(data, "replace") or None


@dataclass
class _Window:
    """Photographs and captions by name without extension, until both are present."""

    skipped: Skipped
    waiting: list[tuple[str, Entry]] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)

    def caption(self, stem: str, text: str | None) -> None:
        if text is not None:
            self.captions[stem] = text
            if len(self.captions) > 2 * WINDOW:
                self.forget()

    def photograph(self, name: str, entry: Entry) -> Iterator[Entry]:
        if len(self.waiting) >= WINDOW and _stems(name)[-1] != _stems(self.waiting[-1][0])[-1]:
            yield from self.flush()
        self.waiting.append((name, entry))

    def flush(self) -> Iterator[Entry]:
        used = set()
        for name, entry in self.waiting:
            stem = next((stem for stem in _stems(name) if stem in self.captions), None)
            used.add(stem)
            yield entry if stem is None else replace(entry, caption=self.captions[stem])
        self.waiting.clear()
        for stem in used:
            self.captions.pop(stem or "", None)

    def forget(self) -> None:
        if self.captions:
            self.skipped.add("caption without its photograph", len(self.captions))
        self.captions.clear()


def _stems(name: str) -> list[str]:
    """A name without its extension, at every dot of its base name: the longest first, WebDataset's key last."""
    folder, base = posixpath.split(name)
    parts = base.split(".")
    return [posixpath.join(folder, ".".join(parts[:count])) for count in range(max(1, len(parts) - 1), 0, -1)]
