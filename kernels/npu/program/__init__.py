"""The device program: its plan, layout, transfers, memory map, and the AIE2 source."""
