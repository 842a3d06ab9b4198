"""Kinds of files: recognises photographs by suffix or first bytes."""

from __future__ import annotations

from collections import Counter

from crispedit import image_file, normalise
from crispedit.pipelines.sources.names import suffix_of

IMAGE_SUFFIXES = (
    *normalise.SUFFIXES,
    ".mpo",
    # formats that `normalise` may decline: listed, so that they become rejected rows
    *(".gif", ".bmp", ".dib", ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".psd", ".svg"),
    *(".ico", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".exr", ".hdr", ".qoi"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"),
)

OTHER_SUFFIXES = frozenset(
    [
        *(".txt", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".toml", ".ini", ".md"),
        *(".html", ".htm", ".rst", ".log", ".caption", ".captions", ".cls", ".pdf", ".doc", ".docx", ".xlsx"),
        *(".py", ".sh", ".ipynb", ".js", ".css", ".c", ".h"),
        *(".parquet", ".arrow", ".feather", ".npy", ".npz", ".pkl", ".pickle", ".pyd", ".pt", ".pth", ".bin"),
        *(".safetensors", ".ckpt", ".h5", ".hdf5", ".tfrecord", ".mat", ".db", ".sqlite", ".lock", ".xmp"),
        *(".tar", ".gz", ".tgz", ".zip", ".zst", ".bz2", ".xz", ".7z", ".rar", ".idx", ".md5", ".sha256"),
        *(".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".mp3", ".wav", ".flac", ".ogg", ".m4a", ".aac"),
    ]
)
"""Suffixes of files that are not photographs and are not opened."""

HEAD = 1024
"""Bytes that are read to recognise a file."""


def by_name(name: str, suffixes: tuple[str, ...] | None) -> bool | None:
    """Whether a name is a photograph's; None if the first bytes must decide. `suffixes` are the user's own, if any."""
    if suffixes is not None:
        return name.lower().endswith(suffixes)
    if (suffix := suffix_of(name)) in IMAGE_SUFFIXES:
        return True
    return False if suffix in OTHER_SUFFIXES else None


def by_head(head: bytes) -> bool:
    """Whether these are the first bytes of an image, of a supported or a known unsupported format."""
    return image_file.sniff(head) is not None


class Skipped(Counter[str]):
    """Counts of skipped files, by kind."""

    def file(self, name: str) -> None:
        suffix = suffix_of(name)
        usual = len(suffix) <= 16 and suffix.isprintable()
        self.add((suffix or "without suffix") if usual else "of unusual suffix")

    def add(self, kind: str, count: int = 1) -> None:
        """Count files of a kind; the number of kinds is limited, whatever the names."""
        self[kind if kind in self or len(self) < 100 else "of other kinds"] += count

    def text(self) -> str:
        """As text: "skipped: 4 files (2 .txt, 1 hidden, 1 without suffix)"; "" if there are none."""
        if not (total := self.total()):
            return ""
        most = sorted(self.items(), key=lambda item: (-item[1], item[0]))
        parts = [f"{count} {kind}" for kind, count in most[:8]]
        if rest := sum(count for _, count in most[8:]):
            parts.append(f"{rest} others")
        return f"skipped: {total} file{'s' * (total != 1)} ({', '.join(parts)})"
