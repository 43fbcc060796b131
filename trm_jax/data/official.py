"""Data sets written by the official builders, memory-mapped.

A folder has `train/` and `test/`, each with `dataset.json` and five arrays of
the set "all", and `identifiers.json` with the identifiers of the rows of the
puzzle table. Examples stay on disk: ARC's are 6 GB.
"""

import dataclasses
import hashlib
import pathlib
from typing import Any

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import identifiers, puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.data.arc import tasks as arc_tasks

_METADATA = "dataset.json"
_SET = "all"
_SPLITS = ("train", "test")

_COUNTS = ("vocab_size", "seq_len", "num_puzzle_identifiers", "total_groups")
# Reserved numbers; other values are not supported.
_RESERVED = {
  "pad_id": 0,
  "ignore_label_id": puzzle_set.NO_LABEL,
  "blank_identifier_id": 0,
}
_MAX_VOCAB_SIZE = 256  # tokens are uint8

_TOKEN_TYPES = ("uint8", "int64")
_INDEX_TYPES = ("int32", "int64")

_FINGERPRINT_EXAMPLES = 4096


def is_official(source: str) -> bool:
  """Returns whether a folder was written by an official builder."""
  if not source:
    return False
  folder = pathlib.Path(source).expanduser()
  return any((folder / split / _METADATA).is_file() for split in _SPLITS)


