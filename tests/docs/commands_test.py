"""Commands and settings in the pages exist, and their values are valid."""

import ast
import functools
import importlib
import importlib.util
import re
import shlex

import pages
import pytest

from trm_jax import config as config_lib

# Defined by absl or JAX's launchers, for every program.
_COMMON = {"config", "help", "helpfull", "verbosity"}
# Placeholders in pages, which are no values.
_PLACEHOLDER = re.compile(r"VALUE|FILE|FOLDER|\.\.\.")


@functools.cache
def _flags(module):
  """Names of the flags that a program defines, itself or by its imports."""
  path = pages.ROOT / (module.replace(".", "/") + ".py")
  source = path.read_text()
  names = set(
    re.findall(r'(?:DEFINE_\w+\(|add_argument\()\s*"(?:--)?(\w+)"', source)
  )
  if module.startswith("benchmarks.") and module != "benchmarks.measure":
    names |= _flags("benchmarks.measure")
    if "compiled_step" in source:
      names |= {"num_puzzle_ids", "compile_seconds"}
  return names | _COMMON


@functools.cache
def _modes():
  source = (pages.ROOT / "trm_jax/main.py").read_text()
  listed = re.search(r'"mode",\s*"train",\s*(\[.*?\])', source, re.S)[1]
  return ast.literal_eval(listed)


def _programs():
  """(where, module, words) of every `python -m MODULE ...` of this project."""
  found = []
  for where, line in pages.commands():
    words = shlex.split(line, comments=True)
    for i in range(len(words) - 2):
      if words[i + 1] == "-m" and re.fullmatch(
        r"(trm_jax|launch|benchmarks)\.\w+", words[i + 2]
      ):
        found.append((where, words[i + 2], words[i + 3 :]))
  return found


def _value(text, default):
  """A setting's value as the command line reads it."""
  if isinstance(default, str):
    return text
  value = ast.literal_eval(text)
  return float(value) if isinstance(default, float) else value


@functools.cache
def _experiment(text):
  """The settings of --config=experiments/NAME.py:WORDS; the quickstart's for
  experiments that a page itself defines."""
  path, _, words = text.partition(":")
  if not path.startswith("experiments/"):
    path, words = "experiments/quickstart.py", ""
  assert (pages.ROOT / path).is_file(), text
  module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
  plain = module.get_config(words) if words else module.get_config()
  return config_lib.from_config_dict(plain)


_ENDINGS = ("csv", "txt")


@functools.cache
def _in_module(module, name):
  """Whether a module of this name has a module, class or function `name`."""
  package = pages.ROOT / "trm_jax"
  return any((package / module).glob(f"{name}*")) or any(
    re.search(rf"^(def|class) {name}\b", path.read_text(), re.M)
    for path in package.rglob(f"{module}.py")
  )


PROGRAMS = _programs()


def test_commands_are_found():
  modules = {module for _, module, _ in PROGRAMS}
  assert len(PROGRAMS) > 50
  assert modules >= {
    "trm_jax.main",
    "launch.sweep",
    "launch.aot",
    "benchmarks.train_step",
  }


@pytest.mark.parametrize(
  ("where", "module", "words"), PROGRAMS, ids=[p[0] for p in PROGRAMS]
)
def test_a_command_is_valid(where, module, words):
  del where
  changes = {}
  config = _experiment("experiments/base.py")
  for word in words:
    if word == "--":  # of another program
      break
    flag = re.match(r"--([\w.]+)(?:=(.*))?$", word, re.S)
    if not flag or (_PLACEHOLDER.search(word) and "config." not in word):
      continue
    name, text = flag.groups()
    if name == "config":
      config = _experiment(text)
    elif name.startswith("config."):
      changes[name.removeprefix("config.")] = text
    else:
      assert name in _flags(module), word
    if name == "mode" and module == "trm_jax.main":
      assert text in _modes()
    if name == "sweep":
      assert (pages.ROOT / text.partition(":")[0]).is_file()
  defaults = config_lib.flatten(config)
  for name in changes:
    assert name in defaults, name
  config_lib.changed(
    config,
    {name: _value(text, defaults[name]) for name, text in changes.items()},
  )


@pytest.mark.parametrize("page", pages.pages())
def test_settings_and_files_that_a_page_names_exist(page):
  if page in pages.HISTORY:
    return
  text = pages.pages()[page]
  groups = {name.partition(".")[0] for name in config_lib.knob_names()}
  for group, name in re.findall(r"config\.(\w+)\.(\w+)", text):
    if group in groups:
      assert f"{group}.{name}" in config_lib.knob_names(), (group, name)
  # `model.remat`, `train.batch_size=4`; but neither files nor what is in a
  # module: `train.csv`, `data.sampler`, `model.apply`.
  inline = re.findall(r"`(?:--config\.)?(\w+)\.(\w+)(?:=[^`]*)?`", text)
  for group, name in inline:
    if group in groups and name not in _ENDINGS and not _in_module(group, name):
      assert f"{group}.{name}" in config_lib.knob_names(), (group, name)
  for path in re.findall(
    r"`((?:trm_jax|experiments|launch|benchmarks|examples|tests)/[\w/.]+)`",
    text,
  ):
    assert (pages.ROOT / path).exists(), path
  for name, words in re.findall(r"`(\w+\.py):([a-z0-9_,]+)`", text):
    if (pages.ROOT / "experiments" / name).exists():
      assert _experiment(f"experiments/{name}:{words}")


def test_the_paths_through_the_code_name_and_count_existing_files():
  text = pages.pages()["docs/architecture.md"]
  lists = re.findall(r"^Files \((\d+)\): ([\w, \n]+)\.$", text, re.M)
  assert len(lists) == 4
  known = {path.stem for path in (pages.ROOT / "trm_jax").rglob("*.py")}
  for number, names in lists:
    files = re.findall(r"\w+", names)
    assert len(files) == len(set(files)) == int(number)
    assert set(files) <= known | {"base"}


PYTHON = pages.blocks("python")


@pytest.mark.parametrize("block", PYTHON, ids=[b.name for b in PYTHON])
def test_a_python_block_compiles_and_what_it_imports_exists(block):
  for node in ast.walk(ast.parse(block.text)):
    if isinstance(node, ast.Import):
      for alias in node.names:
        assert importlib.util.find_spec(alias.name), alias.name
    elif isinstance(node, ast.ImportFrom):
      module = importlib.import_module(node.module)
      for alias in node.names:
        assert hasattr(module, alias.name) or importlib.util.find_spec(
          f"{node.module}.{alias.name}"
        ), alias.name
    elif isinstance(node, ast.Attribute) and (
      ast.unparse(node.value) == "trm_jax"
    ):
      assert node.attr in importlib.import_module("trm_jax").__all__


def test_extras_that_pages_install_exist():
  setup = (pages.ROOT / "setup.cfg").read_text()
  for page, text in pages.pages().items():
    if page in pages.HISTORY:
      continue
    for extras in re.findall(r"'\.\[([\w,]+)\]'", text):
      for extra in extras.split(","):
        assert f"\n{extra} =\n" in setup, (page, extra)
