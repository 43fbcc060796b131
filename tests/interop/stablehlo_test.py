"""An exported solver answers as the project's own does, without it."""

import dataclasses
import errno
import functools
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import saved_run
import tiny
from jax import export

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import types
from trm_jax.core.kernels import attention, matmul, swiglu
from trm_jax.inference import solver as solver_lib
from trm_jax.interop import stablehlo
from trm_jax.runtime import array_digest, model_factory, program

LOADER = (
  pathlib.Path(__file__).resolve().parent.parent.parent
  / "examples/load_exported.py"
)
NUM_STEPS = 3
# Of the checks of shapes, and of what is there only until b is known.
PORTABLE_CALLS = {"shape_assertion", "stablehlo.dynamic_reduce_window"}


def _config(solver, **knobs):
  config = tiny.config_dict()
  config.model.recursion_cycles = 2
  config.eval.solver = solver
  config.eval.supervision_steps = NUM_STEPS
  config.eval.rollouts = 3
  config.eval.noise = 0.5
  for name, value in knobs.items():
    setattr(config.eval, name, value)
  return config_lib.from_config_dict(config)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp("run")
  saved_run.save(program.load(_config("fixed")), path, {7: 0.5})
  return str(path)


@pytest.fixture(scope="module")
def load(workdir):
  return functools.cache(
    lambda solver, **knobs: solver_lib.load(workdir, _config(solver, **knobs))
  )


@pytest.fixture(scope="module")
def programs():
  return {}


@pytest.fixture
def export_once(monkeypatch, programs):
  """Each solver's program, for tests of how files are written."""
  export_program = stablehlo.export_program

  def export_cached(model, weights, config, symmetries):
    solver = config.eval.solver
    if solver not in programs:
      programs[solver] = export_program(model, weights, config, symmetries)
    return programs[solver]

  monkeypatch.setattr(stablehlo, "export_program", export_cached)


def _questions(count, seed=0):
  return np.random.default_rng(seed).integers(1, 6, (count, 16), np.int32)


def _read(folder):
  program = (folder / "solver.stablehlo").read_bytes()
  exported = export.deserialize(bytearray(program))
  return exported, dict(np.load(folder / "weights.npz"))


def _call(folder, questions, puzzle_ids=None):
  exported, weights = _read(folder)
  if puzzle_ids is None:
    puzzle_ids = np.zeros(len(questions), np.int32)
  return jax.device_get(exported.call(weights, questions, puzzle_ids))


@pytest.fixture(scope="module")
def threshold(load):
  """A confidence that half of 37 puzzles pass after one step."""
  after_one = np.sort(load("fixed").trace_tokens(_questions(37)).confidence[0])
  middle = len(after_one) // 2
  assert after_one[middle] - after_one[middle - 1] > 1e-5
  return float(np.mean(after_one[middle - 1 : middle + 1]))


@pytest.mark.parametrize("solver", config_lib.SOLVERS)
def test_any_number_of_answers_equals_the_solvers(
  load, threshold, tmp_path, solver
):
  loaded = load(solver, rollout_selection="vote", halt_threshold=threshold)
  stablehlo.export_solver(loaded, str(tmp_path / "exported"))
  for count in (1, 37):
    questions = _questions(count)
    answers, confidence, steps = _call(tmp_path / "exported", questions)
    expected = loaded.solve_tokens(questions)
    np.testing.assert_array_equal(answers, expected.answers)
    np.testing.assert_array_equal(steps, expected.steps)
    np.testing.assert_allclose(confidence, expected.confidence, atol=1e-5)
    assert (answers.dtype, steps.dtype) == (np.int32, np.int32)
  assert len(np.unique(answers, axis=0)) > 1
  assert (len(np.unique(steps)) > 1) == (solver == "adaptive")


# Runs a program as if nothing were installed but what the first argument names.
_ALONE = """
import runpy, sys, sysconfig
from importlib import machinery
sysconfig.get_config_vars()  # reads a module that is named for the machine
installed = {*sys.argv[1].split(","), *sys.stdlib_module_names}
class Installed(machinery.PathFinder):
  @classmethod
  def find_spec(cls, name, path=None, target=None):
    if name.partition(".")[0] in installed:
      return super().find_spec(name, path, target)
sys.meta_path[:] = [
  machinery.BuiltinImporter, machinery.FrozenImporter, Installed
]
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0])
"""
# And what `pip install jax flatbuffers` brings along.
_INSTALLED = "jax,jaxlib,flatbuffers,numpy,ml_dtypes,opt_einsum,scipy"


