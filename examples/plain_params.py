"""A trained network as a plain dict of arrays, without Flax and without loops.

Parameters are nested dicts of float32 arrays, so that any tree function works
on them; the model is a function of them. One supervision step by hand:

  python examples/plain_params.py RUN
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import trm_jax
from trm_jax.core import halting
from trm_jax.core import model as model_lib


def main(workdir: str) -> np.ndarray:
  """Prints the parameters; returns a supervision step's answer, [1, L]."""
  solver = trm_jax.load(workdir)
  model, weights = solver.program.model, solver.weights
  for path, leaf in jax.tree.leaves_with_path(weights.params):
    print(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape)
  print(
    f"{sum(leaf.size for leaf in jax.tree.leaves(weights.params)):,} in all"
  )

  question = jnp.ones((1, model.seq_len), jnp.int32)  # of nothing but token 1
  latents = halting.initial_latents(
    weights.initial_latents, 1, model.total_len, model.dtype
  )
  output = model_lib.apply(
    model, weights.params, question, weights.puzzle_table[:1], latents
  )
  answer = np.asarray(output.logits.argmax(-1))
  print(solver.look.text(answer[0]))
  return answer


if __name__ == "__main__":
  main(*sys.argv[1:])
