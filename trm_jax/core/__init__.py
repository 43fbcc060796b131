"""The algorithm alone: jax, flax, optax and chex; no settings, no files."""
