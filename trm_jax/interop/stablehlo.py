"""Exports a solver that JAX alone can run, on any kind of device.

`jax.export` writes the program as StableHLO, for any number of puzzles. The
weights, which may be gigabytes, are an argument and lie in a file beside it.
The output is a folder without any Python:

  solver.stablehlo  (weights, questions, puzzle_ids) -> answers, confidence,
                    steps
  weights.npz       the weights by name
  about.json        signature, tokens, settings, versions
  identifiers.json  identifier of each row of the puzzle table

examples/load_exported.py solves a puzzle with it, without trm_jax.
"""

import importlib.util
import json
import pathlib
import shutil
import uuid
from collections.abc import Callable, Mapping
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export

import trm_jax
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import model as model_lib
from trm_jax.core import solve, solve_batch, types, variations
from trm_jax.core.kernels import attention, matmul
from trm_jax.data import files, identifiers
from trm_jax.inference import solver as solver_lib
from trm_jax.runtime import array_digest, processes
from trm_jax.runtime import program as program_lib

PROGRAM_FILE = "solver.stablehlo"
WEIGHTS_FILE = "weights.npz"
ABOUT_FILE = "about.json"
PLATFORMS = ("cpu", "cuda", "tpu")

_KIND = "a solver exported by trm_jax"
_FILES = frozenset((PROGRAM_FILE, WEIGHTS_FILE, ABOUT_FILE, identifiers.FILE))
# Settings of config.eval that apply to one solver alone.
_OWN_SETTINGS = {
  "adaptive": ("halt_threshold",),
  "rollouts": (
    "rollouts",
    "rollout_variation",
    "noise",
    "rollout_halting",
    "halt_threshold",
    "rollout_selection",
  ),
}

# (weights by name, questions [b, L], puzzle_ids [b]) -> answers [b, L],
# confidence [b], steps [b]
Solve = Callable[
  [Mapping[str, jax.Array], jax.Array, jax.Array],
  tuple[jax.Array, jax.Array, jax.Array],
]


def export_solver(solver: solver_lib.Solver, output: str) -> None:
  """Writes a solver for programs that have JAX but not trm_jax.

  It solves puzzles as `config.eval` says.

  Args:
    solver: the trained network.
    output: the folder to write; an exported solver in it is replaced.

  Raises:
    UserError: the folder holds something else or cannot be written, a package
      is missing, or there is more than one process.
  """
  if importlib.util.find_spec("flatbuffers") is None:
    raise errors.UserError(
      "exporting needs the package flatbuffers, which is not installed: pip"
      " install flatbuffers"
    )
  if jax.process_count() > 1:
    raise errors.UserError("export runs in a single process; start only one")
  path = _place(output)
  weights = _on_host(solver)
  settings = solver.config.eval
  if settings.solver == "rollouts" and (
    settings.rollout_selection == solve_batch.RULES
  ):
    raise errors.UserError(
      "an exported solver does not know the rules of the game; set"
      " config.eval.rollout_selection to another choice"
    )
  exported = export_program(
    solver.program.model,
    weights,
    solver.config,
    program_lib.symmetries(solver.config, solver.look),
  )
  program = exported.serialize()
  about = json.dumps(_about(solver, exported), indent=2).encode()
  rows = json.dumps(solver.identifiers).encode()
  _write(
    path,
    {
      PROGRAM_FILE: lambda file: file.write(program),
      WEIGHTS_FILE: lambda file: np.savez(file, **weights),
      ABOUT_FILE: lambda file: file.write(about),
      identifiers.FILE: lambda file: file.write(rows),
    },
  )
  size = sum(leaf.nbytes for leaf in weights.values())
  processes.print_once(
    f"wrote {path}: a program for {', '.join(PLATFORMS)}"
    f" ({len(program) / 1e3:.0f} kB) and its weights ({size / 1e6:.1f} MB)"
  )


def export_program(
  model: model_lib.TinyRecursiveModel,
  weights: Mapping[str, Any],
  config: config_lib.Config,
  symmetries: variations.Symmetries | None = None,
) -> export.Exported:
  """Exports a solver for every platform and any number of puzzles.

  Args:
    model: the module; it is exported without kernels for specific chips.
    weights: arrays by name, as of `array_digest.named_leaves`, or their shapes.
    config: `config.eval` says how puzzles are solved.
    symmetries: as of `program.symmetries`.

  Returns:
    The program; its signature is that of `Solve`.
  """
  portable = model.with_network(
    attend=attention.plain,
    multiply=matmul.plain,
    gated_product=None,
    token_multiple=1,
  ).clone(remat="none", unroll=False)
  (count,) = export.symbolic_shape("b")
  return export.export(
    jax.jit(solve_function(portable, config, symmetries)), platforms=PLATFORMS
  )(
    {
      name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
      for name, leaf in weights.items()
    },
    jax.ShapeDtypeStruct((count, model.seq_len), jnp.int32),
    jax.ShapeDtypeStruct((count,), jnp.int32),
  )


