"""The import rules, and that everything documented exists."""

import ast
import dataclasses
import functools
import importlib
import pathlib
import re

import pytest

from trm_jax import config as config_lib
from trm_jax.core import model as model_lib
from trm_jax.core import network, optim, solve_batch, train_step

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "trm_jax"
MAX_LINES = 500

# Rooms in the order of imports: a room may import those before it, and of the
# same rank only itself.
RANKS = {
  "errors": 0,
  "terminal": 0,
  "settings": 1,
  "config": 2,
  "core": 3,
  "data": 3,
  "runtime": 4,
  "evaluation": 5,
  "inference": 6,
  "interop": 7,
  "visualization": 7,
  "train": 8,
  "main": 9,
}
# `core` can be copied into other projects and touches neither files nor
# processes: all that it imports beside itself.
CORE_PACKAGES = frozenset(
  (
    *("chex", "flax", "jax", "numpy", "optax"),
    *("collections", "dataclasses", "functools", "math", "re", "typing"),
  )
)

# Third-party packages and the only modules (or packages) that import them.
ONLY_IN = {
  "orbax": ("trm_jax.runtime.checkpoints", "trm_jax.runtime.processes"),
  "tensorflow_datasets": ("trm_jax.data.downloads",),
  "ml_collections": ("trm_jax.config", "trm_jax.runtime.command_line"),
}
# Packages or modules and what they never import, not even through others.
NEVER = {
  "trm_jax.core": ("absl", "orbax"),
  "trm_jax.data": ("jax", "flax", "optax", "orbax", "chex"),
  "trm_jax.evaluation.voting": ("jax", "flax", "optax", "orbax", "chex"),
}


def _name(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def _modules() -> dict[str, pathlib.Path]:
  return {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def _tree(name: str) -> ast.Module:
  return ast.parse(_modules()[name].read_text())


def _absolute(name: str, node: ast.ImportFrom) -> str:
  """The full name of the module that an import statement names."""
  if not node.level:
    return node.module or ""
  # A package is its own parent.
  is_package = _modules()[name].name == "__init__.py"
  parts = name.split(".")
  parts = parts[: len(parts) - node.level + is_package]
  return ".".join([*parts, *([node.module] if node.module else [])])


@functools.cache
def _imports(name: str) -> frozenset[str]:
  """Full names of all that a module imports, at its top or inside it."""
  found = set()
  for node in ast.walk(_tree(name)):
    if isinstance(node, ast.Import):
      found.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      module = _absolute(name, node)
      found.update(
        f"{module}.{alias.name}"
        if f"{module}.{alias.name}" in _modules()
        else module
        for alias in node.names
      )
  return frozenset(found)


def _own(name: str) -> set[str]:
  # The package itself holds the version and imports the rest lazily.
  return {
    other for other in _imports(name) if other in _modules() and "." in other
  }


@functools.cache
def _closure(name: str) -> frozenset[str]:
  """All modules of trm_jax that importing `name` imports, and itself."""
  seen, left = set(), [name]
  while left:
    module = left.pop()
    if module not in seen:
      seen.add(module)
      left += _own(module)
  return frozenset(seen)


def _inside(name: str, package: str) -> bool:
  return name == package or name.startswith(package + ".")


def test_the_walk_sees_the_package():
  assert "trm_jax.core.train_step" in _modules()
  assert "trm_jax.core.model" in _own("trm_jax.core.train_step")
  assert "trm_jax.core.norm" in _own("trm_jax.core.kernels.swiglu")
  assert "jax" in _imports("trm_jax.core.recursion")
  assert "trm_jax.errors" in _closure("trm_jax.data.tasks")


def test_rooms_import_in_one_direction():
  found = set()
  for name in _modules():
    room, _, _ = name.removeprefix("trm_jax.").partition(".")
    for other in _own(name):
      other_room, _, _ = other.removeprefix("trm_jax.").partition(".")
      if room == "trm_jax" or room == other_room:
        continue  # the package itself imports lazily
      if RANKS[other_room] >= RANKS[room]:
        found.add((room, other))
  assert not found


def test_core_imports_itself_relatively_and_few_packages():
  for name in filter(lambda name: _inside(name, "trm_jax.core"), _modules()):
    for node in ast.walk(_tree(name)):
      if isinstance(node, ast.ImportFrom) and node.level:
        assert _inside(_absolute(name, node), "trm_jax.core"), name
        continue
      if isinstance(node, ast.ImportFrom):
        imported = [node.module]
      elif isinstance(node, ast.Import):
        imported = [alias.name for alias in node.names]
      else:
        continue
      for package in (module.partition(".")[0] for module in imported):
        assert package in CORE_PACKAGES, f"{name} imports {package}"


def test_only_core_has_relative_imports():
  for name in _modules():
    if not _inside(name, "trm_jax.core"):
      for node in ast.walk(_tree(name)):
        assert not getattr(node, "level", 0), f"{name} has a relative import"


@pytest.mark.parametrize("package", NEVER)
def test_forbidden_packages_are_not_imported_even_through_others(package):
  for name in _modules():
    if not _inside(name, package):
      continue
    for module in _closure(name):
      # config is the one door of ml_collections; data/ knows its dataclasses.
      for imported in _imports(module):
        for forbidden in NEVER[package]:
          assert not _inside(imported, forbidden), (name, module, imported)


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_stays_in_its_one_room(package):
  users = {
    name
    for name in _modules()
    if any(_inside(imported, package) for imported in _imports(name))
  }
  assert users
  for name in users:
    assert any(_inside(name, room) for room in ONLY_IN[package]), name


def test_the_package_imports_neither_experiments_nor_launchers():
  for name in _modules():
    for imported in _imports(name):
      assert imported.split(".")[0] not in ("experiments", "launch", "tests")


def test_imports_form_no_cycle():
  for name in _modules():
    for other in _own(name):
      assert name not in _closure(other), f"{name} <-> {other}"


@pytest.mark.parametrize("name", sorted(_modules()))
def test_every_module_imports_and_says_what_it_is(name):
  module = importlib.import_module(name)
  source = _modules()[name].read_text()
  assert module.__doc__ or not source.strip()


def test_no_file_is_long():
  long = {
    name: lines
    for name, path in _modules().items()
    if (lines := len(path.read_text().splitlines())) > MAX_LINES
  }
  assert not long


# --- experiments -----------------------------------------------------------


def _documented() -> set[tuple[str, str]]:
  """(module, variant) of each experiment, as their docstrings name them."""
  found = set()
  for path in (ROOT / "experiments").glob("*.py"):
    if "def get_config" not in path.read_text():
      continue
    found.add((path.stem, ""))
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    for module, variant in re.findall(r"(\w+)\.py:(\w+(?:,\w+)*)", text):
      found.add((module, variant))
  return found


def test_the_documented_variants_are_found():
  assert _documented() >= {
    ("base", ""),
    ("quickstart", ""),
    ("sudoku", ""),
    ("sudoku", "attention"),
    ("sudoku", "smoke"),
    ("sudoku", "attention,smoke"),
    ("arc", "2,smoke"),
    ("custom", "arc"),
  }


@pytest.mark.parametrize(("module", "variant"), sorted(_documented()))
def test_every_experiment_resolves(module, variant, monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT))
  get_config = importlib.import_module(f"experiments.{module}").get_config
  plain = get_config(variant) if variant else get_config()
  config = config_lib.from_config_dict(plain)
  assert config.name.startswith(module)
  assert plain.is_locked  # a misspelt flag is refused
  if variant:
    assert config != config_lib.from_config_dict(get_config())
    for word in variant.split(","):
      assert word in config.name


def test_an_unknown_variant_is_refused(monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT))
  sudoku = importlib.import_module("experiments.sudoku")
  with pytest.raises(ValueError, match="there is no variant 'atention'"):
    sudoku.get_config("atention")


