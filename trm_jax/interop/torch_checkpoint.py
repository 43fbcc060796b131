"""Imports official PyTorch checkpoints into a workdir, and exports them.

An imported workdir is like that of a finished training: it can be evaluated,
predicted with, and started from (config.checkpoint.init_from). An official
checkpoint has no optimizer state, so training cannot be resumed in it.

Exported tensors have the names that the official code looks for when it
compiles its model, which it does by default. An export that is imported again
has the same weights, bit for bit.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Set
from typing import IO, Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors.numpy
from etils import epath

import trm_jax
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import train_state, types
from trm_jax.data import files, identifiers, official, tasks
from trm_jax.data import task as task_lib
from trm_jax.inference import solver as solver_lib
from trm_jax.interop import (
  torch_names,
  torch_reader,
  torch_settings,
  torch_source,
  torch_state_dict,
)
from trm_jax.runtime import (
  checkpoint_metadata,
  processes,
  program,
  restore,
  weights_folder,
)
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import mesh as mesh_lib

_FINGERPRINT = "imported"  # the training puzzles are unknown

# (file, tensors by name): writes them.
_Writer = Callable[[IO, Mapping[str, np.ndarray]], None]

_MAX_DIFFERENCES = 10  # in one message
# If one of these differs, all else does: they are enough for a message.
_ARCHITECTURE = ("model.recursion_type", "model.separate_networks")
# Not settings of the official code.
_OFFICIAL_MULTIPLE, _OFFICIAL_LATENTS = 256, 6


def import_checkpoint(
  config: config_lib.Config,
  overridden: Set[str],
  source: str,
  workdir: str,
) -> None:
  """Imports an official checkpoint into a new workdir.

  Args:
    config: the experiment; its data are not read.
    overridden: settings given on the command line, as "model.latent_updates".
    source: the checkpoint, as for `torch_source.locate`.
    workdir: a folder without checkpoints; created if missing.

  Raises:
    UserError: the checkpoint cannot be read or does not fit the experiment;
      each difference is named.
  """
  if jax.process_count() > 1:
    raise errors.UserError("import runs in a single process; start only one")
  weights_folder.refuse(workdir)
  if checkpoints_lib.has_checkpoint(workdir):
    raise errors.UserError(
      f"{workdir} has a checkpoint already, which is not overwritten; choose"
      " another --workdir"
    )
  located = torch_source.locate(source)
  tree = torch_reader.read(located.weights)
  state_dict, taken = torch_state_dict.find(tree, where=str(located.weights))
  look = _look(config.data)
  names, names_from = _identifiers(config.data, located)
  sizes = program.DataSpec.of_look(look, len(names))
  arch, arch_from = torch_settings.find(tree), "its own settings"
  if located.config is not None:
    arch, arch_from = torch_settings.read(located.config), torch_settings.FILE
  torch_settings.architecture_of(  # or there is nothing to compare with
    config.model.recursion_type,
    separate_networks=config.model.separate_networks,
  )
  found = torch_state_dict.differences(
    state_dict, config, sizes, rows_from=names_from
  )
  missing_flags = ""
  if arch is not None:
    in_file = _settings_differences(arch, arch_from, state_dict, config)
    # A setting that the weights show, too, is reported once.
    settings = {difference.setting for difference in in_file} - {""}
    found = in_file + [d for d in found if d.setting not in settings]
  else:
    missing_flags = torch_settings.missing_flags(
      overridden,
      torch_state_dict.architecture_in(state_dict, config),
      has_heads=any(".self_attn." in name for name in state_dict),
    )
  _raise_differences(found, missing_flags, where=located.weights)
  step = located.step
  description = checkpoint_metadata.Metadata(
    settings=config_lib.flatten(_settled(config, workdir)),
    data_fingerprint=_FINGERPRINT,
    vocabulary=list(look.symbols),
    identifiers=identifiers.digest(names),
    learned=[],
    next_batch=step,
    versions={"trm_jax": trm_jax.__version__, "imported from": source},
    num_puzzle_ids=len(names),
  )
  built = torch_state_dict.build(config, sizes)
  state = _state(built, torch_names.weights_of(state_dict), step)
  identifiers.write(restore.identifiers_path(workdir), names)
  with checkpoints_lib.Checkpoints(workdir, config.checkpoint) as checkpoints:
    checkpoints.save(state, description, step=step)
    checkpoints.wait()
    path = checkpoints.path(step)
  processes.print_once(f"took {taken} of {located.weights}")
  if tasks.get(config.data).is_arc:
    processes.log_once(
      "which ARC test answers these weights were trained on is unknown, so"
      " evaluation cannot warn of leaked tasks"
    )
  processes.print_once(
    f"imported as {path}; use it with --mode=evaluate and --mode=predict"
  )


def _look(data: config_lib.DataConfig) -> task_lib.Look:
  """Returns the puzzles' grid and symbols from the settings alone."""
  if data.task != "grid":
    return tasks.look(data)
  if not data.charset or not data.grid_rows or not data.grid_cols:
    raise errors.UserError(
      "a checkpoint does not say what the tokens of your own grids are: set"
      " config.data.charset, config.data.grid_rows and config.data.grid_cols"
    )
  vocabulary = ("", *data.charset)
  return tasks.look(data, vocabulary, data.grid_rows * data.grid_cols)


