"""The folder core/ alone, copied under another name, trains a network."""

import os
import pathlib
import shutil
import subprocess
import sys

CORE = pathlib.Path(__file__).resolve().parents[2] / "trm_jax/core"

# What a stranger writes: random tokens in, the same tokens out.
PROGRAM = """
import functools
import sys

import jax
import optax

from lifted import (
  metrics, model, network, train_state, train_step, types
)

SLOTS, LENGTH, TOKENS = 8, 6, 5
trm = model.TinyRecursiveModel(
  vocab_size=TOKENS,
  seq_len=LENGTH,
  hidden_size=16,
  network_config=network.NetworkConfig(
    num_layers=1,
    num_heads=2,
    mlp_expansion=4.0,
    mlp_multiple=16,
    token_mixing="mlp",
  ),
  num_prefix_tokens=0,
  latent_updates=1,
  recursion_cycles=2,
)
optimizer = optax.adam(1e-2)
config = train_step.StepConfig(
  max_supervision_steps=2,
  exploration_prob=0.1,
  halt_rule="halt",
  answer_loss="stablemax",
  halt_loss_weight=0.5,
  puzzle_learning_rate=optax.constant_schedule(0.0),
  puzzle_weight_decay=0.0,
  ema_decay=0.9,
  freeze_network=False,
)
init = functools.partial(
  train_state.init_state,
  trm,
  optimizer,
  seed=0,
  batch_size=SLOTS,
  num_puzzle_rows=1,
  puzzle_embed_dim=0,
)
state = jax.jit(init)()
step = jax.jit(train_step.make_train_step(trm, optimizer, config, seed=0))
tokens = jax.random.randint(jax.random.key(1), (SLOTS, LENGTH), 0, TOKENS)
batch = types.Batch(
  inputs=tokens, labels=tokens, puzzle_ids=jax.numpy.zeros(SLOTS, int)
)
for number in range(10):
  state, sums = step(state, batch)
  print(float(metrics.divide(jax.device_get(sums))["answer_loss"]))
assert not [name for name in sys.modules if name.startswith("trm_jax")]
"""


def test_a_copy_of_the_folder_trains(tmp_path):
  shutil.copytree(
    CORE, tmp_path / "lifted", ignore=shutil.ignore_patterns("__pycache__")
  )
  (tmp_path / "program.py").write_text(PROGRAM)
  environment = {
    name: value for name, value in os.environ.items() if name != "PYTHONPATH"
  }
  result = subprocess.run(
    [sys.executable, "program.py"],
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  losses = [float(line) for line in result.stdout.split()]
  assert len(losses) == 10
  assert losses[-1] < 0.8 * losses[0]
