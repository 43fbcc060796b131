"""The settings page lists every setting with its default and its text."""

import importlib.util
import re

import pages
import pytest

from experiments import base
from trm_jax import config as config_lib

_SPEC = importlib.util.spec_from_file_location("hooks", pages.DOCS / "hooks.py")
hooks = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(hooks)


def test_every_setting_has_its_default():
  values = config_lib.flatten(config_lib.from_config_dict(base.get_config()))
  found = {setting.name: setting.default for setting in hooks.read_settings()}
  assert found == values
  assert set(found) == set(config_lib.knob_names())


@pytest.mark.parametrize("setting", hooks.read_settings(), ids=lambda s: s.name)
def test_every_setting_is_documented_by_its_own_comment(setting):
  assert len(setting.text) > 3
  others = [s.text for s in hooks.read_settings() if s.name != setting.name]
  assert setting.text not in others


def test_the_page_is_generated_from_them():
  text = hooks.settings_text()
  rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| (.+) \|$", text, re.M)
  assert [row[0] for row in rows] == sorted(
    config_lib.knob_names(), key=[row[0] for row in rows].index
  )
  default, words = next(
    row[1:] for row in rows if row[0] == "train.exploration_prob"
  )
  assert default == "0.1"
  assert words.startswith("Share of puzzles")
  assert hooks.SETTINGS_MARK in pages.pages()["docs/reference/settings.md"]


def test_groups_are_described_by_their_docstrings():
  groups = hooks.read_groups()
  assert set(groups) == {
    name.partition(".")[0] for name in config_lib.knob_names() if "." in name
  }
  assert all(groups.values())


@pytest.mark.parametrize(
  ("page", "link", "translated"),
  [
    ("index.md", "docs/extend.md#a-loss", "[x](extend.md#a-loss)"),
    ("index.md", "benchmarks/RESULTS.md", "[x](reference/measurements.md)"),
    ("index.md", "LICENSE", "x"),
    ("howto/memory.md", "../algorithm.md", "[x](../algorithm.md)"),
    (
      "howto/memory.md",
      "../../CONTRIBUTING.md#tests",
      "[x](../contributing.md#tests)",
    ),
    ("howto/memory.md", "#here", "[x](#here)"),
    ("howto/memory.md", "https://x.org/a.md", "[x](https://x.org/a.md)"),
  ],
)
def test_links_of_the_repository_become_links_of_the_site(
  page, link, translated
):
  assert hooks.translate_links(f"[x]({link})", page, "") == translated


def test_with_an_address_files_outside_the_site_are_linked_too():
  translated = hooks.translate_links("[x](LICENSE)", "index.md", "https://h/r")
  assert translated == "[x](https://h/r/blob/main/LICENSE)"