def _identifiers(
  data: config_lib.DataConfig, located: torch_source.Source
) -> tuple[list[str], str]:
  """Returns the identifiers of the puzzle table's rows, and their origin."""
  path = located.identifiers
  if data.identifiers:
    path = files.folder(data.identifiers)
    if path.is_dir():
      path /= identifiers.FILE
  if path is not None:
    names = identifiers.read(path)
    identifiers.check(names, where=str(path))
    return names, str(path)
  if tasks.get(data).is_arc:
    raise errors.UserError(
      "an ARC checkpoint needs the identifiers of its puzzle table's rows,"
      f" which are in {identifiers.FILE} of the data set it was trained on: put"
      f" that file beside {located.weights}, or pass"
      " --config.data.identifiers=FILE"
    )
  return [identifiers.BLANK], f"the task {data.task!r}"


def _settings_differences(
  arch: Mapping[str, Any],
  arch_from: str,
  state_dict: Mapping[str, np.ndarray],
  config: config_lib.Config,
) -> list[torch_settings.Difference]:
  """Compares the settings of a file with the config and its own latents."""
  found = torch_settings.differences(arch, config)
  latents, updates = torch_names.num_latents(state_dict), arch.get("L_cycles")
  if latents and isinstance(updates, int) and updates != latents:
    # No value of ours has latents that are never updated.
    found = [d for d in found if d.setting != "model.latent_updates"]
    text = (
      f"arch.L_cycles is {torch_reader.quoted(updates)} with {latents} latents,"
      " but each update needs a latent of its own"
    )
    found.append(torch_settings.Difference(text, "model.latent_updates"))
  return [
    dataclasses.replace(difference, text=f"in {arch_from} {difference.text}")
    for difference in found
  ]


def _raise_differences(
  found: list[torch_settings.Difference],
  missing_flags: str,
  *,
  where: epath.Path,
) -> None:
  """Raises UserError that names the differences, if there are any.

  Args:
    found: the differences; settings before tensors, of which any number may
      differ.
    missing_flags: what the user must pass that no file says; "" if nothing.
    where: the checkpoint.
  """
  if not found and not missing_flags:
    return
  chosen = [d for d in found if d.setting in _ARCHITECTURE] or found
  texts = [difference.text for difference in chosen[:_MAX_DIFFERENCES]]
  if len(texts) < len(found):
    texts.append(f"and {len(found) - len(texts):,} more")
  flags = " ".join(difference.flag for difference in found if difference.flag)
  if flags:
    texts.append(f"to match its training, pass {flags}")
  if missing_flags:
    texts.append(
      f"there is no {torch_settings.FILE} beside it, and weights do not show"
      f" how they are applied: {missing_flags}"
    )
  raise errors.UserError(
    f"{where} does not fit the experiment: {'; '.join(texts)}"
  )


def _settled(config: config_lib.Config, workdir: str) -> config_lib.Config:
  """Returns the settings to save; ARC's variants are those of the table."""
  data = config.data
  if tasks.get(data).is_arc and not official.is_official(data.source):
    path = str(restore.identifiers_path(workdir))
    data = dataclasses.replace(data, identifiers=path)
  return dataclasses.replace(config, data=data)


def _state(
  built: program.Program, weights: types.Weights, step: int
) -> train_state.TrainState:
  """Returns the state of a training with these weights and empty slots."""
  num_rows = mesh_lib.num_rows(built.sizes.num_puzzle_ids, built.mesh)
  fill = num_rows - len(weights.puzzle_table)
  table: Any = np.pad(weights.puzzle_table, ((0, fill), (0, 0)))
  state = train_state.TrainState(
    step=jnp.int32(step),
    params=weights.params,
    ema_params=weights.params,
    opt_state=built.optimizer.init(weights.params),
    puzzle_table=table,
    initial_latents=weights.initial_latents,
    carry=train_state.empty_carry(built.model, built.config.train.batch_size),
  )
  return jax.device_put(state, mesh_lib.state_shardings(state, built.mesh))