@dataclasses.dataclass(frozen=True)
class OfficialSet(puzzle_set.Puzzles):
  """One split of such a folder.

  Attributes:
    folder: Folder of the split.
    inputs: Tokens, uint8 or int64 [E, L], on disk.
    labels: Tokens, uint8 or int64 [E, L], on disk; 0 for no label.
    puzzle_ids: As in `puzzle_set.Puzzles`.
    puzzle_indices: As in `puzzle_set.Puzzles`.
    group_indices: As in `puzzle_set.Puzzles`.
    vocab_size: V.
    num_puzzle_ids: Rows of the puzzle table.
  """

  folder: pathlib.Path
  inputs: np.ndarray
  labels: np.ndarray
  puzzle_ids: np.ndarray
  puzzle_indices: np.ndarray
  group_indices: np.ndarray
  vocab_size: int
  num_puzzle_ids: int

  def __reduce__(self):
    # Reopened, because pickling a memory map copies all of it.
    return load_split, (str(self.folder.parent), self.folder.name)

  @property
  def seq_len(self) -> int:
    """L."""
    return self.inputs.shape[1]

  def fetch(
    self, examples: np.ndarray, puzzles: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """See `Puzzles.fetch`; UserError if a token is outside the vocabulary."""
    del puzzles
    return self._tokens("inputs", examples), self._tokens("labels", examples)

  def _tokens(self, field: str, examples: np.ndarray) -> np.ndarray:
    tokens = np.asarray(getattr(self, field)[examples])
    outside = (tokens < 0) | (tokens >= self.vocab_size)
    if outside.any():
      row, cell = np.argwhere(outside)[0]
      raise errors.UserError(
        f"{_array_path(self.folder, field)} has the token {tokens[row, cell]} "
        f"in example {examples[row]}, cell {cell}, expected 0 to "
        f"{self.vocab_size - 1}"
      )
    return tokens.astype(np.uint8, order="C")

  def fingerprint(self) -> str:
    """Returns a hex digest of shapes, indices, ids and some of the examples.

    All of them would be gigabytes: it covers 4096 at equal distances, the first
    and the last included, or all if there are fewer. The path of the folder and
    the type of the tokens on disk do not matter.
    """
    digest = hashlib.blake2b(digest_size=16)
    sizes = (*self.inputs.shape, self.vocab_size, self.num_puzzle_ids)
    digest.update(f"official {sizes}".encode())
    for indices in (self.puzzle_ids, self.puzzle_indices, self.group_indices):
      digest.update(f"{indices.dtype} {indices.shape}".encode())
      digest.update(np.ascontiguousarray(indices).data)
    count = min(_FINGERPRINT_EXAMPLES, self.num_examples)
    # Exact in integers: the last one is E - 1.
    chosen = np.arange(count) * (self.num_examples - 1) // max(count - 1, 1)
    for tokens in self.fetch(chosen, chosen):
      digest.update(tokens.data)
    return digest.hexdigest()


def load_split(source: str, split: str) -> OfficialSet:
  """Opens one split of a folder and validates all but the tokens.

  Args:
    source: The folder with `train/` and `test/`.
    split: "train" or "test".

  Returns:
    The set; its tokens are validated when they are fetched.

  Raises:
    UserError: if a file is missing, damaged or not supported, or if files
      contradict each other.
  """
  folder = pathlib.Path(source).expanduser() / split
  metadata = _read_metadata(folder)
  inputs, labels = (
    _open(folder, field, _TOKEN_TYPES) for field in ("inputs", "labels")
  )
  if labels.shape != inputs.shape or inputs.shape[1:] != (metadata["seq_len"],):
    raise errors.UserError(
      f"{folder}: inputs have the shape {inputs.shape} and labels "
      f"{labels.shape}, expected the same of both with rows of "
      f"{metadata['seq_len']} (seq_len in {_METADATA})"
    )
  puzzle_ids, puzzle_indices, group_indices = (
    _open(folder, field, _INDEX_TYPES)
    for field in ("puzzle_identifiers", "puzzle_indices", "group_indices")
  )
  _check_ids(folder, puzzle_ids, metadata["num_puzzle_identifiers"])
  for field, indices, num_parts, count in (
    ("puzzle_indices", puzzle_indices, len(puzzle_ids), len(inputs)),
    (
      "group_indices",
      group_indices,
      metadata["total_groups"],
      len(puzzle_ids),
    ),
  ):
    _check_indices(_array_path(folder, field), indices, num_parts, count)
  return OfficialSet(
    folder=folder,
    inputs=inputs,
    labels=labels,
    puzzle_ids=np.array(puzzle_ids, np.int32),
    puzzle_indices=np.array(puzzle_indices, np.int64),
    group_indices=np.array(group_indices, np.int64),
    vocab_size=metadata["vocab_size"],
    num_puzzle_ids=metadata["num_puzzle_identifiers"],
  )


def read_identifiers(source: str, *, num_puzzle_ids: int) -> list[str]:
  """Reads the identifiers of the puzzle table.

  Args:
    source: The folder with `identifiers.json`.
    num_puzzle_ids: Number of rows.

  Returns:
    One string per row; row 0 is blank.

  Raises:
    UserError: if the file is missing, malformed or of another length.
  """
  path = pathlib.Path(source).expanduser() / identifiers.FILE
  names = identifiers.read(path)
  identifiers.check(names, where=str(path))
  if len(names) != num_puzzle_ids:
    raise errors.UserError(
      f"{path} has {len(names)} entries, but num_puzzle_identifiers in "
      f"{_METADATA} is {num_puzzle_ids}"
    )
  return names


def _array_path(folder: pathlib.Path, field: str) -> pathlib.Path:
  return folder / f"{_SET}__{field}.npy"


def _read_metadata(folder: pathlib.Path) -> dict[str, Any]:
  """Reads a split's dataset.json and validates what is used of it."""
  path = folder / _METADATA
  metadata = read_object(path, "config.data.source must have train/ and test/")
  for key in _COUNTS:
    value = metadata.get(key)
    if type(value) is not int or value < 1:  # type(), as True is an int
      raise errors.UserError(
        f"{path}: {key} is {value!r}, expected a whole number from 1 on"
      )
  if metadata["vocab_size"] > _MAX_VOCAB_SIZE:
    raise errors.UserError(
      f"{path}: vocab_size is {metadata['vocab_size']}, at most "
      f"{_MAX_VOCAB_SIZE} is supported"
    )
  for key, expected in {**_RESERVED, "sets": [_SET]}.items():
    if metadata.get(key) != expected:
      raise errors.UserError(
        f"{path}: {key} is {metadata.get(key)!r}, only {expected!r} is "
        "supported"
      )
  return metadata


def read_object(path: pathlib.Path, advice: str) -> dict[str, Any]:
  """Reads a JSON object.

  Args:
    path: The file.
    advice: What is needed, should it be missing.

  Raises:
    UserError: if the file cannot be read or is not an object.
  """
  try:
    content = path.read_bytes()
  except OSError as error:
    raise errors.UserError(
      f"{path} cannot be read: {error.strerror}; {advice}, as written by the"
      " official builders"
    ) from error
  value = arc_tasks.load_json(content, where=str(path))
  if not isinstance(value, dict):
    raise errors.UserError(f"{path} is not a JSON object")
  return value


def _open(
  folder: pathlib.Path, field: str, types: tuple[str, ...]
) -> np.ndarray:
  """Memory-maps an array: tokens [E, L], all others [N]."""
  path = _array_path(folder, field)
  try:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
  except FileNotFoundError as error:
    raise errors.UserError(f"{path} is missing") from error
  except Exception as error:  # a damaged header raises many kinds
    raise errors.UserError(
      f"{path} cannot be read, the file is damaged or not an array "
      f"({errors.first_line(error)})"
    ) from error
  rank = 2 if types == _TOKEN_TYPES else 1
  if not isinstance(array, np.ndarray):
    raise errors.UserError(f"{path} is an archive, expected a single array")
  if array.dtype.name not in types or array.ndim != rank:
    raise errors.UserError(
      f"{path} holds {array.dtype} of rank {array.ndim}, expected "
      f"{' or '.join(types)} of rank {rank}"
    )
  return array


def _check_ids(
  folder: pathlib.Path, puzzle_ids: np.ndarray, num_puzzle_ids: int
) -> None:
  outside = np.flatnonzero((puzzle_ids < 0) | (puzzle_ids >= num_puzzle_ids))
  if outside.size:
    raise errors.UserError(
      f"{_array_path(folder, 'puzzle_identifiers')} has "
      f"{puzzle_ids[outside[0]]} for puzzle {outside[0]}, expected 0 to "
      f"{num_puzzle_ids - 1} (num_puzzle_identifiers in {_METADATA})"
    )


def _check_indices(
  path: pathlib.Path, indices: np.ndarray, num_parts: int, count: int
) -> None:
  """Raises unless indices split 0..count into that many non-empty parts."""
  if len(indices) != num_parts + 1:
    raise errors.UserError(
      f"{path} has {len(indices)} numbers, expected {num_parts + 1}: one more "
      "than there are parts"
    )
  if indices[0] != 0 or indices[-1] != count:
    raise errors.UserError(
      f"{path} goes from {indices[0]} to {indices[-1]}, expected 0 to {count}"
    )
  falling = np.flatnonzero(np.diff(indices) < 1)
  if falling.size:
    raise errors.UserError(
      f"{path}: part {falling[0]} is empty, from {indices[falling[0]]} to "
      f"{indices[falling[0] + 1]}"
    )


# --- tasks -------------------------------------------------------------------


def load(
  data: config_lib.DataConfig,
  shown: task_lib.Look,
  rules: task_lib.Rules | None,
) -> task_lib.Task:
  """Opens both splits without reading them into memory.

  Args:
    data: Settings; `source` is the folder.
    shown: The task's look, which fixes the vocabulary and L.
    rules: The task's rules.

  Returns:
    The task, without an augmentation table.

  Raises:
    UserError: if the files are missing, damaged or of another task.
  """
  train, test = (load_split(data.source, split) for split in ("train", "test"))
  _check_size(data.source, train, test, shown)
  for name, wanted, there in (
    ("num_train", data.num_train, train.num_groups),
    ("num_test", data.num_test, test.num_groups),
  ):
    if wanted not in (0, there):
      raise errors.UserError(
        f"config.data.{name} asks for {wanted} puzzles, but {data.source} was"
        f" built with {there}; set it to 0"
      )
  if data.identifiers:
    raise errors.UserError(
      f"{data.source} has its own identifiers.json; leave"
      " config.data.identifiers empty"
    )
  return task_lib.Task(
    train=train,
    test=test,
    look=shown,
    augmentation=None,
    identifiers=read_identifiers(
      data.source, num_puzzle_ids=train.num_puzzle_ids
    ),
    rules=rules,
    notes=(
      f"{data.source} is a data set of the official builders, which has its"
      " variants on disk: config.data.augmentation, num_augmentations and"
      " subsets"
      " have no effect",
    ),
  )


def _check_size(
  source: str,
  train: OfficialSet,
  test: OfficialSet,
  shown: task_lib.Look,
) -> None:
  found = (train.vocab_size, train.seq_len, train.num_puzzle_ids)
  if (test.vocab_size, test.seq_len, test.num_puzzle_ids) != found:
    raise errors.UserError(
      f"the train and test sets in {source} differ in vocabulary, length or"
      " number of puzzle identifiers: they belong to two data sets"
    )
  expected = (len(shown.symbols), shown.rows * shown.cols)
  if found[:2] != expected:
    raise errors.UserError(
      f"{source} has {found[0]} tokens and {found[1]} cells, expected"
      f" {expected[0]} and {expected[1]}: is config.data.task the right one?"
      " Sudokus of other sizes need config.data.box_rows and box_cols; any"
      " other grid is read with experiments/custom.py and config.data.charset"
    )
