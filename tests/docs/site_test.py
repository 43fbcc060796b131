"""The documentation builds without a warning (extra docs)."""

import os
import re
import subprocess
import sys

import pages
import pytest

from trm_jax import config as config_lib

pytestmark = pytest.mark.slow


def test_the_site_builds_strictly(tmp_path):
  result = subprocess.run(
    [
      *(sys.executable, "-m", "mkdocs", "build", "--strict"),
      f"--site-dir={tmp_path}",
    ],
    cwd=pages.ROOT,
    env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  assert "WARNING" not in result.stderr
  settings = (tmp_path / "reference/settings/index.html").read_text()
  for name in config_lib.knob_names():
    assert f"<code>{name}</code>" in settings
  api = (tmp_path / "reference/api/index.html").read_text()
  assert 'id="trm_jax.load"' in api
  home = (tmp_path / "index.html").read_text()
  assert "assets/recursion.svg" in home
  # Nothing is fetched from other servers by the pages themselves.
  for page in tmp_path.rglob("*.html"):
    for source in re.findall(
      r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"',
      page.read_text(),
    ):
      assert 'rel="canonical"' in source or "127.0.0.1" in source, source
