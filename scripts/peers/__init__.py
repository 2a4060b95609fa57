"""What `scripts/bench.py` measures: the sides, each in a process of its own, what they are given, and the rows."""
