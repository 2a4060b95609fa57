"""Functions that are compiled for this processor when they are first called, and kept for the next process.

numba compiles them. What is kept is the machine code alone: a process that finds it loads neither numba nor LLVM, which
take 0.4 s and 120 MB. So compiled functions allocate nothing, and modules that need numba come `later`. A cache that
can't be written or is damaged costs a compilation, and nothing else.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import logging
import mmap
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from kernels.cache import cache_folder
from kernels.machine_code import ForeignCodeError, load
from kernels.processor import cpuinfo

__all__ = ["Fixed", "jit", "later"]

_log = logging.getLogger(__name__)
_DIGEST_BYTES = hashlib.sha256().digest_size
_DONE = (0, -2)
"""What numba's functions return where they raised nothing."""
_TAKEN = 256 << 20
"""Bytes of addresses that all kernels are compiled in, twice what was measured."""
_MOST = 32
"""Files that are kept of a function: of its kinds of arguments, of processors and versions that share a folder."""
_SETTINGS = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")


def jit(function: Any) -> Any:
    """Compile a function, without the GIL; what it is called with decides the types.

    From Python it is called with arrays, numbers and named tuples of them, and returns an integer or nothing; from
    other compiled functions, with anything that numba knows.
    """
    if platform.machine() != "x86_64":
        import numba

        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    return _Compiled(function)


def later(module: str) -> Any:
    """A module that compiled functions use, and that is imported where they are compiled."""
    return importlib.import_module(module) if platform.machine() != "x86_64" else _Later(module)


class Fixed:
    """Arguments whose arrays stay where they are: they are looked through once, not at every call."""

    def __init__(self, *arguments: Any) -> None:
        """Keep these."""
        self.arguments = arguments
        self.flat = [_flat(argument) for argument in arguments]


class _Later(NamedTuple):
    module: str


class _Kind(NamedTuple):
    """An argument's: of arrays dtype, dimensions and layout; of named tuples their class and what they hold."""

    name: str
    dimensions: int = 0
    layout: str = ""
    like: type | None = None
    parts: tuple[_Kind, ...] = ()


_Flat = tuple[_Kind, list[Any]]


def _flat(x: Any) -> _Flat:
    """An argument's kind, and the numbers that numba's functions take in its place."""
    if isinstance(x, np.ndarray):
        flags = x.flags
        layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
        data = x.__array_interface__["data"][0]
        return _Kind(x.dtype.str, x.ndim, layout), [0, 0, x.size, x.itemsize, data, *x.shape, *x.strides]
    if isinstance(x, tuple):
        flat = [_flat(part) for part in x]
        kind = _Kind("tuple", like=type(x), parts=tuple(kind for kind, _ in flat))
        return kind, [value for _, values in flat for value in values]
    if isinstance(x, (bool, int, float)):
        return _Kind(type(x).__name__), [x]
    return _Kind(x.dtype.str), [x.item() if x.dtype.kind in "iub" else ctypes.c_float(x)]


