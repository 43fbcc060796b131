"""Pictures, animations, plots and the HTML report."""
