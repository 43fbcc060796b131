"""SwiGLU's gates, and kernels that fuse products and gate.

Two products of the same x, gate and up, become silu(gate) * up. On GPUs, most
of SwiGLU's time goes into writing the two products and reading them back. The
`Triton` kernel writes them only for a backward pass and never reads them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import ad_checkpoint

from .. import norm
from . import matmul

# Maps x, the kernels of gate and up, and an axis (as for `matmul.Matmul`) to
# `silu` of the two products.
GatedProduct = Callable[[jax.Array, jax.Array, jax.Array, int], jax.Array]

# Name of the kernel's residuals, for `jax.checkpoint` policies.
KEPT = "gated_product"


@norm.checkpointed
def silu(gate: jax.Array, up: jax.Array) -> jax.Array:
  """Gates `up` by the SiLU of `gate`, in float32, and rounds once."""
  h = nn.silu(gate.astype(jnp.float32)) * up.astype(jnp.float32)
  return h.astype(gate.dtype)


def normed(
  gate: jax.Array, up: jax.Array, *, epsilon: float, axis: int
) -> jax.Array:
  """Computes sigmoid(gate) * norm(gate * up) in float32 and rounds once.

  silu(gate) * up equals sigmoid(gate) * gate * up. Here the product gate * up,
  whose magnitude is otherwise unbounded, is normalized before it is gated.

  Source: arXiv 2601.19085v2, section 3.4.1 (Speed is Confidence).
  """

  @norm.checkpointed
  def combine(gate, up):
    gate_, up_ = gate.astype(jnp.float32), up.astype(jnp.float32)
    bounded = norm.rms_norm(gate_ * up_, epsilon=epsilon, axis=axis)
    return (nn.sigmoid(gate_) * bounded).astype(gate.dtype)

  return combine(gate, up)


@norm.checkpointed
def convolved(
  gate: jax.Array, up: jax.Array, kernel: jax.Array, bias: jax.Array
) -> jax.Array:
  """Convolves the gated product over the tokens, and gates it again.

  silu(conv(silu(gate) * up)), computed in float32 and rounded once. Each
  feature has a kernel of its own. With a kernel of 2, a token sees itself and
  the one before it.

  Source: URM (arXiv 2512.14693), ConvSwiGLU.

  Args:
    gate: [..., S, N].
    up: [..., S, N].
    kernel: [K, N], the earliest token first.
    bias: [N].

  Returns:
    [..., S, N] in the dtype of gate.
  """
  h = nn.silu(gate.astype(jnp.float32)) * up.astype(jnp.float32)
  size, length = kernel.shape[0], h.shape[-2]
  # As activations are, so that calls with and without gradient agree.
  kernel, bias = (
    a.astype(gate.dtype).astype(jnp.float32) for a in (kernel, bias)
  )
  fill = (size // 2, size // 2)
  h = jnp.pad(h, [(0, 0)] * (h.ndim - 2) + [fill, (0, 0)])
  ones = (1,) * (h.ndim - 1)
  mixed = bias.reshape(*ones, -1) + sum(
    tap.reshape(*ones, -1) * h[..., i : i + length, :]
    for i, tap in enumerate(kernel)
  )
  return nn.silu(mixed).astype(gate.dtype)


def _conv(
  gate: jax.Array,
  up: jax.Array,
  *,
  epsilon: float,
  axis: int,
  param: Callable[..., jax.Array],
) -> jax.Array:
  """Calls `convolved` with parameters of its own, drawn as in PyTorch."""
  del epsilon
  if axis == 0:
    raise ValueError("the gate 'conv' needs an axis of tokens to convolve over")

  def init(key, shape, dtype):
    bound = CONV_SIZE**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  width = gate.shape[-1]
  kernel = param("conv_kernel", init, (CONV_SIZE, width), jnp.float32)
  bias = param("conv_bias", init, (width,), jnp.float32)
  return convolved(gate, up, kernel, bias)


CONV_SIZE = 2  # tokens that the kernel of the gate 'conv' spans

# (gate, up, epsilon=, axis=, param=) -> the gated product, like gate and up.
# `param` creates a parameter, as `flax.linen.Module.param` does.
GATES: Mapping[str, Callable[..., jax.Array]] = {
  "silu": lambda gate, up, **_: silu(gate, up),
  "normed": lambda gate, up, *, epsilon, axis, param: normed(
    gate, up, epsilon=epsilon, axis=axis
  ),
  "conv": _conv,
}


@dataclasses.dataclass(frozen=True)
class FusedGateUp:
  """Computes gate and up as one product, for calls without gradient.

  The gate reads both halves in place. A backward pass would have to concatenate
  their gradients, which two separate products avoid.

  Attributes:
    multiply: computes the product.
  """

  multiply: matmul.Matmul

  def __call__(
    self, x: jax.Array, gate: jax.Array, up: jax.Array, axis: int
  ) -> jax.Array:
    """Computes silu(x gate) * (x up), or of the transposed kernels times x."""
    # XLA takes two halves of an array, put together, for that array.
    kernel = jnp.concatenate([gate, up], axis=1)
    return silu(*jnp.split(self.multiply(x, kernel, axis), 2, axis=axis))


@dataclasses.dataclass(frozen=True)
class Triton:
  """Fused kernel in Pallas on Triton.

  Without differentiation (gradient-free cycles, evaluation) it writes only the
  result. Otherwise it also writes gate and up for the backward pass.

  Attributes:
    rows: block size along x's non-contracted axis; a power of 2.
    width: block size along the output axis; a power of 2.
    depth: block size along the contracted axis; a power of 2.
    warps: warps per block.
    stages: pipeline stages of loads.
    interpret: runs on any device, slowly; for tests.
  """

  rows: int = 128
  width: int = 128
  depth: int = 64
  warps: int = 8
  stages: int = 3
  interpret: bool = False

  def __call__(
    self, x: jax.Array, gate: jax.Array, up: jax.Array, axis: int
  ) -> jax.Array:
    """Computes silu(x gate) * (x up), or of the transposed kernels times x."""
    return _gated(self, axis, x, gate, up)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gated(triton, axis, x, gate, up):
  (h,) = _run(triton, axis, x, gate, up, outputs=1)
  return h


def _forward(triton, axis, x, gate, up):
  outputs = _run(triton, axis, x, gate, up, outputs=3)
  # Named, because checkpoint policies do not see products in a kernel.
  h, *made = ad_checkpoint.checkpoint_name(outputs, KEPT)
  return h, (x, gate, up, made)


def _backward(triton, axis, kept, gradient):
  del triton
  *operands, made = kept

  def multiply(x, gate, up):
    return [matmul.plain(x, kernel, axis) for kernel in (gate, up)]

  # The compiler removes the primal outputs, which are unused.
  _, pull_silu = jax.vjp(silu, *made)
  _, pull_products = jax.vjp(multiply, *operands)
  return pull_products(list(pull_silu(gradient)))


_gated.defvjp(_forward, _backward)


def _run(triton, axis, x, gate, up, *, outputs: int) -> list[jax.Array]:
  """Returns [h], or [h, gate, up] with `outputs` = 3."""
  # Imported here, because only GPUs need it.
  from jax.experimental import pallas
  from jax.experimental.pallas import triton as pallas_triton

  width, rows = gate.shape[1], x.shape[1 if axis == 0 else 0]
  shape = (width, rows) if axis == 0 else (rows, width)
  return pallas.pallas_call(
    functools.partial(_block, triton, axis),
    out_shape=[jax.ShapeDtypeStruct(shape, x.dtype)] * outputs,
    # Consecutive blocks share x, which is then read from the cache.
    grid=(pallas.cdiv(width, triton.width), pallas.cdiv(rows, triton.rows)),
    compiler_params=pallas_triton.CompilerParams(
      num_warps=triton.warps, num_stages=triton.stages
    ),
    interpret=triton.interpret,
    name="gated_product",
  )(x, gate, up)


def _block(triton, axis, x_ref, gate_ref, up_ref, *out_refs):
  """Computes one block of each output; masks elements past the edges."""
  from jax.experimental import pallas
  from jax.experimental.pallas import triton as pallas_triton

  depth, width = gate_ref.shape
  rows = x_ref.shape[1 if axis == 0 else 0]

  def span(number, size, limit):
    start = number * size
    return pallas.ds(start, size), start + jnp.arange(size) < limit

  columns = span(pallas.program_id(0), triton.width, width)
  these_rows = span(pallas.program_id(1), triton.rows, rows)

  def place(ref, first, second):
    (span0, has0), (span1, has1) = first, second
    return ref.at[span0, span1], has0[:, None] & has1[None, :]

  def load(ref, first, second):
    block, mask = place(ref, first, second)
    return pallas_triton.load(block, mask=mask, other=0)

  def add(number, sums):
    inner = span(number, triton.depth, depth)
    kernels = (load(ref, inner, columns) for ref in (gate_ref, up_ref))
    if axis == 0:
      x = load(x_ref, inner, these_rows)
      made = [pallas_triton.dot(each, x, trans_a=True) for each in kernels]
    else:
      x = load(x_ref, these_rows, inner)
      made = [pallas_triton.dot(x, each) for each in kernels]
    return [a + b for a, b in zip(sums, made, strict=True)]

  shape = (triton.rows, triton.width)
  zeros = jnp.zeros(shape[::-1] if axis == 0 else shape, jnp.float32)
  sums = jax.lax.fori_loop(
    0, pallas.cdiv(depth, triton.depth), add, [zeros, zeros]
  )
  dtype = out_refs[0].dtype
  rounded = [a.astype(dtype) for a in sums]
  gate, up = (a.astype(jnp.float32) for a in rounded)
  h = (gate * nn.sigmoid(gate) * up).astype(dtype)
  spans = (columns, these_rows) if axis == 0 else (these_rows, columns)
  # Not strict: with a single output only h is written.
  for ref, result in zip(out_refs, [h, *rounded], strict=False):
    block, mask = place(ref, *spans)
    pallas_triton.store(block, result, mask=mask)
