"""Golden cases 10 (ARC's grids and variants) and 10b (a whole data set)."""

import arc_hashes
import golden_support as golden
import numpy as np
import pytest

from trm_jax.data.arc import dataset as arc_dataset
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import plan as arc_plan
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.data.arc import variants as arc_variants

OFFICIAL_FIELDS = {
  "puzzle_identifiers": "puzzle_ids",
  "puzzle_indices": "puzzle_indices",
  "group_indices": "group_indices",
}


@pytest.fixture(name="grids")
def _grids():
  return golden.load("case10_arc")


@pytest.fixture(name="build")
def _build():
  return golden.load("case10b_arc_build")


def _assert_same(actual, expected):
  assert actual.shape == expected.shape
  assert actual.dtype == expected.dtype
  np.testing.assert_array_equal(actual, expected)


def _count(case, prefix):
  return len({key.split("/")[1] for key in case if key.startswith(prefix)})


# --- case 10 -----------------------------------------------------------------


def test_golden_dihedral(grids):
  for transform in range(arc_grids.NUM_TRANSFORMS):
    turned = arc_grids.dihedral(grids["dihedral/grid"], transform)
    _assert_same(turned, grids[f"dihedral/t{transform}"])


def test_golden_variants(grids):
  names = golden.json_of(grids, "aug/names")
  rng = np.random.RandomState(int(grids["aug/np_random_seed"]))
  assert names
  for k, name in enumerate(names):
    task, transform, digits = arc_grids.parse_name(name, where="names")
    assert task == f"puz{k:02}"
    transforms, colours = arc_variants.draw(1, rng=rng)
    assert transforms == [transform]
    assert "".join(map(str, colours[0].tolist())) == digits
    variant = {"transform": transform, "colours": colours[0]}
    x, y = grids[f"aug/{k}/x"], grids[f"aug/{k}/y"]
    _assert_same(arc_grids.apply(x, **variant), y)
    _assert_same(arc_grids.invert(y, **variant), x)
    _assert_same(arc_grids.invert(x, **variant), grids[f"aug/{k}/inv_of_x"])


def test_golden_encode(grids):
  assert _count(grids, "encode/") > 1
  for k in range(_count(grids, "encode/")):
    row, column = grids[f"encode/{k}/pads"].tolist()
    for part in ("inp", "out"):
      tokens = arc_grids.encode(
        grids[f"encode/{k}/{part}"], row=row, column=column
      )
      _assert_same(tokens, grids[f"encode/{k}/seq_{part}"])


def test_golden_crop(grids):
  count = int(grids["crop/n"])
  answers = np.stack([grids[f"crop/{k}/seq"] for k in range(count)])
  for k, grid in enumerate(arc_grids.crop(answers)):
    _assert_same(grid, grids[f"crop/{k}/grid"])


def test_golden_hashes(grids):
  hashes = golden.json_of(grids, "grid_hash/hashes")
  for k, expected in enumerate(hashes):
    assert arc_hashes.grid_hash(grids[f"grid_hash/{k}"]) == expected
  pairs = {"train": [], "test": []}
  for k in range(_count(grids, "puzzle_hash/") - 2):
    split = str(grids[f"puzzle_hash/{k}/split"])
    x, y = grids[f"puzzle_hash/{k}/inp"], grids[f"puzzle_hash/{k}/out"]
    pairs[split].append((x, y))
  whole = arc_hashes.task_hash(pairs["train"] + pairs["test"])
  assert whole == str(grids["puzzle_hash/hash"])
  assert arc_hashes.task_hash(pairs["train"]) == str(
    grids["puzzle_hash/hash_train_only"]
  )


# --- case 10b ----------------------------------------------------------------


def _grid(rows):
  return np.array(rows, np.uint8)


def _task(name, challenge, solutions):
  train = tuple(
    arc_tasks.Pair(_grid(pair["input"]), _grid(pair["output"]))
    for pair in challenge["train"]
  )
  test = tuple(
    arc_tasks.Pair(_grid(pair["input"]), _grid(solution))
    for pair, solution in zip(challenge["test"], solutions, strict=True)
  )
  # The case's JSON has its keys sorted; the file that was built named the
  # training pairs first.
  return arc_tasks.ArcTask(
    name=name,
    train=train,
    test=test,
    test_first=False,
  )


def _tasks(case):
  challenges = golden.json_of(case, "challenges")
  solutions = golden.json_of(case, "solutions")
  return {
    subset: [
      _task(name, challenge, solutions[subset][name])
      for name, challenge in challenges[subset].items()
    ]
    for subset in golden.json_of(case, "builder")["subsets"]
  }


def _plan(case, tasks):
  """The plan, and the random state that it leaves behind."""
  builder = golden.json_of(case, "builder")
  rng = np.random.RandomState(builder["seed"])
  plan = arc_plan.build(tasks, num_augmentations=builder["num_aug"], rng=rng)
  return plan, rng


