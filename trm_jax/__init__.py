"""trm_jax: the Tiny Recursive Model (arXiv 2510.04871) in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
  from trm_jax.core.model import Model, TinyRecursiveModel
  from trm_jax.core.recursion import deep_recursion
  from trm_jax.core.rollouts import solve_rollouts
  from trm_jax.core.solve import solve_adaptive, solve_fixed
  from trm_jax.core.train_step import make_train_step
  from trm_jax.core.types import Latents
  from trm_jax.inference import solver

# Where the public names are. They are imported when they are used: to ask for
# the version, JAX need not start.
_MODULES = {
  "Latents": "trm_jax.core.types",
  "Model": "trm_jax.core.model",
  "TinyRecursiveModel": "trm_jax.core.model",
  "deep_recursion": "trm_jax.core.recursion",
  "make_train_step": "trm_jax.core.train_step",
  "solve_adaptive": "trm_jax.core.solve",
  "solve_fixed": "trm_jax.core.solve",
  "solve_rollouts": "trm_jax.core.rollouts",
}
__all__ = [
  "Latents",
  "Model",
  "TinyRecursiveModel",
  "__version__",
  "deep_recursion",
  "load",
  "make_train_step",
  "solve_adaptive",
  "solve_fixed",
  "solve_rollouts",
]


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(f"module 'trm_jax' has no attribute {name!r}")
  return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
  return sorted(__all__)


def load(workdir: str, **settings: Any) -> "solver.Solver":
  """Loads a trained network; see `solver.load`.

  Args:
    workdir: of a training, or of an import.
    **settings: of `config.eval`, over those saved with the checkpoint, e.g.
      solver="adaptive", halt_threshold=0.9.
  """
  from trm_jax.inference import solver

  return solver.load(workdir, **settings)
