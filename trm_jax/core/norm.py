"""RMS norm (paper, section 4) that recomputes instead of saving float32."""

import jax
import jax.numpy as jnp

# Wraps an elementwise function so that only its arguments are saved for the
# backward pass; its intermediates are recomputed. CSE prevention stays on: XLA
# would otherwise merge both computations and keep the intermediates.
checkpointed = jax.checkpoint


def rms_norm(x: jax.Array, *, epsilon: float, axis: int = -1) -> jax.Array:
  """Divides by the root mean square over an axis, without learned scale."""

  @checkpointed
  def norm(x):
    h = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(h), axis=axis, keepdims=True)
    return (h * jax.lax.rsqrt(mean_square + epsilon)).astype(x.dtype)

  return norm(x)
