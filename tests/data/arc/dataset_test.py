"""What is in sets of ARC variants."""

import dataclasses
import itertools

import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data import loader, puzzle_set
from trm_jax.data.arc import dataset as arc_dataset
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import load as arc_load
from trm_jax.data.arc import plan as arc_plan
from trm_jax.data.arc import tasks as arc_tasks

NUM_VARIANTS = 6


def _pair(rng, *, most, has_output=True):
  x, y = (
    rng.integers(10, size=rng.integers(1, most + 1, 2), dtype=np.uint8)
    for _ in range(2)
  )
  return arc_tasks.Pair(input=x, output=y if has_output else None)


def _task(rng, name, *, num_train=3, num_test=2, most=30, test_first=False):
  return arc_tasks.ArcTask(
    name=name,
    train=tuple(_pair(rng, most=most) for _ in range(num_train)),
    test=tuple(_pair(rng, most=most) for _ in range(num_test)),
    test_first=test_first,
  )


def _make_tasks(seed=0):
  rng = np.random.default_rng(seed)
  small = {"most": 4}
  black = arc_tasks.Pair(np.zeros((1, 1), np.uint8), np.zeros((1, 2), np.uint8))
  return {
    "training": [
      _task(rng, "big"),
      _task(rng, "small", **small),
      _task(rng, "test_first", test_first=True, **small),
      arc_tasks.ArcTask("black", (black,), (black,), test_first=False),
    ],
    "evaluation": [_task(rng, f"asked{i}", num_test=1 + i) for i in range(3)],
    "concept": [_task(rng, f"concept{i}", num_test=3) for i in range(2)],
  }


def _plan(tasks, seed=0):
  rng = np.random.RandomState(seed)
  return arc_plan.build(tasks, num_augmentations=NUM_VARIANTS, rng=rng)


@pytest.fixture(name="tasks")
def _tasks():
  return _make_tasks()


def _train(tasks, *, seed=0, plan=None, test_subset="evaluation"):
  return arc_dataset.training_set(
    tasks, plan or _plan(tasks), test_subset=test_subset, seed=seed
  )


def _test(tasks, *, test_subset="evaluation"):
  return arc_dataset.test_set(tasks, _plan(tasks), test_subset=test_subset)


def _puzzle_of(variants, examples):
  return np.searchsorted(variants.puzzle_indices, examples, "right") - 1


def _fetch_all(variants):
  examples = np.arange(variants.num_examples)
  return variants.fetch(examples, _puzzle_of(variants, examples))


def _expected_pairs(task, subset):
  """The pairs of a task that are trained on when "evaluation" is the test."""
  if subset == "evaluation":
    return task.train
  both = (task.train, task.test)
  return sum(both[::-1] if task.test_first else both, ())


def _all_variants(variants, pairs_of):
  """Input and output of every example, made one by one."""
  for group, task in enumerate(variants.tasks):
    for puzzle in range(*variants.group_indices[group : group + 2]):
      for pair in pairs_of(task):
        yield tuple(
          arc_grids.apply(
            grid,
            transform=variants.transforms[puzzle],
            colours=variants.colours[puzzle],
          )
          for grid in (pair.input, pair.output)
        )


def _corner(tokens):
  """Row and column of the first colour."""
  return divmod(
    int(np.argmax(tokens >= arc_grids.FIRST_COLOUR)), arc_grids.SIDE
  )


# --- what is in the sets -----------------------------------------------------


def test_sets_are_puzzles(tasks):
  for variants in (_train(tasks), _test(tasks)):
    whole = puzzle_set.PuzzleSet(
      *_fetch_all(variants),
      puzzle_ids=variants.puzzle_ids,
      puzzle_indices=variants.puzzle_indices,
      group_indices=variants.group_indices,
    )
    for name in ("num_examples", "num_puzzles", "num_groups", "seq_len"):
      assert getattr(variants, name) == getattr(whole, name)
    assert len(variants.tasks) == whole.num_groups
    assert len(variants.transforms) == whole.num_puzzles
    assert variants.colours.shape == (whole.num_puzzles, 10)


def test_test_set_by_hand_made_variants(tasks):
  plan = _plan(tasks)
  variants = _test(tasks)
  order = [name for subset, name in plan.groups if subset == "evaluation"]
  assert [task.name for task in variants.tasks] == order
  names = plan.identifiers()
  first = variants.puzzle_ids[variants.group_indices[:-1]]
  assert [names[row] for row in first] == order
  inputs, labels = _fetch_all(variants)
  made = list(_all_variants(variants, lambda task: task.test))
  assert len(made) == variants.num_examples == 7 * (1 + 2 + 3)
  for i, (x, y) in enumerate(made):
    np.testing.assert_array_equal(inputs[i], arc_grids.encode(x))
    np.testing.assert_array_equal(labels[i], arc_grids.encode(y))


