"""trm_jax: the Tiny Recursive Model (arXiv 2510.04871) in JAX and Flax."""

__version__ = "0.1.0"
