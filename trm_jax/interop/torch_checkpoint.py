"""Official PyTorch checkpoints into a workdir, and out of it again.

An imported workdir is as one of a training that has ended: it can be evaluated,
predicted with, and started from (config.checkpoint.start_from). There is no
optimizer state in an official checkpoint, so no training goes on in it.

What is exported has the names that the official code looks for when it compiles
its model, which it does unless told otherwise. Import of an export has the same
numbers, bit for bit.
"""

import dataclasses
import json
from collections.abc import Mapping, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

import trm_jax
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import train_state, types
from trm_jax.data import files, identifiers, official
from trm_jax.data import kind as kind_lib
from trm_jax.data import task as task_lib
from trm_jax.inference import solver as solver_lib
from trm_jax.interop import (
  torch_config,
  torch_file,
  torch_found,
  torch_kinds,
  torch_names,
  torch_safetensors,
  torch_settings,
  torch_source,
)
from trm_jax.runtime import checkpoint_metadata, processes, program, restore
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import mesh as mesh_lib

FINGERPRINT = "imported"  # instead of the training puzzles', which are unknown

# No settings there: of the inner widths of MLPs; of multi-scale z.
_OFFICIAL_MULTIPLE, _OFFICIAL_LATENTS = 256, 6
_WRITERS = {
  "torch": torch_file.write,
  "safetensors": torch_safetensors.write,
}


def import_checkpoint(
  config: config_lib.Config,
  overridden: Set[str],
  source: str,
  workdir: str,
) -> None:
  """Makes a workdir of an official checkpoint.

  Args:
    config: the experiment that it is of; no data of it are read.
    overridden: settings said on the command line, as "model.latent_updates".
    source: the checkpoint, as for `torch_source.locate`.
    workdir: a folder without checkpoints; made if missing.

  Raises:
    UserError: the checkpoint cannot be read, or is not of this experiment;
      each difference is named.
  """
  if jax.process_count() > 1:
    raise errors.UserError("import in one process; several would write alike")
  if checkpoints_lib.has_checkpoint(workdir):
    raise errors.UserError(
      f"{workdir} has a checkpoint already, which is not replaced; name another"
      " --workdir"
    )
  found = torch_found.read(source)
  shown = _look(config.data)
  names, names_from = _identifiers(config.data, found.source)
  sizes = program.Sizes(
    vocab_size=len(shown.symbols),
    seq_len=shown.rows * shown.cols,
    num_puzzle_ids=len(names),
  )
  torch_found.check(
    found, config, sizes, rows_of=names_from, overridden=overridden
  )
  step = found.source.step
  description = checkpoint_metadata.Metadata(
    settings=config_lib.flatten(_settled(config, workdir)),
    data_fingerprint=FINGERPRINT,
    vocabulary=list(shown.symbols),
    identifiers=identifiers.digest(names),
    learned=[],
    next_batch=step,
    versions={"trm_jax": trm_jax.__version__, "imported from": source},
    num_puzzle_ids=len(names),
  )
  weights = torch_names.weights_of(found.state_dict)
  state = _state(config, sizes, weights, step)
  identifiers.write(restore.identifiers_path(workdir), names)
  with checkpoints_lib.Checkpoints(workdir, config.checkpoint) as checkpoints:
    checkpoints.save(state, description, step=step)
    checkpoints.wait()
    path = checkpoints.path(step)
  processes.tell(f"took {found.taken} of {found.source.weights}")
  if kind_lib.of(config.data) == "arc":
    processes.note(
      "which of ARC's test answers these weights have seen is not known: an"
      " evaluation cannot warn of them"
    )
  processes.tell(
    f"imported as {path}; --mode=evaluate and --mode=predict use it"
  )


def _look(data: config_lib.DataConfig) -> task_lib.Look:
  """Returns the look of the settings' puzzles, from the settings alone."""
  if kind_lib.of(data) != "grid":
    return kind_lib.look_of(data, (), 0)
  if not data.charset or not data.grid_rows or not data.grid_cols:
    raise errors.UserError(
      "what the tokens of your own grids are is not in a checkpoint: set"
      " config.data.charset, config.data.grid_rows and config.data.grid_cols"
    )
  return kind_lib.grid_look(data.grid_rows, data.grid_cols, data.charset)


def _identifiers(
  data: config_lib.DataConfig, found: torch_source.Source
) -> tuple[list[str], str]:
  """Returns what the rows of the puzzle table are, and what says so."""
  path = found.identifiers
  if data.identifiers:
    path = files.folder(data.identifiers)
    if path.is_dir():
      path /= identifiers.FILE
  if path is not None:
    names = identifiers.read(path)
    identifiers.check(names, where=str(path))
    return names, str(path)
  if kind_lib.of(data) == "arc":
    raise errors.UserError(
      "what the rows of an ARC checkpoint's puzzle table are stands in"
      f" {identifiers.FILE} of the data set that it was trained"
      f" on: put it beside {found.weights}, or name it by"
      " --config.data.identifiers=FILE"
    )
  return [identifiers.BLANK], f"the task {data.task!r}"


