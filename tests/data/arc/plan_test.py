"""Plans of ARC variants, against the official builder's way in plain words."""

import dataclasses
import itertools

import arc_hashes
import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import plan as arc_plan
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.data.arc import variants as arc_variants


def _grid(rng, *, most=3, num_colours=arc_grids.NUM_COLOURS):
  shape = rng.integers(1, most + 1, 2)
  return rng.integers(num_colours, size=shape, dtype=np.uint8)


def _task(name, train, test=()):
  def pairs(grids):
    return tuple(
      arc_tasks.Pair(
        np.array(x, np.uint8), None if y is None else np.array(y, np.uint8)
      )
      for x, y in grids
    )

  return arc_tasks.ArcTask(
    name=name, train=pairs(train), test=pairs(test), test_first=False
  )


def _random_task(rng, name, **kwargs):
  count = rng.integers(2, 5)
  pairs = [(_grid(rng, **kwargs), _grid(rng, **kwargs)) for _ in range(count)]
  return _task(name, pairs[1:], pairs[:1])


ROW = [[1, 2, 3]]
SPECIAL = [
  _task("black", [([[0]], [[0, 0], [0, 0]])]),
  _task("one_colour", [([[1]], [[1]])]),
  _task("one_colour_row", [([[0, 1, 0]], [[1]])]),
  _task("palindrome", [([[1, 2, 1]], [[2]])], [([[2, 1, 2]], [[1]])]),
  _task("square", [([[1, 2], [2, 1]], [[3]])]),
  # Mirrored, or with colours swapped, one pair becomes the other.
  _task("mirrored_pairs", [(ROW, [[4]]), ([[3, 2, 1]], [[4]])]),
  _task("swapped_pairs", [([[1, 2]], [[3]]), ([[2, 1]], [[3]])]),
  _task("equal_pairs", [(ROW, [[4]]), (ROW, [[4]]), (ROW, [[5]])]),
  _task("in_is_out", [([[1, 2]], [[2, 1]])], [([[2, 1]], [[1, 2]])]),
  _task("no_answer", [([[1, 2]], [[1]])], [([[1, 2]], None)]),
  # Officially an unknown answer counts as [[0]].
  _task("no_answer_or_black", [([[1, 3]], [[0]])], [([[3, 1]], None)]),
]


def _tasks(seed):
  rng = np.random.default_rng(seed)
  return {
    "training": [
      *SPECIAL,
      *(_random_task(rng, f"random{i}") for i in range(5)),
    ],
    "evaluation": [
      _random_task(rng, f"few{i}", most=2, num_colours=3) for i in range(5)
    ],
    "empty": [],
  }


# --- the draws ---------------------------------------------------------------


def _hash(task, transform, colours):
  return arc_hashes.task_hash(
    [
      tuple(
        arc_grids.apply(grid, transform=transform, colours=colours)
        for grid in (
          pair.input,
          np.zeros((1, 1), np.uint8) if pair.output is None else pair.output,
        )
      )
      for pair in (*task.train, *task.test)
    ]
  )


def _identifiers_in_words(tasks, num_augmentations, rng):
  """Makes every variant and hashes it, one trial after the other."""
  names = ["<blank>"]
  for members in tasks.values():
    shuffled = list(members)
    rng.shuffle(shuffled)
    for task in shuffled:
      group = [task.name]
      hashes = {_hash(task, 0, np.arange(10, dtype=np.uint8))}
      if num_augmentations > 0:
        for _ in range(5 * num_augmentations):
          transform = rng.randint(0, 8)
          colours = np.concatenate(
            [
              np.arange(0, 1, dtype=np.uint8),
              rng.permutation(np.arange(1, 10, dtype=np.uint8)),
            ]
          )
          made = _hash(task, transform, colours)
          if made not in hashes:
            hashes.add(made)
            digits = "".join(str(c) for c in colours)
            group.append(f"{task.name}|||t{transform}|||{digits}")
          if len(group) >= num_augmentations + 1:
            break
      names += [name for name in group if name not in names]
  return names


