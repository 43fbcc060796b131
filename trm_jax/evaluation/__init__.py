"""Accuracy on test puzzles, and ARC's votes."""
