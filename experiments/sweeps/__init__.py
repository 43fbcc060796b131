"""Sweeps: what is varied of an experiment, and how."""
