"""ARC-AGI: tasks, their variants, and the data sets made of them."""
