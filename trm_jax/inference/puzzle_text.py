"""Puzzles in texts as people write them: tolerant, but never guessing.

A puzzle is a line of characters, or a row per line (.sdk and .ss files, forum
posts), with or without separators, frames, titles and comments, or the column
`question` of a CSV.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Iterator

from trm_jax import errors
from trm_jax.data import characters, csv_files
from trm_jax.data import task as task_lib
from trm_jax.data.csv_files import Row
from trm_jax.data.sudoku import rules as sudoku_rules
from trm_jax.data.text_lines import Line
from trm_jax.runtime import processes

_QUESTION = "question"
_SEPARATORS = (
  " \t\n\v\f\x85\xa0\u2007\u202f\u200b\ufeff|+=~!:,;'\"[](){}/-│║┃─═┼╬"
)
_COMMENTS = ("#", "//", "%")
_SECTION = re.compile(r"\s*\[([A-Za-z ]+)\]\s*")  # of a .sdk file
_OTHER_SPACES = "\v\f\x85\u2028\u2029"
_OTHER_ENDS = re.compile(f"[\n{_OTHER_SPACES}]")
_RULE = frozenset("-_*+=")  # of these, lines between boxes are drawn
_BLANKS = frozenset(sudoku_rules.BLANKS)
_MAX_LINES = 100_000  # that are read in search of a first puzzle


@dataclasses.dataclass(frozen=True)
class Form:
  """How puzzles of one kind are written.

  Attributes:
    look: The look of the puzzles that the network was trained on.
    is_sudoku: Whether there are blank cells, which are written in many ways.
  """

  look: task_lib.Look
  is_sudoku: bool

  @functools.cached_property
  def cells(self) -> frozenset[str]:
    """The characters that may be cells."""
    own = frozenset(self.look.symbols[1:])
    return own | _BLANKS if self.is_sudoku else own

  @functools.cached_property
  def _separators(self) -> str:
    """The characters that are no cells; a space is both in a Sudoku."""
    separators = (c for c in _SEPARATORS if c not in self.cells)
    return "".join([*separators, *" "[: self.is_sudoku]])

  @functools.cached_property
  def _gaps(self) -> re.Pattern[str]:
    return re.compile(f"[{re.escape(self._separators)}]+")

  @functools.cached_property
  def _comment(self) -> re.Pattern[str]:
    marks = [mark for mark in _COMMENTS if not self.cells.issuperset(mark)]
    return re.compile(f"(?:{'|'.join(map(re.escape, marks)) or '$^'}).*")

  def is_plain(self, text: str) -> bool:
    """Returns whether a text is a puzzle and nothing else."""
    size = self.look.rows * self.look.cols
    return len(text) == size and self.cells.issuperset(text)

  def puzzle(self, text: str) -> str | None:
    """Returns the characters of the one puzzle in a text, L; None without."""
    if self.is_plain(text):
      return text
    return self._found(text, self.look.rows * self.look.cols)

  def row(self, text: str) -> str | None:
    """Returns the characters of a row of a puzzle; None if it is none."""
    cols = self.look.cols
    if len(text) == cols and self.cells.issuperset(text):
      return text
    # Editors cut spaces at the end of a line.
    if " " in self.cells and len(text) < cols and text.strip():
      padded = text.ljust(cols)
      if self.cells.issuperset(text) and (" " in text or not self.is_sudoku):
        return padded
    return None if self.is_title(text) else self._found(text, cols)

  def _found(self, text: str, size: int) -> str | None:
    """Returns `size` cells of a text that has more than these."""
    text = self.without_comment(text)
    stripped = text.strip(self._separators)
    for candidate in (text, stripped):
      if len(candidate) == size and self.cells.issuperset(candidate):
        return candidate
    words = [
      word
      for word in self._gaps.split(text)
      if len(word) == size and self.cells.issuperset(word)
    ]
    if words:  # the others may be solutions, but no puzzles
      blank = self.is_sudoku and any(
        not _BLANKS.isdisjoint(word) for word in words[1:]
      )
      return None if blank else words[0]
    if self.is_sudoku:  # cells of a table, blanks may be empty
      for delimiter in "\t,;|":
        framed = text.strip(" ").removeprefix("|").removesuffix("|")
        cells = [cell.strip() for cell in framed.split(delimiter)]
        found = [cell or " " for cell in cells]
        if len(found) == size and self.cells.issuperset(found):
          return "".join(found)
    joined = self._gaps.sub("", text)
    if len(joined) == size and self.cells.issuperset(joined):
      return joined
    return None

  def without_comment(self, text: str) -> str:
    """Returns a text without a comment at its end."""
    return self._comment.sub("", text)

  def is_rule(self, text: str) -> bool:
    """Returns whether a line is drawn between boxes and has no cells."""
    joined = self._gaps.sub("", text)
    if not joined:
      return bool(text.strip())
    return (
      self.is_sudoku
      and _RULE.issuperset(joined)
      and ("+" in text or len(joined) != self.look.cols)
    )

  def is_title(self, text: str) -> bool:
    """Returns whether a line is prose: it begins with a word."""
    words = text.split()
    if not words or not words[0][0].isalpha():
      return False
    letters = [letter for letter in words[0] if letter.isalpha()]
    if len(letters) > 1 and self.cells.isdisjoint(letters):
      return True
    joined = "".join(words)
    return 2 * sum(letter in self.cells for letter in joined) < len(joined)


class _Grid:
  """The rows of a puzzle, as they come line by line."""

  def __init__(self, form: Form):
    self._form = form
    self._rows: list[tuple[Line, str]] = []
    self._bands: list[int] = []  # numbers of rows between empty lines

  def add(self, line: Line, row: str) -> Iterator[Row]:
    """Adds a row; yields the puzzle that it completes."""
    box_rows = self._form.look.box_rows
    if self._bands and len(self._rows) - sum(self._bands) >= box_rows:
      # What came before the last empty line was no band of this puzzle.
      rest = self._rows[sum(self._bands) :]
      del self._rows[sum(self._bands) :]
      yield from self.flush()
      self._rows = rest
    self._rows.append((line, row))
    if len(self._rows) == self._form.look.rows:
      self._drop_rules()
    if len(self._rows) == self._form.look.rows:
      yield Row(self._where(), ("".join(row for _, row in self._rows),))
      self._rows, self._bands = [], []

  def _drop_rules(self) -> None:
    """Drops lines as long as a row that blanks of another kind show to be none.

    "---------" is a line between boxes where blanks are dots.
    """
    texts = [frozenset(row) for _, row in self._rows]
    drawn = [len(text) == 1 and text <= _RULE for text in texts]
    used = frozenset().union(
      *(
        text & _BLANKS
        for text, is_drawn in zip(texts, drawn, strict=True)
        if not is_drawn
      )
    )
    self._rows = [
      row
      for row, text, is_drawn in zip(self._rows, texts, drawn, strict=True)
      if not (self._form.is_sudoku and is_drawn and used and not text & used)
    ]

  def takes(self, text: str, row: str | None) -> bool:
    """Returns whether a line is a row, not the empty line that it may be."""
    if row is None or row.strip() or text.strip(" "):
      return row is not None
    return any(" " in other for _, other in self._rows)

  def gap(self) -> Iterator[Row]:
    """Takes an empty line: it may part bands of boxes, or puzzles."""
    count = len(self._rows) - sum(self._bands)
    if count and count != self._form.look.box_rows:
      yield from self.flush()
    elif count:
      self._bands.append(count)

  def flush(self) -> Iterator[Row]:
    """Yields what is left as one malformed row."""
    if len(self._rows) == 1:
      line, _ = self._rows[0]
      yield Row(line.where, (line.text,))
    elif self._rows:
      look = self._form.look
      yield Row(
        self._where(),
        (" ".join(row for _, row in self._rows),),
        f"{self._where()}: a puzzle begins that has {len(self._rows)} rows of"
        f" {look.cols} cells, expected {look.rows}",
      )
    self._rows, self._bands = [], []

  def _where(self) -> str:
    return self._rows[0][0].where


def cells_of(text: str, form: Form) -> str:
  """Returns the characters of the puzzle in a text; the text if it has not one.

  Args:
    text: A text of one or many lines.
    form: How the puzzle is written.
  """
  if form.is_plain(text):
    return text
  try:
    lines = [Line("", part, "") for part in text.splitlines()]
    rows = list(find_rows(lines, "", form))
  except errors.UserError:
    return text
  is_one = len(rows) == 1 and not rows[0].error
  return rows[0].texts[0] if is_one else text


def find_rows(lines: Iterable[Line], name: str, form: Form) -> Iterator[Row]:
  """Yields the puzzles of a text or a CSV, and what should be one.

  Args:
    lines: The lines; a header makes it a CSV.
    name: The file's name, for error messages.
    form: How the puzzles are written.

  Yields:
    The puzzles as they were written, without separators. A row that is none has
    its whole text.

  Raises:
    UserError: there is no puzzle.
  """
  lines = iter(lines)
  start = []
  for line in itertools.islice(lines, _MAX_LINES):
    start.append(line)
    if not csv_files.is_preamble(form.without_comment(line.text)):
      break
  if not start:
    raise errors.UserError(f"{name} is empty: expected puzzles")
  first = start[-1]
  header = csv_files.find_header(first.text, [_QUESTION])
  if header is None or form.is_plain(first.text):
    whole = itertools.chain(start, lines)
    yield from _rows_of_lines(_parts(whole, form), name, form)
    return
  cells = csv_files.read_rows(
    itertools.chain([first], lines), name, [_QUESTION], strict=False
  )
  lines = (Line(where, texts[0], error) for where, texts, error in cells)
  yield from _rows_of_lines(
    _parts(lines, form),
    name,
    form,
    # With one column it may also be a text below a title.
    is_csv=header.num_columns > 1,
  )


def _parts(lines: Iterable[Line], form: Form) -> Iterator[Line]:
  """Parts lines, or cells of several lines that are no single puzzle."""
  for line in lines:
    text = line.text
    is_whole = form.is_plain(text) or not _OTHER_ENDS.search(text)
    if is_whole or ("\n" in text and form.puzzle(text)):
      yield line
    else:
      for part in _OTHER_ENDS.split(text.rstrip(_OTHER_SPACES)):
        yield Line(line.where, part, line.error)


def _rows_of_lines(
  lines: Iterable[Line], name: str, form: Form, *, is_csv: bool = False
) -> Iterator[Row]:
  """Yields the puzzles of lines, of a line each or a row per line.

  Args:
    lines: The lines, or the cells of a CSV.
    name: As for `find_rows`.
    form: As for `find_rows`.
    is_csv: Whether each line should have a puzzle: there are no titles.
  """
  grid = _Grid(form)
  is_skipped = False
  num_rows = num_titles = 0
  seen = ""
  for number, line in enumerate(lines, 1):
    rows: Iterable[Row]
    text = form.without_comment(line.text)
    fault = Row(line.where, (line.text,), line.error)
    if (puzzle := form.puzzle(line.text)) and puzzle.strip():
      rows = [] if is_skipped else [*grid.flush(), Row(line.where, (puzzle,))]
    elif line.error:
      rows = [*grid.flush(), fault]
    elif grid.takes(text, row := form.row(text)):
      assert row is not None
      rows = [] if is_skipped else grid.add(line, row)
    elif is_csv:
      rows = [*grid.flush(), fault]
    elif section := _SECTION.fullmatch(text):
      is_skipped = section[1].strip().lower() != "puzzle"
      rows = grid.flush()
    elif not text.strip():
      rows = [] if line.text.strip() else grid.gap()
    elif is_skipped or form.is_rule(text):
      rows = []
    elif form.is_title(text):
      seen = seen or f"{line.where}: {characters.shown(line.text)}"
      num_titles += 1
      rows = grid.flush()
    else:
      rows = [*grid.flush(), fault]
    for found in rows:
      num_rows += 1
      yield found
    if number == _MAX_LINES and not num_rows:
      raise errors.UserError(
        f"{name} has no puzzle in its first {_MAX_LINES:,} lines"
      )
  for found in grid.flush():
    num_rows += 1
    yield found
  if not num_rows:
    reason = f"; first {seen}" if seen else ""
    raise errors.UserError(f"{name} has no puzzles{reason}")
  if num_titles:
    count = f"{num_titles:,} line{'s' * (num_titles != 1)}"
    processes.log_once(f"passed over {count} without a puzzle (first {seen})")
