"""Garbage collection while a command starts: imported first of all by `app.cli`.

PyTorch's modules alone are two hundred thousand objects that stay. Looking through them again and again while they
come is a sixth of the time that a command takes to start, and frees nothing.
"""

import gc

gc.set_threshold(50_000, 20, 20)
