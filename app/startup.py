"""What makes a command start sooner, and what a Ctrl-C does from then on; imported before anything else of ours.

PyTorch's modules alone are two hundred thousand objects that stay. Looking through them again and again while they
come is a sixth of the time that a command takes to start, and frees nothing: garbage is collected less often.

Nothing is imported here that the interpreter has not loaded already: until the handler is set, a Ctrl-C has Python's
traceback. `signal` is `_signal` with enumerations, whose import alone takes longer than all of this.
"""

import _signal as signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INTERRUPTED = 130
"""The exit code of what a Ctrl-C ended."""

_came = False


def _leave(number: int, frame: "Any") -> None:
    """While nothing is under way yet, or nothing any more."""
    os.write(2, b"error: interrupted\n")
    os._exit(INTERRUPTED)


def _interrupt(number: int, frame: "Any") -> None:
    """While something is under way that has to be ended in order; who asks again does not want to wait for that."""
    global _came
    if _came and number == signal.SIGINT:
        os._exit(INTERRUPTED)
    _came = True
    raise KeyboardInterrupt


def _unraisable(lost: "Any") -> None:
    """Interrupt again, a moment later, where it was lost in what can't raise: a finaliser, a library's callback."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, 0.02)
    elif not _came:
        sys.__unraisablehook__(lost)


def interrupted() -> bool:
    """Whether a Ctrl-C came, whatever has become of its exception."""
    return _came


def interruptible(under_way: bool) -> None:
    """Whether a Ctrl-C is to raise KeyboardInterrupt, as something has to be ended in order, or to end all at once."""
    if signal.getsignal(signal.SIGINT) in (_leave, _interrupt):
        signal.signal(signal.SIGINT, _interrupt if under_way else _leave)
        signal.signal(signal.SIGALRM, _interrupt if under_way else signal.SIG_IGN)
        sys.unraisablehook = _unraisable


# Only in a console script: whoever imports the package, as tests do, has a Ctrl-C and a garbage collector of his own.
if sys.argv and os.path.basename(sys.argv[0]) in ("evaluate", "tilescribe", "transcribe"):
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    import gc

    gc.set_threshold(50_000, 20, 20)
