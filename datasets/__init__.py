"""Utterances: audio with its reference text. Knows nothing of models."""
