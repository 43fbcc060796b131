"""Exports a network as a weights folder, with a model card to fill in."""

import dataclasses
from collections.abc import Mapping

import jax
import jinja2

import trm_jax
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import files, identifiers, tasks
from trm_jax.inference import solver as solver_lib
from trm_jax.runtime import processes, restore, weights_folder

# Settings that are paths of the machine the network was trained on.
_PATHS = ("data.source", "data.cache_dir", "checkpoint.init_from")

_CARD = """\
# {{ name }}

A Tiny Recursive Model ([arXiv 2510.04871](https://arxiv.org/abs/2510.04871))
trained with trm_jax {{ version }}. The files are data only: float32 weights
(`model.safetensors`), settings and tokens (`config.json`), and the names of the
puzzle table's rows (`identifiers.json`).

{% for key, value in facts.items() %}
{{ "| | |\n|---|---|\n" if loop.first }}| {{ key }} | {{ value }} |
{% endfor %}

## Use

Solve a puzzle, or the rows of a file:

```
python -m trm_jax.main --mode=predict --workdir=FOLDER --input={{ input }}
```

{% if not is_arc %}
```python
import trm_jax

solver = trm_jax.load("FOLDER")
for answer in solver.solve([PUZZLE]):
  print(answer.text, answer.confidence, answer.valid)
```

{% endif %}
Evaluate it, or start a training from it:

```
python -m trm_jax.main --mode=evaluate --workdir=FOLDER \\
  --config.data.source=DATA
python -m trm_jax.main --config=EXPERIMENT --workdir=RUN \\
  --config.checkpoint.init_from=FOLDER
```

## Training

`python -m trm_jax.main --workdir=FOLDER --print_config` prints all settings. A
training with the same settings and data repeats it.

## Scores

The evaluate command above prints them. State the data and the number of puzzles
with each score.

## Limits

The network solves puzzles of the form above only. An answer may be wrong; its
confidence is the network's own estimate.
"""


def export_folder(solver: solver_lib.Solver, workdir: str, output: str) -> None:
  """Writes the weights of a run as a folder that anyone can load.

  Args:
    solver: the trained network; its settings are published, without paths of
      this machine.
    workdir: that the solver was loaded from.
    output: the folder to write.

  Raises:
    UserError: the folder has weights already, or cannot be written.
  """
  if output in ("", "-"):
    raise errors.UserError(
      "--output must name the folder to write, as --output=pretrained/mine; not"
      f" {output!r}"
    )
  with restore.open_weights(workdir) as saved_weights:
    saved = saved_weights.metadata(solver.step)
  config = _published(solver.config)
  folder = weights_folder.write(
    output,
    solver.weights,
    dataclasses.replace(saved, settings=config_lib.flatten(config)),
    names=solver.identifiers,
    card=_card(solver, config, name=files.folder(output).name),
  )
  size = sum(path.stat().length for path in folder.iterdir())
  processes.print_once(
    f"wrote {folder}, {size / 1e3:,.0f} kB; complete its model card,"
    f" {folder / weights_folder.CARD}"
  )


def _published(config: config_lib.Config) -> config_lib.Config:
  """Returns the settings without paths of this machine."""
  changes = dict.fromkeys(_PATHS, "")
  changes["eval.checkpoint"] = "latest"  # there is only one
  if config.data.identifiers:  # the list in the folder is used
    changes["data.identifiers"] = identifiers.FILE
  return config_lib.changed(config, changes)


def _card(
  solver: solver_lib.Solver, config: config_lib.Config, *, name: str
) -> str:
  is_arc = tasks.get(config.data).is_arc
  template = jinja2.Environment(
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
  ).from_string(_CARD)
  return template.render(
    name=name,
    version=trm_jax.__version__,
    facts=_facts(solver, config),
    is_arc=is_arc,
    input="task.json" if is_arc else "PUZZLE",
  )


def _facts(
  solver: solver_lib.Solver, config: config_lib.Config
) -> Mapping[str, str]:
  model, train, look = config.model, config.train, solver.look
  count = sum(leaf.size for leaf in jax.tree.leaves(solver.weights.params))
  slot_steps = solver.step * train.batch_size
  return {
    "task": f"{config.data.task}, {look.rows} x {look.cols} cells",
    "parameters": (
      f"{count:,}, and a puzzle table of {len(solver.identifiers):,} x"
      f" {model.puzzle_embed_dim}"
    ),
    "network": (
      f"{model.num_layers} layers of width {model.hidden_size},"
      f" {model.token_mixing} mixing, n = {model.latent_updates},"
      f" T = {model.recursion_cycles}"
    ),
    "trained": (
      f"{solver.step:,} steps of {train.batch_size} slots"
      f" ({slot_steps:,} slot-steps), {config.optimizer.name}"
    ),
    "weights": f"averaged, EMA decay {config.optimizer.ema_decay}",
  }
