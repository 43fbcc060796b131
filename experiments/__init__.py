"""Experiments: plain configs, each a lab note."""
