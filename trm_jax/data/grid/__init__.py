"""Puzzles of the user: grids of characters in CSV files."""
