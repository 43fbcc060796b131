"""The algorithm: model, recursion, training step and inference.

Only jax, flax, optax, chex and numpy; no settings, files or processes. Imports
are relative, so that the folder works in any package under any name.
"""
