"""Evaluation on ARC: the variants of a task vote; resumes after a kill."""

import contextlib
import errno
import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import eval_step, metrics, solve_batch, types
from trm_jax.data import files, puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.evaluation import report, voting
from trm_jax.runtime import array_digest, processes

LOG_FILE = "votes.jsonl"
SUBMISSION_FILE = "submission.json"

_FORMAT = 2  # increases when the content of the log's lines changes
_MISSING = object()  # an entry of a header that is absent; None may be present


def folder(
  workdir: str,
  step: int,
  *,
  max_tasks: int = 0,
  max_augmentations: int = 0,
  solver: str = "",
) -> epath.Path:
  """Returns the folder of an evaluation's votes and submission.

  Args:
    workdir: Folder of the run.
    step: Supervision step of the weights.
    max_tasks: `eval.max_tasks`; a partial evaluation has a folder of its own.
    max_augmentations: `eval.max_augmentations`.
    solver: `SolverConfig.label`.
  """
  name = f"step_{step}"
  for part, value in (
    ("_tasks", max_tasks),
    ("_augmentations", max_augmentations),
    ("", solver),
  ):
    name += f"{part}_{value}" if value else ""
  return files.folder(workdir) / "evaluations" / name


class ArcEvaluator(report.Scorer):
  """Scores ARC tasks by vote and writes the submission.

  Every process counts all votes. Only process 0 uses the disk: it logs each
  batch, so that a killed evaluation resumes where it was.
  """

  def __init__(
    self,
    table: task_lib.AugmentationTable,
    puzzles: puzzle_set.Subset,
    weights: types.Weights,
    *,
    config: config_lib.Config,
    solver: solve_batch.SolverConfig,
    batch_size: int,
    place: epath.Path,
  ):
    """Opens the log; resumes if it is of the same weights and settings.

    Args:
      table: Tasks and augmentations of the test set.
      puzzles: The part of it to evaluate.
      weights: The weights to evaluate.
      config: The settings.
      solver: How the puzzles are solved.
      batch_size: Rows of a batch, over all processes.
      place: As returned by `folder`.

    Raises:
      UserError: the log is damaged or cannot be written.
    """
    super().__init__()
    self._folder = place
    header = {
      "weights": {
        name: record.digest
        for name, record in array_digest.array_infos(weights).items()
      },
      "puzzles": puzzles.fingerprint(),
      "batch size": batch_size,
      "supervision steps": config.eval.supervision_steps,
      "compute dtype": config.model.compute_dtype,
      "answer loss": config.train.answer_loss,
      "halt loss weight": config.train.halt_loss_weight,
      "solver": solver.used() if solver.label else None,
    }
    self._log: EvaluationLog | None = None  # in process 0
    entries = processes.from_first(lambda: self._open_log(header))
    self._num_logged = len(entries)
    self._results: list[voting.TaskResult] = []
    for entry in entries:
      self._results += map(voting.TaskResult.from_json, entry["results"])
      self.sums = metrics.add(self.sums, entry["sums"])
    # Batches with examples of an unfinished task are solved again; if there is
    # none, the last batch, for the example in the report.
    bounds = puzzles.puzzle_indices[puzzles.group_indices]
    last = (puzzles.num_examples - 1) // batch_size
    unfinished = int(bounds[len(self._results)])
    self.first_batch = min(unfinished // batch_size, last)
    self._counter = voting.VoteCounter(
      table,
      puzzles,
      first_task=len(self._results),
      first_example=self.first_batch * batch_size,
    )
    if entries:
      processes.print_once(
        f"resuming the evaluation in {self._folder}: {len(self._results)} of"
        f" {puzzles.num_groups} tasks are finished"
      )

  def _open_log(self, header: dict[str, Any]) -> list[dict[str, Any]]:
    """Opens the log and returns its entries."""
    self._log = EvaluationLog(self._folder / LOG_FILE, header)
    if self._log.replaced:
      (self._folder / SUBMISSION_FILE).unlink(missing_ok=True)
      processes.print_once(
        f"the votes in {self._folder} are of another evaluation (different"
        f" {', '.join(self._log.replaced)}) and are counted anew"
      )
    return self._log.entries

  def observe(
    self,
    number: int,
    sums: Mapping[str, np.ndarray],
    answers: eval_step.Answers,
  ) -> None:
    """As `Scorer.observe`."""
    rows = np.asarray(answers.rows)
    results = self._counter.add(
      np.asarray(answers.questions)[rows],
      np.asarray(answers.answers)[rows],
      np.asarray(answers.halt_logits)[rows],
      np.asarray(answers.steps)[rows],
    )
    if number < self._num_logged:
      return  # solved again; its sums are in the log
    super().observe(number, sums, answers)
    self._results += results
    if self._log is not None:
      self._log.append(
        {
          "sums": {
            name: np.asarray(value, np.float64).tolist()
            for name, value in sums.items()
          },
          "results": [result.to_json() for result in results],
        }
      )

  def progress(self) -> str:
    """As `Scorer.progress`."""
    share = voting.pass_at(self._results, ks=(voting.NUM_ATTEMPTS,))
    if not share:
      return ""
    return (
      f"pass@{voting.NUM_ATTEMPTS} {share[voting.NUM_ATTEMPTS]:.1%} of"
      f" {len(self._results)} tasks so far"
    )

  def summary(self) -> report.ScoreSummary:
    """As `Scorer.summary`; writes the submission."""
    assert self._counter.num_unfinished == 0
    path = self._folder / SUBMISSION_FILE
    if self._log is not None:
      self._log.close()
      voting.write_submission(path, self._results)
    shares = voting.pass_at(self._results)
    lines = [f"submission of {len(self._results)} tasks: {path}"]
    if shares:
      known = sum(result.known for result in self._results)
      lines.append(
        f"{known} tasks with known answers: "
        + ", ".join(f"pass@{k} {share:.2%}" for k, share in shares.items())
      )
    else:
      lines.append("no score: the correct answers are not known")
    unanswered = sum(result.num_unanswered for result in self._results)
    if unanswered:
      lines.append(f"{unanswered} test inputs have no answer")
    return report.ScoreSummary(
      metrics={f"pass@{k}": share for k, share in shares.items()},
      score=f"pass@{voting.NUM_ATTEMPTS}" if shares else "exact_accuracy",
      lines=tuple(lines),
      task_results=tuple(self._results),
    )


class EvaluationLog:
  """A file of JSON entries, one per batch, safe against kills.

  The first line is a header that identifies the evaluation. Every line has its
  number and a checksum. A kill may truncate the last line, which is then
  dropped; any other damage is an error. A local file is locked while open. A
  bucket cannot append: the whole object is rewritten, and of two writers the
  last one wins.

  Attributes:
    path: The file.
    entries: The entries found when it was opened, JSON objects.
    replaced: Names of the differing entries of the header if the file was of
      another evaluation and is replaced; else ().
  """

  def __init__(self, path: epath.PathLike, header: Mapping[str, Any]):
    """Opens a log to continue it, or starts one.

    Args:
      path: A file, local or in a bucket; made if missing, with its folder.
      header: Everything the votes depend on, such as settings and digests of
        weights and puzzles, as a JSON value. A log with another one is
        replaced.

    Raises:
      UserError: the file is damaged, locked, or cannot be written.
    """
    self.path = epath.Path(path).expanduser()
    self.entries: list[dict[str, Any]] = []
    self.replaced: tuple[str, ...] = ()
    self._num_lines = 0
    self._file: io.FileIO | None = None  # None in a bucket
    self._content = b""  # all of it, in a bucket
    wanted = json.loads(json.dumps({**header, "format": _FORMAT}))
    with self._file_errors(), contextlib.ExitStack() as on_error:
      on_error.callback(self.close)
      self.path.parent.mkdir(parents=True, exist_ok=True)
      if not files.is_remote(self.path):
        self._file = io.FileIO(os.fspath(self.path), "a")
        self._lock(self._file)
      stored = self.path.read_bytes() if self.path.exists() else b""
      size = self._read(stored, wanted)
      if self._file:
        self._file.truncate(size)
      else:
        self._content = stored[:size]
      if not size:
        self._write(wanted)
      on_error.pop_all()

  def append(self, entry: Mapping[str, Any]) -> None:
    """Adds an entry, a JSON object; it is on disk on return.

    Raises:
      UserError: the file cannot be written.
    """
    with self._file_errors():
      self._write(entry)

  def close(self) -> None:
    """Closes and unlocks the file."""
    if self._file:
      self._file.close()

  def __enter__(self) -> "EvaluationLog":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def _lock(self, file: io.FileIO) -> None:
    try:
      is_ours = files.try_lock(file)
    except OSError as error:
      # Some network file systems do not have locks.
      if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK):
        raise
      return
    if not is_ours:
      raise errors.UserError(
        f"another evaluation is writing {self.path}; wait until it has ended"
      )

  def _read(self, content: bytes, wanted: dict[str, Any]) -> int:
    """Sets `entries` and `replaced`; returns the number of bytes to keep."""
    *lines, truncated = content.split(b"\n")
    if not lines:
      return 0
    found = self._parse(lines[0], 1)
    if found != wanted:
      self.replaced = tuple(
        name
        for name in sorted({*wanted, *found})
        if wanted.get(name, _MISSING) != found.get(name, _MISSING)
      )
      return 0
    self.entries = [
      self._parse(line, number)
      for number, line in enumerate(lines[1:], start=2)
    ]
    self._num_lines = len(lines)
    return len(content) - len(truncated)

  def _parse(self, line: bytes, number: int) -> dict[str, Any]:
    """Returns the content of a line; its number reveals a second writer."""
    try:
      value = json.loads(line)
      content = value["content"]
      is_intact = value["crc32"] == zlib.crc32(_dump(content))
      if not is_intact or value["line"] != number:
        raise ValueError("wrong checksum or number")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
      raise errors.UserError(
        f"{self.path} line {number} is damaged; delete the file to count the"
        " votes of all tasks anew"
      ) from error
    return content

  def _write(self, content: Mapping[str, Any]) -> None:
    self._num_lines += 1
    crc32 = zlib.crc32(_dump(content))
    line = {"line": self._num_lines, "crc32": crc32, "content": content}
    data = _dump(line) + b"\n"
    if self._file is None:
      self._content += data
      self.path.write_bytes(self._content)
      return
    while data:  # an unbuffered file may accept only a part
      data = data[self._file.write(data) :]
    os.fsync(self._file.fileno())

  @contextlib.contextmanager
  def _file_errors(self) -> Iterator[None]:
    """Turns errors of the file system into one line."""
    try:
      yield
    except Exception as error:
      if not errors.is_of_files(error):
        raise
      raise errors.UserError(
        f"cannot keep the votes in {self.path}: {errors.reason(error)}"
      ) from error


def _dump(content: Any) -> bytes:
  return json.dumps(content).encode()
