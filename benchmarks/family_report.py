"""What benchmarks.family found: a table and a picture."""

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from matplotlib import figure, ticker

from benchmarks import family_runs
from experiments import ablations
from launch import aot_sizes
from trm_jax.data import files
from trm_jax.runtime import flops, mesh, metric_writer, program
from trm_jax.visualization import plots

_STYLES = tuple(
  zip((*plots.LIGHT.series, "#a03070"), ("-", "--", "-.", ":"), strict=True)
)
_MARKERS = "os^D"


def found(
  runs: Sequence[family_runs.Run], workdir: pathlib.Path
) -> dict[str, Any]:
  """Returns what the seeds of a row came to, and what their network is."""
  config = runs[0].config
  model, steps = config.model, config.train.num_steps
  sizes = aot_sizes.of_data(config.data, None)
  state = program.build(config, sizes, mesh.make_mesh(1)).abstract_state()
  metrics = [
    metric_writer.read_metrics(str(run.folder(workdir))) for run in runs
  ]
  curves = [curve(rows, flops.forward_calls(config)) for rows in metrics]
  last = [each[steps * flops.forward_calls(config)] for each in curves]
  return {
    "row": runs[0].row,
    "paper": ablations.ROWS[runs[0].row].accuracy,
    "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    "layers": f"{'2 x ' * model.separate_networks}{model.num_layers}",
    "calls_per_step": flops.forward_calls(config),
    "steps": steps,
    "learning_rate": config.optimizer.learning_rate,
    "tflop": steps * flops.train_flops(config, sizes.seq_len) / 1e12,
    "exact": last,
    "mean": statistics.mean(last),
    "spread": statistics.stdev(last) if len(last) > 1 else None,
    "minutes": min(minutes(rows, config.train.batch_size) for rows in metrics),
    "curves": curves,
  }


def curve(rows: Sequence[Mapping[str, Any]], calls: int) -> dict[int, float]:
  """Returns exact accuracy by network calls, from metrics.jsonl."""
  return {
    row["step"] * calls: row["exact_accuracy"]
    for row in rows
    if row["group"] == "eval"
  }


def minutes(rows: Sequence[Mapping[str, Any]], batch_size: int) -> float:
  """Returns the time of training's steps, without compiling and evaluating."""
  before, seconds = 0, 0.0
  for row in rows:
    if row["group"] == "train":
      examples = (row["step"] - before) * batch_size
      seconds += examples / row["examples_per_second"]
      before = row["step"]
  return seconds / 60


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns what was `found` as Markdown."""
  lines = [
    "| row | parameters | layers | network calls a step | steps |"
    " learning rate | TFLOP |"
    " exact accuracy, % | each seed | minutes, fastest seed | paper |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
  ]
  for row in rows:
    spread = "" if row["spread"] is None else f" ± {100 * row['spread']:.1f}"
    paper = "" if row["paper"] is None else f"{row['paper']:.1f}"
    each = ", ".join(f"{100 * exact:.1f}" for exact in row["exact"])
    lines.append(
      f"| `{row['row']}` | {row['parameters']:,} | {row['layers']} |"
      f" {row['calls_per_step']} | {row['steps']:,} |"
      f" {row['learning_rate']:g} | {row['tflop']:.1f} |"
      f" {100 * row['mean']:.1f}{spread} | {each} | {row['minutes']:.1f} |"
      f" {paper} |"
    )
  return "\n".join(lines)


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """Draws each row's mean over network calls, in a band of all its seeds."""
  picture = figure.Figure(figsize=(6.4, 3.8), layout="constrained")
  axes = picture.subplots()
  for number, row in enumerate(rows):
    colour, line = _STYLES[number % len(_STYLES)]
    marker = _MARKERS[number % len(_MARKERS)]
    calls = sorted(row["curves"][0])
    seeds = [[curve[at] for curve in row["curves"]] for at in calls]
    low, high = [min(each) for each in seeds], [max(each) for each in seeds]
    axes.fill_between(calls, low, high, color=colour, alpha=0.2, linewidth=0)
    means = [statistics.mean(each) for each in seeds]
    axes.plot(calls, means, line, marker=marker, color=colour, label=row["row"])
  axes.set_xlabel("forward network calls of training")
  axes.set_ylabel("puzzles solved (band: all seeds)")
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
  axes.grid(color=plots.LIGHT.grid, linewidth=0.6)
  axes.legend(frameon=False)
  with files.writing(path) as file:
    picture.savefig(file, format="png", dpi=100)
