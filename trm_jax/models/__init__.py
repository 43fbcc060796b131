"""The network and its recursion, as Flax Linen modules."""
