"""The NPU: how the contract is laid over its array, the device's source, how it is built, checked and run.

Read `plan.py` and `layout.py` first, then `aie/attention.hpp`, then `xrt.py`. No part of it has run on hardware yet.
"""
