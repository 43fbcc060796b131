"""Sweeps: which settings of an experiment vary, and how."""
