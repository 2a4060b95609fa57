"""Weights: finding, fetching, checking and reading them."""
