r"""What thinking less or more often costs and gains, with a trained network.

  python -m benchmarks.thinking halting --workdir=RUN --num_puzzles=2000
  python -m benchmarks.thinking rollouts --workdir=RUN --num_puzzles=2000

halting: adaptive halting against a fixed number of steps on the same unseen
puzzles, for several thresholds: accuracy, share of the network calls, and time
in turn (fixed, adaptive, fixed, adaptive). rollouts: of the puzzles that the
fixed number of steps gets wrong, the share solved by one of K noisy attempts as
it is chosen, for several sigma; and the time of an attempt against that of
solving once. Puzzles are those of the test set, of a generated task as many new
ones as wanted, none like a training puzzle. The last line is one JSON object.
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
  """Unseen puzzles with their answers."""

  inputs: np.ndarray  # [N, L] uint8
  labels: np.ndarray  # [N, L] uint8, 0 where there is none

  def right(self, answers: np.ndarray) -> np.ndarray:
    """Tells which answers [..., N, L] are right, bool [..., N]."""
    return ((answers == self.labels) | (self.labels == 0)).all(-1)

  def part(self, chosen: np.ndarray) -> "Puzzles":
    """Returns those that are chosen, bool [N]."""
    return Puzzles(self.inputs[chosen], self.labels[chosen])


def unseen(config: config_lib.Config, num_puzzles: int) -> Puzzles:
  """Loads so many puzzles that a run was not trained on.

  Of a generated task new ones, none a training puzzle or, for Sudoku, like one
  up to symmetry; else the first of the test set.
  """
  data = config.data
  if not data.task.startswith("generated_"):
    return _of(tasks.load(data).test, num_puzzles)
  train = tasks.load(data).train
  known = set(_kinds(data, _of(train, train.num_examples).inputs))
  other = dataclasses.replace(
    data, seed=data.seed + 1, num_train=1, num_test=2 * num_puzzles
  )
  drawn = _of(tasks.load(other).test, 2 * num_puzzles)
  new = [kind not in known for kind in _kinds(data, drawn.inputs)]
  chosen = np.flatnonzero(new)[:num_puzzles]
  if len(chosen) < num_puzzles:
    raise errors.UserError(
      f"only {len(chosen)} of {len(new)} new puzzles are not like one of the"
      " training set; lower --num_puzzles"
    )
  return Puzzles(drawn.inputs[chosen], drawn.labels[chosen])


def _kinds(data: config_lib.DataConfig, inputs: np.ndarray) -> list[Any]:
  """Returns what tells puzzles apart."""
  if data.task == "generated_sudoku":
    box = {"box_rows": data.box_rows, "box_cols": data.box_cols}
    return sudoku_generator.fingerprints(inputs, **box).tolist()
  return [question.tobytes() for question in inputs]


def _of(puzzles: puzzle_set.Puzzles, count: int) -> Puzzles:
  numbers = np.arange(min(count, puzzles.num_examples))
  places = puzzle_set.puzzles_of(numbers, puzzles.puzzle_indices)
  return Puzzles(*puzzles.fetch(numbers, places))


def loaded(
  config: config_lib.Config, workdir: str, **settings: Any
) -> solver.Solver:
  """Loads a run's network with other `config.eval` settings."""
  return solver.load(workdir, config, **settings)


