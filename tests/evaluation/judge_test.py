"""Judges of answers: what the rules allow, whatever the label says."""

import jax.numpy as jnp
import numpy as np

from trm_jax.core import eval_step, losses, metrics, types
from trm_jax.data import loader, puzzle_set
from trm_jax.data.maze import rules as maze_rules
from trm_jax.evaluation import evaluate, scorer
from trm_jax.evaluation import report as report_lib
from trm_jax.runtime import mesh

STEPS = 2


def _answers(questions, answers, rows):
  return eval_step.Answers(
    questions=np.array(questions, np.uint8),
    labels=np.array(answers, np.int32),
    answers=np.array(answers, np.uint8),
    halt_logits=np.zeros(len(rows), np.float32),
    steps=np.ones(len(rows), np.int32),
    rows=np.array(rows, bool),
  )


def _equal(questions, answers):
  return (questions == answers).all(axis=1)


def test_rules_count_over_batches_and_ignore_padding():
  judged = scorer.RulesJudge(_equal, "copy")
  assert judged.first_batch == 0
  assert judged.see(0, {}, _answers([[1], [2]], [[1], [3]], [True, True]))
  # The padding row would be right.
  assert judged.see(1, {}, _answers([[4], [0]], [[4], [0]], [True, False]))
  assert judged.see(2, {}, _answers([[5], [0]], [[6], [0]], [True, False]))
  assert judged.progress() == ""
  verdict = judged.verdict()
  assert verdict.metrics == {"valid_accuracy": 2 / 4}
  assert verdict.score == "exact_accuracy"
  assert verdict.lines == ("50.00% are a copy",)


def test_rules_see_real_rows_only():
  seen = []

  def is_valid(questions, answers):
    seen.append((questions.tolist(), answers.tolist()))
    return np.ones(len(questions), bool)

  judged = scorer.RulesJudge(is_valid, "anything")
  judged.see(0, {}, _answers([[1], [9], [2]], [[3], [9], [4]], [1, 0, 1]))
  assert seen == [([[1], [2]], [[3], [4]])]
  assert judged.verdict().metrics == {"valid_accuracy": 1.0}


def test_no_judge_has_nothing_to_say():
  judged = scorer.NoJudge()
  assert judged.see(0, {}, _answers([[1]], [[1]], [True]))
  assert judged.verdict() == report_lib.Verdict(
    metrics={}, score="exact_accuracy"
  )


def _tokens(*lines):
  return np.array(
    [maze_rules.CHARSET.index(character) + 1 for character in "".join(lines)],
    np.uint8,
  )


# The label goes down first; its mirror image is as short.
OPEN = _tokens("S   ", "    ", "    ", "   G")
LABEL = _tokens("S   ", "o   ", "o   ", "oooG")
MIRRORED = _tokens("Sooo", "   o", "   o", "   G")
DETOUR = _tokens("Soo ", " oo ", " o  ", " ooG")


def _evaluate_batch(answers):
  """Answers every example as the table says, whatever the weights are."""

  def evaluate_batch(_, batch, rows):
    logits = jnp.where(
      batch.puzzle_ids[:, None, None] >= 0,
      np.eye(maze_rules.VOCAB_SIZE, dtype=np.float32)[answers][
        batch.puzzle_ids
      ],
      0.0,
    )
    latents = jnp.zeros((len(rows), 1, 1))
    halt_logits = jnp.zeros(len(rows))
    output = types.Output(
      latents=types.Latents(y=latents, z=latents),
      logits=logits,
      halt_logits=halt_logits,
      continue_logits=halt_logits,
    )
    row_losses = losses.supervision_loss(
      output, batch.labels, answer_loss="softmax", halt_loss_weight=0.5
    )
    sums = metrics.row_sums(
      output,
      batch.labels,
      row_losses,
      steps=jnp.full(rows.shape, STEPS),
      counted=rows,
      rows=rows,
    )
    tokens = jnp.argmax(logits, axis=-1)
    return eval_step.BatchResult(
      sums={name: jnp.stack([value] * STEPS) for name, value in sums.items()},
      answers=jnp.stack([tokens] * STEPS),
      halt_logits=jnp.stack([halt_logits] * STEPS),
      last=eval_step.Answers(
        questions=batch.inputs.astype(jnp.uint8),
        labels=batch.labels,
        answers=tokens.astype(jnp.uint8),
        halt_logits=halt_logits,
        steps=jnp.full(rows.shape, STEPS),
        rows=rows,
      ),
    )

  return evaluate_batch


def test_a_mirrored_path_is_valid_but_not_exact():
  answers = np.stack([LABEL, MIRRORED, MIRRORED, DETOUR, OPEN])
  count = len(answers)
  indices = np.arange(count + 1, dtype=np.int64)
  puzzles = puzzle_set.PuzzleSet(
    inputs=np.stack([OPEN] * count),
    labels=np.stack([LABEL] * count),
    puzzle_ids=np.arange(count, dtype=np.int32),
    puzzle_indices=indices,
    group_indices=indices,
  )
  report = evaluate.evaluate(
    _evaluate_batch(answers),
    None,
    loader.eval_batches(puzzles, batch_size=3),  # one row of padding
    mesh.make_mesh(1),
    num_puzzles=count,
    judged_by=scorer.RulesJudge(
      lambda x, y: maze_rules.is_shortest_path(x, y, rows=4, cols=4),
      "valid shortest path",
    ),
  )
  assert report.num_puzzles == count
  assert report.final["exact_accuracy"] == 1 / 5
  assert report.final["valid_accuracy"] == 3 / 5
  assert report.score == report.final["exact_accuracy"]
  text = report_lib.format_report(report, (1, STEPS))
  assert text.splitlines()[-1] == "  60.00% are a valid shortest path"
