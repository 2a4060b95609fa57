"""Whisper: weights, log-mel features, the encoder with its attention seam, and the decoder."""
