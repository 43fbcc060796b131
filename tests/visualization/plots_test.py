"""Plots do not depend on the user's settings."""

import os
import subprocess
import sys

import matplotlib
import pytest

from trm_jax.visualization import plots

ROWS = [
  {"step": step, "group": "train", "answer_loss": 1 / step}
  for step in range(1, 4)
]


def _curves(path):
  plots.save_curves(ROWS, path)
  return path.read_bytes()


@pytest.mark.parametrize(
  "settings",
  [
    {"text.usetex": True},
    {"savefig.format": "pdf", "figure.dpi": 2000, "font.family": "Nothing"},
    {"backend": "tkagg", "axes.facecolor": "black"},
  ],
)
def test_curves_do_not_depend_on_the_users_style(tmp_path, settings):
  plain = _curves(tmp_path / "plain.png")
  with matplotlib.rc_context(settings):
    assert _curves(tmp_path / "changed.png") == plain
    assert plots.training(ROWS, "loss", plots.DARK).startswith(b"<?xml")
    for name, value in settings.items():
      assert matplotlib.rcParams[name] in (value, [value])  # still the user's


def test_a_notebooks_backend_does_not_matter():
  program = (
    "from trm_jax.visualization import grid_image; import os;"
    "print(os.environ['MPLBACKEND'])"
  )
  backend = "module://of_another_environment.backend"
  result = subprocess.run(
    [sys.executable, "-c", program],
    env=os.environ | {"MPLBACKEND": backend},
    capture_output=True,
    text=True,
  )
  assert result.stdout.strip() == backend, result.stderr
