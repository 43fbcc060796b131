"""Puzzles as NumPy arrays: tasks, augmentation, batches; no jax."""
