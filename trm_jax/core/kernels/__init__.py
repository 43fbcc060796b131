"""Implementations of attention, SwiGLU and products to choose from."""
