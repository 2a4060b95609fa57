"""Files that come back are read strictly, by msgspec: what it finds wrong with one, in a few words."""

from __future__ import annotations

import msgspec

DAMAGE = (OSError, UnicodeError, RecursionError, msgspec.MsgspecError)
"""What reading and decoding a file raises."""


def what_is_wrong(error: Exception) -> str:
    """What is wrong with a file or line, and with which field, from one of `DAMAGE`."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, UnicodeError):
        return "damaged: not UTF-8"
    if isinstance(error, RecursionError):
        return "damaged: nested too deep"
    if not isinstance(error, msgspec.ValidationError):
        return f"damaged: {error}"
    text, _, place = str(error).replace("`", "").partition(" - at ")
    field = place.removeprefix("$").removeprefix(".")
    return f"{field}: {text}" if field else text
