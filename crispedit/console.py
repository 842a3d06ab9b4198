"""Progress output: shown on a terminal, unless `-q` turns it off."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

QUIET = "CRISPEDIT_QUIET"
"""The environment variable that passes `-q` on to a command's processes."""


@contextmanager
def quiet(asked: bool) -> Iterator[None]:
    """No progress is shown inside this context if `asked`."""
    before = os.environ.get(QUIET)
    if asked:
        os.environ[QUIET] = "1"
    try:
        yield
    finally:
        if asked:
            os.environ.pop(QUIET)
            os.environ.update({} if before is None else {QUIET: before})


def is_quiet() -> bool:
    return bool(os.environ.get(QUIET))


def shows_progress() -> bool:
    """Whether to show progress bars: on a terminal, without `-q`."""
    return sys.stderr.isatty() and not is_quiet()