def _state(rng):
  _, key, *rest = rng.get_state()
  return key.tolist(), rest


@pytest.mark.parametrize("num_augmentations", [0, 1, 4, 40])
@pytest.mark.parametrize("seed", [0, 42])
def test_draw_by_draw_as_the_official_builder(num_augmentations, seed):
  tasks = _tasks(seed)
  rng = np.random.RandomState(seed)
  plan = arc_plan.build(tasks, num_augmentations=num_augmentations, rng=rng)
  slow_rng = np.random.RandomState(seed)
  expected = _identifiers_in_words(tasks, num_augmentations, slow_rng)
  assert plan.identifiers() == expected
  assert plan.num_rows == len(expected)
  assert _state(rng) == _state(slow_rng)


def test_a_task_in_two_subsets_shares_its_rows():
  rng = np.random.default_rng(0)
  twice = _random_task(rng, "twice", most=1, num_colours=3)
  tasks = {
    "a": [_random_task(rng, "x"), twice],
    "b": [twice, _random_task(rng, "y")],
    "c": [_random_task(rng, "z"), twice],
  }
  plan = arc_plan.build(
    tasks, num_augmentations=60, rng=np.random.RandomState(1)
  )
  names = plan.identifiers()
  assert names == _identifiers_in_words(tasks, 60, np.random.RandomState(1))
  groups = [
    set(plan.rows[start:end].tolist())
    for start, end in itertools.pairwise(plan.group_indices)
  ]
  at = [g for g, (_, name) in enumerate(plan.groups) if name == "twice"]
  assert len(at) == 3
  first, second, third = (groups[g] for g in at)
  original = names.index("twice")
  assert original in first & second & third
  assert len(plan.rows) > plan.num_rows - 1
  used = set(plan.rows.tolist())
  assert used == set(range(1, plan.num_rows))


@pytest.mark.parametrize("task", SPECIAL, ids=lambda task: task.name)
def test_fingerprints_are_equal_where_hashes_are(task):
  transforms, colours = arc_variants.draw(400, rng=np.random.RandomState(0))
  fingerprints = arc_variants.Fingerprints(
    (pair.input, pair.input if pair.output is None else pair.output)
    for pair in task.train
  )
  numbers = fingerprints(transforms, colours).tolist()
  known = dataclasses.replace(task, test=())
  hashes = [
    _hash(known, *variant) for variant in zip(transforms, colours, strict=True)
  ]
  assert len(set(numbers)) == len(set(hashes))
  assert len(set(zip(numbers, hashes, strict=True))) == len(set(hashes))


def test_fingerprints_tell_apart_what_is_nearly_the_same():
  base = np.zeros((3, 3), np.uint8)
  pairs = [[(base, base)], [(base, base)] * 2, [(base[:2], base)]]
  pairs += [[(base, base[:2])], [(base[:, :2], base)], [(base[:1, :1], base)]]
  for cell, colour, part in itertools.product(range(9), range(1, 10), (0, 1)):
    changed = base.copy()
    changed.flat[cell] = colour
    pairs.append([(changed, base), (base, changed)][part : part + 1])
  same = arc_grids.SAME_COLOURS[None]
  numbers = {
    int(arc_variants.Fingerprints(some)(np.zeros(1, np.uint8), same)[0])
    for some in pairs
  }
  assert len(numbers) == len(pairs)


def test_variants_of_a_plan_are_what_their_names_say():
  tasks = _tasks(3)
  plan = arc_plan.build(
    tasks, num_augmentations=6, rng=np.random.RandomState(0)
  )
  names = plan.identifiers()
  assert [s for s, _ in plan.groups] == ["training"] * 16 + ["evaluation"] * 5
  for g, (_, task) in enumerate(plan.groups):
    first, last = plan.group_indices[g : g + 2]
    assert names[plan.rows[first]] == task
    for p in range(first, last):
      parsed = arc_grids.parse_name(names[plan.rows[p]], where="x")
      digits = "".join(map(str, plan.colours[p].tolist()))
      assert parsed == (task, plan.transforms[p], digits)


