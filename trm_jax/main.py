"""Trains, evaluates and uses Tiny Recursive Models.

python -m trm_jax.main --config=experiments/quickstart.py --workdir=RUN

Settings are changed by --config.GROUP.NAME=VALUE. To see all of them with their
values, add --print_config; experiments/base.py documents each.
"""

from trm_jax.terminal import interrupts, streams

if __name__ == "__main__":  # before the imports that take seconds
  streams.install()
  interrupts.install()

import functools
import importlib
import os
from collections.abc import Sequence

from absl import flags, logging

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import files
from trm_jax.runtime import command_line, host_memory

# --help lists the flags of this module and those it adopts: --config.
flags.adopt_module_key_flags(command_line)

_WORKDIR = flags.DEFINE_string(
  "workdir", "", "Folder of the run; by default runs/<config.name>."
)
_PRINT_CONFIG = flags.DEFINE_bool(
  "print_config",
  False,
  "Print all settings as this command would use them, one per line, and exit.",
)
_MODE = flags.DEFINE_enum(
  "mode",
  "train",
  ["train", "evaluate", "predict", "report", "import", "export"],
  "What to do. All modes but train and import read the weights in --workdir, a"
  " run or an exported folder, with the settings saved beside them unless"
  " --config is given.",
)
_INPUT = flags.DEFINE_string(
  "input",
  "",
  "Puzzles to solve (only with --mode=predict): a CSV or text file, ARC's JSON,"
  " '-' for standard input, or the characters of one puzzle.",
)
_OUTPUT = flags.DEFINE_string(
  "output",
  "",
  "File to write. predict: CSV or JSON, by default '-', standard output;"
  " report: HTML, by default report.html in the workdir; export: the exported"
  " model.",
)
_PICTURES = flags.DEFINE_string(
  "pictures", "", "Folder for pictures of the answers (only with predict)."
)
_SOURCE = flags.DEFINE_string(
  "source",
  "",
  "Weights to import (only with --mode=import): a PyTorch checkpoint, a"
  " safetensors file, a folder with one, or hf:OWNER/NAME of the Hugging Face"
  " hub.",
)
_IGNORE = flags.DEFINE_list(
  "ignore",
  [],
  "Settings of the checkpoint that trm_jax does not read and that do not change"
  " what the network computes (only with --mode=import).",
)
_FORMAT = flags.DEFINE_enum(
  "format",
  "stablehlo",
  ["stablehlo", "torch", "safetensors", "folder"],
  "Export format (only with --mode=export): a program, weights for the official"
  " code, or a folder to publish, which works as a --workdir.",
)
# Only for several processes that train together; TPU pods and SLURM jobs set
# them up by themselves.
_COORDINATOR = flags.DEFINE_string(
  "coordinator", "", "HOST:PORT of the process with --process_id=0."
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "Number of processes that train together."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Index of this process (0-based)."
)


def main(argv: Sequence[str]) -> None:
  """Runs the mode."""
  command_line.expect_no_words(argv)
  host_memory.tune_malloc()
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.ERROR)  # Orbax logs each file it writes
  mode = _MODE.value
  interrupts.say(_interrupted(mode))
  _check_flags(mode)
  if _PRINT_CONFIG.value:
    _print_config()
    return
  # Imported late: mistakes in the flags are reported before JAX starts.
  _start_jax()
  if mode in ("train", "evaluate", "report"):
    _train_or_evaluate(mode)
    return
  from trm_jax.runtime import compilation_cache, devices, processes

  processes.check_alone(mode)
  devices.check_available()
  compilation_cache.enable()
  if mode == "import":
    from trm_jax.interop import torch_checkpoint

    config = command_line.config()
    torch_checkpoint.import_checkpoint(
      config,
      command_line.overridden(),
      _SOURCE.value,
      _workdir(config.name),
      ignore=_IGNORE.value,
    )
    return
  from trm_jax.inference import solver as solver_lib
  from trm_jax.runtime import restore

  if command_line.has_config():
    config = command_line.config()
  else:
    config = command_line.changed(restore.saved_config(_workdir()))
  solver = solver_lib.load(_workdir(config.name), config)
  if mode == "predict":
    from trm_jax.inference import predict

    draw = None
    if _PICTURES.value:
      from trm_jax.visualization import predict_pictures

      predict_pictures.check_writable(_PICTURES.value)
      draw = functools.partial(predict_pictures.draw, solver, _PICTURES.value)
    predict.predict_file(solver, _INPUT.value, _OUTPUT.value or "-", draw)
  elif _FORMAT.value == "stablehlo":
    from trm_jax.interop import stablehlo

    stablehlo.export_solver(solver, _OUTPUT.value)
  elif _FORMAT.value == "folder":
    from trm_jax.interop import publish

    publish.export_folder(solver, _workdir(config.name), _OUTPUT.value)
  else:
    from trm_jax.interop import torch_checkpoint

    torch_checkpoint.export_checkpoint(solver, _OUTPUT.value, _FORMAT.value)


