"""Latency on the device at hand, energy where there is a meter, and the cost model of the NPU's array."""
