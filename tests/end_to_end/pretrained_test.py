"""The network that is shipped solves real hard puzzles, and says what it is."""

import csv
import pathlib
import re

import pytest

import trm_jax
from trm_jax.runtime import restore

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "pretrained" / "sudoku_small"

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def puzzles():
  with (FOLDER / "puzzles.csv").open() as file:
    return list(csv.DictReader(file))


def test_it_solves_ten_hard_puzzles(puzzles):
  assert len(puzzles) == 10
  # None is solved by elimination alone: rating is the guesses of a solver.
  assert all(int(row["rating"]) > 0 for row in puzzles)
  solver = trm_jax.load(str(FOLDER), batch_size=10)
  answers = solver.solve([row["question"] for row in puzzles])
  assert [answer.text for answer in answers] == [
    row["answer"] for row in puzzles
  ]
  assert all(answer.valid and answer.confidence > 0.5 for answer in answers)


def test_the_folder_is_small_and_names_nothing_of_its_machine():
  size = sum(path.stat().st_size for path in FOLDER.iterdir())
  assert size <= 2_000_000
  config = restore.saved_config(str(FOLDER))
  assert config.data.source == config.data.cache_dir == ""
  assert config.checkpoint.init_from == ""


def test_the_card_says_what_counts():
  card = (FOLDER / "README.md").read_text()
  for word in ("matched proxy", "95 %", "sudoku_small.py", "commit", "Limits"):
    assert word in card
  assert not re.search(r"\b(FOLDER|PUZZLE)\b", card)
