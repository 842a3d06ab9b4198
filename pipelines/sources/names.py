"""Names of files and members: whether they are photographs', how tables write them, and what they are relative to."""

import os
import posixpath
import re
from importlib import resources
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from crispedit import image_file, normalise
from crispedit.shards.storage import is_remote

KNOWN: dict[str, Any] = yaml.safe_load(
    (resources.files("crispedit.pipelines.sources") / "known.yaml").read_text(encoding="utf-8")
)
"""What files and columns of data sets are called."""

IMAGE_SUFFIXES = (*normalise.SUFFIXES, *KNOWN["images"].split())
OTHER_SUFFIXES = frozenset(KNOWN["others"].split())

HEAD = 1024
"""Bytes that are read to recognise a file."""


def escape(name: str) -> str:
    """A file name as one line of UTF-8, reversibly: `%`, `#` (the separator of members), control characters and bytes
    that are not UTF-8 become %XX."""
    return re.sub(
        "[%#\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]",
        lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape")),
        name,
    )


def unescape(text: str) -> str:
    """The file name that `escape` wrote, with surrogates for bytes that are not UTF-8."""
    raw = re.sub(rb"%([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), text.encode())
    return raw.decode("utf-8", "surrogateescape")


def suffix_of(name: str) -> str:
    """The lower-case extension with its dot, or ""."""
    return os.path.splitext(name)[1].lower()


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


def folder_of(path: str, below: str = ".") -> str:
    """The folder of an entry's file, or one relative to it, as a URL or an unescaped local path."""
    if is_remote(path):
        scheme, _, rest = os.path.dirname(path).partition("://")
        return f"{scheme}://{posixpath.normpath(f'{rest}/{below}')}"
    return os.path.normpath(os.path.join(os.path.dirname(unescape(path)), os.path.expanduser(below)))


def beside(folder: str, name: str) -> str:
    """The path of a file that a table names. ValueError, with the reason, if it is outside this folder.

    Only the name is checked: links inside the folder are followed wherever they lead, as in a folder source. The
    folder's owner made them; a table can only name them.
    """
    if name.startswith("file://"):
        name = unquote(urlsplit(name).path)
    if "\\" in name and not os.path.lexists(os.path.join(folder, name)):
        name = name.replace("\\", "/")  # lists made on Windows
    if is_remote(folder):
        return _beside_remotely(folder, name)
    if is_remote(name):
        raise ValueError(f"the image {name!r} is a URL: URLs are not fetched; download it beside the list")
    if "\0" in name:
        raise ValueError(f"the path {name!r} holds a zero byte")
    path = os.path.normpath(os.path.join(folder, name))
    if not _inside(path, folder):
        if not os.path.isabs(name):
            raise ValueError(f"the path {name!r} leaves the folder of images, {folder}")
        # The folder may have been named through a link.
        head, tail = os.path.split(path)
        path = os.path.join(os.path.realpath(head), tail)
        if not _inside(path, os.path.realpath(folder)):
            raise ValueError(
                f"the absolute path {name!r} lies outside the folder of images, {folder}: name the folder that holds "
                "the images (source.images, for a list), or write paths relative to it"
            )
    return escape(path)


def _beside_remotely(folder: str, name: str) -> str:
    scheme, _, inside = folder.partition("://")
    own, _, rest = name.partition("://") if is_remote(name) else (scheme, "", posixpath.join(inside, name))
    path = posixpath.normpath(rest)
    if own != scheme or name.startswith(("/", "~")) or not _inside(path, inside):
        raise ValueError(f"the path {name!r} leaves the folder of images, {folder}")
    return f"{scheme}://{path}"


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/") or folder in (".", "")
