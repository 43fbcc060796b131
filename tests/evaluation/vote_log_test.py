"""The log of finished tasks: going on after a kill, and damage."""

import errno
import json
import os
from unittest import mock

import numpy as np
import pytest
from etils import epath

from trm_jax import errors
from trm_jax.evaluation import vote_log, voting

HEADER = {"checkpoint": 300, "data": "a1b2", "attempts": 2, "sizes": (3, 4)}


def _entry(k):
  """Results of k % 3 tasks with awkward numbers, and sums."""
  results = tuple(
    voting.TaskResult(
      name=f"täsk{k}\n{number}",
      inputs=tuple(
        voting.InputResult(
          attempts=([[k, 1], [2, 3]], []),
          known=number != 0,
          rank=None if k % 2 else k,
          num_votes=10 * k,
          num_candidates=k,
          leaders=((7, 0.1 + 0.2), (1, k / 7), (1, 5e-324)),
        )
        for _ in range(1 + number)
      ),
    )
    for number in range(k % 3)
  )
  sums = {
    "rows": np.float32([k, 16777216]),
    "loss": np.array([np.nan, 1 / (k + 3), -np.inf]),
    "count": np.int32(k),
  }
  return vote_log.Entry(sums=sums, results=results)


def _assert_same(log, indices, replaced=()):
  assert log.replaced == replaced
  for entry, k in zip(log.entries, indices, strict=True):
    assert entry.results == _entry(k).results
    assert list(entry.sums) == ["rows", "loss", "count"]
    for name, value in _entry(k).sums.items():
      assert entry.sums[name].dtype == np.float64
      np.testing.assert_array_equal(entry.sums[name], value)


def _append(log, indices):
  for k in indices:
    log.append(_entry(k))


def _written(path):
  with vote_log.VoteLog(path, HEADER) as log:
    _append(log, range(4))
  return path.read_bytes()


@pytest.fixture(name="path")
def _path(tmp_path):
  return tmp_path / "votes.jsonl"


def test_what_is_read_is_what_was_written(tmp_path):
  path = tmp_path / "new" / "folder" / "votes.jsonl"
  with vote_log.VoteLog(str(path), HEADER) as log:
    _assert_same(log, [])
    _append(log, [0, 1, 2])
  with vote_log.VoteLog(epath.Path(path), HEADER) as log:
    _assert_same(log, [0, 1, 2])
    _append(log, [3, 4])
  with vote_log.VoteLog(path, HEADER) as log:
    _assert_same(log, range(5))
  lines = path.read_bytes().splitlines()
  assert len(lines) == 6
  read = json.loads(lines[2])["content"]["results"]
  assert read[0]["name"] == _entry(1).results[0].name


def test_cut_off_anywhere_by_a_kill(path):
  whole = _written(path)
  ends = [k + 1 for k, byte in enumerate(whole) if byte == ord("\n")]
  sizes = {end + k for end in ends for k in (-1, 0, 1) if end + k <= len(whole)}
  for size in {0, *range(1, len(whole), 7)} | sizes:
    path.write_bytes(whole[:size])
    num_entries = max(0, sum(end <= size for end in ends) - 1)
    with mock.patch.object(os, "fsync"), vote_log.VoteLog(path, HEADER) as log:
      _assert_same(log, range(num_entries))
      _append(log, range(num_entries, 4))
    assert path.read_bytes() == whole


def _assert_damaged(path, content, line):
  path.write_bytes(content)
  with pytest.raises(errors.UserError) as caught:
    vote_log.VoteLog(path, HEADER)
  assert str(caught.value) == (
    f"{path} line {line} is damaged; delete the file to count the votes of"
    " all tasks anew"
  )
  assert path.read_bytes() == content


def test_every_other_damage_is_named(path):
  whole = _written(path)
  for place in range(len(whole) - 1):  # the last line feed: see above
    line = whole[:place].count(b"\n") + 1
    _assert_damaged(path, whole[:place] + b"~" + whole[place + 1 :], line)
  _assert_damaged(path, whole.replace(b'"rank": 2', b'"rank": 0'), 4)
  _assert_damaged(path, whole + b"\n", 6)


def test_a_line_twice_or_missing_is_noticed(path):
  whole = _written(path)
  lines = whole.splitlines(keepends=True)
  _assert_damaged(path, b"".join([*lines, lines[-1]]), 6)
  _assert_damaged(path, b"".join([*lines[:2], *lines[3:]]), 3)


@pytest.mark.parametrize("text", ["\n", "7\n", "{}\n", "[" * 100_000 + "\n"])
def test_files_that_are_no_log(path, text):
  path.write_text(text)
  with pytest.raises(errors.UserError, match="line 1 is damaged"):
    vote_log.VoteLog(path, HEADER)
  assert path.read_text() == text


@pytest.mark.parametrize(
  ("changes", "names"),
  [
    ({"data": "c3d4"}, ("data",)),
    ({"checkpoint": 600, "attempts": 3}, ("attempts", "checkpoint")),
    ({"new": None}, ("new",)),
  ],
)
def test_log_of_another_evaluation_is_replaced(path, changes, names):
  _written(path)
  other = {**HEADER, **changes}
  with vote_log.VoteLog(path, other) as log:
    _assert_same(log, [], names)
    _append(log, [0])
  with vote_log.VoteLog(path, other) as log:
    _assert_same(log, [0])


def test_log_of_another_format_is_replaced(path):
  with mock.patch.object(vote_log, "_FORMAT", 0):
    _written(path)
  with vote_log.VoteLog(path, HEADER) as log:
    _assert_same(log, [], ("format",))


def test_appended_is_on_the_disk(path):
  with vote_log.VoteLog(path, HEADER) as log:
    with mock.patch.object(os, "fsync", wraps=os.fsync) as fsync:
      _append(log, [0, 1])
    assert fsync.call_count == 2
    # While the log is open, as after a kill.
    copy = path.with_name("copy.jsonl")
    copy.write_bytes(path.read_bytes())
    with vote_log.VoteLog(copy, HEADER) as reader:
      _assert_same(reader, [0, 1])


def test_places_that_cannot_be_written(path):
  path.write_text("")
  for place in (path.parent, path / "votes.jsonl"):
    with pytest.raises(errors.UserError, match="cannot keep the votes in") as e:
      vote_log.VoteLog(place, HEADER)
    assert "\n" not in str(e.value)


class _FullDisk:
  def write(self, _):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk(path):
  with vote_log.VoteLog(path, HEADER) as log:
    log.append(_entry(0))
    with (
      mock.patch.object(log, "_file", _FullDisk()),
      pytest.raises(errors.UserError, match="No space left"),
    ):
      log.append(_entry(1))
  with vote_log.VoteLog(path, HEADER) as log:
    _assert_same(log, [0])


def test_two_cannot_write_at_once(path):
  with vote_log.VoteLog(path, HEADER) as log:
    log.append(_entry(0))
    with pytest.raises(errors.UserError, match="another evaluation is writing"):
      vote_log.VoteLog(path, HEADER)
    log.append(_entry(1))
  with vote_log.VoteLog(path, HEADER) as log:
    _assert_same(log, range(2))
