"""Golden case 11: how the official loader fills batches, against ours.

Ours draws other numbers on purpose: batch k is a pure function of (seed, k). So
the official batches and ours are held to the same rules by one function, and
fed the official group order and choice of puzzles (from Philox, reproducible),
our packing has to compose the official batches. Left aside are the order of
examples inside a puzzle, which officially comes from the global, unseeded state
of NumPy (so two replicas may disagree about it), and `two_paths`: several data
paths are broken in the published code.
"""

import collections
import itertools
import math
import re

import golden_support as golden
import numpy as np
import pytest

from trm_jax.data import loader, puzzle_set
from trm_jax.data import sampler as sampler_lib

SINGLE_HOST_RUNS = ("multi", "multi_other_np_seed", "single")
SAME_STATE = "two_replicas_same_np_state"
OTHER_STATE = "two_replicas_different_np_state"
STANDARD_DEVIATIONS = 6


def _case():
  return golden.load("case11_sampling")


def _settings():
  return golden.json_of(_case(), "settings")


def _puzzles(name) -> puzzle_set.PuzzleSet:
  data = golden.under(_case(), f"data/{name}/")
  return puzzle_set.PuzzleSet(
    inputs=data["inputs"],
    labels=data["labels"],
    puzzle_ids=data["puzzle_identifiers"],
    puzzle_indices=data["puzzle_indices"].astype(np.int64),
    group_indices=data["group_indices"].astype(np.int64),
  )


def _iterations(run) -> list[str]:
  names = {key.split("/")[0] for key in golden.under(_case(), f"train/{run}/")}
  return sorted(name for name in names if name.startswith("iter"))


def _puzzles_of(puzzles, examples):
  return np.searchsorted(puzzles.puzzle_indices, examples, "right") - 1


# --- the rules ---------------------------------------------------------------


def _visits(puzzles, examples, batch_size) -> list[tuple[int, tuple[int, ...]]]:
  """Takes a batch apart: puzzles in the order of their visits, with examples.

  Holds it to the rules on the way: it is full, examples are of their puzzle and
  not repeated, and every puzzle is whole but the last, which may be cut.
  """
  assert len(examples) == batch_size
  visits = []
  start = 0
  while start < batch_size:
    puzzle = int(_puzzles_of(puzzles, examples[start]))
    first, end = puzzles.puzzle_indices[puzzle : puzzle + 2]
    shown = examples[start : start + end - first]
    assert len(set(shown.tolist())) == len(shown)
    assert ((first <= shown) & (shown < end)).all()
    visits.append((puzzle, tuple(shown.tolist())))
    start += len(shown)
  return visits


def _check_rules(puzzles, batches, batch_size):
  """Returns the visits of consecutive batches that begin with an epoch.

  Beside the rules of `_visits`, each epoch has to visit every group once.
  """
  visits = [v for b in batches for v in _visits(puzzles, b, batch_size)]
  group_of = np.repeat(
    np.arange(puzzles.num_groups), np.diff(puzzles.group_indices)
  )
  groups = [int(group_of[puzzle]) for puzzle, _ in visits]
  for start in range(0, len(groups), puzzles.num_groups):
    epoch = groups[start : start + puzzles.num_groups]
    assert len(set(epoch)) == len(epoch)
  return visits


@pytest.mark.parametrize("run", SINGLE_HOST_RUNS)
def test_official_batches_keep_the_rules(run):
  puzzles = _puzzles(run.split("_")[0])
  batch_size = _settings()["global_batch_size"]
  assert len(_iterations(run)) > 1
  for iteration in _iterations(run):
    drawn = golden.under(_case(), f"train/{run}/{iteration}/")
    visits = _check_rules(puzzles, drawn["example_ids"], batch_size)
    assert len(visits) > puzzles.num_groups  # the second epoch is begun
    np.testing.assert_array_equal(
      drawn["puzzle_identifiers"],
      puzzles.puzzle_ids[_puzzles_of(puzzles, drawn["example_ids"])],
    )
    assert (drawn["effective"] == batch_size).all()


@pytest.mark.parametrize("name", ["multi", "single"])
@pytest.mark.parametrize("batch_size", [1, 4, 5, 64])
def test_our_batches_keep_the_rules(name, batch_size):
  puzzles = _puzzles(name)
  sampler = sampler_lib.GroupSampler(puzzles, batch_size=batch_size, seed=3)
  per_block = sampler.batches_per_block
  for block in range(3):
    ks = range(block * per_block, (block + 1) * per_block)
    batches = [sampler.batch(k) for k in ks]
    visits = _check_rules(puzzles, [b[0] for b in batches], batch_size)
    assert len(visits) > puzzles.num_groups
    for examples, puzzle_indices in batches:
      np.testing.assert_array_equal(
        puzzle_indices, _puzzles_of(puzzles, examples)
      )


