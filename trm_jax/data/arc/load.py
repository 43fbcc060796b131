"""The tasks "arc" (ARC-AGI, ConceptARC) and "generated_arc"."""

import dataclasses

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import augmentation, files, identifiers, official
from trm_jax.data import task as task_lib
from trm_jax.data.arc import dataset as arc_dataset
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import leakage
from trm_jax.data.arc import official as arc_official
from trm_jax.data.arc import plan as arc_plan
from trm_jax.data.arc import tasks as arc_tasks

_TABLES = "arc_plans"  # folder in the cache
_NUM_NAMED = 5  # tasks of few variants that a note names


def _cut(tokens: np.ndarray) -> np.ndarray:
  """Keeps only the grid that an answer, [900], is decoded to."""
  (grid,) = arc_grids.crop(tokens[None])
  return arc_grids.encode(grid)


LOOK = task_lib.Look(
  rows=arc_grids.SIDE,
  cols=arc_grids.SIDE,
  symbols=(" ", "|", *(str(colour) for colour in range(arc_grids.NUM_COLOURS))),
  # Padding and ends, then ARC's usual colours.
  colours=(
    "#ffffff",
    "#d0d0d0",
    "#000000",
    "#0074d9",
    "#ff4136",
    "#2ecc40",
    "#ffdc00",
    "#aaaaaa",
    "#f012be",
    "#ff851b",
    "#7fdbff",
    "#870c25",
  ),
  cut=_cut,
)


def _load(data: config_lib.DataConfig) -> task_lib.Task:
  if official.is_official(data.source):
    return arc_official.load(data, LOOK)
  _check(data)
  if data.num_train or data.num_test:
    raise errors.UserError(
      "config.data.num_train and config.data.num_test have no effect on ARC;"
      " set them to 0 and use config.data.subsets and config.eval.max_tasks"
    )
  if data.source:
    tasks = arc_tasks.read_folder(data.source, data.subsets)
  else:
    # Imported late: only the public download needs TFDS.
    from trm_jax.data.downloads import arc as download_arc

    tasks = download_arc.load(data.subsets, cache_dir=data.cache_dir)
  return _task(data, tasks)


def _generate(data: config_lib.DataConfig) -> task_lib.Task:
  _check(data)
  tasks = generate(data.num_train, data.num_test, seed=data.seed)
  if data.subsets != tuple(tasks):
    raise errors.UserError(
      f"the task {data.task!r} has the subsets {tuple(tasks)!r}; set"
      " config.data.subsets to that"
    )
  return _task(data, tasks)


def _task(data: config_lib.DataConfig, tasks: arc_plan.Tasks) -> task_lib.Task:
  table = _table(data, tasks)
  train = arc_dataset.training_set(
    tasks, table, test_subset=data.test_subset, seed=data.seed
  )
  test = arc_dataset.test_set(tasks, table, test_subset=data.test_subset)
  learned = [
    task
    for subset, members in tasks.items()
    if subset != data.test_subset
    for task in members
  ]
  marks = leakage.marks(learned)
  return task_lib.Task(
    train=train,
    test=test,
    look=LOOK,
    augmentation=None,  # the variants are puzzles of their own
    identifiers=table.identifiers(),
    augmentation_table=task_lib.AugmentationTable(
      tasks=test.tasks, transforms=test.transforms, colours=test.colours
    ),
    learned=tuple(marks),
    notes=_notes(table, learned, _num_variants(data)),
    warnings=tuple(filter(None, [leakage.warning(test.tasks, marks)])),
  )


def _check(data: config_lib.DataConfig) -> None:
  if data.augmentation == augmentation.ENDLESS:
    raise errors.UserError(
      "each variant of an ARC task has its own row of the puzzle table, so"
      " their number is fixed: set config.data.augmentation to 'fixed' or"
      " 'none'"
    )
  if not data.subsets or data.test_subset not in data.subsets:
    raise errors.UserError(
      f"config.data.test_subset is {data.test_subset!r}; it must be one of"
      f" config.data.subsets {data.subsets!r}"
    )
  if len(set(data.subsets)) != len(data.subsets):
    raise errors.UserError(
      f"config.data.subsets {data.subsets!r} names a subset twice"
    )
  if data.new_rows and not data.identifiers:
    raise errors.UserError(
      f"config.data.new_rows {data.new_rows!r} adds rows to a trained table:"
      " set --config.checkpoint.init_from to the workdir of its run (and, if"
      " the experiment is not arc_adapt.py, --config.data.identifiers too)"
    )


def _num_variants(data: config_lib.DataConfig) -> int:
  return 0 if data.augmentation == augmentation.NONE else data.num_augmentations


