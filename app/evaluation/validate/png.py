"""A picture of coloured cells as a PNG, to put inside an SVG: thousands of rectangles would weigh far more."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

_ENLARGED = 4  # so that a viewer which smooths pictures leaves the cells their edges


def data_uri(rgb: npt.NDArray[np.uint8]) -> str:
    """A `data:` address of a PNG.

    Args:
        rgb: uint8, shape (rows, columns, 3): each cell's colour, the first row on top.
    """
    pixels: npt.NDArray[Any] = rgb.repeat(_ENLARGED, 0).repeat(_ENLARGED, 1)
    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)  # each line without a filter
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
