"""Builders of data sets: the only place that knows tensorflow_datasets."""
