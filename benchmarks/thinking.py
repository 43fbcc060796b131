r"""Measures accuracy against inference cost, of a trained network.

  python -m benchmarks.thinking halting --workdir=RUN --num_puzzles=2000
  python -m benchmarks.thinking rollouts --workdir=RUN --num_puzzles=2000

halting: adaptive halting against a fixed number of supervision steps on the
same unseen puzzles, for several thresholds: accuracy, share of the network
calls, and time (fixed and adaptive in turn). rollouts: of the puzzles that the
fixed number of steps gets wrong, the share that is solved by K rollouts, for
several noise levels and both ways to select an answer. The puzzles are those of
the test set; for a generated task, new ones that resemble no training puzzle.
The last line is one JSON object.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import puzzle_set, tasks
from trm_jax.data.sudoku import generator as sudoku_generator
from trm_jax.inference import solver
from trm_jax.runtime import restore

THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
SIGMAS = (0.1, 0.2, 0.5, 1.0)
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Puzzles:
  """Unseen puzzles with their solutions.

  Attributes:
    inputs: [N, L] uint8.
    labels: [N, L] uint8; 0 where any answer is correct.
  """

  inputs: np.ndarray
  labels: np.ndarray

  def correct(self, answers: np.ndarray) -> np.ndarray:
    """Returns which answers [..., N, L] are correct, bool [..., N]."""
    return ((answers == self.labels) | (self.labels == 0)).all(-1)

  def subset(self, chosen: np.ndarray) -> "Puzzles":
    """Returns the puzzles with these indices, or where a mask is true."""
    return Puzzles(self.inputs[chosen], self.labels[chosen])


def unseen(config: config_lib.Config, num_puzzles: int) -> Puzzles:
  """Loads puzzles that a run was not trained on.

  For a generated task new ones, none of them a training puzzle or, for Sudoku,
  equivalent to one by symmetry; otherwise the first of the test set.
  """
  data = config.data
  if not data.task.startswith("generated_"):
    return _first(tasks.load(data).test, num_puzzles)
  train = tasks.load(data).train
  known = set(_fingerprints(data, _first(train, train.num_examples).inputs))
  other = dataclasses.replace(
    data, seed=data.seed + 1, num_train=1, num_test=2 * num_puzzles
  )
  drawn = _first(tasks.load(other).test, 2 * num_puzzles)
  new = [each not in known for each in _fingerprints(data, drawn.inputs)]
  if sum(new) < num_puzzles:
    raise errors.UserError(
      f"only {sum(new)} of {len(new)} new puzzles resemble no training puzzle;"
      " lower --num_puzzles"
    )
  return drawn.subset(np.flatnonzero(new)[:num_puzzles])


def _fingerprints(data: config_lib.DataConfig, inputs: np.ndarray) -> list[Any]:
  """Returns a value per puzzle that equal puzzles share."""
  if data.task == "generated_sudoku":
    box = {"box_rows": data.box_rows, "box_cols": data.box_cols}
    return sudoku_generator.fingerprints(inputs, **box).tolist()
  return [question.tobytes() for question in inputs]


def _first(puzzles: puzzle_set.Puzzles, count: int) -> Puzzles:
  numbers = np.arange(min(count, puzzles.num_examples))
  places = puzzle_set.puzzles_of(numbers, puzzles.puzzle_indices)
  return Puzzles(*puzzles.fetch(numbers, places))


def _timed(solve: solver.Solver, inputs: np.ndarray) -> tuple[Any, float]:
  """Returns the predictions, and the seconds."""
  start = time.perf_counter()
  found = solve.solve_tokens(inputs)
  return found, time.perf_counter() - start


def halting(
  config: config_lib.Config,
  workdir: str,
  puzzles: Puzzles,
  *,
  thresholds: Sequence[float] = THRESHOLDS,
  rounds: int = ROUNDS,
) -> dict[str, Any]:
  """Compares adaptive halting with a fixed number of supervision steps."""
  steps = config.eval.supervision_steps
  fixed = solver.load(workdir, config, solver="fixed")
  answers = fixed.solve_tokens(puzzles.inputs).answers  # compiles
  exact = float(puzzles.correct(answers).mean())
  print(f"{len(puzzles.inputs)} puzzles, at most {steps} supervision steps")
  print("threshold   exact   steps  share of calls  times as fast")
  print(f"    fixed {exact:7.2%} {steps:7.2f}")
  rows = []
  for threshold in thresholds:
    adaptive = solver.load(
      workdir, config, solver="adaptive", halt_threshold=threshold
    )
    adaptive.solve_tokens(puzzles.inputs)  # compiles
    ratios = []
    for _ in range(rounds):
      _, fixed_seconds = _timed(fixed, puzzles.inputs)
      found, adaptive_seconds = _timed(adaptive, puzzles.inputs)
      ratios.append(fixed_seconds / adaptive_seconds)
    row = {
      "threshold": threshold,
      "exact": float(puzzles.correct(found.answers).mean()),
      "steps": float(found.steps.mean()),
      "share_of_calls": float(found.steps.mean() / steps),
      "times_as_fast": statistics.median(ratios),
      "times_as_fast_rounds": ratios,
    }
    rows.append(row)
    print(
      f"{threshold:9} {row['exact']:7.2%} {row['steps']:7.2f}"
      f" {row['share_of_calls']:15.1%} {row['times_as_fast']:14.2f}",
      flush=True,
    )
  return {"fixed": exact, "rows": rows}


def rollouts(
  config: config_lib.Config, workdir: str, puzzles: Puzzles, number: int
) -> dict[str, Any]:
  """Solves with noise what a fixed number of steps gets wrong."""
  fixed = solver.load(workdir, config, solver="fixed")
  answers = fixed.solve_tokens(puzzles.inputs).answers
  wrong = puzzles.subset(~puzzles.correct(answers))
  if not len(wrong.inputs):
    raise errors.UserError(
      "the network solves all of these puzzles; there are none to try again"
    )
  print(f"{len(wrong.inputs)} of {len(puzzles.inputs)} puzzles are wrong")
  counts = [k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k <= number]
  print("sigma choice      " + "".join(f"{f'K={k}':>8}" for k in counts))
  rows = []
  for sigma in SIGMAS:
    for choice in ("confidence", "vote"):
      noisy = solver.load(
        workdir,
        config,
        solver="rollouts",
        noise=sigma,
        rollouts=number,
        rollout_selection=choice,
      )
      # The answer selected among the first k rollouts, [K, N, L].
      selected = np.concatenate(
        [
          np.asarray(result.answers)[:, np.asarray(result.last.rows)]
          for result in noisy.batch_results(
            puzzle_set.PuzzleSet.single(wrong.inputs, wrong.labels)
          )
        ],
        axis=1,
      )
      solved = wrong.correct(selected).mean(-1)
      row = {k: float(solved[k - 1]) for k in counts}
      rows.append({"sigma": sigma, "choice": choice, "solved": row})
      print(
        f"{sigma:5} {choice:12}" + "".join(f"{v:8.1%}" for v in row.values()),
        flush=True,
      )
  return {"wrong": len(wrong.inputs), "rows": rows}


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints a table and one JSON line."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("what", choices=("halting", "rollouts"))
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--num_puzzles", type=int, default=2000)
  parser.add_argument("--rollouts", type=int, default=32)
  parser.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS)
  parser.add_argument("--rounds", type=int, default=ROUNDS)
  given = parser.parse_args(arguments)
  config = restore.saved_config(given.workdir)
  puzzles = unseen(config, given.num_puzzles)
  if given.what == "halting":
    result = halting(
      config,
      given.workdir,
      puzzles,
      thresholds=given.thresholds,
      rounds=given.rounds,
    )
  else:
    result = rollouts(config, given.workdir, puzzles, given.rollouts)
  print(
    json.dumps({"command": machine.command(), **machine.fields(), **result})
  )


if __name__ == "__main__":
  try:
    main()
  except errors.UserError as error:
    raise SystemExit(f"error: {error}") from error
