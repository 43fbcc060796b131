"""The public data sets, downloaded and prepared once."""
