"""Sudoku: rules, augmentation, generator."""