def test_sparse_tasks():
  plan = arc_plan.build(
    _tasks(0), num_augmentations=40, rng=np.random.RandomState(0)
  )
  sparse = dict(plan.sparse(40))
  assert sparse["black"] == 1
  assert sparse["one_colour"] == 9
  assert ("one_colour", 9) in plan.sparse(9)
  assert ("one_colour", 9) not in plan.sparse(8)
  assert 9 < sparse["one_colour_row"] <= 18
  assert "random0" not in sparse
  assert not plan.sparse(0)


@pytest.mark.parametrize("name", ["", "<blank>", "a|||t0|||0123456789"])
def test_names_that_cannot_be(name):
  tasks = {"training": [_task(name, [(ROW, ROW)])]}
  rng = np.random.RandomState(0)
  with pytest.raises(errors.UserError, match="subset 'training' has a name"):
    arc_plan.build(tasks, num_augmentations=1, rng=rng)


def test_no_tasks():
  with pytest.raises(errors.UserError, match="no tasks in the subsets a, b"):
    arc_plan.build(
      {"a": [], "b": []}, num_augmentations=1, rng=np.random.RandomState(0)
    )


# --- another program's rows --------------------------------------------------


def _plan(seed=0, num_augmentations=5):
  rng = np.random.RandomState(seed)
  return arc_plan.build(_tasks(0), num_augmentations=num_augmentations, rng=rng)


def _assert_equal(actual, expected):
  for field in dataclasses.fields(arc_plan.VariantTable):
    a, b = getattr(actual, field.name), getattr(expected, field.name)
    np.testing.assert_array_equal(a, b, err_msg=field.name)
    assert type(a) is type(b)


def test_own_identifiers_give_the_same_plan():
  plan = _plan()
  again = arc_plan.from_identifiers(plan.identifiers(), _tasks(0), where="x")
  _assert_equal(again, plan)


def test_rows_of_a_shuffled_list():
  names = _plan().identifiers()[1:]
  names += [f"other|||t{t}|||0123456798" for t in range(8)] + ["more"]
  np.random.default_rng(0).shuffle(names)
  names.insert(0, "<blank>")
  plan = arc_plan.from_identifiers(names, _tasks(0), where="x")
  assert plan.identifiers() == names
  assert plan.num_rows == len(names)
  assert len(plan.unused) == 9
  assert {names[row] for row, _ in plan.unused} == {n for _, n in plan.unused}
  for g, (_, task) in enumerate(plan.groups):
    rows = plan.rows[slice(*plan.group_indices[g : g + 2])].tolist()
    assert names[rows[0]] == task
    assert rows[1:] == sorted(rows[1:])
    assert {names[row] for row in rows} == {
      name for name in names if name.split("|||")[0] == task
    }


def _replaced(at, name):
  names = _plan().identifiers()
  names[at] = name
  return names


@pytest.mark.parametrize(
  ("names", "message"),
  [
    ([], "entry 0 is missing, expected '<blank>'"),
    (_replaced(0, "black"), "entry 0 is 'black', expected '<blank>'"),
    (_replaced(9, "<blank>"), "entry 9: '<blank>' is entry 0 already"),
    (_replaced(9, "a|||t9|||0123456789"), "entry 9: 'a|||t9|||0123456789' is"),
    (
      ["<blank>", *(task.name for task in SPECIAL[1:])],
      "another data set: the originals of 11 of 21 tasks are missing, first"
      " 'black' of the subset 'training'",
    ),
    (
      # A variant alone does not make a task.
      [
        "<blank>",
        *(
          task.name if task.name != "few3" else "few3|||t1|||0132456789"
          for members in _tasks(0).values()
          for task in members
        ),
      ],
      "the originals of 1 of 21 tasks are missing, first 'few3' of the subset"
      " 'evaluation'",
    ),
  ],
)
def test_identifiers_that_do_not_fit(names, message):
  with pytest.raises(errors.UserError) as caught:
    arc_plan.from_identifiers(names, _tasks(0), where="ids.json")
  text = str(caught.value)
  assert text.startswith("ids.json ")
  assert message in text
  assert "\n" not in text
