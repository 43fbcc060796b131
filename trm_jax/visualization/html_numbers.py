"""The report's sections of numbers: accuracy, belief, steps, training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trm_jax import config as config_lib
from trm_jax.evaluation import report as report_lib
from trm_jax.visualization import gallery, html_facts, html_parts, plots
from trm_jax.visualization.html_parts import Html, element


def accuracy(
  config: config_lib.Config, report: report_lib.EvalResult
) -> tuple[str, Html]:
  """Shows the metrics in a table, and over steps or rollouts in a chart."""
  belief_is = (
    f"Belief is right where the network is at least {gallery.BELIEVED:.0%}"
    " confident of an answer that is right, or less of one that is wrong."
  )
  _, lines = html_facts.lines(report)
  left = element(
    "div",
    _metrics_table(report, report.shown(config.eval.report_steps)),
    element("p", belief_is, class_="soft"),
    *_scores(report),
    *(element("p", line, class_="soft") for line in lines),
  )
  exact = report.means["exact_accuracy"]
  if len(report.numbers) < 2 or not np.isfinite(exact).all():
    return html_parts.section("Accuracy", left)
  counted = "rollouts" if report.axis == "rollouts" else "steps"
  first, last = float(exact[0]), float(exact[-1])
  picture = html_parts.chart(
    lambda theme: plots.accuracy(report, theme),
    f"Curve of accuracy against {counted}: {first:.1%} of the puzzles are right"
    f" at {report.numbers[0]}, {last:.1%} at {report.numbers[-1]}.",
    f"Accuracy against {counted}",
  )
  return html_parts.section(
    "Accuracy", element("div", left, picture, class_="pair")
  )


def _metrics_table(
  report: report_lib.EvalResult, numbers: Sequence[int]
) -> Html:
  counted, caption = {
    "steps": ("steps", "Accuracy after so many supervision steps"),
    "rollouts": ("rollouts", "Accuracy of the answer chosen among so many"),
    "adaptive": ("at most", "Accuracy with at most so many supervision steps"),
  }[report.axis]
  shares = ("exact_accuracy", "cell_accuracy", "halt_accuracy")
  rows = []
  for number in numbers:
    metrics = report.after(number)
    known = math.isfinite(metrics["exact_accuracy"])
    # Without a solution there is no loss: its sum over no cell is no merit.
    loss = metrics["answer_loss"] if known else math.nan
    rows.append(
      [
        str(number),
        *(html_parts.percent(metrics[name]) for name in shares),
        html_parts.number(loss, 4),
      ]
    )
  heads = [counted, "puzzles right", "cells right", "belief right", "loss"]
  return html_parts.table(heads, rows, caption=caption)


def _scores(report: report_lib.EvalResult) -> list[Html]:
  """Shows the summary's metrics if the page's head does not have them all."""
  if len(report.summary.metrics) < 2:
    return []
  rows = [
    (html_facts.NAMES.get(name, name), html_parts.percent(value))
    for name, value in report.summary.metrics.items()
  ]
  return [html_parts.table(["", ""], rows, caption="Scores by the votes")]


def belief(seen: gallery.Seen, num_puzzles: int) -> tuple[str, Html]:
  """Compares what the network believes of its answers with the truth.

  Args:
    seen: the puzzles that were solved now.
    num_puzzles: in the whole evaluation.
  """
  title = "Does it know when it is right?"
  judged = seen.judged
  total = len(judged.exact)
  partial = coverage(len(seen.exact), num_puzzles)
  if not seen.known.any():
    words = "Not known: no solution of the puzzles is known."
    return html_parts.section(title, element("p", words), *partial)
  unsure = int(seen.known.sum()) - total
  if unsure:
    words = (
      f"The confidence of {unsure:,} puzzles is not a number: training has"
      " diverged. They are not counted here."
    )
    partial.append(element("p", words, class_="warning"))
  if not total:
    return html_parts.section(title, *partial)
  counts = gallery.confusion(judged)
  table = html_parts.table(
    ["", "right", "wrong", "all"],
    [
      [name, *(_of(count, total) for count in (*row, row.sum()))]
      for name, row in zip(
        ("believed right", "believed wrong", "all"),
        (*counts, counts.sum(0)),
        strict=True,
      )
    ],
    caption=f"Belief against truth, of {total:,} puzzles; an answer is believed"
    f" to be right from {gallery.BELIEVED:.0%} confidence on",
  )
  bins = gallery.reliability(judged)
  picture = html_parts.chart(
    lambda theme: plots.reliability(bins, theme),
    "Bars of the share of right answers by confidence; the numbers are in the"
    " table.",
    "Where confidence can be trusted, bars end at the dashed line",
  )
  return html_parts.section(
    title,
    *partial,
    element(
      "div",
      element("div", table, _reliability_table(bins)),
      picture,
      class_="pair",
    ),
  )


def _of(count: int, total: int) -> Html:
  """Returns a number and, below it, its share."""
  return html_parts.join(
    [f"{count:,}", element("small", f"{count / total:.1%}")]
  )


def _reliability_table(bins: gallery.Bins) -> Html:
  rows = [
    (
      f"{low:.0%} to {high:.0%}",
      f"{count:,}",
      html_parts.percent(confidence, 1) if count else "no answer",
      html_parts.percent(share, 1) if count else "no answer",
    )
    for low, high, count, confidence, share in zip(
      bins.edges[:-1],
      bins.edges[1:],
      bins.counts,
      bins.confidence,
      bins.accuracy,
      strict=True,
    )
  ]
  return element(
    "details",
    element("summary", "Accuracy by confidence, in numbers"),
    html_parts.table(
      ["confidence", "answers", "on average", "are right"], rows
    ),
  )


def coverage(num_seen: int, num_puzzles: int) -> list[Html]:
  """Says so if figures of single puzzles are of a part of them only."""
  if num_seen >= num_puzzles:
    return []
  words = (
    f"This covers only the {num_seen:,} of {num_puzzles:,} puzzles that were"
    " solved now: the evaluation went on from its earlier votes."
  )
  return [element("p", words, class_="warning")]


def steps_used(seen: gallery.Seen, num_puzzles: int) -> tuple[str, Html]:
  """Shows how many supervision steps the puzzles took."""
  numbers, counts = np.unique(seen.steps, return_counts=True)
  total = len(seen.steps)
  picture = html_parts.chart(
    lambda theme: plots.steps_used(seen.steps, theme),
    f"Bars of puzzles by steps used, from {numbers[0]} to {numbers[-1]}; the"
    " numbers are in the table.",
    "Puzzles by the supervision steps they used",
  )
  rows = [
    (str(number), _of(count, total))
    for number, count in zip(numbers, counts, strict=True)
  ]
  words = (
    f"{seen.steps.mean():.2f} steps on average; half of the puzzles took at"
    f" most {math.ceil(np.median(seen.steps))}."
  )
  table = element(
    "details",
    element("summary", "In numbers"),
    html_parts.table(["steps", "puzzles"], rows),
  )
  return html_parts.section(
    "Steps used",
    *coverage(total, num_puzzles),
    element(
      "div", element("div", element("p", words), table), picture, class_="pair"
    ),
  )


def training(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Html]]:
  """Shows the curves of metrics.jsonl; no section if there are none."""
  charts = [
    html_parts.chart(
      lambda theme, what=what: plots.training(rows, what, theme),
      f"Curves of {what} over the training's steps.",
      f"{what.capitalize()} in training and in its evaluations",
    )
    for what in ("loss", "accuracy")
    if plots.measured(rows, what)
  ]
  if not charts:
    return []
  return [
    html_parts.section("Training", element("div", *charts, class_="pair"))
  ]
