"""--config and its settings; a user's mistake is one line, no traceback."""

import contextlib
import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import app, flags
from ml_collections import config_flags

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.terminal import interrupts, streams

CONFIG = config_flags.DEFINE_config_file(
  "config", None, "An experiment, e.g. experiments/sudoku.py:attention."
)
_SETTING = re.compile(r"--?(no)?config\.")  # a change to one setting
_NUMBER = re.compile(r"-(\.?\d|inf)")  # below zero, which is no flag
# The --config.group.name=value of a command without --config: changes to the
# settings saved with a checkpoint, which are read later.
_overrides: list[str] = []


def expect_no_words(argv: Sequence[str]) -> None:
  """Raises UserError if an argument is not a flag."""
  if len(argv) > 1:
    word = argv[1]
    modes: Sequence[str] = ()
    if "mode" in flags.FLAGS:  # other programs have none
      modes = getattr(flags.FLAGS["mode"].parser, "enum_values", ())
    hint = f"--mode={word}" if word in modes else f"a flag, --{word}=..."
    raise errors.UserError(
      f"unexpected argument {word!r}; did you mean {hint}?"
    )


def has_config() -> bool:
  """Returns whether --config names an experiment."""
  return CONFIG.value is not None


def changed(saved: config_lib.Config) -> config_lib.Config:
  """Returns a checkpoint's settings with the command line's changes applied.

  Args:
    saved: settings read from a checkpoint.

  Raises:
    UserError: a setting does not exist or has another type.
  """
  values = flags.FlagValues()
  with _one_line_errors(_overrides):
    config_flags.DEFINE_config_dict(
      "config",
      config_lib.to_config_dict(saved),
      flag_values=values,
      sys_argv=_overrides,
    )
    values(["", *_overrides])
  return config_lib.from_config_dict(values.config)


def overridden() -> frozenset[str]:
  """Returns what was said on the command line, e.g. 'model.num_heads'."""
  return frozenset(config_flags.get_override_values(flags.FLAGS["config"]))


def override_flags() -> list[str]:
  """Returns the --config.group.knob=value words of the command line."""
  words = (*sys.argv[1:], *_overrides)
  return [word for word in words if _SETTING.match(word)]


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
  streams.install()
  interrupts.install()
  try:
    app.run(command, flags_parser=_parse)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr, flush=True)
    _exit(1)
  except Exception as error:
    if errors.is_out_of_memory(error):
      print(
        f"error: out of memory ({errors.reason(error)}); lower"
        " config.train.batch_size or raise"
        " config.train.gradient_accumulation_steps, or set"
        " config.model.remat=full; to evaluate and to predict lower"
        " config.eval.batch_size",
        file=sys.stderr,
        flush=True,
      )
      _exit(1)
    if not _is_one_of_several():
      raise
    traceback.print_exc()
    _exit(1)


def _exit(status: int) -> NoReturn:
  """Ends the process; one of several must not wait for the others."""
  if _is_one_of_several():
    os._exit(status)
  sys.exit(status)


def _is_one_of_several() -> bool:
  jax = sys.modules.get("jax")
  return bool(jax and jax.distributed.is_initialized())


def _parse(argv: Sequence[str]) -> Sequence[str]:
  """Parses flags; a misspelt setting or file is one clear line."""
  settings: list[str] = []
  others: list[str] = []
  has_value = True  # whether the word before needs none
  for word in argv[1:]:
    if _SETTING.match(word):
      settings.append(word)
      has_value = "=" in word
    elif has_value or (word.startswith("-") and not _NUMBER.match(word)):
      others.append(word)
      has_value = True
    else:
      settings[-1] += f"={word}"
      has_value = True
  if not any(re.match(r"--?config(=.|$)", word) for word in others):
    for word in settings:
      if "=" not in word:
        name = word.partition(".")[2]
        raise errors.UserError(f"config.{name} has no value; add =VALUE to it")
    _overrides[:], settings = settings, []
  # Settings come last: they change the experiment wherever they were typed.
  sys.argv = [argv[0], *others, *settings]
  with _one_line_errors(argv):
    return flags.FLAGS(sys.argv)


@contextlib.contextmanager
def _one_line_errors(argv: Sequence[str]) -> Iterator[None]:
  """Turns what parsing raises into a UserError of one line."""
  try:
    yield
  except flags.Error as error:
    raise errors.UserError(_wrong_value(_one_line(str(error)))) from error
  except (AttributeError, KeyError) as error:
    raise errors.UserError(_misspelt(argv, str(error))) from error
  except ImportError as error:
    raise errors.UserError(
      f"--config: {error}; run in the folder that holds experiments/"
    ) from error
  except errors.UserError:
    raise
  except Exception as error:  # the file is Python and may raise anything
    raise errors.UserError(
      f"--config: {type(error).__name__}: {_one_line(str(error))}"
    ) from error


def _wrong_value(message: str) -> str:
  """Rewrites what absl says of a setting's value as the checks would."""
  match = re.fullmatch(r"flag --(config\.[\w.]+)=(.*?): (.*)", message)
  if not match:
    return message
  name, value, reason = match.groups()
  for sign, kind in (
    ("for int", "an integer"),
    ("to float", "a number"),
    ("oolean", "True or False"),
  ):
    if sign in reason:
      return f"{name} is {value!r}; it must be {kind}"
  return f"{name} is {value!r}: {reason}"


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