class _Compiled:
    def __init__(self, function: Any) -> None:
        self._function = function
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self._ready: dict[tuple[_Kind, ...], Callable[..., int]] = {}
        self._lock = Lock()

    def __call__(self, *arguments: Any) -> int:
        kinds: list[_Kind] = []
        numbers: list[Any] = []
        for argument in arguments:
            for kind, values in argument.flat if isinstance(argument, Fixed) else (_flat(argument),):
                kinds.append(kind)
                numbers += values
        key = tuple(kinds)
        run = self._ready.get(key)
        if run is None:
            with self._lock:
                run = self._ready.get(key) or self._ready.setdefault(key, self._made(key, numbers))
        result, error = ctypes.c_int64(), ctypes.c_void_p()
        if run(ctypes.byref(result), ctypes.byref(error), *numbers) not in _DONE:
            raise RuntimeError(f"{self.__name__}: compiled code failed")
        return result.value

    def _made(self, kinds: tuple[_Kind, ...], numbers: list[Any]) -> Callable[..., int]:
        """The function for arguments of these kinds: the one that was kept, or made and kept now."""
        name = f"{self._function.__name__}-{self._digest(kinds)[:32]}.code"
        address = next(filter(None, (_kept(folder / name) for folder in self._folders())), None)
        if address is None:
            _tell(logging.INFO, "compiling the kernels for this processor, which takes up to a minute")
            symbol, code, there = self._compile(kinds)
            try:
                address = load(code, symbol)
                _keep(self._folders(), name, symbol.encode() + b"\0" + code)
            except (OSError, ForeignCodeError):  # numba has put it into memory itself
                address = there
        taken = (
            ctypes.c_double
            if isinstance(number, float)
            else ctypes.c_float
            if isinstance(number, ctypes.c_float)
            else ctypes.c_int64
            for number in numbers
        )
        return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *taken)(address)

    def _compile(self, kinds: tuple[_Kind, ...]) -> tuple[str, bytes, int]:
        """The symbol, the object and numba's own address of the function for arguments of these kinds."""
        dispatcher = self.dispatcher
        # OSError where there is no memory: LLVM would end the process with a signal.
        mmap.mmap(-1, _TAKEN, mmap.MAP_PRIVATE, mmap.PROT_READ).close()
        dispatcher.compile(tuple(map(_type, kinds)))
        compiled = next(reversed(dispatcher.overloads.values()))
        library = compiled.library
        code: bytes = library.codegen._tm.emit_object(library._final_module)
        symbol = compiled.fndesc.llvm_func_name
        return symbol, code, library.get_pointer_to_function(symbol)

    @cached_property
    def dispatcher(self) -> Any:
        """The function as numba has it, with those that it calls."""
        import numba

        function = self._function
        known = {**function.__globals__}
        for name in function.__code__.co_names:
            if isinstance(known.get(name), _Compiled):
                known[name] = known[name].dispatcher
            elif isinstance(known.get(name), _Later):
                known[name] = importlib.import_module(known[name].module)
        copy = FunctionType(function.__code__, known, function.__name__, function.__defaults__)
        copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
        njit: Any = numba.njit  # whose type leaves some of its options out
        return njit(nogil=True, error_model="numpy", no_cpython_wrapper=True)(copy)

    def _digest(self, kinds: tuple[_Kind, ...]) -> str:
        """Of everything that the machine code depends on."""
        source = Path(self._function.__code__.co_filename)
        about = _surroundings(), source.read_bytes(), self._function.__qualname__, kinds
        return hashlib.sha256(repr(about).encode()).hexdigest()

    def _folders(self) -> Iterator[Path]:
        """Where machine code may be kept, in the order in which it is tried."""
        named = os.environ.get("NUMBA_CACHE_DIR")
        if named:
            yield Path(named)
        else:
            yield Path(self._function.__code__.co_filename).parent / "__pycache__"
            yield cache_folder() / "compiled"


def _type(kind: _Kind) -> Any:
    """What numba calls it."""
    from numba import from_dtype, types

    if kind.like is not None:
        named: Any = types.BaseTuple
        return named.from_types(tuple(map(_type, kind.parts)), kind.like)
    if kind.layout:
        array: Any = types.Array
        return array(from_dtype(np.dtype(kind.name)), kind.dimensions, kind.layout)
    python = {"bool": types.boolean, "int": types.int64, "float": types.float64}
    return python.get(kind.name) or from_dtype(np.dtype(kind.name))


@cache
def _surroundings() -> tuple[object, ...]:
    """This processor, what compiles for it, and the code that compiled functions call."""
    here = Path(__file__).parent
    sources = [path.read_bytes() for path in sorted((*here.glob("*.py"), *here.glob("emulator/*.py")))]
    about = cpuinfo()
    return (
        hashlib.sha256(b"".join(sources)).digest(),
        *map(version, ("numba", "llvmlite")),
        sys.version_info[:2],
        *map(about.get, ("model name", "flags")),
        *map(os.environ.get, _SETTINGS),
    )


def _kept(path: Path) -> int | None:
    """The address of what was kept there, now in memory; None where there is nothing, or it is damaged."""
    with suppress(OSError, ValueError):
        content = path.read_bytes()
        data = content[_DIGEST_BYTES:]
        # Code that was changed would run, and crash or compute something else.
        if hashlib.sha256(data).digest() == content[:_DIGEST_BYTES]:
            symbol, _, code = data.partition(b"\0")
            return load(code, symbol.decode())
    return None


def _keep(folders: Iterator[Path], name: str, data: bytes) -> None:
    """Write it into the first folder that can be written, whole or not at all; told once where there is none."""
    problem = None
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                try:
                    file.write(hashlib.sha256(data).digest() + data)
                    file.flush()
                    os.replace(file.name, folder / name)
                except BaseException:
                    os.unlink(file.name)
                    raise
            _forget(folder.glob(f"{name.partition('-')[0]}-*.code"))
            return
        except OSError as error:
            problem = problem or f"{folder}: {error.strerror or error}"
    _tell(
        logging.WARNING,
        "compiled kernels can't be kept, and are compiled again in every process: %s; "
        "NUMBA_CACHE_DIR names another folder",
        problem,
    )


def _forget(kept: Iterable[Path]) -> None:
    """Remove the oldest, such as those of former versions; who still needs one compiles it again."""
    with suppress(OSError):
        for path in sorted(kept, key=lambda path: path.stat().st_mtime)[:-_MOST]:
            path.unlink()


_told: set[str] = set()


def _tell(level: int, text: str, *cause: object) -> None:
    """Once in a process."""
    if text not in _told:
        _told.add(text)
        _log.log(level, text, *cause)
