"""Where what was fetched, compiled or built is kept."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """TILESCRIBE_CACHE, else tilescribe's in the user's cache folder."""
    cache = os.environ.get("TILESCRIBE_CACHE")
    if cache:
        return Path(os.path.expanduser(cache))
    import platformdirs  # not needed where the variable is set, and perhaps not there: see `kernels.npu.build.store`

    return platformdirs.user_cache_path("tilescribe")
