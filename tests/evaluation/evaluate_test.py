"""Evaluation: its numbers do not depend on how the puzzles were batched."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_model

from trm_jax.core import eval_step, solve, types
from trm_jax.data import loader, puzzle_set
from trm_jax.evaluation import evaluate
from trm_jax.evaluation import report as report_lib
from trm_jax.runtime import mesh, preemption

L, V, D = small_model.L, small_model.V, small_model.D
NUM_PUZZLES = small_model.NUM_PUZZLES
TRAINED_STEPS = 3
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


@functools.cache
def _evaluate_batch(supervision_steps):
  return jax.jit(
    eval_step.make_evaluate_batch(
      small_model.model(),
      supervision_steps=supervision_steps,
      answer_loss="stablemax",
      halt_loss_weight=0.5,
    )
  )


@functools.cache
def _puzzles():
  """Two of the puzzles carry the model's own last answer as solution."""
  rng = np.random.default_rng(1)
  inputs = rng.integers(1, V, (NUM_PUZZLES, L)).astype(np.uint8)
  labels = rng.integers(1, V, (NUM_PUZZLES, L)).astype(np.uint8)
  ids = np.arange(NUM_PUZZLES, dtype=np.int32)
  answers = np.asarray(_observe(inputs, ids, TRAINED_STEPS)["answers"])[-1]
  labels[[2, 9]] = answers[[2, 9]]
  indices = np.arange(NUM_PUZZLES + 1, dtype=np.int64)
  return puzzle_set.PuzzleSet(
    inputs=inputs,
    labels=labels,
    puzzle_ids=ids,
    puzzle_indices=indices,
    group_indices=indices,
  )


def _observe(inputs, ids, steps):
  def observe(output, number):
    return {
      "answers": jnp.argmax(output.logits, axis=-1),
      "logits": output.logits,
      "halt_logits": output.halt_logits,
      "number": number,
    }

  solved = jax.jit(
    functools.partial(
      solve.solve_fixed,
      small_model.model(),
      supervision_steps=steps,
      observe=observe,
    )
  )
  return solved(small_model.weights(), np.asarray(inputs, np.int32), ids)


def _report(batches, *, steps=TRAINED_STEPS, num_devices=1, **arguments):
  return evaluate.evaluate(
    _evaluate_batch(steps),
    small_model.weights(),
    batches,
    mesh.make_mesh(num_devices),
    num_puzzles=NUM_PUZZLES,
    scorer=report_lib.Scorer(),
    **arguments,
  )


@functools.cache
def _expected():
  return _report(list(loader.eval_batches(_puzzles(), batch_size=4)))


def _assert_same(report, expected, steps=None):
  assert report.num_puzzles == expected.num_puzzles
  assert set(report.means) == set(expected.means)
  for name, values in expected.means.items():
    np.testing.assert_allclose(
      report.means[name][:steps], values[:steps], **TOLERANCE, err_msg=name
    )


def test_report_by_hand():
  report, data = _expected(), _puzzles()
  assert report.num_puzzles == NUM_PUZZLES
  answers = np.asarray(
    _observe(data.inputs, data.puzzle_ids, TRAINED_STEPS)["answers"]
  )
  # The loader marks label 0 as no label, which a model may answer, too.
  known = data.labels != 0
  right = (answers == data.labels) | ~known
  np.testing.assert_allclose(
    report.means["exact_accuracy"], right.all(-1).mean(-1), rtol=1e-6
  )
  cells = (right & known).sum(-1) / known.sum(-1)
  np.testing.assert_allclose(
    report.means["cell_accuracy"], cells.mean(-1), rtol=1e-6
  )
  assert report.final["exact_accuracy"] >= 2 / NUM_PUZZLES
  assert report.means["steps"].tolist() == [1, 2, 3]
  assert report.means["count"].tolist() == [NUM_PUZZLES] * 3
  assert report.after(1)["cell_accuracy"] == report.means["cell_accuracy"][0]


@pytest.mark.parametrize("batch_size", [3, 16])
def test_the_batch_size_changes_no_metric(batch_size):
  batches = loader.eval_batches(_puzzles(), batch_size=batch_size)
  _assert_same(_report(batches), _expected())


