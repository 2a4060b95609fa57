"""From source to a program: `toolchain.py` finds the tools, `xclbin.py` makes a build, `store.py` keeps it.

`host_kernel.py` is the cores' source compiled for the host, to check it.
"""
