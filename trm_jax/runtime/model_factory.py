"""Builds the model of the settings for a kind of device.

Chooses the implementations of attention and matrix products that suit the
device, and what the backward pass recomputes if the settings leave that open.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import equivariant
from trm_jax.core import model as model_lib
from trm_jax.core import network as network_lib
from trm_jax.core.kernels import attention, matmul, swiglu
from trm_jax.runtime import devices

_CPU = devices.Chip("cpu")

_AMPERE = 8.0  # CUDA capability of the first GPUs with bfloat16
_CUDNN_HEAD_SIZE = 128  # cuDNN's attention takes heads up to this size,
_CUDNN_HEAD_MULTIPLE = 8  # in multiples of this
# 'auto' uses splash attention on TPU from this sequence length on.
# benchmarks/RESULTS.md has the memory of both at S = 916; at S = 97 there is
# nothing to save.
_LONG = 512
# GPUs' matrix units want rows to begin at 16-byte boundaries.
_GPU_TOKEN_MULTIPLE = 8

# Share of a device's memory that saved activations may take. The rest of the
# state, gradients, workspace, the next batch and fragmentation need the rest.
_SHARE = 0.8


def build_model(
  model: config_lib.ModelConfig,
  *,
  vocab_size: int,
  seq_len: int,
  grid: tuple[int, int] | None = None,
  symbols: tuple[int, ...] = (),
  chip: devices.Chip = _CPU,
) -> model_lib.TinyRecursiveModel:
  """Returns the module for puzzles of `seq_len` tokens.

  Args:
    model: the settings; with remat 'auto' the module recomputes everything,
      which always fits (`choose_remat` may know better).
    vocab_size: V.
    seq_len: L.
    grid: rows and columns; needed for positions in two dimensions.
    symbols: interchangeable tokens, of which all answers consist.
    chip: that will run it.

  Raises:
    UserError: the chip cannot run the kernels of the settings, or the puzzles
      lack what the settings need.
  """
  equivariant_model = model.symbol_mixing != "none"
  if equivariant_model and len(symbols) < 2:
    raise errors.UserError(
      f"config.model.symbol_mixing {model.symbol_mixing!r} is for puzzles whose"
      " symbols are interchangeable and make up all answers, such as Sudoku's"
      " digits; choose 'none' for this task"
    )
  network_config = config_lib.fill(
    network_lib.NetworkConfig,
    model,
    grid=grid or (1, seq_len),
    num_symbols=len(symbols) if equivariant_model else 1,
    token_multiple=_GPU_TOKEN_MULTIPLE if chip.platform == "gpu" else 1,
    attend=choose_attention(
      model.attention_kernel,
      length=model.num_prefix_tokens + seq_len,
      head_size=model.hidden_size // model.num_heads,
      dtype=model.compute_dtype,
      chip=chip,
    ),
    multiply=choose_matmul(model.compute_dtype, chip),
    gated_product=choose_gated_product(
      model.gate_kernel,
      gate=model.mlp_gate,
      dtype=model.compute_dtype,
      chip=chip,
    ),
  )
  kind, values = model_lib.TinyRecursiveModel, {}
  if equivariant_model:
    kind = equivariant.SymbolEquivariantModel
    values = {"symbols": symbols}
  return config_lib.fill(
    kind,
    model,
    **values,
    vocab_size=vocab_size,
    seq_len=seq_len,
    network_config=network_config,
    remat="full" if model.remat == "auto" else model.remat,
    # A loop would copy what it saves; unrolled, nothing can be recomputed.
    unroll=model.remat == "none",
  )


def choose_attention(
  kernel: str,
  *,
  length: int,
  head_size: int,
  dtype: str,
  chip: devices.Chip,
) -> attention.AttentionFn:
  """Returns the implementation that `config.model.attention_kernel` names.

  Args:
    kernel: 'xla', 'splash', 'cudnn', or 'auto': a fused kernel if one helps: on
      TPU for long sequences, on NVIDIA GPUs always.
    length: S.
    head_size: K.
    dtype: 'float32' or 'bfloat16', of the products.
    chip: that will run it.

  Raises:
    UserError: the chip cannot run the kernel.
  """
  has_cudnn = (
    chip.cuda_capability >= _AMPERE
    and dtype == "bfloat16"
    and head_size <= _CUDNN_HEAD_SIZE
    and head_size % _CUDNN_HEAD_MULTIPLE == 0
  )
  if kernel == "splash" and chip.platform != "tpu":
    raise errors.UserError(
      "config.model.attention_kernel 'splash' runs on TPU only, not on"
      f" {chip.platform}; choose auto or xla"
    )
  if kernel == "cudnn" and not has_cudnn:
    raise errors.UserError(
      "config.model.attention_kernel 'cudnn' needs an NVIDIA GPU (Ampere or"
      " later), config.model.compute_dtype 'bfloat16', and a head size of at"
      f" most {_CUDNN_HEAD_SIZE} that is a multiple of {_CUDNN_HEAD_MULTIPLE};"
      f" here {dtype}, head size {head_size}, on {chip.platform}"
      + (f" {chip.cuda_capability}" if chip.cuda_capability else "")
      + "; choose auto or xla"
    )
  if kernel == "auto":
    if chip.platform == "tpu" and length >= _LONG:
      kernel = "splash"
    elif has_cudnn:
      kernel = "cudnn"
  kernels: dict[str, attention.AttentionFn] = {
    "splash": attention.Splash(),
    "cudnn": attention.cudnn,
  }
  return kernels.get(kernel, attention.plain)


def choose_matmul(dtype: str, chip: devices.Chip) -> matmul.Matmul:
  """Returns the fastest matrix product on a chip.

  Args:
    dtype: 'float32' or 'bfloat16', of the products.
    chip: that will run it.
  """
  if dtype == "bfloat16" and chip.cpu_has_bfloat16:
    return matmul.bf16_matmul_f32_accum
  return matmul.plain


def choose_gated_product(
  kernel: str, *, gate: str, dtype: str, chip: devices.Chip
) -> swiglu.GatedProduct | None:
  """Returns the kernel that `config.model.gate_kernel` names; None for XLA.

  Args:
    kernel: 'xla' or 'triton'.
    gate: `config.model.mlp_gate`.
    dtype: 'float32' or 'bfloat16', of the products.
    chip: that will run it.

  Raises:
    UserError: the kernel does not support this gate, dtype or chip.
  """
  if kernel == "xla":
    return None
  if chip.cuda_capability < _AMPERE or dtype != "bfloat16" or gate != "silu":
    raise errors.UserError(
      "config.model.gate_kernel 'triton' needs an NVIDIA GPU (Ampere or later),"
      " config.model.compute_dtype 'bfloat16' and config.model.mlp_gate 'silu';"
      f" here {chip.platform}, {dtype!r} and {gate!r}; choose xla"
    )
  return swiglu.Triton()


def choose_remat(
  model: model_lib.TinyRecursiveModel,
  *,
  calls: int,
  slots: int,
  room: int,
  chip: devices.Chip,
) -> tuple[str, bool]:
  """Returns `remat` and `unroll` of the model for the setting 'auto'.

  Saving everything is fastest if it fits into memory.

  Args:
    model: the module.
    calls: differentiated network calls of a step.
    slots: of a device, or of one of its gradient_accumulation_steps.
    room: bytes of a device's memory, without its share of the puzzle table.
    chip: that will run it. On TPUs everything is recomputed: which is faster
      has not been measured there.
  """
  if chip.platform == "tpu" or room <= 0:
    return "full", False
  if chip.platform == "cpu":  # where XLA stores bfloat16 residuals as float32
    model = model.with_network(compute_dtype="float32")
  if calls * bytes_of_call(model, slots) > _SHARE * room:
    return "full", False
  return "none", True


def bytes_of_call(model: model_lib.TinyRecursiveModel, slots: int) -> int:
  """Counts the bytes that a differentiated network call saves, with weights.

  Args:
    model: the module.
    slots: processed at once.
  """
  state = jax.ShapeDtypeStruct(model.network_state_shape(slots), model.dtype)
  network = network_lib.RecursiveNetwork(model.network_config)

  def saved(variables: Any, state: jax.Array, injection: jax.Array) -> Any:
    return jax.vjp(network.apply, variables, state, injection)[1]

  variables = jax.eval_shape(network.init, jax.random.key(0), state, state)
  leaves = jax.tree.leaves(jax.eval_shape(saved, variables, state, state))
  return sum(
    math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in leaves
  )
