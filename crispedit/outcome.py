"""Outcomes: what can become of a row, and which errors are transient.

A row is kept, rejected (with a reason), a permanent error (the input or the answer is bad), a transient error (a
server, a disk, a lost process: it is tried again), or not reached. Damage to the run's own tables is none of these: it
stops the run.
"""

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import TypeVar

KEPT, REJECTED, ERROR, TRANSIENT, NOT_REACHED = "kept", "rejected", "error", "transient", "not_reached"
"""The five outcomes. NOT_REACHED: no bound failed, but a filter that the verdict needs has not measured the row."""

Q = TypeVar("Q")
A = TypeVar("A")


class Transient(Exception):  # noqa: N818 - a kind of error, also mixed into others
    """A temporary error: the row is tried again in this run, and in the next one."""


class Damaged(ValueError):  # noqa: N818 - a state, as the others here are
    """A part of the run's own tables is missing or damaged. It stops the run: it is no row's result."""


class Failing(ValueError):  # noqa: N818
    """A step fails so often for one reason that going on would only cost time."""


TRANSIENT_ERRNOS = {
    getattr(errno, name)
    for name in (
        *("EIO", "EAGAIN", "EBUSY", "ETXTBSY", "ESTALE", "EREMOTEIO", "ENOSPC", "EDQUOT", "EMFILE", "ENFILE"),
        *("ENOMEM", "ENOBUFS", "ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENOTCONN"),
        *("ETIMEDOUT", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE", "ESHUTDOWN", "EINTR", "EPROTO"),
    )
    if hasattr(errno, name)
}
"""errno values of temporary faults: of disks, networks and limits."""
AWAY = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV}
"""System errors of a missing or inaccessible file: it may be back in the next run, hardly within this one."""

STATUSES = {408, 409, 423, 425, 429}
"""HTTP statuses below 500 after which a retry makes sense."""

NETWORK = re.compile(
    r"(Connect\w*|Connection\w*|Timeout\w*|\w*Timeout|ServerDisconnected|Throttl\w*|SlowDown|IncompleteRead|"
    r"RemoteProtocol|RemoteDisconnected|Read|Write|Protocol|ChunkedEncoding|ContentLength|ClientPayload|"
    r"ClientOSError|ClientConnect\w*|RateLimit|InternalServer|APIConnection|APITimeout|EndpointConnection)(Error|"
    r"Exception)?"
)
"""Names of the network libraries' own exceptions (httpx, aiohttp, urllib3, requests, botocore)."""
NETWORK_LIBRARIES = {
    *("httpx", "httpcore", "aiohttp", "urllib3", "requests", "botocore", "aiobotocore", "http", "h11"),
    *("s3fs", "gcsfs", "google", "fsspec"),
}


def is_transient(error: BaseException) -> bool:
    """Whether an error is transient: of a server (429, 5xx), a network, a store, a disk or a lost process. An
    exception's cause counts too."""
    return any(_passes(cause) for cause in takewhile(lambda cause: not isinstance(cause, Damaged), _causes(error)))


def is_away(error: BaseException) -> bool:
    """Whether a transient error means a missing file, which is not worth waiting for."""
    return any(isinstance(cause, OSError) and cause.errno in AWAY for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause, that one's cause ..."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _passes(error: BaseException) -> bool:
    if isinstance(error, Transient | ConnectionError | TimeoutError):
        return True
    status = _status(error)
    if status is not None:
        return status >= 500 or status in STATUSES
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in TRANSIENT_ERRNOS | AWAY
    library = type(error).__module__.partition(".")[0]
    return library in NETWORK_LIBRARIES and NETWORK.fullmatch(type(error).__name__) is not None


def _status(error: BaseException) -> int | None:
    """The status of a server's answer, by the names that HTTP libraries give it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    candidates = [getattr(error, name, None) for name in ("status_code", "status", "code")]
    candidates += [response, getattr(response, "status_code", None), getattr(response, "status", None)]
    return next((value for value in candidates if type(value) is int and 100 <= value < 600), None)


def each(call: Callable[[Sequence[Q]], Sequence[A]], items: Sequence[Q]) -> list[A | Exception]:
    """One answer per item of a batched call. A batch that raises is halved until each failing item is alone with its
    exception. So one bad item never costs its neighbours, and a batch too big for memory shrinks. Damage to the run's
    tables is raised."""
    if not items:
        return []
    try:
        answers = list(call(items))
    except Damaged:
        raise
    except Exception as error:  # whatever a part, a codec or a driver raises is that item's outcome
        if len(items) == 1:
            return [error]
        middle = len(items) // 2
        return each(call, items[:middle]) + each(call, items[middle:])
    if len(answers) != len(items):
        raise AssertionError(f"{call} answered {len(answers)} times for {len(items)} items")
    return list(answers)


def describe(error: BaseException) -> str:
    """One line for an error column."""
    return f"{type(error).__name__}: {error}"[:1000]


def kind(error: str) -> str:
    """An error's text without names, numbers and quotations. Errors are grouped and counted by it."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "…", error.splitlines()[0] if error else "")
    text = re.sub(r"\S*[/\\]\S*|\b[0-9a-f]{16,}\b", "…", text)
    text = re.sub(r"\S+\.(jpe?g|png|webp|tiff?|gif|bmp|tar|parquet|jsonl?)\b\S*", "…", text, flags=re.IGNORECASE)
    return re.sub(r"\d+", "N", text)[:160]