def _officially_placed(case, tasks, plan, rng):
  """Input and label tokens at the places that the official builder draws."""
  inputs, labels = [], []
  for group, (subset, name) in enumerate(plan.groups):
    (task,) = (task for task in tasks[subset] if task.name == name)
    pairs = task.train
    if subset != golden.json_of(case, "builder")["test_set_name"]:
      pairs += task.test
    for puzzle in range(*plan.group_indices[group : group + 2]):
      variant = {
        "transform": plan.transforms[puzzle],
        "colours": plan.colours[puzzle],
      }
      stays = rng.randint(0, len(pairs))
      for i, pair in enumerate(pairs):
        x, y = (
          arc_grids.apply(grid, **variant) for grid in (pair.input, pair.output)
        )
        row = column = 0
        if i != stays:
          row = rng.randint(0, arc_grids.SIDE - max(len(x), len(y)) + 1)
          column = rng.randint(
            0, arc_grids.SIDE - max(x.shape[1], y.shape[1]) + 1
          )
        inputs.append(arc_grids.encode(x, row=row, column=column))
        labels.append(arc_grids.encode(y, row=row, column=column))
  return np.stack(inputs), np.stack(labels)


def _grids_anywhere(tokens):
  """The grids of tokens [b, 900], wherever they stand."""
  return arc_grids.crop(
    np.stack(
      [
        np.roll(row, -np.argmax(row >= arc_grids.FIRST_COLOUR))
        for row in tokens
      ]
    )
  )


def test_golden_identifiers(build):
  plan, _ = _plan(build, _tasks(build))
  names = plan.identifiers()
  assert names == golden.json_of(build, "identifiers")
  assert plan.num_rows == len(names)
  again = arc_plan.from_identifiers(names, _tasks(build), where="golden")
  assert again.identifiers() == names
  sparse = plan.sparse(golden.json_of(build, "builder")["num_aug"])
  log = str(build["log"])
  assert log.count("augmentation not full") == len(sparse)
  for name, count in sparse:
    assert f"[Puzzle {name}] augmentation not full, only {count}" in log


def _sets(case, tasks, plan):
  test_subset = golden.json_of(case, "builder")["test_set_name"]
  return {
    "train": arc_dataset.training_set(
      tasks, plan, test_subset=test_subset, seed=0
    ),
    "test": arc_dataset.test_set(tasks, plan, test_subset=test_subset),
  }


def _all_examples(variants):
  examples = np.arange(variants.num_examples)
  puzzles = np.searchsorted(variants.puzzle_indices, examples, "right") - 1
  return variants.fetch(examples, puzzles)


def test_golden_indices(build):
  tasks = _tasks(build)
  plan, _ = _plan(build, tasks)
  for split, variants in _sets(build, tasks, plan).items():
    for official, ours in OFFICIAL_FIELDS.items():
      np.testing.assert_array_equal(
        getattr(variants, ours), build[f"{split}/{official}"]
      )
    metadata = golden.json_of(build, f"{split}/metadata")
    assert metadata["vocab_size"] == arc_grids.VOCAB_SIZE
    assert metadata["seq_len"] == variants.seq_len
    assert metadata["num_puzzle_identifiers"] == plan.num_rows
    assert metadata["total_groups"] == variants.num_groups
    assert metadata["total_puzzles"] == variants.num_puzzles
    assert len(build[f"{split}/inputs"]) == variants.num_examples


def test_golden_test_examples(build):
  tasks = _tasks(build)
  plan, _ = _plan(build, tasks)
  variants = _sets(build, tasks, plan)["test"]
  inputs, labels = _all_examples(variants)
  _assert_same(inputs, build["test/inputs"])
  _assert_same(labels, build["test/labels"])
  puzzles = golden.json_of(build, "test_puzzles")
  assert {task.name for task in variants.tasks} == set(puzzles)


def test_golden_training_examples(build):
  tasks = _tasks(build)
  plan, rng = _plan(build, tasks)
  inputs, labels = _officially_placed(build, tasks, plan, rng)
  _assert_same(inputs, build["train/inputs"])
  _assert_same(labels, build["train/labels"])


def test_golden_training_examples_placed_otherwise(build):
  tasks = _tasks(build)
  plan, _ = _plan(build, tasks)
  variants = _sets(build, tasks, plan)["train"]
  fetched = _all_examples(variants)
  for part, ours in zip(("inputs", "labels"), fetched, strict=True):
    official = build[f"train/{part}"]
    assert (ours != official).any()
    for actual, expected in zip(
      _grids_anywhere(ours), _grids_anywhere(official), strict=True
    ):
      _assert_same(actual, expected)
