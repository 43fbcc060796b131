"""Puzzles: files, symmetries, batches. Nothing in here imports jax."""
