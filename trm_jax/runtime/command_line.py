"""--config and its settings; a user's mistake is one line, no traceback."""

import ast
import difflib
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags
from ml_collections import config_flags

from trm_jax import config as config_lib
from trm_jax import errors

CONFIG = config_flags.DEFINE_config_file(
  "config", None, "An experiment, e.g. experiments/sudoku.py:attention."
)
# What --config.group.knob=value said, where --config names no experiment.
_CHANGES: dict[str, str] = {}


def expect_no_words(argv: Sequence[str]) -> None:
  """Raises UserError if something beside flags was typed."""
  if len(argv) > 1:
    raise errors.UserError(f"what is {argv[1]!r}? every setting is a --flag")


def has_config() -> bool:
  """Tells whether --config names an experiment."""
  return CONFIG.value is not None


def changed(saved: config_lib.Config) -> config_lib.Config:
  """Returns a checkpoint's settings with those that were typed.

  Where no experiment is named, --config.eval.solver=adaptive changes the
  settings that lie beside the checkpoint.

  Raises:
    UserError: a setting is misspelt, or of another type.
  """
  flat = config_lib.flatten(saved)
  changes = {
    name: _value(name, text, flat.get(name, ""))
    for name, text in _CHANGES.items()
  }
  return config_lib.changed(saved, changes)


def _value(name: str, text: str, old: Any) -> Any:
  """Reads what was typed as a value of the old one's type."""
  if isinstance(old, str):
    return text
  try:
    value = ast.literal_eval(text.capitalize() if text.isalpha() else text)
  except (ValueError, SyntaxError) as error:
    raise errors.UserError(
      f"config.{name} is {text!r}; it must be of type {type(old).__name__}"
    ) from error
  return value


def overridden() -> frozenset[str]:
  """Returns what was said on the command line, e.g. 'model.num_heads'."""
  return frozenset(config_flags.get_override_values(flags.FLAGS["config"]))


def config() -> config_lib.Config:
  """Returns the settings that --config and --config.group.knob name."""
  if CONFIG.value is None:
    raise errors.UserError(
      "name an experiment, e.g. --config=experiments/quickstart.py"
    )
  try:
    return config_lib.from_config_dict(CONFIG.value)
  except OSError as error:  # config_flags loads a missing file this late
    raise errors.UserError(
      "cannot read the experiment named by --config:"
      f" {_one_line(str(error)).rpartition('Attempted ')[2]}"
    ) from error


def run(command: Callable[[Sequence[str]], None]) -> None:
  """Runs a command; what the user can put right is one line, no traceback."""
  for stream in (sys.stdout, sys.stderr):  # a file's name may be no UTF-8
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors="backslashreplace")
  try:
    app.run(command, flags_parser=_parse)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr, flush=True)
    _exit(1)
  except Exception:
    if not _is_one_of_several():
      raise
    traceback.print_exc()
    _exit(1)
  except KeyboardInterrupt:
    print(_interrupted(), file=sys.stderr)
    _exit(130)


def _interrupted() -> str:
  if flags.FLAGS.mode in ("predict", "import", "export"):
    return "interrupted; what was not announced as written is not there"
  return (
    "interrupted; the same command goes on from the last checkpoint, and an"
    " ARC evaluation from its last batch"
  )


def _exit(status: int) -> NoReturn:
  """Ends the process; one of several must not wait for the others."""
  if _is_one_of_several():
    os._exit(status)
  sys.exit(status)


def _is_one_of_several() -> bool:
  jax = sys.modules.get("jax")
  return bool(jax and jax.distributed.is_initialized())


def _parse(argv: Sequence[str]) -> Sequence[str]:
  """Parses flags; a misspelt knob or file is one clear line."""
  if not any(re.match(r"--?config(=|$)", argument) for argument in argv):
    argv = _without_changes(argv)
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


def _without_changes(argv: Sequence[str]) -> list[str]:
  """Takes --config.group.knob=value out, which no experiment's file has."""
  left = []
  for argument in argv:
    match = re.fullmatch(r"--?config\.([\w.]+)(=?)(.*)", argument, re.DOTALL)
    if not match:
      left.append(argument)
      continue
    name, is_set, text = match.groups()
    if not is_set:
      raise errors.UserError(f"config.{name} has no value; add =VALUE to it")
    _CHANGES[name] = text
  return left


def _one_line(text: str) -> str:
  """Joins lines; of a traceback in the text only its last line is kept."""
  before, found, after = text.partition("Traceback (most recent call last)")
  lines = [before, after.strip().splitlines()[-1]] if found else [text]
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