def export_checkpoint(
  solver: solver_lib.Solver, output: str, file_format: str
) -> None:
  """Writes an official checkpoint, with its settings and identifiers beside it.

  The initial latents are bfloat16, as official ones are, if that has all their
  bits, else float32.

  Args:
    solver: the trained network.
    output: the file to write, officially named step_<N>.
    file_format: 'torch' or 'safetensors'.

  Raises:
    UserError: the file cannot be written, a package is missing, the official
      code has no such network, or the files of another checkpoint are there.
  """
  path = _output_path(output, file_format)
  beside = {
    torch_settings.FILE: torch_settings.to_yaml(solver.config),
    identifiers.FILE: json.dumps(solver.identifiers).encode(),
  }
  state_dict = torch_names.state_dict_of(
    jax.device_get(solver.weights),
    num_puzzle_ids=len(solver.identifiers),
    recurrence=solver.config.model.recursion_type,
  )
  write = _WRITERS[file_format]()
  for name, content in beside.items():
    _write_beside(path.parent / name, content)
  with files.writing(path) as file:
    write(
      file,
      {
        torch_names.PREFIX + name: np.array(value, order="C")
        for name, value in state_dict.items()
      },
    )
  processes.print_once(f"wrote {path}, with {' and '.join(beside)} beside it")
  for note in _notes(solver.config, state_dict):
    processes.log_once(note)


def _torch_writer() -> _Writer:
  try:
    import torch
  except ImportError as error:
    raise errors.UserError(
      "--format=torch needs PyTorch, which is not installed: pip install torch,"
      " or export with --format=safetensors"
    ) from error

  def tensor(array: np.ndarray) -> Any:
    if array.dtype == ml_dtypes.bfloat16:  # from_numpy does not know it
      return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)

  def write(file: IO, tensors: Mapping[str, np.ndarray]) -> None:
    torch.save({name: tensor(array) for name, array in tensors.items()}, file)

  return write


def _safetensors_writer() -> _Writer:
  def write(file: IO, tensors: Mapping[str, np.ndarray]) -> None:
    # Readers of PyTorch's weights ask for this format.
    content = safetensors.numpy.save(dict(tensors), metadata={"format": "pt"})
    file.write(content)

  return write


_WRITERS: Mapping[str, Callable[[], _Writer]] = {
  "torch": _torch_writer,
  "safetensors": _safetensors_writer,
}


def _output_path(output: str, file_format: str) -> epath.Path:
  is_safetensors = output.endswith(torch_reader.SAFETENSORS)
  if output in ("", "-") or is_safetensors != (file_format == "safetensors"):
    example = "exported/step_1000"
    if file_format == "safetensors":
      example += torch_reader.SAFETENSORS
    raise errors.UserError(
      f"--output must name the file to write, as --output={example}; not"
      f" {output!r}"
    )
  path = files.folder(output)
  if path.is_dir():
    raise errors.UserError(
      f"{path} is a folder; name a file in it, as {path}/step_1000"
    )
  return path


def _write_beside(path: epath.Path, content: bytes) -> None:
  """Writes a file unless it exists; that of another checkpoint is kept."""
  with errors.user_error_context(f"cannot read {path}"):
    existing = path.read_bytes() if path.exists() else None
  if existing is None:
    with files.writing(path) as file:
      file.write(content)
  elif existing != content:
    raise errors.UserError(
      f"{path} belongs to another checkpoint; export to a folder of its own"
    )


def _notes(
  config: config_lib.Config, state_dict: Mapping[str, np.ndarray]
) -> list[str]:
  """Returns what the official code does not do with these weights."""
  model, notes = config.model, []
  if model.mlp_multiple != _OFFICIAL_MULTIPLE:
    notes.append(
      f"config.model.mlp_multiple is {model.mlp_multiple}, but the official"
      f" code has {_OFFICIAL_MULTIPLE} only and cannot load these weights"
    )
  if torch_names.num_latents(state_dict) not in (0, _OFFICIAL_LATENTS):
    notes.append(
      f"config.model.latent_updates is {model.latent_updates}, but the official"
      f" code has multi-scale z with {_OFFICIAL_LATENTS} latents only and"
      " cannot load these weights"
    )
  architecture = torch_settings.architecture_of(
    model.recursion_type, separate_networks=model.separate_networks
  )
  if (
    architecture is torch_settings.DIRECT and model.position_encoding == "none"
  ):
    notes.append(
      "config.model.position_encoding is 'none', but the official code has no"
      " direct"
      " prediction without positions and cannot load these weights"
    )
  ignored = [
    f"config.{torch_settings.SETTINGS[name]}"
    for name in torch_settings.ignored(architecture, config)
  ]
  if ignored:
    notes.append(
      f"in training, the official code ignores {' and '.join(ignored)} for this"
      " network; the answers are the same"
    )
  latent, *_ = torch_names.initial_names(model.recursion_type, 1)
  is_float32 = state_dict[latent].dtype == np.float32
  if model.compute_dtype == "bfloat16" and is_float32:
    notes.append(
      "the initial latents are float32 in the file, because bfloat16 would"
      " round them; the official code then computes in float32"
    )
  return notes