def test_training_set_by_hand_made_variants(tasks):
  plan = _plan(tasks)
  subset_of = {name: subset for subset, name in plan.groups}
  variants = _train(tasks)
  np.testing.assert_array_equal(variants.puzzle_ids, plan.rows)
  assert [task.name for task in variants.tasks] == [n for _, n in plan.groups]
  inputs, labels = _fetch_all(variants)
  made = _all_variants(
    variants, lambda task: _expected_pairs(task, subset_of[task.name])
  )
  for i, (x, y) in enumerate(itertools.islice(made, variants.num_examples)):
    row, column = _corner(inputs[i])
    np.testing.assert_array_equal(
      inputs[i], arc_grids.encode(x, row=row, column=column)
    )
    np.testing.assert_array_equal(
      labels[i], arc_grids.encode(y, row=row, column=column)
    )
  assert i == variants.num_examples - 1
  assert next(made, None) is None


def test_no_test_answer_is_trained_on(tasks):
  plan = _plan(tasks)
  before = _fetch_all(_train(tasks, plan=plan))
  changed = dict(tasks)
  changed["evaluation"] = [
    dataclasses.replace(task, test=(task.train[0],))
    for task in tasks["evaluation"]
  ]
  np.testing.assert_array_equal(_fetch_all(_train(changed, plan=plan)), before)


def test_the_order_of_the_file_is_kept(tasks):
  (task,) = (t for t in tasks["training"] if t.test_first)
  turned = dataclasses.replace(task, test_first=False)
  changed = {
    **tasks,
    "training": [turned if t is task else t for t in tasks["training"]],
  }
  plan = _plan(tasks)
  assert _plan(changed).identifiers() == plan.identifiers()
  mine, theirs = _train(tasks, plan=plan), _train(changed, plan=plan)
  assert mine.fingerprint() != theirs.fingerprint()


def test_any_examples_in_any_order(tasks):
  rng = np.random.default_rng(0)
  for variants in (_train(tasks), _test(tasks)):
    inputs, labels = _fetch_all(variants)
    for size in (0, 1, 50):
      examples = rng.integers(variants.num_examples, size=size)
      fetched = variants.fetch(examples, _puzzle_of(variants, examples))
      np.testing.assert_array_equal(fetched[0], inputs[examples])
      np.testing.assert_array_equal(fetched[1], labels[examples])


# --- missing answers ---------------------------------------------------------


def _forget(task, *, train=0, test=0):
  """Takes the outputs of the first pairs away."""

  def without(pairs, count):
    return tuple(
      dataclasses.replace(pair, output=None) if i < count else pair
      for i, pair in enumerate(pairs)
    )

  return dataclasses.replace(
    task, train=without(task.train, train), test=without(task.test, test)
  )


def test_questions_without_answers(tasks):
  known = {**tasks, "evaluation": tasks["evaluation"][-1:]}
  unknown = {
    **known,
    "evaluation": [_forget(known["evaluation"][0], test=2)],
  }
  variants = _test(unknown)
  inputs, labels = _fetch_all(variants)
  assert variants.num_examples == 7 * 3
  has_label = labels.any(axis=1)
  np.testing.assert_array_equal(has_label, [False, False, True] * 7)
  made = list(_all_variants(_test(known), lambda task: task.test))
  shapes = {grid.shape for grid, _ in made}
  assert {grid.shape for grid in arc_grids.crop(inputs)} == shapes
  batch = next(loader.eval_batches(variants, batch_size=2))
  assert (batch["labels"] == loader.IGNORE_LABEL).all()


def test_unknown_pairs_are_not_trained_on(tasks):
  changed = {**tasks, "concept": [_forget(t, test=2) for t in tasks["concept"]]}
  plan = _plan(tasks)
  whole = _train(tasks, plan=plan)
  variants = _train(changed, plan=plan)
  gone = 2 * 2 * (NUM_VARIANTS + 1)
  assert variants.num_examples == whole.num_examples - gone
  assert _fetch_all(variants)[1].any(axis=1).all()


def test_a_task_with_nothing_to_train_on(tasks):
  task = _forget(tasks["concept"][1], train=3, test=3)
  changed = {**tasks, "concept": [tasks["concept"][0], task]}
  with pytest.raises(
    errors.UserError,
    match="task 'concept1' of the subset 'concept' has no pair to train on",
  ):
    _train(changed)
  task = dataclasses.replace(tasks["evaluation"][0], train=())
  with pytest.raises(errors.UserError, match=r"'asked0' .* 'evaluation'"):
    _train({**tasks, "evaluation": [task]})


def test_a_task_with_nothing_to_test(tasks):
  task = dataclasses.replace(tasks["evaluation"][0], test=())
  changed = {**tasks, "evaluation": [*tasks["evaluation"][1:], task]}
  with pytest.raises(
    errors.UserError,
    match="task 'asked0' of the subset 'evaluation' has no test pair",
  ):
    _test(changed)


def test_no_such_subset(tasks):
  with pytest.raises(
    errors.UserError,
    match=r"subset 'evaluation2'.* subsets are training, evaluation, concept$",
  ):
    _test(tasks, test_subset="evaluation2")


# --- with the rest -----------------------------------------------------------