def test_broken_batches_are_noticed():
  puzzles = _puzzles("multi")
  sampler = sampler_lib.GroupSampler(puzzles, batch_size=5, seed=3)
  good = [sampler.batch(k)[0] for k in range(10)]
  _check_rules(puzzles, good, 5)
  with pytest.raises(AssertionError):  # too short
    _check_rules(puzzles, [*good, good[0][:4]], 5)
  with pytest.raises(AssertionError):  # a group comes twice in an epoch
    _check_rules(puzzles, [good[0], good[0]], 5)
  big = int(np.argmax(np.diff(puzzles.puzzle_indices)))
  first = puzzles.puzzle_indices[big]
  assert puzzles.puzzle_indices[big + 1] - first > 1
  with pytest.raises(AssertionError):  # an example comes twice
    _check_rules(puzzles, [np.array([first, first])], 2)
  other = puzzles.puzzle_indices[big - 1]
  with pytest.raises(AssertionError):  # a puzzle is cut in the middle
    _check_rules(puzzles, [np.array([first, other])], 2)


# --- official draws, our packing ---------------------------------------------


class _Replayed(sampler_lib.GroupSampler):
  """Our sampler with the official choice of puzzles in its first block."""

  def __init__(self, puzzles, *, batch_size, chosen):
    super().__init__(puzzles, batch_size=batch_size, seed=0)
    self._chosen = chosen

  def _make_plan(self, block):
    assert block == 0
    starts = sampler_lib.pack(self._sizes[self._chosen], self.batch_size)
    return sampler_lib.Plan(puzzles=self._chosen, starts=starts)

  def all_batches(self):
    return [self.batch(k) for k in range(len(self._plan(0).starts) - 1)]


def _official_order(rng, puzzles, epochs):
  return np.concatenate(
    [rng.permutation(puzzles.num_groups) for _ in range(epochs)]
  )


def _official_choice(rng, puzzles, groups):
  """One draw after the other, as the official code makes them."""
  ends = puzzles.group_indices
  return np.array([rng.integers(ends[g], ends[g + 1]) for g in groups])


def _official_draws(puzzles, iteration):
  settings = _settings()
  # The official code counts up before it draws.
  seed = settings["seed"] + int(iteration.removeprefix("iter")) + 1
  rng = np.random.Generator(np.random.Philox(seed=seed))
  order = _official_order(rng, puzzles, settings["epochs_per_iter"])
  return order, _official_choice(rng, puzzles, order)


def _composition(puzzle_indices) -> list[tuple[int, int]]:
  """Puzzles of a batch and how many rows in a row they have."""
  return [(p, len(list(rows))) for p, rows in itertools.groupby(puzzle_indices)]


def test_official_draws_are_reproduced():
  for iteration in _iterations("multi"):
    recorded = golden.under(_case(), f"philox/multi/{iteration}/")
    order, chosen = _official_draws(_puzzles("multi"), iteration)
    np.testing.assert_array_equal(order, recorded["group_order"])
    np.testing.assert_array_equal(chosen, recorded["puzzle_choice"])


@pytest.mark.parametrize("run", [*SINGLE_HOST_RUNS, SAME_STATE, OTHER_STATE])
def test_our_packing_composes_the_official_batches(run):
  puzzles = _puzzles("single" if run == "single" else "multi")
  alone = run in SINGLE_HOST_RUNS
  ranks = [run] if alone else [f"{run}/rank0", f"{run}/rank1"]
  for iteration in _iterations(ranks[0]):
    official = np.concatenate(
      [_case()[f"train/{rank}/{iteration}/example_ids"] for rank in ranks],
      axis=1,
    )
    # Replicas with different states may show an example twice.
    if run != OTHER_STATE:
      _check_rules(puzzles, official, official.shape[1])
    _, chosen = _official_draws(puzzles, iteration)
    replayed = _Replayed(
      puzzles, batch_size=official.shape[1], chosen=chosen
    ).all_batches()
    assert len(replayed) == len(official)
    for (examples, puzzle_indices), expected in zip(
      replayed, official, strict=True
    ):
      assert _composition(puzzle_indices) == _composition(
        _puzzles_of(puzzles, expected)
      )
      if run == "single":
        np.testing.assert_array_equal(examples, expected)


