"""Functions that are compiled for this processor when they are first called, and kept for the next process.

A cache that can't be written or is damaged costs a compilation, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache
from numba.core.serialize import dumps

_log = logging.getLogger(__name__)


def jit(function: Any) -> Any:
    """Compile a function, without the GIL; what it is called with decides the types."""
    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    try:
        compiled._cache = _Cache(function)
    except RuntimeError:  # numba found no folder
        compiled._cache = _NoCache()
    return compiled


class _Checked(CompileResultCacheImpl):
    """Machine code with its SHA-256: code that was changed would run, and crash or compute something else."""

    def reduce(self, cres: Any) -> tuple[bytes, bytes]:
        data = dumps(super().reduce(cres))
        return hashlib.sha256(data).digest(), data

    def rebuild(self, target_context: Any, payload: tuple[bytes, bytes]) -> Any:
        digest, data = payload
        if hashlib.sha256(data).digest() != digest:
            raise ValueError
        return super().rebuild(target_context, pickle.loads(data))


class _Cache(FunctionCache):
    _impl_class = _Checked

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # damage leads to any; what is left of it would stay in the way of what is kept now
            found = None
            with contextlib.suppress(OSError):
                os.unlink(self._cache_file._index_path)
        if found is None:
            _tell_of_compiling()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _tell_of_loss(f"{self.cache_path}: {getattr(error, 'strerror', None) or error}")


class _NoCache(NullCache):
    def load_overload(self, sig: Any, target_context: Any) -> None:
        _tell_of_compiling()

    def save_overload(self, sig: Any, data: Any) -> None:
        _tell_of_loss("neither this program's folder nor the user's cache can be written")


_told: set[str] = set()


def _tell(level: int, text: str, *cause: object) -> None:
    """Once in a process."""
    if text not in _told:
        _told.add(text)
        _log.log(level, text, *cause)


def _tell_of_compiling() -> None:
    _tell(logging.INFO, "compiling the kernels for this processor, which takes up to a minute")


def _tell_of_loss(cause: str) -> None:
    _tell(
        logging.WARNING,
        "compiled kernels can't be kept, and are compiled again in every process: %s; "
        "NUMBA_CACHE_DIR names another folder",
        cause,
    )
