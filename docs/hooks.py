"""Hooks of MkDocs: pages made from files elsewhere in the repository.

The site's home page is README.md; other pages come from the files in `PAGES`.
The settings page is generated from experiments/base.py. Relative links are
written as GitHub resolves them and are translated here.
"""

import ast
import io
import pathlib
import posixpath
import re
import tokenize
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Page of the site -> file of the repository outside docs/.
PAGES = {
  "index.md": "README.md",
  "contributing.md": "CONTRIBUTING.md",
  "changelog.md": "CHANGELOG.md",
  "examples.md": "examples/README.md",
  "notebooks.md": "notebooks/README.md",
  "reference/measurements.md": "benchmarks/RESULTS.md",
  "reference/family.png": "benchmarks/family.png",
}
SETTINGS_MARK = "<!-- settings -->"

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


class Setting(NamedTuple):
  """A setting of experiments/base.py.

  Attributes:
    name: e.g. "model.hidden_size".
    default: its value there.
    text: its comment.
  """

  name: str
  default: Any
  text: str


def on_files(files, config):
  """Adds the pages of `PAGES`."""
  from mkdocs.structure import files as files_lib

  for page, path in PAGES.items():
    files.append(
      files_lib.File.generated(config, page, abs_src_path=str(ROOT / path))
    )
  return files


def on_page_markdown(markdown, page, config, files):
  """Fills in the settings and translates links."""
  del files
  if SETTINGS_MARK in markdown:
    markdown = markdown.replace(SETTINGS_MARK, settings_text())
  return translate_links(markdown, page.file.src_uri, config.repo_url or "")


def translate_links(markdown: str, page: str, repo_url: str) -> str:
  """Translates relative links of the repository into those of the site.

  Args:
    markdown: text of the page.
    page: its place in the site, e.g. "howto/memory.md".
    repo_url: of the repository; without one, links to files that are not part
      of the site become plain text.
  """
  source = PAGES.get(page, f"docs/{page}")
  places = {path: place for place, path in PAGES.items()}

  def translate(match: re.Match) -> str:
    mark, text, link = match.groups()
    path, hash_, anchor = link.partition("#")
    if not path or re.match(r"\w+:", path):
      return match[0]
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    place = places.get(target)
    if place is None and target.startswith("docs/"):
      place = target.removeprefix("docs/")
    if place is None:
      return f"[{text}]({repo_url}/blob/main/{target})" if repo_url else text
    start = posixpath.dirname(page) or "."
    relative = posixpath.relpath(place, start)
    return f"{mark}[{text}]({relative}{hash_}{anchor})"

  return _LINK.sub(translate, markdown)


def read_settings() -> list[Setting]:
  """Reads all settings of experiments/base.py, in their order."""
  source = (ROOT / "experiments/base.py").read_text()
  above: dict[int, str] = {}  # comments that fill a line, by line
  behind: dict[int, str] = {}  # comments at the end of a line
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      own_line = not token.line[: token.start[1]].strip()
      comments = above if own_line else behind
      comments[token.start[0]] = token.string.lstrip("# ").rstrip()
  settings = []
  for node in ast.walk(ast.parse(source)):
    if not isinstance(node, ast.Assign):
      continue
    name = ast.unparse(node.targets[0])
    if not name.startswith("config.") or isinstance(node.value, ast.Call):
      continue  # a group
    words = [behind.get(node.end_lineno or node.lineno, "")]
    line = node.lineno - 1
    while line in above:
      words.insert(0, above[line])
      line -= 1
    settings.append(
      Setting(
        name.removeprefix("config."),
        ast.literal_eval(node.value),
        " ".join(filter(None, words)),
      )
    )
  return settings


def read_groups() -> dict[str, str]:
  """Reads what each group of settings is: docstrings of trm_jax/config.py."""
  tree = ast.parse((ROOT / "trm_jax/config.py").read_text())
  classes = {
    node.name: node for node in tree.body if isinstance(node, ast.ClassDef)
  }
  return {
    ast.unparse(field.target): ast.get_docstring(classes[kind]) or ""
    for field in classes["Config"].body
    if isinstance(field, ast.AnnAssign)
    and (kind := ast.unparse(field.annotation)) in classes
  }


def settings_text() -> str:
  """Returns the tables of all settings in Markdown."""
  groups = {"": "The run itself.", **read_groups()}
  lines: list[str] = []
  settings = read_settings()
  for group, title in groups.items():
    lines += [
      f"## {group or 'name and seed'}",
      "",
      title,
      "",
      "| `--config.` | default | |",
      "|---|---|---|",
    ]
    for setting in settings:
      if setting.name.rpartition(".")[0] == group:
        default = repr(setting.default).replace("'", '"')
        lines.append(
          f"| `{setting.name}` | `{default}` | {_sentence(setting.text)} |"
        )
    lines.append("")
  return "\n".join(lines)


def _sentence(text: str) -> str:
  """Returns a comment as a sentence in Markdown; quoted words become code."""
  text = re.sub(r"([*|<>\[\]])", r"\\\1", text)
  text = re.sub(r"'([\w.]+)'", r"`\1`", text)
  if re.match(r"[a-z]{2}", text):  # not the name of a quantity, n
    text = text[0].upper() + text[1:]
  return text.rstrip(".") + "."
