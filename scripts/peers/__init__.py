"""The peers that `scripts/bench.py` measures Tilescribe against, and how: in processes of their own, pair by pair."""
