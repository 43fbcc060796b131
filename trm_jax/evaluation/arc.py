"""An ARC evaluation: all variants of a task vote; killed ones go on."""

from typing import Any

import numpy as np
from etils import epath

from trm_jax.core import eval_step, metrics, types
from trm_jax.data import files, puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.evaluation import report, tally, vote_log, voting
from trm_jax.runtime import array_digest, processes
from trm_jax.runtime import program as program_lib

LOG_FILE = "votes.jsonl"
SUBMISSION_FILE = "submission.json"


def folder(
  workdir: str,
  step: int,
  *,
  tasks: int = 0,
  variants: int = 0,
  solver: str = "",
) -> epath.Path:
  """Where an evaluation keeps votes and submission.

  Args:
    workdir: of the run.
    step: supervision step of the weights.
    tasks: `eval.tasks`; a quick look leaves a whole evaluation alone.
    variants: `eval.variants`.
    solver: label of `solve_batch.SolverConfig`.
  """
  name = f"step_{step}"
  if tasks:
    name += f"_tasks_{tasks}"
  if variants:
    name += f"_variants_{variants}"
  if solver:
    name += f"_{solver}"
  return files.folder(workdir) / "evaluations" / name


class Election:
  """The judge of an ARC evaluation (`judge.Judge`).

  Every host counts all votes; the first one alone reads and writes the disk,
  which the others need not see. What was counted is on it after every batch, so
  that an evaluation that was killed goes on.
  """

  def __init__(
    self,
    program: program_lib.Program,
    task: task_lib.Task,
    puzzles: puzzle_set.Selection,
    workdir: str,
    weights: types.Weights,
    step: int,
  ):
    """Opens the election, or goes on with one of the very same weights.

    Args:
      program: of the run.
      task: of the run; it has a ballot.
      puzzles: to be evaluated, in this order.
      workdir: of the run.
      weights: to be evaluated.
      step: of the weights.

    Raises:
      UserError: the log is damaged or cannot be written.
    """
    assert task.ballot is not None
    self._batch_size = program.eval_batch_size(task)
    config, solver = program.config, program.solver_config()
    self._folder = folder(
      workdir,
      step,
      tasks=config.eval.tasks,
      variants=config.eval.variants,
      solver=solver.label,
    )
    header = {
      "weights": {
        name: record.digest
        for name, record in array_digest.array_infos(weights).items()
      },
      "puzzles": puzzles.fingerprint(),
      "batch size": self._batch_size,
      "supervision steps": config.eval.supervision_steps,
      "compute dtype": config.model.compute_dtype,
      "answer loss": config.train.answer_loss,
      "halt loss weight": config.train.halt_loss_weight,
    }
    if solver.label:
      header["solver"] = solver.used()
    self._log: vote_log.VoteLog | None = None  # on the first host
    entries = [
      vote_log.Entry.from_json(entry)
      for entry in processes.from_first(lambda: self._open_log(header))
    ]
    self._results = [result for entry in entries for result in entry.results]
    self._tally = tally.Tally(
      task.ballot.tasks[: puzzles.num_groups],
      puzzle_indices=puzzles.puzzle_indices,
      group_indices=puzzles.group_indices,
      transforms=task.ballot.transforms[puzzles.puzzles],
      colours=task.ballot.colours[puzzles.puzzles],
      num_attempts=voting.NUM_ATTEMPTS,
      first_group=len(self._results),
    )
    self._num_counted = len(entries)
    # Batches that hold examples of an unfinished task are solved again.
    finished = puzzles.puzzle_indices[puzzles.group_indices[len(self._results)]]
    last = (puzzles.num_examples - 1) // self._batch_size
    self.first_batch = min(int(finished) // self._batch_size, last)
    self.sums: dict[str, np.ndarray] = {}
    for entry in entries:
      self.sums = metrics.add(self.sums, entry.sums)
    if self._num_counted:
      processes.tell(
        f"going on with the evaluation in {self._folder}:"
        f" {len(self._results)} of {puzzles.num_groups} tasks are finished"
      )

  def _open_log(self, header: dict[str, Any]) -> list[dict[str, Any]]:
    """Opens the log and returns the entries it held, of JSON's types."""
    self._log = vote_log.VoteLog(self._folder / LOG_FILE, header)
    if self._log.replaced:
      (self._folder / SUBMISSION_FILE).unlink(missing_ok=True)
      processes.tell(
        f"the votes in {self._folder} are of another evaluation (other"
        f" {', '.join(self._log.replaced)}) and are counted anew"
      )
    return [entry.to_json() for entry in self._log.entries]

  def see(self, batch, sums, answers: eval_step.Answers) -> bool:
    """As `judge.Judge.see`."""
    rows = np.asarray(answers.rows)
    results = self._tally.add(
      batch * self._batch_size,
      np.asarray(answers.questions)[rows],
      np.asarray(answers.answers)[rows],
      np.asarray(answers.halt_logits)[rows],
    )
    if batch < self._num_counted:
      return False
    self._results += results
    if self._log is not None:
      self._log.append(vote_log.Entry(sums=sums, results=tuple(results)))
    return True

  def progress(self) -> str:
    """As `judge.Judge.progress`."""
    share = voting.pass_at(self._results, ks=(voting.NUM_ATTEMPTS,))
    if not share:
      return ""
    return (
      f", pass@{voting.NUM_ATTEMPTS} {share[voting.NUM_ATTEMPTS]:.1%} of"
      f" {len(self._results)} tasks so far"
    )

  def verdict(self) -> report.Verdict:
    """As `judge.Judge.verdict`; writes the submission."""
    assert self._tally.num_unfinished == 0
    path = self._folder / SUBMISSION_FILE
    if self._log is not None:
      self._log.close()
      voting.write_submission(path, self._results)
    shares = voting.pass_at(self._results)
    lines = [f"submission of {len(self._results)} tasks: {path}"]
    if shares:
      known = sum(result.known for result in self._results)
      lines.append(
        f"of {known} tasks with known answers: "
        + ", ".join(f"pass@{k} {share:.2%}" for k, share in shares.items())
      )
    else:
      lines.append("no right answers are known: nothing to score")
    unanswered = sum(result.num_unanswered for result in self._results)
    if unanswered:
      lines.append(f"{unanswered} test inputs got no answer at all")
    return report.Verdict(
      metrics={f"pass@{k}": share for k, share in shares.items()},
      score=f"pass@{voting.NUM_ATTEMPTS}" if shares else "exact_accuracy",
      lines=tuple(lines),
    )
