"""A paper's table as a sweep: paper against ours."""

import collections
import dataclasses
import difflib
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import ml_collections
from optuna import distributions

from launch import sweep_report, sweep_spec
from trm_jax import config as config_lib
from trm_jax import errors

_LARGEST_SEED = 999_999_999
# Settings that change the speed or the logs, but no result.
_HARMLESS = frozenset(
  (
    *("eval.batch_size", "eval.every_steps"),
    *("model.attention_kernel", "model.gate_kernel", "model.remat"),
    "train.microbatches",
  )
)
_HEADER = (
  *("row", "in the paper", "paper's %", "ours %", "depth", "passes"),
  *("paper's parameters", "our parameters", "steps", "hours", "state"),
)
_LEGEND = """\
%: exact accuracy on the test set; OOM: out of memory in the paper. [In
brackets]: the latest evaluation of an unfinished run, not a result. ±: standard
deviation over seeds. Depth: layers per supervision step. Passes: forward passes
per optimizer step. Hours: training time of all seeds.
"""


class PaperRow(Protocol):
  """A row of the paper; see experiments/ablations.py.

  Attributes:
    text: Name of the row in the paper's table.
    accuracy: Accuracy in %; None where the paper ran out of memory.
    parameters: Number of parameters as printed, e.g. "5M", or "".
  """

  @property
  def text(self) -> str: ...  # noqa: D102
  @property
  def accuracy(self) -> float | None: ...  # noqa: D102
  @property
  def parameters(self) -> str: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of a paper; get_sweep() may return it instead of a Sweep.

  Attributes:
    title: Title of the table, with its source.
    experiment: Experiment, as --config names it; the rows are its variants.
    get_config: get_config() of the experiment.
    rows: Variant -> row of the paper, in the paper's order.
    variant: Further variants of every row, e.g. "quickstart".
  """

  title: str
  experiment: str
  get_config: Callable[[str], ml_collections.ConfigDict]
  rows: Mapping[str, PaperRow]
  variant: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the table.

  Attributes:
    paper: The paper's row.
    experiment: Experiment, as --config names it.
    recipe: Settings of the paper.
    config: Settings that are trained, but for the seed.
  """

  paper: PaperRow
  experiment: str
  recipe: config_lib.Config
  config: config_lib.Config


@dataclasses.dataclass(frozen=True)
class TablePlan(sweep_spec.Plan):
  """A table; the points are {"row": name, "seed": seed}.

  Attributes:
    title: Title of the table.
    rows: All rows of the table, by name.
  """

  title: str
  rows: Mapping[str, Row]


def plan(
  table: Table,
  *,
  names: Sequence[str] | None,
  seeds: Sequence[int],
  changed: Callable[[config_lib.Config], config_lib.Config],
) -> TablePlan:
  """Plans the rows that are asked for; their settings are checked.

  Args:
    table: The table, from the sweep file.
    names: Rows to train; None for all.
    seeds: Seeds of each row; all rows have the first before any has the second.
    changed: Returns a row's settings with the command line's changes.

  Raises:
    UserError: A row is unknown or given twice, or a setting is impossible.
  """
  asked = list(table.rows) if names is None else list(names)
  for name in asked:
    if name not in table.rows:
      close = difflib.get_close_matches(name, table.rows, n=1)
      hint = f", did you mean {close[0]!r}?" if close else ""
      raise errors.UserError(
        f"--rows: the table has no row {name!r}{hint}; it has"
        f" {', '.join(table.rows)}"
      )
  for flag, values in (("rows", asked), ("seeds", list(map(str, seeds)))):
    if not values or len(set(values)) < len(values):
      raise errors.UserError(f"--{flag} is empty or names one twice")
  overrides: dict[str, Any] = {}
  rows = {}
  for name in table.rows:
    try:
      rows[name], changes = _row(table, name, changed)
      overrides.update(changes)
    except (errors.UserError, ValueError) as error:
      if name in asked:
        raise errors.UserError(f"row {name}: {error}") from error
      rows[name], _ = _row(table, name, lambda config: config)  # only listed
  if "seed" in overrides:
    raise errors.UserError(
      "--config.seed: a table is trained with one or more --seeds, e.g."
      f" --seeds={overrides['seed']}"
    )

  def trial(point: sweep_spec.Point) -> sweep_spec.Trial:
    row = rows[str(point["row"])]
    changes = sweep_spec.as_flags({**overrides, "seed": point["seed"]})
    return sweep_spec.Trial(
      flags=[f"--config={row.experiment}", *changes],
      num_steps=row.config.train.num_steps,
      folder=f"{point['row']}_seed{point['seed']}",
    )

  points: list[sweep_spec.Point] = [
    {"row": name, "seed": seed} for seed in seeds for name in asked
  ]
  changes = {
    f"config.{knob}": repr(value)
    for knob, value in overrides.items()
    if not sweep_spec.is_free(knob)
  }
  return TablePlan(
    sweep_spec.Sweep(rows=points),
    space={
      "row": distributions.CategoricalDistribution(tuple(rows)),
      "seed": distributions.IntDistribution(0, _LARGEST_SEED),
    },
    trial=trial,
    flags=[
      f"--rows={','.join(asked)}",
      f"--seeds={','.join(map(str, seeds))}",
      *sweep_spec.as_flags(overrides),
    ],
    identity={
      "table": {"title": table.title, "variant": table.variant, **changes},
      **{f"row {name}": _identity(name, rows[name]) for name in asked},
    },
    title=table.title,
    rows=rows,
  )


