"""What the benchmarks print follows from times and counts."""

import json

import jax
import jax.numpy as jnp
import pytest
import tiny

from benchmarks import (
  compiled_step,
  gated_product,
  loader,
  measure,
  products,
  solve,
  train_step,
)
from experiments import maze, sudoku
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.runtime import flops as flops_lib
from trm_jax.runtime import mesh, program

SIZES = program.Sizes(vocab_size=6, seq_len=16, num_puzzle_ids=5)
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
  assert compiling.cold_seconds > 0
  assert compiling.cached_seconds > 0


@pytest.mark.parametrize(
  "error",
  [
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"),
    MemoryError("Unable to allocate 3 TiB"),
  ],
)
def test_too_big_is_one_line_with_a_remedy(error):
  with (
    pytest.raises(errors.UserError, match=r"not fit.*lower this") as told,
    measure.told_if_too_big("lower this"),
  ):
    raise error
  assert "\n" not in str(told.value)


def test_other_errors_pass():
  with (
    pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"),
    measure.told_if_too_big("lower this"),
  ):
    raise jax.errors.JaxRuntimeError("INTERNAL: a mistake")


# --- products ----------------------------------------------------------------


def _with(config, **settings):
  config.update_from_flattened_dict(settings)
  return config_lib.from_config_dict(config)


@pytest.mark.parametrize(
  ("config", "seq_len"),
  [
    (_with(sudoku.get_config()), 81),
    (_with(sudoku.get_config("attention")), 81),
    (_with(maze.get_config(), **{"model.num_layers": 3}), 900),
    (_with(sudoku.get_config(), **{"train.frozen_network": True}), 81),
    (_with(maze.get_config(), **{"train.frozen_network": True}), 900),
    (
      _with(maze.get_config(), **{"train.halt_rule": "halt_over_continue"}),
      900,
    ),
  ],
  ids=["mlp", "attention", "layers", "frozen", "frozen_att", "ahead"],
)
def test_products_are_those_that_are_counted(config, seq_len):
  training = products.of_training(config, seq_len)
  assert products.flops(training) == flops_lib.train_flops(config, seq_len)
  evaluation = products.of_evaluation(config, seq_len)
  assert products.flops(evaluation) == flops_lib.evaluate_flops(config, seq_len)


@pytest.mark.parametrize("mixing", ["mlp", "attention"])
def test_backward_products_are_the_gradients(mixing):
  config = _with(
    tiny.config_dict(), **{"model.token_mixing": mixing, "eval.batch_size": 2}
  )
  forward = products.of_evaluation(config, SIZES.seq_len)
  # Of attention's query, key, value and out are alike; so are gate and up.
  assert len(forward) == {"mlp": 4, "attention": 5}[mixing]
  for product in forward:
    operands = [
      measure.random_array(shape, "float32", seed)
      for seed, shape in enumerate((product.left, product.right))
    ]
    out, pull = jax.vjp(
      lambda *pair, p=product: jnp.einsum(p.equation, *pair), *operands
    )
    gradient = jnp.cos(out)
    to_left, to_right = product.backward()
    assert to_left.flops == to_right.flops == product.flops
    for found, wanted in zip(
      (
        jnp.einsum(to_left.equation, gradient, operands[1]),
        jnp.einsum(to_right.equation, operands[0], gradient),
      ),
      pull(gradient),
      strict=True,
    ):
      assert jnp.allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_same_product_with_rows_to_add_up_over():
  product = products.Product("df,dn->fn", (5, 2), (5, 3))
  turned = product.rows_first()
  assert turned == products.Product("fd,dn->fn", (2, 5), (5, 3))
  assert turned.flops == product.flops
  assert turned.rows_first() == turned
  left = measure.random_array(product.left, "float32", 0)
  right = measure.random_array(product.right, "float32", 1)
  assert jnp.allclose(
    jnp.einsum(product.equation, left, right),
    jnp.einsum(turned.equation, left.T, right),
  )


def test_seconds_of_products_are_those_of_each_as_often_as_counted(
  monkeypatch,
):
  one = products.Product("nd,df->nf", (2, 3), (3, 4))
  other = products.Product("nd,df->nf", (2, 4), (4, 3))
  seconds = {one: 0.5, other: 2.0}
  monkeypatch.setattr(
    products, "_in_its_best_layout", lambda product, *_: seconds[product]
  )
  assert products.seconds({one: 4, other: 3}, "float32") == 8.0


# --- steps -------------------------------------------------------------------


@pytest.fixture(name="tiny_program", scope="module")
def _tiny_program():
  with pytest.MonkeyPatch.context() as patch:
    large = measure.LargeProduct(size=32, dtype="float32", repeats=2)
    patch.setattr(measure, "_LARGE_PRODUCTS", {"cpu": large})
    yield program.build(tiny.config(), SIZES, mesh.make_mesh(1))


def _check_shared(result, flops, seconds):
  rate = flops / seconds / 1e12
  assert result["model_tflops_per_second"] == pytest.approx(rate)
  assert result["share_of_product"] == pytest.approx(
    rate / result["product_tflops_per_second"]
  )
  floor = result["seconds_of_products_at_these_shapes"]
  assert floor > 0
  assert result["share_of_products_at_these_shapes"] == pytest.approx(
    floor / seconds
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
  flops = flops_lib.train_flops(tiny_program.config, SIZES.seq_len)
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
  flops = flops_lib.evaluate_flops(tiny_program.config, SIZES.seq_len)
  _check_shared(result, flops, seconds)
  assert result["puzzles_per_second"] == pytest.approx(8 / seconds)
  assert result["compile_seconds_cold"] is None


@pytest.mark.parametrize("mixing", ["mlp", "attention"])
def test_a_gated_product_is_measured(monkeypatch, mixing):
  monkeypatch.setattr(gated_product, "_BLOCKS", [(16, 16, 16, 4, 2)])
  config = tiny.config_dict()
  config.model.token_mixing = mixing
  config.eval.batch_size = 4
  built = program.build(
    config_lib.from_config_dict(config), SIZES, mesh.make_mesh(1)
  )
  length, size = SIZES.seq_len + 1, 16
  found = [
    gated_product.measure_shape(shape, EFFORT, interpret=True)
    for shape in gated_product.shapes(built)
  ]
  sizes = [(each["axis"], each["rows"], each["depth"]) for each in found]
  of_channels = (-1, 4 * length, size)
  of_tokens = [(0, 4 * size, length)] if mixing == "mlp" else []
  assert sizes == [*of_tokens, of_channels]
  for each in found:
    assert set(each["seconds"]) == {"xla", "triton 16 16 16 4 2"}
    assert each["seconds"][each["fastest"]] == min(each["seconds"].values())
    assert max(each["relative_errors"].values()) < 0.01


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
