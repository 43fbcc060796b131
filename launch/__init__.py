"""How a training reaches other machines: TPU VMs, SLURM, clouds, sweeps."""