def _table(
  data: config_lib.DataConfig, tasks: arc_plan.Tasks
) -> arc_plan.VariantTable:
  if not data.identifiers:
    return _draw(data, tasks)
  names, where = _listed(data)
  if data.new_rows:
    lacking = arc_plan.without_rows(names, tasks)
    if any(lacking.values()):
      names += _draw(data, lacking).identifiers()[1:]
  return arc_plan.from_identifiers(names, tasks, where=where)


def _listed(data: config_lib.DataConfig) -> tuple[list[str], str]:
  """Returns the identifiers of a run, and the path of their file."""
  path = files.folder(data.identifiers)
  if path.is_dir():
    path /= identifiers.FILE
  if not path.exists():
    raise errors.UserError(
      f"config.data.identifiers: {path} does not exist; expected the workdir"
      f" of a run or its {identifiers.FILE} (which a run writes when it starts)"
    )
  return identifiers.read(path), str(path)


def _draw(
  data: config_lib.DataConfig, tasks: arc_plan.Tasks
) -> arc_plan.VariantTable:
  """Draws the variants of tasks; those of files only once."""
  if data.task == "generated_arc":
    return arc_plan.build(
      tasks,
      num_augmentations=_num_variants(data),
      rng=np.random.RandomState(data.seed),
    )
  return arc_plan.cached(
    tasks,
    num_augmentations=_num_variants(data),
    seed=data.seed,
    folder=files.cache_folder(data.cache_dir) / _TABLES,
  )


def _notes(
  table: arc_plan.VariantTable,
  learned: list[arc_tasks.ArcTask],
  num_augmentations: int,
) -> tuple[str, ...]:
  notes = [
    f"{len(table.groups):,} tasks, {len(table.rows):,} variants, the originals"
    " among them"
  ]
  sparse = sorted(table.sparse(num_augmentations), key=lambda task: task[1])
  if sparse:
    named = ", ".join(f"{name} {count}" for name, count in sparse[:_NUM_NAMED])
    notes.append(
      f"{len(sparse)} of them have fewer than {num_augmentations + 1:,}:"
      f" {named}{', ...' if len(sparse) > _NUM_NAMED else ''}"
    )
  if table.unused:
    notes.append(
      f"{len(table.unused):,} rows of the puzzle table belong to tasks that are"
      " not in the data; they stay unchanged"
    )
  unknown = sum(pair.output is None for t in learned for pair in t.test)
  if unknown:
    notes.append(
      f"{unknown} test pairs of training tasks have no known answer and are"
      " left out"
    )
  return tuple(notes)


# --- generated tasks ---------------------------------------------------------

_SIDES = (2, 6)  # range of a grid's sides, without the end
_NUM_PAIRS = 3  # demonstrations


def generate(
  num_train: int, num_test: int, *, seed: int
) -> dict[str, list[arc_tasks.ArcTask]]:
  """Generates tasks whose rule is a symmetry of the square and new colours.

  Args:
    num_train: Number of tasks of the subset "training".
    num_test: Number of tasks of the subset "evaluation".
    seed: Seed of the draws.

  Returns:
    The two subsets.
  """
  rng = np.random.default_rng(seed)
  return {
    "training": [_generate_task(rng, f"training{i}") for i in range(num_train)],
    "evaluation": [
      _generate_task(rng, f"evaluation{i}") for i in range(num_test)
    ],
  }


def _generate_task(rng: np.random.Generator, name: str) -> arc_tasks.ArcTask:
  transform = int(rng.integers(arc_grids.NUM_TRANSFORMS))
  colours = rng.permutation(arc_grids.NUM_COLOURS).astype(np.uint8)
  pairs = []
  for _ in range(_NUM_PAIRS + 1):
    shape = rng.integers(*_SIDES, size=2)
    grid = rng.integers(arc_grids.NUM_COLOURS, size=shape, dtype=np.uint8)
    output = arc_grids.apply(grid, transform=transform, colours=colours)
    pairs.append(arc_tasks.Pair(input=grid, output=output))
  return arc_tasks.ArcTask(
    name=name, train=tuple(pairs[:-1]), test=tuple(pairs[-1:]), test_first=False
  )


ARC = task_lib.TaskType(
  load=_load,
  look=lambda *_: LOOK,
  rules=lambda data: None,
  parse_questions=None,
  own_settings=(
    "source",
    "identifiers",
    "new_rows",
    "subsets",
    "test_subset",
  ),
)
GENERATED = dataclasses.replace(
  ARC, load=_generate, own_settings=ARC.own_settings[1:], file_task="arc"
)