def solve_function(
  model: model_lib.TinyRecursiveModel,
  config: config_lib.Config,
  symmetries: variations.Symmetries | None = None,
) -> Solve:
  """Returns the config's solver as a pure function of plain arrays."""
  settings = config.eval

  def observe(output, _):
    return {
      "answers": solve.answers_of(output),
      "halt_logits": output.halt_logits,
    }

  def function(weights, questions, puzzle_ids):
    solved = solve_batch.solve_batch(
      model,
      _from_names(weights),
      types.Batch(
        inputs=questions,
        labels=jnp.full_like(questions, types.IGNORED_LABEL),
        puzzle_ids=puzzle_ids,
      ),
      jnp.ones_like(puzzle_ids, bool),
      supervision_steps=settings.supervision_steps,
      solver=program_lib.solver_config(
        config,
        slots=puzzle_ids.shape[0],  # one for each puzzle
      ),
      observe=observe,
      symmetries=symmetries,
    )
    confidence = jax.nn.sigmoid(solved.seen["halt_logits"][-1])
    return solved.seen["answers"][-1], confidence, solved.steps[-1]

  return function


def _from_names(weights: Mapping[str, jax.Array]) -> types.Weights:
  tree = traverse_util.unflatten_dict(dict(weights), sep="/")
  return types.Weights(
    params=tree["params"],
    puzzle_table=tree["puzzle_table"],
    initial_latents=types.Latents(**tree["initial_latents"]),
  )


def _on_host(solver: solver_lib.Solver) -> dict[str, Any]:
  """Returns the weights by name, the table without its padding."""
  weights = array_digest.named_leaves(jax.device_get(solver.weights))
  table = weights["puzzle_table"]
  return weights | {"puzzle_table": table[: len(solver.identifiers)]}


def _about(solver: solver_lib.Solver, exported: export.Exported) -> dict:
  """Returns what a program must know to call the solver."""
  weights, questions, puzzle_ids = jax.tree.unflatten(
    exported.in_tree, exported.in_avals
  )[0]
  answers, confidence, steps = exported.out_avals
  own = _OWN_SETTINGS.get(solver.config.eval.solver, ())
  return {
    "what": _KIND,
    "name": solver.config.name,
    "task": solver.config.data.task,
    "step": solver.step,
    "tokens": list(solver.look.symbols),
    "rows": solver.look.rows,
    "cols": solver.look.cols,
    "settings": {
      name: getattr(solver.config.eval, name)
      for name in ("solver", "supervision_steps", *own)
    },
    "arguments": {
      "weights": {name: _array(leaf) for name, leaf in weights.items()},
      "questions": _array(
        questions, "tokens, the rows of the grid one after another"
      ),
      "puzzle_ids": _array(
        puzzle_ids,
        f"rows of the puzzle table, see {identifiers.FILE}; any other row"
        " gives a confidence of NaN",
      ),
    },
    "results": {
      "answers": _array(answers, "tokens"),
      "confidence": _array(confidence, "that the answer is correct, 0 to 1"),
      "steps": _array(steps, "supervision steps taken"),
    },
    "platforms": list(exported.platforms),
    "packages": {"jax": f">={jax.__version__}", "flatbuffers": ""},
    "written_by": {"trm_jax": trm_jax.__version__, "jax": jax.__version__},
  }


def _array(aval: Any, meaning: str = "") -> dict[str, Any]:
  shape = [d if isinstance(d, int) else str(d) for d in aval.shape]
  described = {"shape": shape, "dtype": str(aval.dtype)}
  return described | ({"meaning": meaning} if meaning else {})


def _place(output: str) -> pathlib.Path:
  """Returns the folder to write; it may hold an exported solver."""
  if not output or output == "-" or files.is_remote(output):
    raise errors.UserError(
      "--output must name a local folder to write, as --output=exported; not"
      f" {output!r}"
    )
  path = pathlib.Path(files.folder(output))
  try:
    there = {entry.name for entry in path.iterdir()} if path.exists() else set()
  except OSError as error:
    raise _cannot_write(path, error) from error
  others = there - _FILES
  if others:
    raise errors.UserError(
      f"{path} holds {min(others)!r}, so it is not an exported solver and is"
      " not replaced; choose another --output"
    )
  return path


def _write(
  path: pathlib.Path, writers: Mapping[str, Callable[[IO], Any]]
) -> None:
  """Writes a folder that takes its place only when it is complete."""
  draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
  old = draft.with_name(f"{draft.name}.old")
  try:
    for name, write in writers.items():
      with files.writing(draft / name) as file:
        write(file)
    if path.exists():
      path.rename(old)
    try:
      draft.rename(path)
    except OSError:
      if old.exists():
        old.rename(path)
      raise
  except OSError as error:
    raise _cannot_write(path, error) from error
  finally:
    shutil.rmtree(draft, ignore_errors=True)
  shutil.rmtree(old, ignore_errors=True)


def _cannot_write(path: pathlib.Path, error: OSError) -> errors.UserError:
  return errors.UserError(f"cannot write {path}: {errors.reason(error)}")
