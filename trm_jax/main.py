"""The command line: flags, then what --mode names.

python -m trm_jax.main --config=experiments/quickstart.py --workdir=RUN
"""

import os
from collections.abc import Sequence

from absl import flags, logging

from trm_jax import errors
from trm_jax.runtime import command_line, host_memory

_WORKDIR = flags.DEFINE_string(
  "workdir", "", "Folder of the run; by default runs/<config.name>."
)
_MODE = flags.DEFINE_enum(
  "mode",
  "train",
  ["train", "evaluate", "predict", "report", "import", "export"],
  "What to do. All but train and import use a workdir's checkpoint, and its"
  " settings where --config names none.",
)
_INPUT = flags.DEFINE_string(
  "input",
  "",
  "predict: a CSV, a text, ARC's JSON, '-' for standard input, or the"
  " characters of one puzzle.",
)
_OUTPUT = flags.DEFINE_string(
  "output",
  "",
  "predict: the CSV or JSON to write, '-' for standard output; report: the HTML"
  " file, by default report.html in the workdir; export: what to write.",
)
_PICTURES = flags.DEFINE_string(
  "pictures", "", "predict: a folder for pictures of the answers."
)
_SOURCE = flags.DEFINE_string(
  "source",
  "",
  "import: a PyTorch checkpoint or safetensors file, its folder, or"
  " hf:OWNER/NAME of the Hugging Face hub.",
)
_FORMAT = flags.DEFINE_enum(
  "format", "stablehlo", ["stablehlo", "torch", "safetensors"], "export: what."
)
# Of several processes that train as one; TPU machines and SLURM need none.
_COORDINATOR = flags.DEFINE_string(
  "coordinator", "", "HOST:PORT of the process with --process_id=0."
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "How many processes train together."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Which of them this is, from 0."
)


def main(argv: Sequence[str]) -> None:
  """Runs the mode."""
  command_line.expect_no_words(argv)
  host_memory.tune_malloc()
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.ERROR)  # Orbax tells each file it writes
  mode = _MODE.value
  _check_flags(mode)
  # Imported late: a mistake in the flags is told before JAX starts.
  if mode in ("train", "evaluate", "report"):
    _train_or_evaluate(mode)
    return
  from trm_jax.runtime import compilation_cache, processes

  processes.check_alone(mode)
  compilation_cache.enable()
  if mode == "import":
    from trm_jax.interop import torch_checkpoint

    config = command_line.config()
    torch_checkpoint.import_checkpoint(
      config, command_line.overridden(), _SOURCE.value, _workdir(config.name)
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

    predict.predict_file(
      solver, _INPUT.value, _OUTPUT.value, pictures=_PICTURES.value
    )
  elif _FORMAT.value == "stablehlo":
    from trm_jax.interop import stablehlo

    stablehlo.export_solver(solver, _OUTPUT.value)
  else:
    from trm_jax.interop import torch_checkpoint

    torch_checkpoint.export_checkpoint(solver, _OUTPUT.value, _FORMAT.value)


def _check_flags(mode: str) -> None:
  """Raises UserError if a flag is missing, or means nothing in this mode."""
  needed, possible = {
    "predict": (("input", "output"), ("pictures",)),
    "report": ((), ("output",)),
    "import": (("source",), ()),
    "export": (("output",), ("format",)),
  }.get(mode, ((), ()))
  for flag in (_INPUT, _OUTPUT, _PICTURES, _SOURCE, _FORMAT):
    if flag.name in needed and not flag.value:
      raise errors.UserError(f"--mode={mode} needs --{flag.name}=...")
    if flag.name not in needed + possible and flag.present:
      raise errors.UserError(f"--{flag.name} has no meaning in --mode={mode}")
  if mode in ("predict", "import", "export"):
    for several in (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID):
      if several.present:
        raise errors.UserError(
          f"--{several.name} has no meaning in --mode={mode}, which one process"
          " does alone"
        )


def _workdir(name: str = "") -> str:
  if not _WORKDIR.value and not name:
    raise errors.UserError("name the run's folder by --workdir=...")
  return _WORKDIR.value or os.path.join("runs", name)


def _train_or_evaluate(mode: str) -> None:
  """Runs a mode that several processes may share; prints the accuracy."""
  saved = mode != "train" and not command_line.has_config()
  config = None if saved else command_line.config()
  workdir = _workdir(config.name if config else "")
  from trm_jax import train
  from trm_jax.evaluation import evaluate
  from trm_jax.runtime import compilation_cache, preemption, processes, restore

  stop = preemption.Stop(config.train.max_minutes if config else 0.0)
  stop.install()
  processes.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  stop.install()  # again: joining has put its own in this place
  compilation_cache.enable()
  if config is None:
    config = command_line.changed(restore.saved_config(workdir))
    stop.limit(config.train.max_minutes)
  try:
    if mode == "train":
      report = train.train(config, workdir, stop)
    elif mode == "evaluate":
      report = evaluate.evaluate_workdir(config, workdir, stop)
    else:
      from trm_jax.visualization import html_report

      report = html_report.write(config, workdir, _OUTPUT.value, stop)
  except preemption.Stopped as stopped:
    processes.tell(str(stopped))
    return
  for name in (*report.verdict.metrics, "exact_accuracy"):
    processes.tell(f"{name}={report.final[name]:.4f}")


if __name__ == "__main__":
  command_line.run(main)
