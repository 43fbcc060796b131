"""Mazes and people's own grids as a user types them."""

import csv
import re

import command_line
import folders
import numpy as np
import pytest

from experiments import custom, maze
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax import train as train_lib
from trm_jax.data import tasks
from trm_jax.runtime import program

CUSTOM = "experiments/custom.py"
# Two rows of three cells; the answer has its ends exchanged.
TRAIN = (("abc.,!", "!bc.,a"), ("ab..,,", ",b..,a"), ("cba!,.", ".ba!,c"))
TEST = (("ccc.,!", "!cc.,c"),)
SHAPE = {"grid_rows": 2, "grid_cols": 3}


def _write(folder, train=TRAIN, test=TEST, header=("question", "answer")):
  folder.mkdir(exist_ok=True)
  for name, rows in (("train.csv", train), ("test.csv", test)):
    with open(folder / name, "w", newline="") as file:
      csv.writer(file).writerows([header, *rows])
  return folder


def _flags(tmp_path, source, **data):
  return (
    f"--workdir={tmp_path / 'run'}",
    f"--config.data.source={source}",
    *(f"--config.data.{name}={value}" for name, value in data.items()),
  )


# --- what a user wants -------------------------------------------------------


@pytest.mark.slow
def test_own_grids_train_a_step(tmp_path):
  source = _write(tmp_path / "mine")
  result = command_line.run(
    *_flags(tmp_path, source, **SHAPE, dihedral=True, relabel="abc"),
    "--config.model.hidden_size=16",
    "--config.model.num_layers=1",
    "--config.model.puzzle_embed_dim=16",
    "--config.model.recursion_cycles=1",
    "--config.train.batch_size=2",
    "--config.train.num_steps=1",
    "--config.eval.batch_size=1",
    "--config.eval.supervision_steps=1",
    config=CUSTOM,
    compiles_fast=True,
  )
  assert result.returncode == 0, result.stderr
  assert "grids of 2 x 3 cells over 6 characters: '!,.abc'" in result.stderr
  assert "3 training and 1 test puzzles" in result.stdout
  assert "step 1/1" in result.stdout
  assert re.fullmatch(
    r"exact_accuracy=\d\.\d{4}", result.stdout.splitlines()[-1]
  )


@pytest.mark.slow
def test_maze_smoke(tmp_path):
  result = command_line.run(
    f"--workdir={tmp_path / 'run'}",
    "--config.train.num_steps=1",
    "--config.model.num_layers=1",
    "--config.model.latent_updates=1",
    "--config.model.recursion_cycles=1",
    "--config.model.compute_dtype=float32",
    "--config.eval.supervision_steps=1",
    config="experiments/maze.py:smoke",
    compiles_fast=True,
  )
  assert result.returncode == 0, result.stderr
  for line in (
    r" *\d+\.\d\d% are a valid shortest path",
    r"valid_accuracy=\d\.\d{4}",
    r"exact_accuracy=\d\.\d{4}",
  ):
    assert re.search(f"^{line}$", result.stdout, re.MULTILINE), line
  assert (tmp_path / "run/example.png").exists()


def test_an_official_folder_of_mazes(tmp_path):
  def config(**data):
    config = maze.get_config()
    config.data.update(data)
    return config_lib.from_config_dict(config)

  generated = tasks.load(
    config(task="generated_maze", num_train=3, num_test=2).data
  )
  folders.official(tmp_path, generated)
  run = program.load(config(source=str(tmp_path)))
  for split in ("train", "test"):
    for actual, expected in zip(
      folders.everything(getattr(run.task, split)),
      folders.everything(getattr(generated, split)),
      strict=True,
    ):
      np.testing.assert_array_equal(actual, expected)
  assert run.task.rules.is_valid(*folders.everything(run.task.test)).all()
  assert run.task.look == generated.look
  assert run.task.num_puzzle_ids == 1
  assert next(run.program.train_batches(run.task, first_batch=0))[
    "inputs"
  ].shape == (
    768,
    900,
  )


# --- what is wrong -----------------------------------------------------------


def _error(tmp_path, source, **data) -> str:
  """The error's line; no workdir is left behind."""
  config = custom.get_config()
  config.data.update(source=str(source), **data)
  config.eval.batch_size = 8  # there are eight devices
  with pytest.raises(errors.UserError) as caught:
    train_lib.train(config_lib.from_config_dict(config), str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()
  assert "\n" not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize(
  ("files", "data", "text"),
  [
    (
      {},
      {},
      "train.csv line 2: question has 6 characters, which is no square of"
      " 1 x 1 to 30 x 30 cells: set config.data.grid_rows and",
    ),
    (
      {},
      SHAPE | {"charset": "abc.,"},
      "train.csv line 2: question has '!' at position 6 (row 2, column 3),"
      " which is not in config.data.charset",
    ),
    (
      {"header": ("question", "hint")},
      SHAPE,
      "train.csv line 1: the columns are 'question,hint'; expected one"
      " 'question' and one 'answer'",
    ),
    (
      {"test": [*TEST, ("abc", "cba")]},
      SHAPE,
      "test.csv line 3: question has 3 characters, expected 6 (2 x 3",
    ),
    (
      {"train": (("ab.!", "ba!."), ("abc", "cba"))},
      {},
      "train.csv line 3: question has 3 characters, expected 4 (2 x 2, as in"
      " train.csv line 2)",
    ),
    ({}, {"grid_rows": 2}, "grid_rows is 2 and config.data.grid_cols 0"),
    ({}, SHAPE | {"relabel": "abca"}, "config.data.relabel has 'a' twice"),
    ({}, SHAPE | {"num_train": 4}, "num_train asks for 4 puzzles, but the"),
  ],
  ids=[
    "no square",
    "charset",
    "column",
    "size of a test puzzle",
    "two sizes",
    "one side",
    "twice",
    "too many",
  ],
)
def test_faults(tmp_path, files, data, text):
  source = _write(tmp_path / "mine", **files)
  assert text in _error(tmp_path, source, **data)


def test_an_unknown_character_through_main(tmp_path):
  source = _write(tmp_path / "mine")
  message = command_line.error_of(
    *_flags(tmp_path, source, **SHAPE, relabel="abx"), config=CUSTOM
  )
  assert (
    "config.data.relabel has 'x', which is in no puzzle; the characters are"
    " '!,.abc'"
  ) in message
  assert not (tmp_path / "run").exists()
