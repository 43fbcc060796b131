"""Solving puzzles with trained weights."""