def test_single_calls_are_composed_alike():
  case = golden.under(_case(), "sample_batch/")
  puzzles = _puzzles("multi")
  batch_size = _settings()["global_batch_size"]
  rng = np.random.Generator(np.random.Philox(seed=int(case["philox_seed"])))
  order = _official_order(rng, puzzles, 1)
  np.testing.assert_array_equal(order, case["group_order"])
  chosen = _official_choice(rng, puzzles, order)
  sizes = np.diff(puzzles.puzzle_indices)[chosen]
  count = sum(key.endswith("/examples") for key in case)
  calls = [case[f"{t}/examples"] for t in range(count)]
  after = [int(case[f"{t}/start_index_after"]) for t in range(count)]
  full = sum(len(call) == batch_size for call in calls)
  starts = sampler_lib.pack(sizes, batch_size).tolist()
  assert starts[: full + 1] == [0, *after[:full]]
  assert full == count or full == len(starts) - 1
  # What is not full is kept by a single call, and dropped by a loader.
  for t, (start, end) in enumerate(itertools.pairwise([0, *after])):
    rows = np.repeat(chosen[start:end], sizes[start:end])[:batch_size]
    np.testing.assert_array_equal(case[f"{t}/puzzles"], rows)
    np.testing.assert_array_equal(_puzzles_of(puzzles, calls[t]), rows)
    _visits(puzzles, calls[t], len(rows))


@pytest.mark.parametrize(
  ("sizes", "batch_size", "starts"),
  [
    ([1, 1, 1, 1], 2, [0, 2, 4]),
    ([1, 1, 1], 2, [0, 2]),  # the tail is dropped
    ([3, 3, 3], 4, [0, 2]),  # the second is cut, not carried over
    ([4, 1, 9, 2, 2], 4, [0, 1, 3, 5]),
    ([1, 2], 4, [0]),  # nothing is full
  ],
)
def test_packing_by_hand(sizes, batch_size, starts):
  assert sampler_lib.pack(np.array(sizes), batch_size).tolist() == starts


# --- the test set ------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [5, 6])
def test_evaluation_batches_are_the_official_ones(batch_size):
  case = golden.under(_case(), "test/")
  pattern = rf"(gbs{batch_size}_replicas(\d+)_rank(\d+))/inputs"
  runs = [m.groups() for key in case if (m := re.fullmatch(pattern, key))]
  assert runs
  num_real = np.zeros(len(case[f"{runs[0][0]}/effective"]), int)
  for run, count, rank in runs:
    official = golden.under(case, f"{run}/")
    ours = [
      (name, batch)
      for name, data in (("all", "multi"), ("extra", "test_extra"))
      for batch in loader.eval_batches(
        _puzzles(data), batch_size=batch_size, shard=(int(rank), int(count))
      )
    ]
    assert [name for name, _ in ours] == golden.json_of(official, "sets")
    for t, (_, batch) in enumerate(ours):
      np.testing.assert_array_equal(batch["inputs"], official["inputs"][t])
      np.testing.assert_array_equal(batch["labels"], official["labels"][t])
      np.testing.assert_array_equal(
        batch["puzzle_ids"], official["puzzle_identifiers"][t]
      )
      num_real[t] += batch["mask"].sum()
  np.testing.assert_array_equal(num_real, case[f"{runs[0][0]}/effective"])


# --- our draws ---------------------------------------------------------------


def _assert_uniform(seen, ways):
  """Asserts that each of the ways came up about equally often."""
  counts = collections.Counter(seen)
  assert set(counts) <= set(ways)
  expected = len(seen) / len(ways)
  deviation = math.sqrt(expected * (1 - 1 / len(ways)))
  for way in ways:
    assert abs(counts[way] - expected) <= STANDARD_DEVIATIONS * deviation, way


def test_our_draws_are_uniform():
  puzzles = _puzzles("multi")
  num_groups = puzzles.num_groups
  sampler = sampler_lib.GroupSampler(puzzles, batch_size=50, seed=1)
  firsts, choices, orders = [], [[] for _ in range(num_groups)], {}
  group_of = np.repeat(np.arange(num_groups), np.diff(puzzles.group_indices))
  for block in range(30):
    first = block * sampler.batches_per_block
    ks = range(first, first + sampler.batches_per_block)
    batches = [sampler.batch(k)[0] for k in ks]
    for number, (puzzle, shown) in enumerate(
      _check_rules(puzzles, batches, sampler.batch_size)
    ):
      choices[group_of[puzzle]].append(puzzle)
      # Whether a puzzle is cut has nothing to do with its order.
      if len(shown) == np.diff(puzzles.puzzle_indices)[puzzle]:
        orders.setdefault(puzzle, []).append(shown)
      if number % num_groups == 0:
        firsts.append(int(group_of[puzzle]))
  _assert_uniform(firsts, range(num_groups))
  for group, seen in enumerate(choices):
    _assert_uniform(seen, range(*puzzles.group_indices[group : group + 2]))
  assert len(orders) == puzzles.num_puzzles
  for puzzle, seen in orders.items():
    members = range(*puzzles.puzzle_indices[puzzle : puzzle + 2])
    if len(members) <= 4:  # of more, there are too many orders
      _assert_uniform(seen, list(itertools.permutations(members)))
