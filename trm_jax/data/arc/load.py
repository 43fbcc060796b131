"""Loads ARC: tasks, the plan of their variants, and what is needed to vote."""

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import augmentation, files, identifiers, kind, official
from trm_jax.data import task as task_lib
from trm_jax.data.arc import dataset as arc_dataset
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import leakage
from trm_jax.data.arc import plan as arc_plan
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.data.downloads import arc as download_arc
from trm_jax.data.downloads import prepare

_PLANS = "arc_plans"
_NUM_NAMED = 5  # tasks of few variants that a note names


def load(data: config_lib.DataConfig) -> task_lib.Task:
  """Loads the ARC tasks of the settings.

  Args:
    data: the settings.

  Returns:
    The task.

  Raises:
    UserError: files are missing or malformed, or settings contradict.
  """
  if official.is_official(data.source):
    return _load_official(data)
  _check(data)
  _check_new_rows(data)
  if data.task == "generated_arc":
    tasks = generate(data.num_train, data.num_test, seed=data.seed)
    _check_subsets(data, tuple(tasks))
  else:
    tasks = download_arc.load_arc(
      data.source, data.subsets, cache_dir=data.cache_dir
    )
  plan = _plan(data, tasks)
  train = arc_dataset.training_set(
    tasks, plan, test_subset=data.test_subset, seed=data.seed
  )
  test = arc_dataset.test_set(tasks, plan, test_subset=data.test_subset)
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
    look=kind.ARC_LOOK,
    augmentation=None,  # the variants are puzzles of their own
    identifiers=plan.identifiers(),
    augmentation_table=task_lib.AugmentationTable(
      tasks=test.tasks, transforms=test.transforms, colours=test.colours
    ),
    learned=tuple(marks),
    notes=_notes(plan, learned, _num_variants(data)),
    warnings=_warnings(test.tasks, marks),
  )


