"""Sizes of the data, without the data where they are public.

Vocabulary and length follow from the kind of puzzle. How many rows the puzzle
table has follows from the data and from how they are varied, so that a number
is only known here for what the experiments themselves ask for.
"""

from experiments import arc
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import kind, tasks
from trm_jax.runtime import program

# Of Kaggle's ARC files with ConceptARC (README.md, "ARC-AGI").
_ARC_ROWS = {"": 876_406, "2": 1_191_730}
# Settings that decide how many variants there are.
_VARIATION = (
  "subsets",
  "seed",
  "num_train",
  "augmentation",
  "num_variants",
  "identifiers",
)


def of_data(
  data: config_lib.DataConfig, num_puzzle_ids: int | None
) -> program.Sizes:
  """Returns the sizes of the settings' data.

  Args:
    data: the settings. Puzzles that lie in a folder or are generated are
      loaded and counted; those of a public download are not looked at.
    num_puzzle_ids: rows of the puzzle table, instead of what is known.

  Raises:
    UserError: the rows are neither given nor known, or loading fails.
  """
  if num_puzzle_ids is not None and num_puzzle_ids < 1:
    raise errors.UserError(
      f"--num_puzzle_ids is {num_puzzle_ids}; it must be at least 1"
    )
  sizes = _public(data, num_puzzle_ids)
  if sizes is None:
    task = tasks.load(data)
    sizes = program.Sizes(
      vocab_size=task.vocab_size,
      seq_len=task.seq_len,
      num_puzzle_ids=num_puzzle_ids or task.num_puzzle_ids,
    )
  return sizes


def _public(
  data: config_lib.DataConfig, rows: int | None
) -> program.Sizes | None:
  """Returns the sizes of a public download; None if it is none."""
  if data.source:
    return None
  if data.task not in ("sudoku", "maze", "arc"):
    return None
  look = kind.look_of(data, (), 0)
  return program.Sizes(
    vocab_size=len(look.symbols),
    seq_len=look.rows * look.cols,
    num_puzzle_ids=rows or (_arc_rows(data) if data.task == "arc" else 1),
  )


def _arc_rows(data: config_lib.DataConfig) -> int:
  for variant, rows in _ARC_ROWS.items():
    published = arc.get_config(variant).data
    if all(getattr(data, name) == published[name] for name in _VARIATION):
      return rows
  raise errors.UserError(
    "how many rows has the puzzle table of these data? known are those of"
    " arc.py and arc.py:2 as they are; give --num_puzzle_ids=N, or"
    " --config.data.source=FOLDER to count them"
  )