def _settled(config: config_lib.Config, workdir: str) -> config_lib.Config:
  """Returns the settings to keep; ARC's variants are those of the table."""
  data = config.data
  if kind_lib.of(data) == "arc" and not official.is_official(data.source):
    path = str(restore.identifiers_path(workdir))
    data = dataclasses.replace(data, identifiers=path)
  return dataclasses.replace(config, data=data)


def _state(
  config: config_lib.Config,
  sizes: program.Sizes,
  weights: types.Weights,
  step: int,
) -> train_state.TrainState:
  """Returns the state of a training with these weights and empty slots."""
  mesh = mesh_lib.make_mesh()
  # Nothing is ever in its slots: the fewest do.
  train = dataclasses.replace(
    config.train, batch_size=mesh.size, microbatches=1
  )
  built = program.build(dataclasses.replace(config, train=train), sizes, mesh)
  state = mesh_lib.create_state(built.init, mesh)
  fill = len(state.puzzle_table) - len(weights.puzzle_table)
  table: Any = np.pad(weights.puzzle_table, ((0, fill), (0, 0)))
  weights = dataclasses.replace(weights, puzzle_table=table)
  state = dataclasses.replace(state.started_from(weights), step=jnp.int32(step))
  return jax.device_put(state, mesh_lib.state_shardings(state, mesh))


def export_checkpoint(
  solver: solver_lib.Solver, output: str, file_format: str
) -> None:
  """Writes an official checkpoint, and what belongs beside it.

  That is all_config.yaml and identifiers.json. The initial latents are
  bfloat16, as official ones are, if that has all their bits, else float32.

  Args:
    solver: the trained network.
    output: the file to write, officially named step_<N>.
    file_format: 'torch' or 'safetensors'.

  Raises:
    UserError: it cannot be written, or the official code has no such network,
      or beside it lie the files of another checkpoint.
  """
  path = _place(output, file_format)
  beside = {
    torch_config.FILE: torch_config.written(solver.config),
    identifiers.FILE: json.dumps(solver.identifiers).encode(),
  }
  state_dict = torch_names.state_dict_of(
    jax.device_get(solver.weights),
    num_puzzle_ids=len(solver.identifiers),
    recurrence=solver.config.model.recurrence,
  )
  for name, content in beside.items():
    _write_beside(path.parent / name, content)
  _WRITERS[file_format](
    path,
    {torch_names.PREFIX + name: value for name, value in state_dict.items()},
  )
  processes.tell(f"wrote {path}, and beside it {' and '.join(beside)}")
  for note in _notes(solver.config, state_dict):
    processes.note(note)


def _place(output: str, file_format: str) -> epath.Path:
  """Returns the file to write."""
  is_named_so = output.endswith(torch_safetensors.SUFFIX)
  if (
    not output or output == "-" or is_named_so != (file_format == "safetensors")
  ):
    example = "exported/step_1000"
    if file_format == "safetensors":
      example += torch_safetensors.SUFFIX
    raise errors.UserError(
      f"name the file to export to, as --output={example}; not {output!r}"
    )
  path = files.folder(output)
  if path.is_dir():
    raise errors.UserError(
      f"{path} is a folder; name a file in it, as {path}/step_1000"
    )
  return path


def _write_beside(path: epath.Path, content: bytes) -> None:
  """Writes a file unless it is there; one of another checkpoint is kept."""
  with errors.told(f"cannot read {path}"):
    there = path.read_bytes() if path.exists() else None
  if there is None:
    with files.writing(path) as file:
      file.write(content)
  elif there != content:
    raise errors.UserError(
      f"{path} is of another checkpoint; export to a folder of its own"
    )


def _notes(
  config: config_lib.Config, state_dict: Mapping[str, np.ndarray]
) -> list[str]:
  """Returns what the official code does not do with these weights."""
  model, notes = config.model, []
  if model.mlp_multiple != _OFFICIAL_MULTIPLE:
    notes.append(
      f"config.model.mlp_multiple is {model.mlp_multiple}: the official code"
      f" knows {_OFFICIAL_MULTIPLE} only and cannot load these weights"
    )
  if torch_names.num_latents(state_dict) not in (0, _OFFICIAL_LATENTS):
    notes.append(
      f"config.model.latent_updates is {model.latent_updates}: with multi-scale"
      f" z the official code knows {_OFFICIAL_LATENTS} only and cannot load"
      " these weights"
    )
  kind = torch_kinds.of(
    model.recurrence, separate_networks=model.separate_networks
  )
  if kind is torch_kinds.DIRECT and model.positions == "none":
    notes.append(
      "config.model.positions is 'none': the official code has no direct"
      " prediction without positions and cannot load these weights"
    )
  otherwise = [
    f"config.{torch_settings.SETTINGS[name]}"
    for name in torch_settings.unread(kind, config)
  ]
  if otherwise:
    notes.append(
      "the official code trains such a network otherwise than"
      f" {' and '.join(otherwise)} {'say' if otherwise[1:] else 'says'}; it"
      " answers the same"
    )
  latent, *_ = torch_names.initial_names(model.recurrence, 1)
  is_long = state_dict[latent].dtype == np.float32
  if model.compute_dtype == "bfloat16" and is_long:
    notes.append(
      "the initial latents have more digits than bfloat16 and are float32 in"
      " the file, so that nothing is lost; the official code then computes in"
      " float32"
    )
  return notes