def _identity(name: str, row: Row) -> dict[str, str]:
  return {
    f"{name}: config.{knob}": repr(value)
    for knob, value in sweep_spec.comparable(row.config).items()
  }


def _row(
  table: Table,
  name: str,
  changed: Callable[[config_lib.Config], config_lib.Config],
) -> tuple[Row, dict[str, Any]]:
  """Returns a row and the settings that the command line changes."""
  # Imported late: it imports JAX, which other sweeps do without.
  from trm_jax.runtime import program

  variant = ",".join(filter(None, [name, table.variant]))
  shipped = config_lib.from_config_dict(table.get_config(variant))
  config = changed(shipped)
  program.check_names(config)
  before = config_lib.flatten(shipped)
  row = Row(
    paper=table.rows[name],
    experiment=f"{table.experiment}:{variant}",
    recipe=config_lib.from_config_dict(table.get_config(name)),
    config=config,
  )
  after = config_lib.flatten(config)
  return row, {k: v for k, v in after.items() if v != before[k]}


# --- report ------------------------------------------------------------------


def by_row(
  plan: TablePlan, found: Sequence[sweep_report.Run]
) -> dict[str, list[sweep_report.Run]]:
  """Returns row -> runs by seed, in the order of the table."""
  rows: dict[str, list[sweep_report.Run]] = {name: [] for name in plan.rows}
  for run in sorted(found, key=lambda run: int(run.point["seed"])):
    if run.point["row"] in rows:
      rows[str(run.point["row"])].append(run)
  return rows


def summary(plan: TablePlan, found: Sequence[sweep_report.Run]) -> str:
  """Returns the rows that have a result.

  Raises:
    UserError: There is none.
  """
  rows = by_row(plan, found)
  means = [
    f"{name} {plan.sweep.metric}={statistics.fmean(_results(runs)) / 100:.4f}"
    for name, runs in rows.items()
    if _results(runs)
  ]
  if not means:
    raise errors.UserError("no row has a result yet; see the table above")
  complete = sum(len(_results(runs)) == len(runs) > 0 for runs in rows.values())
  return f"{complete} of {len(rows)} rows are complete: {', '.join(means)}"


