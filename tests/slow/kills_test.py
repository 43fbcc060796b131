"""A run that is killed and continued ends as one that never was.

`python -m benchmarks.kills --kills=20` is the long form.
"""

import shutil

import numpy as np
import pytest

from benchmarks import kills

STEPS = 200


def _differences(one, other):
  return kills.differences(one, other, steps=STEPS)


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory):
  """The workdir of a run that was never killed."""
  workdir = tmp_path_factory.mktemp("kills") / "whole"
  kills.train(workdir, steps=STEPS)
  return workdir


def test_killed_at_any_moment_and_continued_is_never_killed(whole):
  killed = whole.parent / "killed"
  kills.train(killed, steps=STEPS, kills=2, seed=1)
  assert _differences(whole, killed) == []


def test_a_difference_would_be_found(whole, tmp_path, monkeypatch):
  shutil.copytree(whole, tmp_path / "other")
  path = tmp_path / "other" / "metrics.jsonl"
  lines = path.read_text().splitlines()
  path.write_text("\n".join(lines[:-1]) + "\n")
  assert _differences(whole, tmp_path / "other") == ["metrics.jsonl"]

  states = {whole: {"w": np.zeros(2)}, tmp_path: {"w": np.array([0.0, -0.0])}}
  monkeypatch.setattr(kills, "_last_state", lambda place, _: states[place])
  assert _differences(whole, tmp_path)[0] == "['w']"
