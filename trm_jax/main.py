"""The command line: flags, then train or evaluate.

python -m trm_jax.main --config=experiments/quickstart.py --workdir=RUN
"""

import difflib
import os
import re
import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from trm_jax import config as config_lib
from trm_jax import errors

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "An experiment, e.g. experiments/sudoku.py:attention."
)
_WORKDIR = flags.DEFINE_string(
  "workdir", "", "Folder of the run; by default runs/<config.name>."
)
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")


def main(argv: Sequence[str]) -> None:
  """Runs the mode; its last line names the exact accuracy."""
  if len(argv) > 1:
    raise errors.UserError(f"what is {argv[1]!r}? every setting is a --flag")
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.ERROR)  # Orbax tells each file it writes
  if _CONFIG.value is None:
    raise errors.UserError(
      "name an experiment, e.g. --config=experiments/quickstart.py"
    )
  try:
    config = config_lib.from_config_dict(_CONFIG.value)
  except OSError as error:  # config_flags loads a missing file this late
    raise errors.UserError(
      "cannot read the experiment named by --config:"
      f" {_one_line(str(error)).rpartition('Attempted ')[2]}"
    ) from error
  workdir = _WORKDIR.value or os.path.join("runs", config.name)
  # Imported late: a mistake in the flags is told before JAX starts.
  from trm_jax import evaluate, train

  if _MODE.value == "train":
    report = train.train(config, workdir)
  else:
    report = evaluate.evaluate_workdir(config, workdir)
  for name in (*report.verdict.metrics, "exact_accuracy"):
    print(f"{name}={report.final[name]:.4f}", flush=True)


def _parse_flags(argv: Sequence[str]) -> Sequence[str]:
  """Parses flags; a misspelt knob or file is one clear line."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    raise errors.UserError(_one_line(str(error))) from error
  except (AttributeError, KeyError) as error:
    raise errors.UserError(_misspelt(argv, str(error))) from error
  except ImportError as error:
    raise errors.UserError(
      f"--config: {error}; run in the folder that holds experiments/"
    ) from error
  except Exception as error:  # the file is Python and may raise anything
    raise errors.UserError(
      f"--config: {type(error).__name__}: {_one_line(str(error))}"
    ) from error


def _one_line(text: str) -> str:
  """Joins lines; of a traceback in the text only its last line is kept."""
  before, traceback, after = text.partition("Traceback (most recent call last)")
  lines = [before, after.strip().splitlines()[-1]] if traceback else [text]
  return " ".join(" ".join(lines).split())


def _misspelt(argv: Sequence[str], reason: str) -> str:
  """Names the knob of the command line that the config does not have."""
  knobs = set(config_lib.knob_names())
  for argument in argv:
    match = re.match(r"--?config\.([\w.]+)", argument)
    if match and match.group(1) not in knobs:
      close = difflib.get_close_matches(match.group(1), knobs, n=1)
      hint = f"; did you mean config.{close[0]}?" if close else ""
      return f"there is no setting config.{match.group(1)}{hint}"
  if "get_config" in reason:
    return "--config: the file has no function get_config"
  return f"the experiment sets something that does not exist: {reason}"


def run() -> None:
  """Runs main; what the user can put right is one line, without traceback."""
  try:
    app.run(main, flags_parser=_parse_flags)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr, flush=True)
    # A read that failed leaves futures behind; what they raise while the
    # interpreter ends says nothing that the line above does not.
    sys.unraisablehook = lambda _: None
    logging.set_verbosity(logging.FATAL)
    sys.exit(1)
  except KeyboardInterrupt:
    print(
      "interrupted; the same command goes on from the last checkpoint, and an"
      " ARC evaluation from its last batch",
      file=sys.stderr,
    )
    sys.exit(130)


if __name__ == "__main__":
  run()
