"""A solver that is no network, for tests of what surrounds it."""

import dataclasses
import errno
import io
import os

import numpy as np
from etils import epath

from trm_jax import config as config_lib
from trm_jax.data import puzzle_set, tasks
from trm_jax.data import task as task_lib
from trm_jax.data.sudoku import generator as sudoku_generator
from trm_jax.data.sudoku import rules as sudoku_rules
from trm_jax.inference import solver

STEPS = 3  # that every puzzle takes


@dataclasses.dataclass
class StandIn:
  """Has what `solver.Solver` offers to those who predict."""

  config: config_lib.Config
  look: task_lib.Look
  rules: task_lib.Rules | None
  identifiers: list[str]
  path: epath.Path

  valid = solver.Solver.valid

  def solve_puzzles(self, puzzles):
    size = self.config.eval.batch_size
    for first in range(0, puzzles.num_examples, size):
      examples = np.arange(first, min(first + size, puzzles.num_examples))
      places = puzzle_set.puzzles_of(examples, puzzles.puzzle_indices)
      inputs, _ = puzzles.fetch(examples, places)
      yield self.solve_tokens(inputs, puzzles.puzzle_ids[places])

  def solve_tokens(self, inputs, puzzle_ids=None):
    if puzzle_ids is None:
      puzzle_ids = np.zeros(len(inputs), np.int32)
    answers = [
      self.answer(*pair) for pair in zip(inputs, puzzle_ids, strict=True)
    ]
    sure = np.array([sure for _, sure in answers])
    return solver.Predictions(
      questions=inputs,
      answers=np.array([answer for answer, _ in answers], np.uint8).reshape(
        inputs.shape
      ),
      halt_logits=np.log(sure / (1 - sure)).astype(np.float32),
      steps=np.full(len(inputs), STEPS, np.int32),
    )

  def trace_tokens(self, inputs, puzzle_ids=None, *, supervision_steps=None):
    solved = self.solve_tokens(inputs, puzzle_ids)
    return solver.Trace(
      answers=np.stack([inputs, solved.answers]),
      confidence=np.stack([solved.confidence / 2, solved.confidence]),
    )

  def answer(self, tokens, puzzle_id):
    """Returns an answer and the confidence in it."""
    raise NotImplementedError


class Echo(StandIn):
  """Answers the question itself, half sure of it."""

  def answer(self, tokens, puzzle_id):
    return tokens, 0.5


class SudokuStandIn(StandIn):
  """Solves Sudokus by search."""

  def answer(self, tokens, puzzle_id):
    data = self.config.data
    board = sudoku_generator.Board(
      (tokens - sudoku_rules.BLANK).tolist(),
      box_rows=data.box_rows,
      box_cols=data.box_cols,
    )
    assert board.count(1) == 1
    return np.array(board.digits) + sudoku_rules.BLANK, 0.75


def changed(config: config_lib.Config, group: str, **changes):
  """Returns settings with changes in one group."""
  return dataclasses.replace(
    config,
    **{group: dataclasses.replace(getattr(config, group), **changes)},
  )


def of(cls, config: config_lib.Config, *, look=None, identifiers=("<blank>",)):
  """Builds a stand-in for the puzzles of the settings."""
  return cls(
    config=config,
    look=look or tasks.look(config.data),
    rules=tasks.rules(config.data),
    identifiers=list(identifiers),
    path=epath.Path("runs/stand_in"),
  )


class _Broken(io.RawIOBase):
  """Cannot be read."""

  def readable(self):
    return True

  def readinto(self, buffer):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def broken_pipe() -> io.TextIOWrapper:
  """Returns a standard input that cannot be read."""
  return io.TextIOWrapper(io.BufferedReader(_Broken()))
