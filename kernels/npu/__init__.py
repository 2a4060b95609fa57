"""The NPU: how the contract is laid over its array, and how that program is built, run and checked.

Who knows AIE reads `kernels/CONTRACT.md`, then `program` (`plan.py`, `layout.py`, `transfers.py`, the cores' source
`aie/attention.hpp`, the design `aie/design.py`, `memory_map.py`), then `build` and `runtime`. `diagnosis` says what a
machine lacks, `cost.py` what it would take. No part of it has run on hardware yet.
"""