def timed(solve, inputs: np.ndarray) -> tuple[solver.Predictions, float]:
  """Returns what was solved, and the seconds."""
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
  """Compares adaptive halting with a fixed number of steps."""
  steps = config.eval.supervision_steps
  fixed = loaded(config, workdir, solver="fixed")
  answers = fixed.solve_tokens(puzzles.inputs).answers  # compiles
  rows = []
  print(f"{len(puzzles.inputs)} puzzles, {steps} steps at most")
  print("threshold   exact   steps  share of calls  times as fast")
  print(f"    fixed {puzzles.right(answers).mean():7.2%} {steps:7.2f}")
  for threshold in thresholds:
    adaptive = loaded(
      config, workdir, solver="adaptive", halt_threshold=threshold
    )
    adaptive.solve_tokens(puzzles.inputs)  # compiles
    ratios = []
    for _ in range(rounds):
      _, fixed_seconds = timed(fixed, puzzles.inputs)
      found, adaptive_seconds = timed(adaptive, puzzles.inputs)
      ratios.append(fixed_seconds / adaptive_seconds)
    row = {
      "threshold": threshold,
      "exact": float(puzzles.right(found.answers).mean()),
      "steps": float(found.steps.mean()),
      "share_of_calls": float(found.steps.mean() / steps),
      "times_as_fast": statistics.median(ratios),
      "times_as_fast_rounds": ratios,
    }
    rows.append(row)
    print(
      f"{threshold:9} {row['exact']:7.2%} {row['steps']:7.2f}"
      f" {row['share_of_calls']:15.1%} {row['times_as_fast']:14.2f}"
      f"  ({min(ratios):.2f} to {max(ratios):.2f})",
      flush=True,
    )
  return {
    "fixed": float(puzzles.right(answers).mean()),
    "fixed_seconds": fixed_seconds,
    "rows": rows,
  }


def rollouts(
  config: config_lib.Config, workdir: str, puzzles: Puzzles, attempts: int
) -> dict[str, Any]:
  """Tries noisy attempts at what a fixed number of steps gets wrong."""
  fixed = loaded(config, workdir, solver="fixed")
  found = fixed.solve_tokens(puzzles.inputs)
  wrong = puzzles.part(~puzzles.right(found.answers))
  if not len(wrong.inputs):
    raise errors.UserError(
      "the network solves all of these puzzles: nothing is left to try again"
    )
  print(f"{len(wrong.inputs)} of {len(puzzles.inputs)} puzzles are wrong")
  numbers = [k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k <= attempts]
  print("sigma choice      " + "".join(f"{f'K={k}':>8}" for k in numbers))
  rows = []
  for sigma in SIGMAS:
    for choice in ("confidence", "vote"):
      tried = loaded(
        config,
        workdir,
        solver="rollouts",
        noise=sigma,
        rollouts=attempts,
        choice=choice,
      )
      right = wrong.right(_answers(tried, wrong.inputs)).mean(-1)
      rows.append(
        {
          "sigma": sigma,
          "choice": choice,
          "solved": {k: float(right[k - 1]) for k in numbers},
        }
      )
      print(
        f"{sigma:5} {choice:12}"
        + "".join(f"{right[k - 1]:8.1%}" for k in numbers),
        flush=True,
      )
  return {
    "wrong": len(wrong.inputs),
    "rows": rows,
    "attempt_to_fixed": _time_of_an_attempt(config, workdir, puzzles.inputs),
  }


def _answers(tried: solver.Solver, inputs: np.ndarray) -> np.ndarray:
  """Returns the answer chosen among the first k attempts, [K, N, L]."""
  return np.concatenate(
    [
      np.asarray(result.answers)[:, np.asarray(result.last.rows)]
      for result in tried.batch_results(
        puzzle_set.PuzzleSet.single(inputs, np.zeros_like(inputs))
      )
    ],
    axis=1,
  )


def _time_of_an_attempt(
  config: config_lib.Config, workdir: str, inputs: np.ndarray
) -> list[float]:
  """Returns the time of a noisy attempt over that of solving, by round."""
  number = 4
  inputs = inputs[: 2 * config.eval.batch_size]
  fixed = loaded(config, workdir, solver="fixed")
  noisy = loaded(config, workdir, solver="rollouts", rollouts=number, noise=0.1)
  for each in (fixed, noisy):
    each.solve_tokens(inputs)  # compiles
  ratios = []
  for _ in range(ROUNDS):
    _, fixed_seconds = timed(fixed, inputs)
    _, noisy_seconds = timed(noisy, inputs)
    ratios.append(noisy_seconds / number / fixed_seconds)
  print(
    f"an attempt takes {statistics.median(ratios):.3f} x as long as solving"
  )
  return ratios


def main(arguments: Sequence[str] | None = None) -> None:
  """Measures what is asked for."""
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
