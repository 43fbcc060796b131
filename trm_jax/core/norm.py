"""The norm of a block (paper, section 4), and what it keeps."""

import jax
import jax.numpy as jnp

# Of a function of an array or two: what it computes inside is not kept for the
# backward pass, which computes it again. (The compiler would find out that it
# computes the same twice, and keep it; this is prevented, too.)
keeping_arguments = jax.checkpoint


def rms_norm(x: jax.Array, *, epsilon: float, axis: int = -1) -> jax.Array:
  """Divides by the root mean square over an axis; no weight."""

  @keeping_arguments
  def norm(x):
    h = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(h), axis=axis, keepdims=True)
    return (h * jax.lax.rsqrt(mean_square + epsilon)).astype(x.dtype)

  return norm(x)
