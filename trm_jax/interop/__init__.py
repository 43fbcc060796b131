"""Weights and solvers, from other programs and for them."""
