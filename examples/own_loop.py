"""A TRM in a loop of your own: your puzzles, your optax optimizer.

The puzzle is to sort six digits. Of trm_jax there are the model and one step of
training; no config, no data set, no checkpoints. The state is a tree of arrays:
save it as you save yours.

  python examples/own_loop.py
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from trm_jax.core import metrics, network, train_state, train_step, types
from trm_jax.core import model as model_lib

SLOTS, LENGTH, TOKENS = 64, 6, 5
MODEL = model_lib.TinyRecursiveModel(
  vocab_size=TOKENS,
  seq_len=LENGTH,
  hidden_size=64,
  network_config=network.NetworkConfig(
    num_layers=2,
    num_heads=4,
    mlp_expansion=4.0,
    mlp_multiple=32,
    token_mixing="mlp",
  ),
  num_prefix_tokens=0,  # no puzzle vector in front of the grid
  latent_updates=2,
  recursion_cycles=2,
)
STEP_CONFIG = train_step.StepConfig(
  max_supervision_steps=4,
  exploration_prob=0.1,
  halt_rule="halt",
  answer_loss="stablemax",
  halt_loss_weight=0.5,
  puzzle_learning_rate=optax.constant_schedule(0.0),
  puzzle_weight_decay=0.0,
  ema_decay=0.99,
  freeze_network=False,
)


def my_batch(rng: np.random.Generator) -> types.Batch:
  """Draws a puzzle for each slot; a slot that is still busy drops it."""
  inputs = jnp.asarray(rng.integers(0, TOKENS, (SLOTS, LENGTH)), jnp.int32)
  return types.Batch(
    inputs=inputs,
    labels=jnp.sort(inputs),
    puzzle_ids=jnp.zeros(SLOTS, jnp.int32),
  )


def main(
  model: model_lib.Model = MODEL, num_steps: int = 300, log_every: int = 50
) -> list[float]:
  """Trains; returns the mean loss between two lines of the log."""
  adam = optax.adamw(5e-3, b2=0.95)
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), adam)
  init = functools.partial(
    train_state.init_state,
    model,
    optimizer,
    seed=0,
    batch_size=SLOTS,
    num_puzzle_rows=1,
    puzzle_embed_dim=0,
  )
  state = jax.jit(init)()
  step = train_step.make_train_step(model, optimizer, STEP_CONFIG, seed=0)
  step = jax.jit(step, donate_argnums=0)
  rng, losses = np.random.default_rng(0), []
  sums: dict = {}
  for number in range(1, num_steps + 1):
    state, new_sums = step(state, my_batch(rng))
    sums = metrics.add(sums, jax.device_get(new_sums))
    if number % log_every == 0:
      means, sums = metrics.divide(sums), {}
      losses.append(float(means["loss"]))
      # Of puzzles that leave their slot, after up to 4 steps of training on
      # them; for a test accuracy, solve puzzles that were never trained on.
      exact = means["exact_accuracy"]
      print(
        f"step {number} | loss {losses[-1]:.3f} | in-slot exact {exact:.1%}"
      )
  return losses


if __name__ == "__main__":
  main()
