"""Pictures, curves, GIFs and the HTML report."""
