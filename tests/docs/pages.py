"""Pages of the documentation, their links and their fenced blocks."""

import functools
import pathlib
import re
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

# Pages that also report on settings and programs of earlier versions.
HISTORY = ("CHANGELOG.md", "benchmarks/RESULTS.md", "docs/performance_diary.md")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


class Block(NamedTuple):
  """A fenced block.

  Attributes:
    page: its page's path in the repository.
    line: number of its first line.
    language: after the fence; "" if there is none.
    text: without the fences.
  """

  page: str
  line: int
  language: str
  text: str

  @property
  def name(self) -> str:
    return f"{self.page}:{self.line}"


@functools.cache
def pages() -> dict[str, str]:
  """Returns the text of every page by its path in the repository."""
  paths = [
    *ROOT.glob("*.md"),
    *ROOT.glob("*/README.md"),
    *(ROOT / "benchmarks").glob("*.md"),
    *DOCS.rglob("*.md"),
  ]
  return {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in sorted(paths)
    if not path.parent.name.startswith(".")  # a cache's own README
  }


def blocks(*languages: str, history: bool = False) -> list[Block]:
  """Returns the fenced blocks in these languages.

  Args:
    *languages: e.g. "bash", "python".
    history: also those of pages that report on earlier versions.
  """
  return [
    Block(page, text[: match.start(2)].count("\n") + 1, match[1], match[2])
    for page, text in pages().items()
    if history or page not in HISTORY
    for match in _FENCE.finditer(text)
    if match[1] in languages
  ]


def commands() -> list[tuple[str, str]]:
  """Returns (where, command) for each command of the shell, one line each."""
  found = []
  for block in blocks("", "bash"):
    for line in block.text.replace("\\\n", " ").splitlines():
      if line.strip() and not line.lstrip().startswith("#"):
        found.append((block.name, line.strip()))
  return found


def without_blocks(text: str) -> str:
  """Returns a page's text without fenced blocks."""
  return _FENCE.sub("", text)