# --- knobs -----------------------------------------------------------------


def _groups_by_class() -> dict[str, str]:
  """{"ModelConfig": "model", ..., "Config": "config"}."""
  groups = {
    field.type.__name__: field.name
    for field in dataclasses.fields(config_lib.Config)
    if dataclasses.is_dataclass(field.type)
  }
  return groups | {"Config": "config"}


@functools.cache
def _reads() -> frozenset[tuple[str, str]]:
  """(group, attribute) of all reads outside config.py.

  The group is the last name before the dot, or that of the settings' class
  that an argument of this name is annotated with.
  """
  found = set()
  for name in _modules():
    if name == "trm_jax.config":
      continue
    aliases: dict[str, str] = {}
    for node in ast.walk(_tree(name)):
      if isinstance(node, ast.arg) and node.annotation:
        for part in re.findall(r"\w+", ast.unparse(node.annotation)):
          if part in _groups_by_class():
            aliases[node.arg] = _groups_by_class()[part]
    for node in ast.walk(_tree(name)):
      if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        base = node.value
        before = getattr(base, "attr", getattr(base, "id", "")).lstrip("_")
        found.add((before, node.attr))
        found.add((aliases.get(before, before), node.attr))
  return frozenset(found)


# Dataclasses of `core` that `config.fill` fills with the settings of groups.
FILLED = {
  "model": (network.NetworkConfig, model_lib.TinyRecursiveModel),
  "optimizer": (optim.Hyperparameters, train_step.StepConfig),
  "train": (train_step.StepConfig,),
  "eval": (solve_batch.SolverConfig,),
}


@functools.cache
def _read_in_core() -> frozenset[str]:
  """Names of all attributes that `core` reads."""
  return frozenset(
    node.attr
    for name in _modules()
    if _inside(name, "trm_jax.core")
    for node in ast.walk(_tree(name))
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
  )


@pytest.mark.parametrize("knob", config_lib.knob_names())
def test_every_knob_is_read_somewhere(knob):
  group, _, name = knob.rpartition(".")
  filled = {
    field.name
    for kind in FILLED.get(group, ())
    for field in dataclasses.fields(kind)
  }
  if name in filled:
    assert name in _read_in_core()
  else:
    assert (group or "config", name) in _reads()
