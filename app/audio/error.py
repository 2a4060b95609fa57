"""The error for audio that can't be transcribed, raised by every part of the way in."""


class AudioError(Exception):
    """Input that can't be transcribed. `str()` is one line, `name: reason`; `name` is its user's own."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        # A file's name may hold line breaks, or bytes that are not text.
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in self.name)
        return f"{shown}: {self.reason}"


def not_numbers(name: str, seconds: float) -> AudioError:
    """The error for NaN or infinity, `seconds` into the audio."""
    return AudioError(name, f"samples that are not numbers (NaN or infinity) at {seconds:.2f} s")
