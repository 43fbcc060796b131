"""Imports official PyTorch checkpoints into a workdir, and exports them.

An imported workdir is like that of a finished training: it can be evaluated,
predicted with, and started from (config.checkpoint.init_from). An official
checkpoint has no optimizer state, so training cannot be resumed in it.

Exported tensors have the names that the official code looks for when it
compiles its model, which it does by default, and its inner widths, which are
multiples of 256: narrower ones are filled up with units that are zero. An
export that is imported again has the same weights, bit for bit.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Collection, Mapping, Set
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
from trm_jax.core import layers, train_state, types
from trm_jax.data import files, identifiers, official, tasks
from trm_jax.data import task as task_lib
from trm_jax.inference import solver as solver_lib
from trm_jax.interop import (
  torch_architectures,
  torch_fit,
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

_MAX_SETTINGS = 10  # in one message
# Not settings of the official code.
_OFFICIAL_MULTIPLE, _OFFICIAL_LATENTS = 256, 6
_PLAIN = re.compile(r"[\w.-]+", re.ASCII)  # what a shell takes as it is


def import_checkpoint(
  config: config_lib.Config,
  overridden: Set[str],
  source: str,
  workdir: str,
  *,
  ignore: Collection[str] = (),
) -> None:
  """Imports an official checkpoint into a new workdir.

  Args:
    config: the experiment; its data are not read.
    overridden: settings given on the command line, as "model.latent_updates".
    source: the checkpoint, as for `torch_source.locate`.
    workdir: a folder without checkpoints; created if missing.
    ignore: settings of the checkpoint that may be left unread.

  Raises:
    UserError: the checkpoint cannot be read or does not fit the experiment;
      each difference is named, with the flags that make it fit.
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
  state_dict = torch_fit.without_idle_units(state_dict, config)
  arch, arch_from = torch_settings.find(tree), "its own settings"
  if located.config is not None:
    arch, arch_from = torch_settings.read(located.config), torch_settings.FILE
  elif arch is not None:
    # The latents have the dtype in which the program that wrote it computes.
    latents = (v for k, v in state_dict.items() if k.endswith("_init"))
    dtype = next((latent.dtype.name for latent in latents), "float32")
    arch = {"forward_dtype": dtype, **arch}
  names, rows_from = _identifiers(config.data, located)
  sizes = _sizes(config.data, len(names))
  torch_architectures.architecture_of(  # or there is nothing to compare with
    config.model.recursion_type,
    separate_networks=config.model.separate_networks,
  )
  unread = _unread(arch or {}, ignore, where=str(located.weights))
  torch_fit.check(
    torch_fit.Checkpoint(state_dict, arch, arch_from, rows_from),
    config,
    sizes,
    given=overridden,
    where=str(located.weights),
    others=[f"in {arch_from} {text}" for text in unread],
  )
  look = _look(config.data)
  step = located.step
  description = checkpoint_metadata.Metadata(
    settings=config_lib.flatten(_settled(config, workdir)),
    data_fingerprint=_FINGERPRINT,
    vocabulary=list(look.symbols),
    identifiers=identifiers.digest(names),
    learned=[],
    next_batch=step,
    versions={
      "trm_jax": trm_jax.__version__,
      "imported from": source,
      **({"ignored settings": ", ".join(ignore)} if ignore else {}),
    },
    num_puzzle_ids=len(names),
  )
  built = torch_fit.build(config, sizes)
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


def _sizes(data: config_lib.DataConfig, num_rows: int) -> program.DataSpec:
  """Returns the puzzles' sizes; 0 for what own grids do not have set."""
  count = data.grid_rows * data.grid_cols
  if data.task == "grid" and not (data.charset and count):
    vocab_size = len(data.charset) + 1 if data.charset else 0
    return program.DataSpec(vocab_size, count, num_rows)
  return program.DataSpec.of_look(_look(data), num_rows)


def _look(data: config_lib.DataConfig) -> task_lib.Look:
  """Returns the puzzles' grid and symbols from the settings alone."""
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


