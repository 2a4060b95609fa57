"""Recordings: finding them, opening containers, resampling to 16 kHz."""
