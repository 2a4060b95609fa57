"""The device program: its plan, the layout of its buffers, what is transferred, the cores' source, the memory map."""
