"""trm_jax: the Tiny Recursive Model (arXiv 2510.04871) in JAX and Flax."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
  from trm_jax.inference import solver


def load(workdir: str, **settings: Any) -> "solver.Solver":
  """Loads a trained network; see `solver.load`.

  Args:
    workdir: of a training, or of an import.
    **settings: of `config.eval`, over those beside the checkpoint, e.g.
      solver="adaptive", halt_threshold=0.9.
  """
  # Imported late: to ask for the version, JAX need not start.
  from trm_jax.inference import solver

  return solver.load(workdir, **settings)
