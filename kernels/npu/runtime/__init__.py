"""Running programs with XRT: `device.py` is the NPU, `session.py` its contexts, `launch.py` a run in one of them."""
