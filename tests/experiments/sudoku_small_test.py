"""The recipe for two CPU cores: its size, and its sweep."""

import jax

from experiments import sudoku_small
from experiments.sweeps import sudoku_small as sweep
from launch import sweep_spec
from trm_jax import config as config_lib
from trm_jax.runtime import flops, mesh, program


def test_the_size_and_the_cost_are_those_of_the_lab_note():
  config = config_lib.from_config_dict(sudoku_small.get_config())
  sizes = program.DataSpec(vocab_size=11, seq_len=81, num_puzzle_ids=1)
  built = program.build(config, sizes, mesh.make_mesh(1))
  params = jax.eval_shape(built.init).params
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 383_618
  assert sum(flops.network_calls(config.model)) == 10


def test_the_sweep_changes_one_setting_at_a_time():
  plan = sweep_spec.plan_search(
    sweep.get_sweep(),
    experiment="experiments/sudoku_small.py",
    config=sudoku_small.get_config(),
    overrides={},
  )
  first, *others = plan.points.values()
  assert len(others) == 14
  changed = [
    [(name, value) for name, value in point.items() if value != first[name]]
    for point in others
  ]
  assert all(len(change) == 1 for change in changed)
  assert len({change[0] for change in changed}) == 14
  shipped = config_lib.flatten(
    config_lib.from_config_dict(sudoku_small.get_config())
  )
  other = {name for name, value in first.items() if shipped[name] != value}
  assert other == {"optimizer.ema_decay"}  # as the sweep's text says
  steps = plan.num_steps * shipped["train.batch_size"]
  assert steps == 204_800
