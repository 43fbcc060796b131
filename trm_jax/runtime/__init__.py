"""What runs programs: devices, processes, checkpoints, metrics on disk."""
