"""The terminal: Ctrl-C, closed or broken streams, progress bars."""
