"""Random operands over the contract's whole range."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import contract as c


def random_operands(
    random: np.random.Generator, heads: int, rows: int, keys: int, **fixed: Any
) -> c.Operands:
    """Operands over the contract's whole range, some heads with small scores so that many keys count."""
    spread = int(random.choice([128, 128, 40, 6]))

    def integers(low: int, high: int, *shape: int) -> Any:
        return random.integers(low, high, shape)

    values: dict[str, Any] = {
        "q": integers(-spread, spread, heads, rows, 64).astype(np.int8),
        "k": integers(-spread, spread, heads, keys, 64).astype(np.int8),
        "v": integers(-128, 128, heads, keys, 64).astype(np.int8),
        "key_multiplier": integers(1, 256, heads, keys).astype(np.uint8),
        "multiplier": integers(1, 1024, heads, rows).astype(np.uint16),
        "shift": integers(2, 29, heads).astype(np.int32),
        "valid_keys": int(random.integers(1, keys + 1)),
    }
    return c.Operands(**(values | fixed))