def test_fingerprint_changes_with_what_is_in_it(tasks):
  plan = _plan(tasks)
  other_colours = plan.colours.copy()
  other_colours[-1, 1:] = other_colours[-1, :0:-1]
  changed = _make_tasks()
  changed["concept"][0].train[0].output[0, 0] ^= 1
  sets = [
    _train(tasks),
    _train(tasks, seed=1),
    _train(tasks, plan=_plan(tasks, seed=1)),
    _train(tasks, plan=dataclasses.replace(plan, colours=other_colours)),
    _train(
      tasks, plan=dataclasses.replace(plan, transforms=plan.transforms ^ 1)
    ),
    _train(tasks, plan=dataclasses.replace(plan, rows=plan.rows[::-1])),
    _train(tasks, test_subset="concept"),
    _train(changed, plan=plan),
    _test(tasks),
    _test(tasks, test_subset="concept"),
  ]
  assert len({variants.fingerprint() for variants in sets}) == len(sets)
  assert _train(tasks).fingerprint() == sets[0].fingerprint()


def test_batches(tasks):
  variants = _train(tasks)
  whole_inputs, whole_labels = _fetch_all(variants)
  known = {
    row: set(
      map(
        bytes,
        whole_inputs[slice(*variants.puzzle_indices[puzzle : puzzle + 2])],
      )
    )
    for puzzle, row in enumerate(variants.puzzle_ids.tolist())
  }
  iterator = loader.train_batches(variants, batch_size=16, seed=0)
  for _, batch in zip(range(20), iterator, strict=False):
    for row, tokens in zip(
      batch["puzzle_ids"].tolist(), batch["inputs"], strict=True
    ):
      assert tokens.astype(np.uint8).tobytes() in known[row]
    assert batch["labels"].max() < arc_grids.VOCAB_SIZE
  batches = list(loader.eval_batches(variants, batch_size=16))
  masks = np.concatenate([batch["mask"] for batch in batches])
  labels = np.concatenate([batch["labels"] for batch in batches])[masks]
  np.testing.assert_array_equal(np.maximum(labels, 0), whole_labels)


# --- offsets in the 30 x 30 cells --------------------------------------------


def _generated_set(tasks, *, num_augmentations=6, seed=0):
  plan = arc_plan.build(
    tasks, num_augmentations=num_augmentations, rng=np.random.RandomState(0)
  )
  return arc_dataset.training_set(
    tasks, plan, test_subset="evaluation", seed=seed
  )


def _first_cells(variants):
  """Row and column of each example's first colour, [E, 2]."""
  examples = np.arange(variants.num_examples)
  puzzles = np.searchsorted(variants.puzzle_indices, examples, "right") - 1
  inputs, labels = variants.fetch(examples, puzzles)
  cells = [
    np.argmax(tokens >= arc_grids.FIRST_COLOUR, axis=1)
    for tokens in (inputs, labels)
  ]
  np.testing.assert_array_equal(*cells)  # both grids of a pair stand together
  return np.stack(np.divmod(cells[0], arc_grids.SIDE), axis=1)


def test_one_example_of_each_puzzle_stays_at_the_first_cell():
  variants = _generated_set(arc_load.generate(40, 1, seed=0))
  unmoved = (_first_cells(variants) == 0).all(axis=1)
  starts = variants.puzzle_indices[:-1]
  counts = np.add.reduceat(unmoved.astype(int), starts)
  assert counts.min() == 1
  # Of the others, one in 26 * 26 or fewer stays there by chance.
  assert (counts == 1).mean() > 0.95
  sizes = np.diff(variants.puzzle_indices)
  at = np.flatnonzero(unmoved) - np.repeat(starts, counts)
  of_four = at[np.repeat(sizes, counts) == 4]
  share = np.bincount(of_four, minlength=4) / len(of_four)
  assert len(of_four) >= 280
  assert abs(share - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / len(of_four))


def test_all_places_are_equally_likely():
  rng = np.random.default_rng(0)
  shapes = ((1, 27), (2, 1))  # together, room for 28 rows beside 3 columns
  pairs = tuple(
    arc_tasks.Pair(
      *(rng.integers(10, size=shape, dtype=np.uint8) for shape in shapes)
    )
    for _ in range(9)
  )
  tasks = {"training": [arc_tasks.ArcTask("t", pairs, (), test_first=False)]}
  variants = _generated_set(tasks, num_augmentations=1000)
  cells = _first_cells(variants)
  swapped = arc_grids.SWAPS_SIDES[variants.transforms].repeat(9)
  cells[swapped] = cells[swapped][:, ::-1]
  seen = np.zeros((30, 30), int)
  np.add.at(seen, tuple(cells.T), 1)
  assert not seen[29:].any()
  assert not seen[:, 4:].any()
  # Where all begin, one example of each puzzle stands in any case.
  seen = seen[:29, :4].ravel()
  seen[0] -= variants.num_puzzles
  expected = 8 * variants.num_puzzles / len(seen)
  assert expected > 60
  assert abs(seen - expected).max() < 5 * np.sqrt(expected)


def test_places_depend_on_the_seed_alone():
  tasks = arc_load.generate(5, 1, seed=0)
  first, same, other = (
    _first_cells(_generated_set(tasks, seed=seed)) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, same)
  assert (first != other).any(axis=1).mean() > 0.5