def _run_alone(program, *arguments, cwd):
  return subprocess.run(
    [sys.executable, "-I", "-c", _ALONE, _INSTALLED, str(program), *arguments],
    cwd=cwd,
    env={"JAX_PLATFORMS": "cpu", "PATH": os.environ["PATH"]},
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.parametrize("package", ["trm_jax", "flax", "etils", "absl"])
def test_what_runs_alone_finds_no_other_package(tmp_path, package):
  assert importlib.util.find_spec(package)
  (tmp_path / "program.py").write_text(f"import {package}")
  result = _run_alone(tmp_path / "program.py", cwd=tmp_path)
  assert f"No module named '{package}'" in result.stderr


def test_a_program_without_trm_jax_solves_with_it(load, tmp_path):
  solver = load("fixed")
  stablehlo.export_solver(solver, str(tmp_path / "exported"))
  question = "1..2.3....4....1"
  result = _run_alone(LOADER, "exported", question, cwd=tmp_path)
  assert result.returncode == 0, result.stderr
  (expected,) = solver.solve([question])
  assert result.stdout.splitlines() == [
    expected.text,
    f"confidence {expected.confidence:.3f}, {NUM_STEPS} supervision steps",
  ]


def test_rows_of_the_table_are_chosen_and_none_is_made_up(load, tmp_path):
  solver = load("fixed")
  table = np.repeat(np.asarray(solver.weights.puzzle_table)[:1], 8, axis=0)
  table[1] = -table[0]  # on eight devices as it is
  solver = dataclasses.replace(
    solver,
    identifiers=["<blank>", "another"],
    weights=solver.weights.replace(puzzle_table=table),
  )
  stablehlo.export_solver(solver, str(tmp_path / "exported"))
  assert _read(tmp_path / "exported")[1]["puzzle_table"].shape == (2, 16)
  names = json.loads((tmp_path / "exported/identifiers.json").read_text())
  assert names == ["<blank>", "another"]
  questions = np.repeat(_questions(1), 4, axis=0)
  answers, confidence, _ = _call(
    tmp_path / "exported", questions, np.array([0, 1, 2, -1], np.int32)
  )
  assert np.any(answers[0] != answers[1])
  np.testing.assert_array_equal(
    np.isnan(confidence), [False, False, True, True]
  )


def _model(**model):
  config = tiny.config_dict()
  config.model.update(model)
  return model_factory.build_model(
    config_lib.from_config_dict(config).model, vocab_size=6, seq_len=16
  )


@pytest.mark.parametrize("solver", config_lib.SOLVERS)
@pytest.mark.parametrize(
  "model",
  [
    _model(token_mixing="mlp", remat="none").with_network(
      token_multiple=8,
      multiply=matmul.bf16_matmul_f32_accum,
      gated_product=swiglu.Triton(),
    ),
    _model(
      token_mixing="attention",
      position_encoding="rope",
      num_heads=2,
      compute_dtype="bfloat16",
      remat="full",
    ).with_network(attend=attention.Splash()),
  ],
  ids=["mlp", "attention"],
)
def test_nothing_in_the_program_is_of_one_kind_of_chip(model, solver):
  state = jax.eval_shape(
    lambda: types.Weights(
      params=model.init_params(jax.random.key(0), puzzle_embed_dim=16),
      puzzle_table=np.zeros((2, 16), np.float32),
      initial_latents=types.Latents(
        y=np.zeros(16, np.float32), z=np.zeros(16, np.float32)
      ),
    )
  )
  exported = stablehlo.export_program(
    model, array_digest.named_leaves(state), _config(solver)
  )
  assert exported.platforms == ("cpu", "cuda", "tpu")
  calls = re.findall(r"custom_call @([\w.]+)", exported.mlir_module())
  assert set(calls) <= PORTABLE_CALLS
  shapes = [str(aval.shape) for aval in exported.out_avals]
  assert shapes == ["(b, 16)", "(b,)", "(b,)"]


def test_the_description_is_true(load, tmp_path):
  solver = load("adaptive", halt_threshold=0.7)
  stablehlo.export_solver(solver, str(tmp_path / "exported"))
  about = json.loads((tmp_path / "exported/about.json").read_text())
  exported, weights = _read(tmp_path / "exported")
  assert about["tokens"] == list(solver.look.symbols)
  assert (about["rows"], about["cols"]) == (4, 4)
  assert about["settings"] == {
    "solver": "adaptive",
    "supervision_steps": NUM_STEPS,
    "halt_threshold": 0.7,
  }
  assert about["arguments"]["weights"] == {
    name: {"shape": list(leaf.shape), "dtype": "float32"}
    for name, leaf in weights.items()
  }
  results = [
    (tuple(map(str, result["shape"])), result["dtype"])
    for result in about["results"].values()
  ]
  assert results == [
    (tuple(map(str, aval.shape)), str(aval.dtype))
    for aval in exported.out_avals
  ]
  assert about["written_by"]["jax"] == jax.__version__


def _contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("export_once")
def test_an_older_export_is_replaced(load, tmp_path):
  stablehlo.export_solver(load("fixed"), str(tmp_path / "exported"))
  old = _contents(tmp_path / "exported")
  stablehlo.export_solver(load("adaptive"), str(tmp_path / "exported"))
  new = _contents(tmp_path / "exported")
  assert old.keys() == new.keys() == stablehlo._FILES
  assert b'"adaptive"' in new["about.json"]
  assert os.listdir(tmp_path) == ["exported"]


@pytest.mark.usefixtures("export_once")
def test_a_full_disk_leaves_the_older_export(load, tmp_path, monkeypatch):
  stablehlo.export_solver(load("fixed"), str(tmp_path / "exported"))
  old = _contents(tmp_path / "exported")

  def fail(file, **arrays):
    file.write(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(np, "savez", fail)
  with pytest.raises(errors.UserError, match=r"cannot write .*: No space left"):
    stablehlo.export_solver(load("fixed"), str(tmp_path / "exported"))
  assert _contents(tmp_path / "exported") == old
  assert os.listdir(tmp_path) == ["exported"]


@pytest.mark.usefixtures("export_once")
def test_an_older_export_comes_back_if_the_new_one_cannot_take_its_place(
  load, tmp_path, monkeypatch
):
  stablehlo.export_solver(load("fixed"), str(tmp_path / "exported"))
  old = _contents(tmp_path / "exported")
  rename = pathlib.Path.rename
  renamed = []

  def fail_once(path, target):
    renamed.append(target)
    if len(renamed) == 2:
      raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    return rename(path, target)

  monkeypatch.setattr(pathlib.Path, "rename", fail_once)
  with pytest.raises(errors.UserError, match=r"cannot write .*exported: Perm"):
    stablehlo.export_solver(load("adaptive"), str(tmp_path / "exported"))
  assert renamed[1:] == [tmp_path / "exported"] * 2
  assert _contents(tmp_path / "exported") == old
  assert os.listdir(tmp_path) == ["exported"]


@pytest.mark.usefixtures("export_once")
def test_other_folders_and_files_are_left_alone(load, tmp_path):
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine/about.json").write_text("{}")
  (tmp_path / "mine/thesis.tex").write_text("dear")
  (tmp_path / "file").write_text("dear")
  for output, reason in (
    ("mine", "mine holds 'thesis.tex', so it is not an exported solver"),
    ("file", "cannot write .*file: Not a directory"),
    ("file/below", "cannot write .*: Not a directory"),
  ):
    with pytest.raises(errors.UserError, match=reason):
      stablehlo.export_solver(load("fixed"), str(tmp_path / output))
  for output in ("", "-", "gs://bucket/exported"):
    with pytest.raises(errors.UserError, match="must name a local folder"):
      stablehlo.export_solver(load("fixed"), output)
  assert (tmp_path / "file").read_text() == "dear"
  assert sorted(_contents(tmp_path / "mine")) == ["about.json", "thesis.tex"]


def test_a_missing_package_is_named(load, tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(errors.UserError, match="pip install flatbuffers"):
    stablehlo.export_solver(load("fixed"), str(tmp_path / "exported"))
  assert not os.listdir(tmp_path)
