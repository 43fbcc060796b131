"""The task "grid": the user's own puzzles, questions and answers in CSV files.

A grid is written row by row, one character (Unicode code point) per cell. The
characters of a data set, in order, are its tokens 1 to n; 0 is padding.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import (
  augmentation,
  characters,
  csv_files,
  official,
  puzzle_set,
)
from trm_jax.data import task as task_lib

_MAX_SIDE = 30
_MAX_CHARACTERS = 254


def _look(
  data: config_lib.DataConfig, vocabulary: Sequence[str], seq_len: int
) -> task_lib.Look:
  rows = data.grid_rows or round(seq_len**0.5)
  return _look_of(rows, seq_len // rows, vocabulary[1:], data.relabel)


def _look_of(
  rows: int, cols: int, charset: Sequence[str], relabel: str
) -> task_lib.Look:
  symbols = ("?", *charset)
  return task_lib.Look(
    rows=rows,
    cols=cols,
    symbols=symbols,
    interchangeable=tuple(symbols.index(character) for character in relabel),
  )


def _parse_questions(
  texts: Sequence[str], data: config_lib.DataConfig, look: task_lib.Look
) -> tuple[np.ndarray, characters.Errors]:
  """Parses questions over the characters that a network was trained on."""
  del data
  # Symbol 0 stands for padding in pictures and is no character of the data.
  charset = look.symbols[1:]
  alphabet = characters.Alphabet(
    tokens=characters.token_table(
      {character: token for token, character in enumerate(charset, 1)}
    ),
    rows=look.rows,
    cols=look.cols,
    size=f"{look.rows * look.cols} ({look.rows} x {look.cols})",
    allowed=f"which is not in the training data: {''.join(charset)!r}",
  )
  return alphabet.parse(texts, "question")


def _load_official(data: config_lib.DataConfig) -> task_lib.Task:
  """Opens a folder of an official builder, whose tokens have no characters."""
  if not data.charset:
    raise errors.UserError(
      f"{data.source} is a data set of the official builders, which do not say"
      " what their tokens are: set config.data.charset to the characters of"
      " tokens 1, 2, ... in their order"
    )
  seq_len = official.load_split(data.source, "train").seq_len
  rows = data.grid_rows or math.isqrt(seq_len)
  cols = data.grid_cols or rows
  if rows * cols != seq_len:
    raise errors.UserError(
      f"{data.source} has {seq_len} cells: set config.data.grid_rows and"
      " config.data.grid_cols"
    )
  # Checks relabel.
  _symmetries(data, _look_of(rows, cols, data.charset, relabel=""))
  look = _look_of(rows, cols, data.charset, data.relabel)
  return official.load(data, look, rules=None)


def load(data: config_lib.DataConfig) -> task_lib.Task:
  """Loads the puzzles of a folder.

  Args:
    data: Settings. `source` is a folder as in `csv_files.load`, or one of an
      official builder, which needs `charset`. `grid_rows` and
      `grid_cols` are at most 30; if both are 0, grids are squares of the size
      of the first question. `charset` has the characters that may occur, in
      the order of their tokens; if empty, all that do occur, sorted by code
      point.

  Returns:
    The task.

  Raises:
    UserError: on missing or malformed files, grids of several sizes, characters
      outside the charset, a question with two answers in one file, too few
      puzzles, or `relabel` with other characters.
  """
  if not data.source:
    raise errors.UserError(
      "set config.data.source to a folder with your train.csv and test.csv"
      " (header question,answer)"
    )
  if official.is_official(data.source):
    return _load_official(data)
  blocks = {
    split: csv_files.read_blocks(path)
    for split, path in csv_files.find_files(data.source).items()
  }
  start = next(blocks["train"])
  reader = _Reader(data, start[0])
  blocks["train"] = itertools.chain([start], blocks["train"])
  read = {split: reader.read(found) for split, found in blocks.items()}
  charset, tokens = reader.sorted_charset()
  train, test = (
    puzzle_set.PuzzleSet.of_pairs(
      tokens[pairs], csv_files.choose(data, split=split, total=len(pairs))
    )
    for split, pairs in read.items()
  )
  rows, cols = reader.alphabet.rows, reader.alphabet.cols
  symmetries = _symmetries(data, _look_of(rows, cols, charset, relabel=""))
  look = _look_of(rows, cols, charset, data.relabel)
  if not np.isin(train.labels, look.interchangeable).all():
    look = dataclasses.replace(look, interchangeable=())
  return task_lib.Task(
    train=train,
    test=test,
    look=look,
    augmentation=symmetries,
    notes=(
      f"grids of {rows} x {cols} cells over {len(charset)} characters:"
      f" {charset!r}",
    ),
    warnings=_warnings(train, test),
  )


def _warnings(
  train: puzzle_set.PuzzleSet, test: puzzle_set.PuzzleSet
) -> tuple[str, ...]:
  known = {question.tobytes() for question in train.inputs}
  num_shared = sum(question.tobytes() in known for question in test.inputs)
  if not num_shared:
    return ()
  return (
    f"{num_shared} of the {test.num_examples} test questions are among the"
    " training questions",
  )


def _symmetries(
  data: config_lib.DataConfig, look: task_lib.Look
) -> augmentation.BySymmetry | None:
  charset = "".join(look.symbols[1:])
  for character in data.relabel:
    if character not in charset:
      raise errors.UserError(
        f"config.data.relabel has {character!r}, which is in no puzzle; the"
        f" characters are {charset!r}"
      )
    if data.relabel.count(character) > 1:
      raise errors.UserError(f"config.data.relabel has {character!r} twice")
  if not data.dihedral and not data.relabel:
    return None  # no symmetry of these puzzles is known
  return augmentation.GridAugmentation(
    rows=look.rows,
    cols=look.cols,
    dihedral=data.dihedral,
    relabel=tuple(charset.index(character) + 1 for character in data.relabel),
    vocab_size=len(charset) + 1,
    sampler=augmentation.VariantSampler.from_settings(data),
  )


class _Reader:
  """Reads files whose size and characters may have to be found out.

  Characters get numbers from 1 on: in the order of the charset, or as they
  come.

  Attributes:
    alphabet: The size of the grids, and the numbers of the characters so far.
  """

  def __init__(self, data: config_lib.DataConfig, first: csv_files.Row):
    charset = data.charset
    if len(charset) > _MAX_CHARACTERS:
      raise errors.UserError(
        f"config.data.charset has {len(charset)} characters, at most "
        f"{_MAX_CHARACTERS} are supported"
      )
    for character in charset:
      if charset.count(character) > 1:
        raise errors.UserError(f"config.data.charset has {character!r} twice")
    self._data = data
    self._found = charset
    self._numbers = characters.token_table(
      {character: number for number, character in enumerate(charset, 1)}
    )
    self.alphabet = self._alphabet(first)

  def read(self, blocks: Iterable[list[csv_files.Row]]) -> np.ndarray:
    """Reads the pairs of a file as numbers, uint8 [N, 2, L]."""
    parts = []
    first_of: dict[bytes, tuple[bytes, str]] = {}
    for rows in blocks:
      if not self._data.charset:
        self._number("".join(itertools.chain(*(row.texts for row in rows))))
      parts.append(csv_files.parse_block(rows, self._parse_pairs))
      for row, (question, answer) in zip(rows, parts[-1], strict=True):
        pair = (answer.tobytes(), row.where)
        known, where = first_of.setdefault(question.tobytes(), pair)
        if known != pair[0]:
          raise errors.UserError(
            f"{row.where}: has the question of {where} with another answer"
          )
    return np.concatenate(parts)

  def sorted_charset(self) -> tuple[str, np.ndarray]:
    """Returns the charset, and the token of every number, uint8 [n + 1]."""
    if self._data.charset:
      order = np.arange(len(self._found))
    else:
      order = np.argsort(characters.code_points(self._found))
    tokens = np.zeros(len(order) + 1, np.uint8)
    tokens[order + 1] = np.arange(1, len(order) + 1)
    return "".join(self._found[i] for i in order), tokens

  def _alphabet(self, first: csv_files.Row) -> characters.Alphabet:
    """Takes the size from the settings or, if they are 0, the first row."""
    rows, cols = self._data.grid_rows, self._data.grid_cols
    reason = "config.data.grid_rows x config.data.grid_cols"
    if rows or cols:
      if not all(1 <= n <= _MAX_SIDE for n in (rows, cols)):
        raise errors.UserError(
          f"config.data.grid_rows is {rows} and config.data.grid_cols {cols}, "
          f"expected 1 to {_MAX_SIDE} each, or 0 for both"
        )
    else:
      size = len(first.texts[0])
      rows = cols = math.isqrt(size)
      reason = f"as in {first.where}"
      if rows**2 != size or not 1 <= rows <= _MAX_SIDE:
        raise errors.UserError(
          f"{first.where}: question has {size} characters, which is no square"
          f" of 1 x 1 to {_MAX_SIDE} x {_MAX_SIDE} cells: set"
          " config.data.grid_rows and config.data.grid_cols:"
          f" {characters.shown(first.texts[0])}"
          f"{characters.hint(first.texts[0], 0)}"
        )
    return characters.Alphabet(
      tokens=self._numbers,
      rows=rows,
      cols=cols,
      size=f"{rows * cols} ({rows} x {cols}, {reason})",
      allowed="which is not in config.data.charset"
      if self._data.charset
      else f"in addition to {_MAX_CHARACTERS} others, the most supported",
    )

  def _number(self, text: str) -> None:
    """Numbers new characters as they come, as long as there are numbers."""
    codes = characters.code_points(text)
    new, first = np.unique(codes[self._numbers[codes] == 0], return_index=True)
    new = new[np.argsort(first)][: _MAX_CHARACTERS - len(self._found)]
    begin = len(self._found) + 1
    self._numbers[new] = np.arange(begin, begin + len(new))
    self._found += "".join(map(chr, new))

  def _parse_pairs(
    self, questions: Sequence[str], answers: Sequence[str]
  ) -> tuple[np.ndarray, characters.Errors]:
    x, found = self.alphabet.parse(questions, "question")
    y, in_answers = self.alphabet.parse(answers, "answer")
    return np.stack([x, y], axis=1), in_answers | found


GRID = task_lib.TaskType(
  load=load,
  look=_look,
  rules=lambda data: None,
  symmetries=_symmetries,
  parse_questions=_parse_questions,
  own_settings=("source", "charset", "dihedral", "relabel"),
)