def comparison(plan: TablePlan, found: Sequence[sweep_report.Run]) -> str:
  """Returns paper against ours in Markdown, and below it what was run."""
  rows = by_row(plan, found)
  lines = [_HEADER]
  for name, row in plan.rows.items():
    depth, passes, parameters = network_facts(row.config)
    steps = dict.fromkeys(f"{run.step:,}" for run in rows[name])
    hours = sum(run.minutes for run in rows[name]) / 60
    states = collections.Counter(run.state for run in rows[name])
    state = ", ".join(f"{n} {s}" for s, n in states.items())
    paper = row.paper.accuracy
    lines.append(
      (
        *(name, row.paper.text, "OOM" if paper is None else f"{paper:.1f}"),
        *(_ours(rows[name]), str(depth), str(passes)),
        *(row.paper.parameters, f"{parameters:,}"),
        f"{'; '.join(steps) or 0} of {row.config.train.num_steps:,}",
        f"{hours:.2f}" if hours else "",
        state if len(states) > 1 else next(iter(states), sweep_report.NOT_RUN),
      )
    )
  failed = [
    f"{run.folder} failed: {run.reason}\n" for run in found if run.reason
  ]
  table = sweep_report.markdown(lines)
  parts = (f"# {plan.title}\n", table, _LEGEND, _recipe(plan, rows))
  return "\n".join([*parts, *failed])


def _ours(runs: Sequence[sweep_report.Run]) -> str:
  """Returns mean and deviation of the results, else the latest evaluations."""
  values = _results(runs)
  if not values:
    latest = [f"{100 * r.latest:.1f}" for r in runs if r.latest is not None]
    return f"[{', '.join(latest)}]" if latest else ""
  text = f"{statistics.fmean(values):.1f}"
  if len(values) > 1:
    text += f" ± {statistics.stdev(values):.1f}"
  if len(values) < len(runs):
    return f"{text} ({len(values)} of {len(runs)} seeds)"
  return text if len(values) == 1 else f"{text} ({len(values)} seeds)"


def _results(runs: Sequence[sweep_report.Run]) -> list[float]:
  """Returns the results in %."""
  return [100 * run.result for run in runs if run.result is not None]


def _recipe(
  plan: TablePlan, rows: Mapping[str, Sequence[sweep_report.Run]]
) -> str:
  """Returns the test puzzles, and all that differs from the paper's recipe."""
  begun = [
    name
    for name, runs in rows.items()
    if any(run.state != sweep_report.NOT_RUN for run in runs)
  ] or list(rows)
  puzzles: dict[str, None] = {}
  changes = collections.defaultdict(list)
  for name in begun:
    row = plan.rows[name]
    data = row.config.data
    tested = [f"{n:,}" for n in (data.num_test, row.config.eval.tasks) if n]
    task = data.task.replace("_", " ")
    if not data.task.startswith("generated"):
      task += f" from {data.source or 'the public download'}"
    limit = " and of these on ".join(tested) or "all"
    puzzles[f"Puzzles: {task}; tested on {limit}.\n"] = None
    recipe = config_lib.flatten(row.recipe)
    for knob, value in sweep_spec.comparable(row.config).items():
      if value != recipe[knob] and knob not in _HARMLESS:
        was = recipe[knob] if recipe[knob] != "" else "''"
        changes[f"{knob}={value} instead of {was}"].append(name)
  if not changes:
    return "".join(puzzles) + "\nThe paper's recipe.\n"
  listed = "; ".join(
    change + ("" if len(names) == len(begun) else f" ({', '.join(names)})")
    for change, names in changes.items()
  )
  return "".join(puzzles) + f"\nNot the paper's recipe: {listed}.\n"


def network_facts(config: config_lib.Config) -> tuple[int, int, int]:
  """Returns depth, forward passes and parameters, as the paper counts them.

  Args:
    config: Settings of a task whose size needs no data.
  """
  # Imported late: JAX must not open the accelerator of a trial.
  import jax

  jax.config.update("jax_platforms", "cpu")
  from trm_jax.core import train_state
  from trm_jax.data import tasks
  from trm_jax.runtime import flops, model_factory

  look = tasks.look(config.data)
  model = model_factory.build_model(
    config.model,
    vocab_size=len(look.symbols),
    seq_len=look.rows * look.cols,
  )
  shapes = jax.eval_shape(
    lambda: train_state.init_params(
      model,
      jax.random.key(0),
      puzzle_vector_size=config.model.puzzle_vector_size,
    )
  )
  return (
    sum(flops.network_calls(config.model)) * config.model.num_layers,
    flops.forward_passes(config.train),
    sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)),
  )
