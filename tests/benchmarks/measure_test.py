"""The fields of measurements follow from times and counts."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import (
  compiled_step,
  loader,
  measure,
  puzzle_table,
  solve,
  train_step,
)
from tests import tiny
from trm_jax import errors
from trm_jax.runtime import flops as flops_lib
from trm_jax.runtime import mesh, program

SIZES = program.DataSpec(vocab_size=6, seq_len=16, num_puzzle_ids=5)
EFFORT = compiled_step.Effort(calls=2, warm_up=1, cold=False)


# --- times -------------------------------------------------------------------


@pytest.mark.parametrize(
  ("seconds", "median", "quartiles", "fastest"),
  [
    ([5.0, 1.0, 2.0, 4.0, 3.0], 3.0, (2.0, 4.0), 1.0),
    ([2.0, 4.0], 3.0, (2.5, 3.5), 2.0),
    ([7.0], 7.0, (7.0, 7.0), 7.0),
  ],
)
def test_median_and_spread(seconds, median, quartiles, fastest):
  timing = measure.Timing.of(seconds)
  assert timing == measure.Timing(median, quartiles, fastest)
  assert timing.divided(2).fields() == {
    "seconds_per_step": median / 2,
    "quartiles": [quartiles[0] / 2, quartiles[1] / 2],
    "fastest": fastest / 2,
  }


def test_only_calls_after_the_warm_up_are_timed():
  called = []
  ticks = iter([10.0, 11.0, 20.0, 23.0])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(measure.time, "perf_counter", lambda: next(ticks))
    timing = measure.time_calls(lambda: called.append(0), calls=2, warm_up=3)
  assert len(called) == 5
  assert timing.median == 2.0


# --- compiling ---------------------------------------------------------------

_CACHE_EVENTS: list[str] = []


def _listen(event, **_):
  if event.endswith(("cache_hits", "cache_misses")):
    _CACHE_EVENTS.append(event.rpartition("_")[2])


jax.monitoring.register_event_listener(_listen)


def test_cold_is_cold_although_a_cache_is_full(tmp_path):
  function = jax.jit(lambda x: jnp.tanh(x) * 3)
  x = jax.ShapeDtypeStruct((4,), jnp.float32)
  folder = jax.config.jax_compilation_cache_dir
  with measure.empty_cache():
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    measure.compile_step(function, x, cold=False)
    kept = sorted(tmp_path.iterdir())
    assert kept
    _CACHE_EVENTS.clear()
    with measure.empty_cache():
      compiling = measure.compile_step(function, x, cold=True)
    assert _CACHE_EVENTS == ["misses", "hits"]
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)
  assert sorted(tmp_path.iterdir()) == kept
  assert jax.config.jax_compilation_cache_dir == folder
  assert compiling["compile_seconds_cold"] > 0
  assert compiling["compile_seconds_cached"] > 0


@pytest.mark.parametrize(
  "error",
  [
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"),
    MemoryError("Unable to allocate 3 TiB"),
  ],
)
def test_too_big_is_one_line_with_a_remedy(error):
  with (
    pytest.raises(errors.UserError, match=r"not fit.*lower this") as caught,
    measure.explain_out_of_memory("lower this"),
  ):
    raise error
  assert "\n" not in str(caught.value)


def test_other_errors_pass():
  with (
    pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"),
    measure.explain_out_of_memory("lower this"),
  ):
    raise jax.errors.JaxRuntimeError("INTERNAL: a mistake")


# --- steps -------------------------------------------------------------------


@pytest.fixture(name="tiny_program", scope="module")
def _tiny_program():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(measure, "_LARGE_PRODUCTS", {"cpu": (32, "float32", 2)})
    yield program.build(tiny.config(), SIZES, mesh.make_mesh(1))


def _check_shared(result, flops, seconds):
  rate = flops / seconds / 1e12
  assert result["model_tflops_per_second"] == pytest.approx(rate)
  assert result["share_of_product"] == pytest.approx(
    rate / result["product_tflops_per_second"]
  )
  assert result["platform"] == "cpu"
  assert result["num_devices"] == 1
  assert result["cores"] >= 1
  assert result["jax"] == jax.__version__
  assert result["dtype"] == "float32"
  assert result["token_mixing"] == "mlp"
  assert result["sequence_length"] == SIZES.seq_len + 1
  assert result["batch_size"] == 8
  assert result["peak_gb"] > 0
  assert result["temporaries_gb"] > 0
  assert json.loads(json.dumps(result)) == result


def test_a_training_step_is_measured(tiny_program):
  effort = compiled_step.Effort(calls=2, warm_up=1, cold=True)
  result = train_step.measure(tiny_program, effort)
  seconds = result["seconds_per_step"]
  assert result["fastest"] <= seconds
  flops = flops_lib.train_flops(tiny_program.config, tiny_program.model)
  _check_shared(result, flops, seconds)
  assert result["model_tflop_per_step"] == flops / 1e12
  assert result["examples_per_second"] == pytest.approx(8 / seconds)
  params = jax.tree.leaves(tiny_program.abstract_state().params)
  assert result["parameters"] == sum(leaf.size for leaf in params)
  assert (result["remat"], result["unroll"]) == ("none", True)
  assert result["compile_seconds_cold"] > 0
  assert result["compile_seconds_cached"] > 0


def test_an_evaluation_is_measured(tiny_program):
  result = solve.measure(tiny_program, EFFORT)
  seconds = result["seconds_per_batch"]
  assert result["seconds_per_step"] == pytest.approx(seconds / 4)
  flops = flops_lib.evaluate_flops(tiny_program.config, tiny_program.model)
  _check_shared(result, flops, seconds)
  assert result["puzzles_per_second"] == pytest.approx(8 / seconds)
  assert result["compile_seconds_cold"] is None


def test_random_batches_use_all_tokens_and_ids(tiny_program):
  batch = compiled_step.random_batch(tiny_program, 64)
  assert set(batch.inputs.ravel().tolist()) == set(range(SIZES.vocab_size))
  assert set(batch.puzzle_ids.tolist()) == set(range(SIZES.num_puzzle_ids))


def test_loading_is_measured():
  result = loader.measure_loading(tiny.config(), batches=3, calls=2, warm_up=1)
  assert result["examples_per_second"] == pytest.approx(
    8 / result["seconds_per_step"]
  )
  assert result["fastest"] <= result["seconds_per_step"]
  assert {"cpu", "cores", "jax", "device"} <= result.keys()


def test_the_rate_of_a_product(monkeypatch):
  monkeypatch.setattr(measure, "_LARGE_PRODUCTS", {"cpu": (8, "float32", 3)})
  timing = measure.Timing(median=2.0, quartiles=(1.0, 3.0), fastest=0.5)
  monkeypatch.setattr(measure, "time_calls", lambda *_, **__: timing)
  assert measure.product_rate("cpu") == 2 * 8**3 * 3 / 0.5


def test_a_full_table_is_measured(monkeypatch, capsys):
  ran = []

  def run(command, *, environment):
    assert environment["PATH"]
    ran.append(command)
    full = len(ran) == 2
    machine = {"device": "cpu", "cpu": "made up", "cores": 2, "jax": "0.10"}
    return machine | {"seconds_per_step": 1.0 + full, "peak_gb": 1.0 + 2 * full}

  monkeypatch.setattr(puzzle_table.commands, "run", run)
  puzzle_table.main()
  one, full = ran
  assert "--num_puzzle_ids=1" in one
  assert "--num_puzzle_ids=876406" in full
  found = json.loads(capsys.readouterr().out)
  assert found["seconds_per_step"] == 2.0
  assert found["added_over_table"] == pytest.approx(2.0 / 1.794879488)
