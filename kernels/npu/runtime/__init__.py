"""Running programs with XRT: `device.py` is the NPU, `xrt.py` what it takes of XRT."""
