"""Gates of SwiGLU, and ways to multiply and gate at once.

Two products of the same x, gate and up, become silu(gate) * up. Where memory is
slow beside the matrix units, on GPUs, most of SwiGLU's time goes into writing
the two and reading them again: a kernel, `Triton`, writes them only for a
backward pass, and never reads them.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import ad_checkpoint

from trm_jax import errors
from trm_jax.core import norm
from trm_jax.core.kernels import matmul
from trm_jax.runtime import devices

# Maps x, the kernels of gate and up, and an axis, all as `products.Multiply`
# has them, to what `silu` makes of the two products.
GatedProduct = Callable[[jax.Array, jax.Array, jax.Array, int], jax.Array]

# What the kernel makes for a backward pass, to policies of `jax.checkpoint`.
KEPT = "gated_product"

_LEAST_CAPABILITY = 8.0  # Ampere: before it there is no bfloat16


@norm.keeping_arguments
def silu(gate: jax.Array, up: jax.Array) -> jax.Array:
  """Gates up by the silu of gate, in float32, and rounds once."""
  h = nn.silu(gate.astype(jnp.float32)) * up.astype(jnp.float32)
  return h.astype(gate.dtype)


def normed(
  gate: jax.Array, up: jax.Array, *, epsilon: float, axis: int
) -> jax.Array:
  """Computes sigmoid(gate) * norm(gate * up) in float32, rounds once.

  silu(gate) * up is sigmoid(gate) * gate * up: here the product of the two,
  whose size nothing else bounds, is normed before it is gated.

  Source: arXiv 2601.19085v2, section 3.4.1 (Speed is Confidence).
  """

  @norm.keeping_arguments
  def combine(gate, up):
    gate_, up_ = gate.astype(jnp.float32), up.astype(jnp.float32)
    bounded = norm.rms_norm(gate_ * up_, epsilon=epsilon, axis=axis)
    return (nn.sigmoid(gate_) * bounded).astype(gate.dtype)

  return combine(gate, up)


@dataclasses.dataclass(frozen=True)
class OneProduct:
  """Gate and up as one product, for calls that nothing differentiates.

  What gates them reads both where they are. In a backward pass their gradients
  would have to be put together, which two products spare.
  """

  multiply: matmul.Multiply

  def __call__(
    self, x: jax.Array, gate: jax.Array, up: jax.Array, axis: int
  ) -> jax.Array:
    """Computes silu(x gate) * (x up), or of the transposed kernels times x."""
    # XLA takes two halves of an array, put together, for that array.
    kernel = jnp.concatenate([gate, up], axis=1)
    return silu(*jnp.split(self.multiply(x, kernel, axis), 2, axis=axis))


@dataclasses.dataclass(frozen=True)
class Triton:
  """The kernel, in Triton's language by way of Pallas.

  Where nothing is differentiated, in the cycles without gradient and in
  evaluation, it writes nothing but the result. Elsewhere it writes gate and up,
  too, which the backward pass needs, but does not read them again.

  Attributes:
    rows: of a block of the result, numbers of x's other axis; a power of 2.
    width: of a block of the result, numbers that the kernels make; likewise.
    depth: numbers that are added up at a time; likewise.
    warps: that work on a block, of 32 threads.
    stages: blocks that are loaded ahead.
    interpret: Runs on any device, slowly; for tests.
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
  # A name, since policies of what to keep do not know these for products.
  h, *made = ad_checkpoint.checkpoint_name(outputs, KEPT)
  return h, (x, gate, up, made)


def _backward(triton, axis, kept, gradient):
  del triton
  *operands, made = kept

  def multiply(x, gate, up):
    return [matmul.plain(x, kernel, axis) for kernel in (gate, up)]

  # What these compute on their way to the gradients is not used, and left out
  # by the compiler.
  _, pull_silu = jax.vjp(silu, *made)
  _, pull_products = jax.vjp(multiply, *operands)
  return pull_products(list(pull_silu(gradient)))


_gated.defvjp(_forward, _backward)


def _run(triton, axis, x, gate, up, *, outputs: int) -> list[jax.Array]:
  """Returns what is gated and, of three outputs, gate and up behind it."""
  # Imported late: only GPUs run it.
  from jax.experimental import pallas
  from jax.experimental.pallas import triton as pallas_triton

  width, rows = gate.shape[1], x.shape[1 if axis == 0 else 0]
  shape = (width, rows) if axis == 0 else (rows, width)
  return pallas.pallas_call(
    functools.partial(_block, triton, axis),
    out_shape=[jax.ShapeDtypeStruct(shape, x.dtype)] * outputs,
    # Blocks of the same x follow each other: it is read from the cache.
    grid=(pallas.cdiv(width, triton.width), pallas.cdiv(rows, triton.rows)),
    compiler_params=pallas_triton.CompilerParams(
      num_warps=triton.warps, num_stages=triton.stages
    ),
    interpret=triton.interpret,
    name="gated_product",
  )(x, gate, up)


def _block(triton, axis, x_ref, gate_ref, up_ref, *out_refs):
  """Makes a block of each output; what lies past the edges is masked."""
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
  # Not strict: of one output it is h.
  for ref, result in zip(out_refs, [h, *rounded], strict=False):
    block, mask = place(ref, *spans)
    pallas_triton.store(block, result, mask=mask)


def choose(
  kernel: str, *, gate: str, dtype: str, chip: devices.Chip
) -> GatedProduct | None:
  """Returns the kernel that `config.model.gate_kernel` names; None for XLA's.

  Args:
    kernel: 'xla' or 'triton'.
    gate: `config.model.mlp_gate`.
    dtype: 'float32' or 'bfloat16', of the products.
    chip: that will run it.

  Raises:
    UserError: there is no such kernel for this gate, dtype or chip.
  """
  if kernel == "xla":
    return None
  if (
    chip.cuda_capability < _LEAST_CAPABILITY
    or dtype != "bfloat16"
    or gate != "silu"
  ):
    raise errors.UserError(
      "config.model.gate_kernel 'triton' needs an NVIDIA GPU from Ampere on,"
      " config.model.compute_dtype 'bfloat16' and config.model.mlp_gate 'silu';"
      f" here {chip.platform}, {dtype!r} and {gate!r}; choose 'xla'"
    )
  return Triton()