def test_neither_four_devices_nor_the_order_of_puzzles_change_a_metric():
  order = np.random.default_rng(3).permutation(NUM_PUZZLES)
  data = _puzzles()
  shuffled = dataclasses.replace(
    data,
    inputs=data.inputs[order],
    labels=data.labels[order],
    puzzle_ids=data.puzzle_ids[order],
  )
  batches = loader.eval_batches(shuffled, batch_size=4)
  _assert_same(_report(batches, num_devices=4), _expected())


def test_padding_rows_change_no_metric():
  *batches, last = loader.eval_batches(_puzzles(), batch_size=4)
  assert last["mask"].tolist() == [True, True, True, False]
  for junk in (0, 1, V - 1):
    spoilt = {name: array.copy() for name, array in last.items()}
    spoilt["inputs"][3] = junk
    spoilt["labels"][3] = junk
    spoilt["puzzle_ids"][3] = NUM_PUZZLES + 5  # its vector is NaN
    _assert_same(_report([*batches, spoilt]), _expected())


def test_the_metrics_of_a_step_are_those_of_stopping_there():
  batches = list(loader.eval_batches(_puzzles(), batch_size=4))
  shorter = _report(batches, steps=2)
  for name, values in shorter.means.items():
    assert len(values) == 2
    np.testing.assert_allclose(
      values, _expected().means[name][:2], **TOLERANCE, err_msg=name
    )
  assert shorter.final["loss"] != pytest.approx(_expected().final["loss"])


def test_an_empty_data_set_is_refused():
  with pytest.raises(ValueError, match="no batch"):
    _report([])


# --- progress --------------------------------------------------------------


def test_a_stop_is_asked_before_each_batch():
  stop = preemption.PreemptionSignal()
  batches = loader.eval_batches(_puzzles(), batch_size=4)
  seen = []

  def observe(answers):
    seen.append(np.asarray(answers.rows).sum())
    stop.request()

  with pytest.raises(
    preemption.Preempted, match="SIGTERM ended the evaluation"
  ):
    _report(batches, stop=stop, observe=observe)
  assert seen == [4]


# --- solve_fixed -----------------------------------------------------------


def test_more_steps_begin_with_the_fewer_and_go_on():
  data = _puzzles()
  inputs, ids = data.inputs, data.puzzle_ids
  short = _observe(inputs, ids, TRAINED_STEPS)
  longer = _observe(inputs, ids, 4 * TRAINED_STEPS)  # more than training had
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b[:TRAINED_STEPS], rtol=1e-5, atol=1e-5
    ),
    short,
    longer,
  )
  assert longer["number"].tolist() == list(range(1, 4 * TRAINED_STEPS + 1))
  assert np.isfinite(longer["logits"]).all()
  logits = np.asarray(longer["logits"])
  for step in range(1, 4 * TRAINED_STEPS):
    assert np.abs(logits[step] - logits[step - 1]).max() > 1e-6, step


def test_solving_is_a_loop_over_the_model():
  data, weights = _puzzles(), small_model.weights()
  observed = _observe(data.inputs, data.puzzle_ids, TRAINED_STEPS)
  shape = (NUM_PUZZLES, 1 + L, D)
  latents = types.Latents(
    y=np.broadcast_to(weights.initial_latents.y, shape),
    z=np.broadcast_to(weights.initial_latents.z, shape),
  )
  apply = jax.jit(small_model.model().apply)
  for step in range(TRAINED_STEPS):
    output = apply(
      {"params": weights.params},
      data.inputs.astype(np.int32),
      weights.puzzle_table[data.puzzle_ids],
      latents,
    )
    latents = output.latents
    np.testing.assert_allclose(
      observed["logits"][step], output.logits, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
      observed["halt_logits"][step], output.halt_logits, rtol=1e-4, atol=1e-4
    )


def test_a_puzzle_is_solved_alike_in_any_company():
  data = _puzzles()
  together = _observe(data.inputs, data.puzzle_ids, TRAINED_STEPS)
  alone = _observe(data.inputs[4:5], data.puzzle_ids[4:5], TRAINED_STEPS)
  np.testing.assert_allclose(
    together["logits"][:, 4:5], alone["logits"], rtol=1e-4, atol=1e-5
  )


def test_the_data_and_the_losses_ignore_the_same_label():
  """The data room may not import what imports JAX, so it says it again."""
  assert loader.IGNORE_LABEL == types.IGNORED_LABEL
