"""Implementations of attention, SwiGLU and matrix products."""
