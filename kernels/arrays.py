"""Arrays by what they hold, as annotations everywhere name them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Int8 = NDArray[np.int8]
Tokens = NDArray[np.int64]
Reals = NDArray[np.float32]
Doubles = NDArray[np.float64]
