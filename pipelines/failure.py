"""Turns the error that ended a command into one sentence: the problem, the file, and the way out.

Every error of a command comes here (from `pipelines/cli.py`), so other code need not explain system errors. A
`ValueError` already has a message for the user; other errors are explained by their type.
"""

import errno
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

AGAIN = "run the same command again to continue"
_CATALOGUE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8").replace("AGAIN", AGAIN))
EXTRAS: Mapping[str, str] = _CATALOGUE["extras"]
REMEDIES: Mapping[int, str] = {getattr(errno, name): remedy for name, remedy in _CATALOGUE["remedies"].items()}
TRAINING = ("train", "tokenize", "evaluate")


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


def _system(error: BaseException, command: str) -> str | None:
    """Errors of the operating system: disk, permission, connection, memory."""
    if isinstance(error, MemoryError):
        return "out of memory; use fewer processes or smaller batches"
    if isinstance(error, ConnectionError | TimeoutError) and not getattr(error, "filename", None):
        return f"a connection failed ({_told(error)}); when the server can be reached again, run the same command again"
    if not isinstance(error, OSError) or error.errno is None:
        return None
    what = error.filename if error.filename is not None else error.filename2
    remedy = REMEDIES.get(error.errno, error.strerror or _told(error))
    name = what.decode(errors="replace") if isinstance(what, bytes) else str(what)
    return remedy if what is None else f"{name}: {remedy}"


def _cluster(error: BaseException, command: str) -> str | None:
    """Errors of Ray: a node, its raylet or the whole cluster is lost."""
    if not type(error).__module__.startswith("ray."):
        return None
    return f"the Ray cluster was lost or failed ({type(error).__name__}: {_told(error)[:300]}); {AGAIN}"


def _told(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
