"""Turns the error that ended a command into one sentence: the problem, the file, and the way out.

Every error of a command comes here (from `pipelines/cli.py`), so other code need not explain system errors. A
`ValueError` already has a message for the user; other errors are explained by their type.
"""

from __future__ import annotations

import errno
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

EXTRAS = {
    **dict.fromkeys(("torch", "safetensors", "transformers", "diffusers", "open_clip", "timm"), "models"),
    **dict.fromkeys(("accelerate", "torchvision", "peft"), "models"),
    **dict.fromkeys(("torchao", "bitsandbytes", "cache_dit"), "faster"),
    "tensorboard": "train",
    "faiss": "semantic",
    "s3fs": "s3",
    "gcsfs": "gcs",
}
"""The extra of crispedit that brings a package."""
TRAINING = ("train", "tokenize", "evaluate")

AGAIN = "run the same command again to continue"


def sentence(error: BaseException, command: str = "") -> str:
    """One line for the terminal (the message of a ValueError may have more)."""
    for one in causes(error):
        for known in (_missing_package, _system, _cluster):
            if explanation := known(one, command):
                return explanation
    if isinstance(error, ValueError):
        return str(error) or type(error).__name__
    if isinstance(error, RecursionError):
        return "something in the input is nested too deeply to be read; --traceback shows where"
    message = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}{message and ': '}{message} (--traceback shows where; please report it)"


@contextmanager
def last_word() -> Iterator[None]:
    """If this process is killed inside the block (by Ray when its raylet or head is lost, or by the system when memory
    runs out), a helper process says so and what to do."""
    message = f"the command was killed, or lost its Ray cluster; {AGAIN}"
    listens = ["sh", "-c", 'read -r ended || echo "$0" >&2', message]
    with subprocess.Popen(listens, stdin=subprocess.PIPE, start_new_session=True) as listener:
        assert listener.stdin is not None
        try:
            yield
        finally:
            with suppress(OSError):
                listener.stdin.write(b"ended\n")
                listener.stdin.flush()


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes; the last one is the system's own error."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        seen.append(one)
        yield one
        if isinstance(one, ValueError) and str(one):
            return  # already explained
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _missing_package(error: BaseException, command: str) -> str | None:
    if not isinstance(error, ImportError):
        return None
    # fsspec: "Install s3fs to access S3"
    asked = re.search(r"[Ii]nstall (?:the )?[`'\"]?([A-Za-z0-9_]+)", str(error))
    package = (error.name or (asked[1] if asked else "")).partition(".")[0]
    if not package or package == "crispedit":
        return None
    extra = EXTRAS.get(package)
    if extra == "models" and command in TRAINING:
        extra = "train"
    remedy = f"pip install {package}" if extra is None else f"pip install 'crispedit[{extra}]'"
    if isinstance(error, ModuleNotFoundError) or asked:
        return f"this needs the package {package}, which is not installed: {remedy}"
    return f"the package {package} does not load ({error}): {remedy}"


_REMEDIES = {
    errno.ENOSPC: f"the disk is full; free some space there, then {AGAIN}",
    errno.EDQUOT: f"your quota is used up; free some space there, then {AGAIN}",
    errno.EFBIG: f"no file of this size is allowed there (see `ulimit -f`); raise the limit, then {AGAIN}",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "not permitted; change its permissions or choose another folder",
    errno.EPERM: "not permitted; change its permissions or choose another folder",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "this is a folder, not a file",
    errno.EEXIST: "exists already; choose another name",
    errno.ENAMETOOLONG: "the name is too long for the file system; choose a shorter one",
    errno.EMFILE: "too many files are open; raise the limit with `ulimit -n 65536`",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "out of memory; use fewer processes or smaller batches",
    errno.ENOSYS: "the file system there cannot do this; choose a folder on another one",
    errno.ENOTSUP: "the file system there cannot do this; choose a folder on another one",
    errno.EIO: f"the disk or the network failed; {AGAIN}",
    errno.ESTALE: f"the network file system lost this file; {AGAIN}",
    errno.EADDRINUSE: "this port is in use; choose another",
}


def _system(error: BaseException, command: str) -> str | None:
    """Errors of the operating system: disk, permission, connection, memory."""
    if isinstance(error, MemoryError):
        return "out of memory; use fewer processes or smaller batches"
    if isinstance(error, ConnectionError | TimeoutError) and not getattr(error, "filename", None):
        return f"a connection failed ({_told(error)}); when the server can be reached again, run the same command again"
    if not isinstance(error, OSError) or error.errno is None:
        return None
    what = error.filename if error.filename is not None else error.filename2
    remedy = _REMEDIES.get(error.errno, error.strerror or _told(error))
    name = what.decode(errors="replace") if isinstance(what, bytes) else str(what)
    return remedy if what is None else f"{name}: {remedy}"


def _cluster(error: BaseException, command: str) -> str | None:
    """Errors of Ray: a node, its raylet or the whole cluster is lost."""
    if not type(error).__module__.startswith("ray."):
        return None
    return f"the Ray cluster was lost or failed ({type(error).__name__}: {_told(error)[:300]}); {AGAIN}"


def _told(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