def _start_jax() -> None:
  """Imports JAX, which reads its environment variables then."""
  try:
    jax = importlib.import_module("jax")
  except ValueError as error:
    raise errors.UserError(
      f"JAX does not start: {errors.first_line(error)}; correct or unset the"
      " environment variable"
    ) from error
  for name, value in jax.config.values.items():
    if (name == "jax_numpy_dtype_promotion" and str(value) != "standard") or (
      name.startswith("jax_transfer_guard") and "disallow" in str(value)
    ):
      raise errors.UserError(
        f"{name.upper()}={value}: trm_jax does not run in this mode of JAX;"
        " unset the environment variable"
      )


def _interrupted(mode: str) -> str:
  """Returns the line of a command that Ctrl-C ended."""
  if mode in ("predict", "import", "export"):
    return "interrupted; what was not announced as written is not there"
  return (
    "interrupted; the same command goes on from the last checkpoint, and an"
    " ARC evaluation from its last batch"
  )


def _print_config() -> None:
  """Prints every setting, as --config or the checkpoint in --workdir has it."""
  if command_line.has_config():
    config = command_line.config()
  else:
    _start_jax()
    from trm_jax.runtime import restore

    config = command_line.changed(restore.saved_config(_workdir()))
  for name, value in config_lib.flatten(config).items():
    print(f"config.{name} = {value!r}")


def _check_flags(mode: str) -> None:
  """Raises UserError if a flag is missing, or means nothing in this mode."""
  needed, possible = {
    "predict": (("input",), ("output", "pictures")),
    "report": ((), ("output",)),
    "import": (("source",), ("ignore",)),
    "export": (("output",), ("format",)),
  }.get(mode, ((), ()))
  for flag in (_INPUT, _OUTPUT, _PICTURES, _SOURCE, _IGNORE, _FORMAT):
    if flag.name in needed and not flag.value:
      raise errors.UserError(f"--mode={mode} needs --{flag.name}=...")
    if flag.name not in needed + possible and flag.present:
      raise errors.UserError(f"--{flag.name} has no effect with --mode={mode}")
    # Folders of runs and of weights are checked where they are read.
    if flag.name in ("input", "output", "pictures"):
      files.check_scheme(flag.value, buckets=flag.name == "output")
  if mode in ("predict", "import", "export"):
    for several in (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID):
      if several.present:
        raise errors.UserError(
          f"--{several.name} has no effect with --mode={mode}, which runs in"
          " one process"
        )


def _workdir(name: str = "") -> str:
  if not _WORKDIR.value and not name:
    raise errors.UserError("--workdir=FOLDER is missing: the run to use")
  return _WORKDIR.value or os.path.join("runs", name)


def _train_or_evaluate(mode: str) -> None:
  """Runs a mode that several processes may share; prints the accuracy."""
  saved = mode != "train" and not command_line.has_config()
  config = None if saved else command_line.config()
  workdir = _workdir(config.name if config else "")
  from trm_jax import train
  from trm_jax.evaluation import evaluate
  from trm_jax.runtime import (
    compilation_cache,
    devices,
    preemption,
    processes,
    restore,
  )

  stop = preemption.PreemptionSignal(
    config.train.time_limit_minutes if config else 0.0
  )
  stop.install()
  processes.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  stop.install()  # again: joining has put its own in this place
  devices.check_available()
  compilation_cache.enable()
  if config is None:
    config = command_line.changed(restore.saved_config(workdir))
    stop.limit(config.train.time_limit_minutes)
  try:
    if mode == "train":
      report = train.train(config, workdir, stop)
    elif mode == "evaluate":
      report = evaluate.evaluate_workdir(config, workdir, stop)
    else:
      from trm_jax.visualization import report as html_report

      report = html_report.write(config, workdir, _OUTPUT.value, stop)
  except preemption.Preempted as stopped:
    processes.print_once(str(stopped))
    if stop.interrupted:
      interrupts.leave(interrupts.STATUS)
    return
  for name in (*report.summary.metrics, "exact_accuracy"):
    processes.print_once(f"{name}={report.final[name]:.4f}")


if __name__ == "__main__":
  command_line.run(main)
