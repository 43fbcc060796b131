"""Links, the README's size, and what .ci/run reads there."""

import re
import subprocess

import pages
import pytest

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.M)


def _anchors(text):
  """Anchors of a page's headings, as GitHub and MkDocs make them."""
  text = pages.without_blocks(text)
  headings = [
    re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
    for heading in _HEADING.findall(text)
  ]
  return {*headings, *re.findall(r"^::: ([\w.]+)$", text, re.M)}


def _links():
  return [
    (page, link)
    for page, text in pages.pages().items()
    for link in _LINK.findall(pages.without_blocks(text))
    if not re.match(r"\w+:", link)
  ]


def test_links_are_found():
  assert len(_links()) > 60


@pytest.mark.parametrize("page", pages.pages())
def test_relative_links_lead_somewhere(page):
  for source, link in _links():
    if source != page:
      continue
    path, _, anchor = link.partition("#")
    target = (pages.ROOT / page).parent / path if path else pages.ROOT / page
    assert target.exists(), link
    if anchor:
      name = target.resolve().relative_to(pages.ROOT).as_posix()
      assert anchor in _anchors(pages.pages()[name]), link


def test_the_readme_is_short_and_leads_to_all_kinds_of_pages():
  readme = pages.pages()["README.md"]
  assert len(readme.splitlines()) <= 200
  for folder in ("tutorials", "howto", "reference"):
    assert f"](docs/{folder}/" in readme
  for page in pages.pages():
    if page.startswith("docs/tutorials/") and "quickstart" not in page:
      assert f"]({page}" in readme


def test_the_readme_has_the_two_commands_to_set_up():
  readme = pages.pages()["README.md"]
  install = "python3 -m venv .venv && .venv/bin/pip install "
  assert re.search(
    r"^<!-- test command -->\n```\n" + re.escape(install) + r".*pytest.*\n```$",
    readme,
    re.M,
  )
  assert re.search(
    re.escape(install) + r"\. && .*quickstart\.py$", readme, re.M
  )


def test_every_page_is_in_the_navigation():
  navigation = (pages.ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
  for page in pages.pages():
    if page.startswith("docs/"):
      assert navigation.count(f" {page.removeprefix('docs/')}\n") == 1, page


def test_ci_tests_what_git_tracks_and_these_pages_are_tracked():
  command = (pages.ROOT / ".ci/run").read_text()
  assert "git ls-files" in command
  tracked = subprocess.run(
    ["git", "ls-files"],
    cwd=pages.ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  if tracked.returncode == 0:  # a copy of the tree is no repository
    names = set(tracked.stdout.splitlines())
    assert {*pages.pages(), "mkdocs.yml", "docs/hooks.py"} <= names
  workflow = (pages.ROOT / ".github/workflows/ci.yml").read_text()
  assert "run: .ci/run" in workflow


def test_nothing_links_to_pictures_that_do_not_exist():
  for page, text in pages.pages().items():
    for source in re.findall(r'<img[^>]+src="([^":]+)"', text):
      assert ((pages.ROOT / page).parent / source).exists(), source