def _check(data: config_lib.DataConfig) -> None:
  if data.augmentation == augmentation.ENDLESS:
    raise errors.UserError(
      "every variant of an ARC task has a row of its own in the puzzle table,"
      " so their number is fixed: set config.data.augmentation to 'fixed', or"
      " to 'none'"
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
  if data.task == "arc" and (data.num_train or data.num_test):
    raise errors.UserError(
      "config.data.num_train and config.data.num_test have no meaning for ARC;"
      " set them to 0 and choose by config.data.subsets and config.eval.tasks"
    )


def _check_new_rows(data: config_lib.DataConfig) -> None:
  if data.new_rows and not data.identifiers:
    raise errors.UserError(
      f"config.data.new_rows {data.new_rows!r} adds rows to a trained table:"
      " name the workdir of its run by --config.checkpoint.start_from (and, if"
      " the experiment is not arc_adapt.py, by --config.data.identifiers)"
    )


def _check_subsets(data: config_lib.DataConfig, there: tuple[str, ...]) -> None:
  if data.subsets != there:
    raise errors.UserError(
      f"the task {data.task!r} has the subsets {there!r}; set"
      " config.data.subsets to that"
    )


def _num_variants(data: config_lib.DataConfig) -> int:
  return 0 if data.augmentation == augmentation.NONE else data.num_variants


def _plan(data: config_lib.DataConfig, tasks: arc_plan.Tasks) -> arc_plan.Plan:
  if not data.identifiers:
    return _drawn(data, tasks)
  names, where = _listed(data)
  if data.new_rows:
    lacking = arc_plan.without_rows(names, tasks)
    if any(lacking.values()):
      names += _drawn(data, lacking).identifiers()[1:]
  return arc_plan.from_identifiers(names, tasks, where=where)


def _listed(data: config_lib.DataConfig) -> tuple[list[str], str]:
  """Reads what the rows of the puzzle table are; also says where."""
  path = files.folder(data.identifiers)
  if path.is_dir():
    path /= identifiers.FILE
  if not path.exists():
    raise errors.UserError(
      f"config.data.identifiers: there is no {path}; expected the workdir of a"
      f" run or its {identifiers.FILE} (a run that has begun keeps a list of"
      " all its rows in its own --workdir)"
    )
  return identifiers.read(path), str(path)


def _drawn(data: config_lib.DataConfig, tasks: arc_plan.Tasks) -> arc_plan.Plan:
  """Draws variants of the tasks; those of files only once."""
  if data.task == "generated_arc":
    return arc_plan.build(
      tasks,
      num_variants=_num_variants(data),
      rng=np.random.RandomState(data.seed),
    )
  return arc_plan.cached(
    tasks,
    num_variants=_num_variants(data),
    seed=data.seed,
    folder=prepare.cache_folder(data.cache_dir) / _PLANS,
  )


def _warnings(
  tested: tuple[arc_tasks.ArcTask, ...], learned: list[str]
) -> tuple[str, ...]:
  warning = leakage.warning(tested, learned)
  return (warning,) if warning else ()


def _notes(
  plan: arc_plan.Plan, learned: list[arc_tasks.ArcTask], num_variants: int
) -> tuple[str, ...]:
  notes = [
    f"{len(plan.groups):,} tasks, {len(plan.rows):,} variants, the originals"
    " among them"
  ]
  sparse = sorted(plan.sparse(num_variants), key=lambda task: task[1])
  if sparse:
    named = ", ".join(f"{name} {count}" for name, count in sparse[:_NUM_NAMED])
    notes.append(
      f"{len(sparse)} of them have fewer than {num_variants + 1:,}:"
      f" {named}{', ...' if len(sparse) > _NUM_NAMED else ''}"
    )
  if plan.unused:
    notes.append(
      f"{len(plan.unused):,} rows of the puzzle table belong to tasks that the"
      " data do not have; they are kept as they are"
    )
  unknown = sum(pair.output is None for t in learned for pair in t.test)
  if unknown:
    notes.append(
      f"{unknown} test pairs of training tasks have no known answer and are"
      " left out"
    )
  return tuple(notes)


def _load_official(data: config_lib.DataConfig) -> task_lib.Task:
  """Loads a folder of the official builder, whose variants are written out."""
  if data.new_rows:
    raise errors.UserError(
      f"config.data.new_rows: {data.source} is a data set of the official"
      " builder, whose rows are written down; name a folder of ARC's JSON files"
    )
  task = official.load(data, kind.ARC_LOOK, rules=None)
  table = official.augmentation_table(data.source, task.test, task.identifiers)
  names = {name.split(arc_grids.SEPARATOR)[0] for name in task.identifiers[1:]}
  tested = {member.name for member in table.tasks}
  pairs = official.learned_pairs(task.train)
  marks = [*sorted(names - tested), *leakage.pair_marks(pairs)]
  return task_lib.Task(
    train=task.train,
    test=task.test,
    look=task.look,
    augmentation=None,
    identifiers=task.identifiers,
    augmentation_table=table,
    learned=tuple(marks),
    notes=task.notes,
    warnings=_warnings(table.tasks, marks),
  )


# Small made-up ARC tasks that need no files.


_SIDES = (2, 6)  # of a grid, the first and one past the last
_NUM_PAIRS = 3  # that show the rule


def generate(
  num_train: int, num_test: int, *, seed: int
) -> dict[str, list[arc_tasks.ArcTask]]:
  """Draws tasks whose rule is to turn or mirror a grid and to recolour it.

  Args:
    num_train: Tasks of the subset "training".
    num_test: Tasks of the subset "evaluation".
    seed: Of the draws.

  Returns:
    The two subsets.
  """
  rng = np.random.default_rng(seed)
  return {
    "training": [_task(rng, f"training{i}") for i in range(num_train)],
    "evaluation": [_task(rng, f"evaluation{i}") for i in range(num_test)],
  }


def _task(rng: np.random.Generator, name: str) -> arc_tasks.ArcTask:
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