def _unread(
  arch: Mapping[str, Any], ignore: Collection[str], *, where: str
) -> list[str]:
  """Returns a sentence that names settings of the file that nothing reads.

  Settings of another program, with those of its training, are only logged.
  """
  unread = torch_settings.unread(arch)
  for name in ignore:
    if name not in unread:
      raise errors.UserError(
        f"--ignore has {name!r}, which is not among the unread settings of"
        f" {where}: {', '.join(map(torch_reader.quoted, unread)) or 'none'}"
      )
  left = [name for name in unread if name not in ignore]
  if not left:
    return []
  shown = ", ".join(
    f"{torch_reader.quoted(name)} ({torch_reader.quoted(unread[name])})"
    for name in left[:_MAX_SETTINGS]
  )
  if len(left) > _MAX_SETTINGS:
    shown += f" and {len(left) - _MAX_SETTINGS:,} more"
  if not torch_settings.is_official(arch):
    processes.log_once(f"settings of {where} that are not read: {shown}")
    return []
  text = (
    f"arch has settings that are not read here and may change what the network"
    f" computes: {shown}"
  )
  if all(map(_PLAIN.fullmatch, left)):
    text += f"; if they do not, pass --ignore={','.join([*ignore, *left])}"
  return [text]


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
  settings = torch_settings.to_yaml(solver.config)
  state_dict = torch_names.state_dict_of(
    jax.device_get(solver.weights),
    num_puzzle_ids=len(solver.identifiers),
    recurrence=solver.config.model.recursion_type,
  )
  impossible = _impossible(solver.config.model, state_dict)
  official = torch_names.with_inner_widths(
    state_dict, functools.partial(_official_width, solver.config.model)
  )
  if official is None:
    impossible.append(
      f"config.model.mlp_multiple is {solver.config.model.mlp_multiple}, which"
      f" makes inner widths larger than the official {_OFFICIAL_MULTIPLE} does"
    )
  for reason in impossible:
    note = f"the official code cannot load these weights: {reason}"
    settings = f"# {note}\n".encode() + settings
    processes.log_once(note)
  beside = {
    torch_settings.FILE: settings,
    identifiers.FILE: json.dumps(solver.identifiers).encode(),
  }
  write = _WRITERS[file_format]()
  for name, content in beside.items():
    _write_beside(path.parent / name, content)
  with files.writing(path) as file:
    write(
      file,
      {
        torch_names.PREFIX + name: np.array(value, order="C")
        for name, value in (official or state_dict).items()
      },
    )
  processes.print_once(f"wrote {path}, with {' and '.join(beside)} beside it")
  for note in _notes(solver.config, state_dict, official or state_dict):
    processes.log_once(note)


def _official_width(model: config_lib.ModelConfig, size: int) -> int:
  return layers.swiglu_width(
    size, expansion=model.mlp_expansion, multiple=_OFFICIAL_MULTIPLE
  )


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


def _impossible(
  model: config_lib.ModelConfig, state_dict: Mapping[str, np.ndarray]
) -> list[str]:
  """Returns why the official code cannot load weights, if it cannot."""
  found = []
  if torch_names.num_latents(state_dict) not in (0, _OFFICIAL_LATENTS):
    found.append(
      f"config.model.latent_updates is {model.latent_updates}, and it has"
      f" multi-scale z with {_OFFICIAL_LATENTS} latents only"
    )
  if model.recursion_type == "direct" and model.position_encoding == "none":
    found.append(
      "config.model.position_encoding is 'none', and its direct prediction has"
      " positions"
    )
  return found


def _notes(
  config: config_lib.Config,
  state_dict: Mapping[str, np.ndarray],
  official: Mapping[str, np.ndarray],
) -> list[str]:
  """Returns what is otherwise in the official code or its file."""
  model, notes = config.model, []
  if any(official[name].shape != state_dict[name].shape for name in official):
    notes.append(
      f"config.model.mlp_multiple is {model.mlp_multiple}: in the file, inner"
      f" units that are zero fill widths up to the official multiples of"
      f" {_OFFICIAL_MULTIPLE}; the answers are the same"
    )
  architecture = torch_architectures.architecture_of(
    model.recursion_type, separate_networks=model.separate_networks
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
