"""Experiments: a config each, with the published numbers in its docstring."""
