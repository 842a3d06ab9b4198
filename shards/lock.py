"""A lock between processes, which also works where the file system has no `flock` (Lustre without `-o flock`, FUSE).

There, a marker file that its holder touches every 10 seconds takes the place of the lock. A holder that died on this
machine is noticed at once, one on another machine after 30 seconds without a touch.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

LEASE_S = 30.0
"""How long a marker file must stay untouched before another process may take it."""
NO_FLOCK = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""What the system answers where there is no `flock`."""


@contextmanager
def locked(path: Path, taken: str | None = None) -> Iterator[None]:
    """Hold the lock file while the block runs; a lock dies with its process.

    Where another process holds it: ValueError with the words of `taken`, or wait if there are none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = _held(path, taken)
    except Timeout:
        raise ValueError(taken) from None
    try:
        yield
    finally:
        lock.release()


def _held(path: Path, taken: str | None) -> BaseFileLock:
    native = FileLock(path, fallback_to_soft=False)
    try:
        native.acquire(timeout=-1 if taken is None else 0)
        return native
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in NO_FLOCK:
            raise
    marker = SoftFileLease(path.with_name(f"{path.name}.held"), lease_duration=LEASE_S)
    # An abandoned marker can only be told from a held one by watching it for a whole lease.
    marker.acquire(timeout=-1 if taken is None else 1.5 * LEASE_S)
    return marker
