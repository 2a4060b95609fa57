"""What can be wrong with records, limits or runs that do not belong together."""

from __future__ import annotations


class EvidenceError(Exception):
    """Records or limits that cannot be used; the text is one line that names the file, line or field."""
