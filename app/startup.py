"""What makes a command start sooner; imported first of all by `app.cli`.

PyTorch's modules alone are two hundred thousand objects that stay. Looking through them again and again while they
come is a sixth of the time that a command takes to start, and frees nothing: garbage is collected less often.
"""

import gc
import sys
from typing import Any

gc.set_threshold(50_000, 20, 20)

_SCIPY_BLAS = "scipy.linalg.cython_blas"


def load_numba() -> None:
    """Load numba's array functions without SciPy, which they only ask whether it is there.

    Nothing compiled here does linear algebra, and importing it (with f2py, which comes along) takes 0.2 s. To be
    called while no other thread imports anything.
    """
    if _SCIPY_BLAS in sys.modules:
        return
    modules: dict[str, Any] = sys.modules
    modules[_SCIPY_BLAS] = None
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        del modules[_SCIPY_BLAS]
