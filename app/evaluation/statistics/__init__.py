"""Uncertainty and significance of word error rates."""
