"""Utterances: audio with its reference text. Knows nothing of models."""

MANIFESTS = (".jsonl", ".csv", ".tsv")
"""What the names of manifests end in; see `datasets.manifest`."""
