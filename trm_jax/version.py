"""The version of trm_jax."""

__version__ = "0.1.0"
