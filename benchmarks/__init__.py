"""Measurements, each a script that ends with one JSON line."""
