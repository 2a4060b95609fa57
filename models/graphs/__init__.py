"""Whisper's encoder and decoder as OpenVINO graphs, built from a model's weights, and kept as compiled."""
