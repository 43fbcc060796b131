"""The examples of docs/extend.md are complete and train."""

import re

import jax
import numpy as np
import pages
import pytest

from trm_jax import config as config_lib
from trm_jax import train
from trm_jax.core import losses, network, optim, recursion
from trm_jax.data import tasks
from trm_jax.inference import solver as solver_lib
from trm_jax.runtime import program as program_lib

pytestmark = pytest.mark.usefixtures("one_device")

REGISTRIES = (
  recursion.RECURRENCES,
  network.TOKEN_MIXERS,
  optim.OPTIMIZERS,
  losses.ANSWER_LOSSES,
  tasks.TASKS,
)
TINY = {
  "model.hidden_size": 16,
  "model.mlp_multiple": 16,
  "model.puzzle_embed_dim": 16,
  "train.batch_size": 8,
  "train.num_steps": 2,
  "eval.batch_size": 8,
  "eval.every_steps": 0,
  "eval.supervision_steps": 2,
  "data.num_train": 24,
  "data.num_test": 8,
}
EXAMPLES = {
  re.match(r'"""(\w+)\.py: ', block.text)[1]: block.text
  for block in pages.blocks("python")
  if block.page == "docs/extend.md"
}


@pytest.fixture(autouse=True)
def registries(monkeypatch):
  """Forgets the examples' entries after each test."""
  before = [dict(registry) for registry in REGISTRIES]
  yield
  for registry, entries in zip(REGISTRIES, before, strict=True):
    registry.clear()
    registry.update(entries)


def _run(name):
  """Executes an example; returns its names and its settings, made tiny."""
  scope = {"__name__": name}
  exec(compile(EXAMPLES[name], f"{name}.py", "exec"), scope)
  config = config_lib.from_config_dict(scope["get_config"]())
  return scope, config_lib.changed(config, TINY)


def test_there_are_five_examples():
  assert len(EXAMPLES) == 5


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_adds_an_entry_that_its_settings_name(name):
  before = [set(registry) for registry in REGISTRIES]
  _, config = _run(name)
  assert config.name == name
  (new,) = set().union(
    *(
      set(registry) - known
      for registry, known in zip(REGISTRIES, before, strict=True)
    )
  )
  assert new in config_lib.flatten(config).values()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_training_step_of_an_example_can_be_traced(name):
  _, config = _run(name)
  program, task = program_lib.load(config)
  assert task.vocab_size > 2
  state = program.abstract_state()
  batch = program.abstract_batch(config.train.batch_size)
  new_state, sums = jax.eval_shape(program.train_step(), state, batch)
  shapes = jax.tree.map(lambda leaf: leaf.shape, (state, new_state))
  assert shapes[0] == shapes[1]
  assert sums["loss"].shape == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_trains_and_its_network_solves(name, tmp_path):
  _, config = _run(name)
  report = train.train(config, str(tmp_path))
  assert np.isfinite(report.final["loss"])
  questions = program_lib.load(config).task.test.inputs[:3]
  solved = solver_lib.load(str(tmp_path)).solve_tokens(questions)
  assert solved.answers.shape == questions.shape


def test_the_focal_loss_is_below_cross_entropy_and_ignores_cells():
  scope, _ = _run("focal")
  logits = jax.random.normal(jax.random.key(0), (4, 5))
  labels = np.array([0, 1, 2, -100], np.int32)
  cost = scope["focal"](logits, labels)
  plain = losses.softmax_cross_entropy(logits, labels)
  assert (cost[:3] < plain[:3]).all()
  assert cost[3] == 0


def test_the_rules_of_the_colouring_judge_without_the_label():
  scope, config = _run("colouring")
  loaded = scope["load"](config.data)
  questions, answers = loaded.train.inputs, loaded.train.labels
  assert scope["is_valid"](questions, answers).all()
  wrong = answers.copy()
  wrong[:, 0] = wrong[:, 1]
  assert not scope["is_valid"](questions, wrong).any()
  assert not scope["is_valid"](questions, questions).any()
  # Another colour in a free cell without equal neighbours is right, too.
  blank = np.full_like(questions, 1)
  swapped = np.array([0, 1, 3, 2, 4], np.uint8)[answers]
  assert scope["is_valid"](blank, swapped).all()


def test_the_colouring_reads_and_shows_what_users_type():
  scope, config = _run("colouring")
  look = scope["look"](config.data)
  text = "R.G.B" * 5
  tokens, errors = scope["parse_questions"](
    [text, "R" * 24, "X" * 25], config.data, look
  )
  assert set(errors) == {1, 2}
  assert look.text(tokens[0]).replace("\n", "") == text
  assert len(look.colours) == len(look.symbols)


def test_three_latents_follow_the_plain_loop():
  scope, _ = _run("three_latents")
  del scope
  keys = jax.random.split(jax.random.key(0), 4)
  w = jax.random.normal(keys[0], (4, 4))
  x, y = (jax.random.normal(key, (2, 3, 4)) for key in keys[1:3])
  z = jax.random.normal(keys[3], (2, 3, 2, 4))

  def call(state, injection):
    return jax.numpy.tanh((state - injection) @ w)

  latents = recursion.latent_recursion(
    call,
    x,
    recursion.types.Latents(y=y, z=z),
    latent_updates=3,
    recurrence=recursion.RECURRENCES["three_latents"],
  )
  a, b = z[:, :, 0], z[:, :, 1]
  a = call(a, b + y + x)
  b = call(b, a + y + x)
  a = call(a, b + y + x)
  np.testing.assert_allclose(latents.z[:, :, 0], a, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(latents.z[:, :, 1], b, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(latents.y, call(y, a + b), rtol=1e-5, atol=1e-6)
