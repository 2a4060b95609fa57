"""Tilescribe: the commands, the audio pipeline and the Python API."""
