"""The matrix products of a step, one by one, and how long XLA needs for each.

A step of nothing but these products is the floor that XLA's own product sets.
On accelerators a large product says the same; on a CPU thin matrices are much
slower than square ones.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp

from benchmarks import measure
from trm_jax import config as config_lib
from trm_jax.core import layers
from trm_jax.runtime import flops as flops_lib


@dataclasses.dataclass(frozen=True)
class Product:
  """A product of two matrices, or of many pairs at once, as an einsum."""

  equation: str  # e.g. 'nd,df->nf'
  left: tuple[int, ...]  # shape
  right: tuple[int, ...]  # shape

  @property
  def flops(self) -> int:
    """Counts a multiply-add as two."""
    return 2 * math.prod(self._sizes().values())

  def backward(self) -> tuple["Product", "Product"]:
    """Returns the products that the gradients of left and right are."""
    left, right, out = self._letters()
    sizes = self._sizes()
    made = tuple(sizes[letter] for letter in out)
    return (
      Product(f"{out},{right}->{left}", made, self.right),
      Product(f"{left},{out}->{right}", self.left, made),
    )

  def rows_first(self) -> "Product":
    """Returns it with the letters that it adds up over last on the left."""
    left, right, out = self._letters()
    sizes = self._sizes()
    turned = "".join(sorted(left, key=lambda letter: letter not in out))
    return Product(
      f"{turned},{right}->{out}",
      tuple(sizes[letter] for letter in turned),
      self.right,
    )

  def _letters(self) -> tuple[str, str, str]:
    operands, _, out = self.equation.partition("->")
    left, _, right = operands.partition(",")
    return left, right, out

  def _sizes(self) -> dict[str, int]:
    left, right, _ = self._letters()
    return dict(zip(left + right, self.left + self.right, strict=True))


Counted = Mapping[Product, int]  # how often a step computes each


def of_training(config: config_lib.Config, seq_len: int) -> Counted:
  """Lists the products of a supervision step of training, of all slots.

  Products that the backward pass computes a second time are left out, as in
  `cost.train_flops`.

  Args:
    config: the settings.
    seq_len: L.
  """
  model, train = config.model, config.train
  calls, gradient_calls = (
    flops_lib.forward_calls(config),
    flops_lib.network_calls(model)[1],
  )
  counted: collections.Counter[Product] = collections.Counter()
  for product, learned in _of_call(model, train.batch_size, seq_len):
    counted[product] += calls
    back_to_input, back_to_weights = product.backward()
    if learned == "left":
      back_to_input, back_to_weights = back_to_weights, back_to_input
    counted[back_to_input] += gradient_calls
    if learned == "none" or not train.frozen_network:
      counted[back_to_weights] += gradient_calls
  return counted


def of_evaluation(config: config_lib.Config, seq_len: int) -> Counted:
  """Lists the products of evaluating a batch, all its supervision steps."""
  model = config.model
  calls = sum(flops_lib.network_calls(model))
  counted: collections.Counter[Product] = collections.Counter()
  for product, _ in _of_call(model, config.eval.batch_size, seq_len):
    counted[product] += calls * config.eval.supervision_steps
  return counted


def _of_call(
  model: config_lib.ModelConfig, batch: int, seq_len: int
) -> Iterator[tuple[Product, str]]:
  """Yields each product of a network call, and which operand is learned."""
  length = model.num_prefix_tokens + seq_len
  size = model.hidden_size
  tokens = batch * length

  def swiglu_width(over):
    return layers.swiglu_width(
      over, expansion=model.mlp_expansion, multiple=model.mlp_multiple
    )

  def linear(rows, taken, made):  # [rows, taken] -> [rows, made]
    return Product("nd,df->nf", (rows, taken), (taken, made)), "right"

  for _ in range(model.num_layers):
    if model.token_mixing == "mlp":
      width, rows = swiglu_width(length), batch * size
      # Tokens are the first axis here, [S, B D].
      up = (length, width), (length, rows)
      down = (width, length), (width, rows)
      for _ in ("gate", "up"):
        yield Product("df,dn->fn", *up), "left"
      yield Product("df,dn->fn", *down), "left"
    else:
      heads, head_size = model.num_heads, size // model.num_heads
      per_head = (batch, heads, length, head_size)
      scores = (batch, heads, length, length)
      for _ in ("query", "key", "value"):
        yield linear(tokens, size, size)
      yield Product("bhqk,bhtk->bhqt", per_head, per_head), "none"
      yield Product("bhqt,bhtk->bhqk", scores, per_head), "none"
      yield linear(tokens, size, size)
    width = swiglu_width(size)
    for _ in ("gate", "up"):
      yield linear(tokens, size, width)
    yield linear(tokens, width, size)


def flops(counted: Counted) -> int:
  """Sums up the FLOPs of all products."""
  return sum(product.flops * times for product, times in counted.items())


def seconds(counted: Counted, dtype: str, *, calls: int = 15) -> float:
  """Runs each product alone, jitted; returns the seconds of all of them.

  Args:
    counted: of `of_training` or `of_evaluation`.
    dtype: of their operands and results.
    calls: of each product; the median counts, as of a step. On a shared machine
      a product of milliseconds is undisturbed more often than a step of
      seconds: its fastest call is nothing to hold a step against.
  """
  return sum(
    _in_its_best_layout(product, dtype, calls) * times
    for product, times in counted.items()
  )


def _in_its_best_layout(product: Product, dtype: str, calls: int) -> float:
  """Times it as written, and with the left side's rows to add up over.

  A step is free to hold its arrays as products like them best, and to take
  results in float32.
  """
  seconds = []
  for each in (product, product.rows_first()):
    operands: Sequence[jax.Array] = [
      measure.random_array(shape, dtype, seed)
      for seed, shape in enumerate((each.left, each.right))
    ]
    for result in dict.fromkeys((dtype, "float32")):
      multiply = jax.jit(
        functools.partial(
          jnp.einsum, each.equation, preferred_element_type=result
        )
      )
      call = functools.partial(multiply, *operands)
      seconds.append(measure.time_calls(call, calls=calls, warm_up=2).median)
  return min(seconds)
