"""Maze-Hard: rules, generator."""
