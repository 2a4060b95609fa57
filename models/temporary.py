"""Temporary files, and what is said where the disk has no room for them."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["NoRoomError", "check_room", "temporary_file"]


class NoRoomError(OSError):
    """The folder of temporary files, which is its `filename`, has no room left."""

    def __init__(self, what: str) -> None:
        remedy = "TMPDIR=FOLDER puts temporary files into another folder"
        super().__init__(errno.ENOSPC, f"{what}; {remedy}", tempfile.gettempdir())


@contextmanager
def temporary_file() -> Iterator[None]:
    """While one is written.

    Raises:
        NoRoomError: the disk is full, or a quota of it.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoomError(error.strerror or str(error)) from error
        raise


def check_room(needed: float, what: str) -> None:
    """Say that `what` takes so many bytes of temporary files.

    Raises:
        NoRoomError: there are fewer left.
    """
    import logging  # which a command's --help does without

    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    takes = f"{what} takes {needed / 1e9:.1f} GB of temporary files"
    if needed > free:
        raise NoRoomError(f"{takes}, and {free / 1e9:.1f} GB are free")
    logging.getLogger(__name__).info("%s in %s, where %.1f GB are free", takes, folder, free / 1e9)
