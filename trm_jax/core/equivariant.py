"""A symbol-equivariant TRM: permuting the symbols permutes the answer, exactly.

The digits of a Sudoku may be renamed at will. TRM learns that from augmented
puzzles; this network knows it. Its state has a part for each of F symbols and
L cells, all symbols share all weights, and no vector stands for a particular
symbol. It needs no augmentation of symbols.

Everything else is TRM's: the recursion, the losses, halting. The state is
stored as [B, F L, D], so that slots, solvers and checkpoints do not differ.

Source: the digit fields of FPRS (Fixed-Point-Reasoner-Structures); another
network of this kind is SE-RRM (github.com/ml-jku/SE-RRM).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from . import layers, network, types
from . import model as model_lib

# Logit of tokens that are no symbols: answers consist of symbols.
_NEVER = -1e4


class SymbolEquivariantModel(model_lib.TinyRecursiveModel):
  """One supervision step of a TRM whose state has an axis of symbols.

  There are no prefix tokens, and puzzle vectors are not read.

  Attributes:
    symbols: the tokens that may be permuted, F of the V; all tokens of answers
      are among them.
  """

  symbols: tuple[int, ...] = ()

  @property
  def total_len(self) -> int:
    """S, cells of all symbols."""
    return len(self.symbols) * self.seq_len

  @nn.nowrap
  def network_state_shape(self, batch_size: int) -> tuple[int, ...]:
    """Returns the shape of the states that the network maps."""
    shape = (batch_size * len(self.symbols), self.seq_len)
    if network.token_mixer(self.network_config).tokens_first:
      shape = shape[::-1]
    return *shape, self.hidden_size

  def setup(self):
    """Creates the submodules; their names are the parameters' paths."""
    # What a cell is to a symbol: empty (one role for each token that is no
    # symbol), given as this symbol, or given as another.
    num_others = self.vocab_size - len(self.symbols)
    self.role_embedding = layers.TokenEmbedding(
      num_others + 2, self.hidden_size, self.dtype
    )
    self.network = network.RecursiveNetwork(self.network_config)
    if self.separate_networks:
      self.answer_network = network.RecursiveNetwork(self.network_config)
    self.answer_head = nn.Dense(
      1, use_bias=False, dtype=self.dtype, kernel_init=layers.linear_init
    )
    self.halt_head = nn.Dense(
      2,
      dtype=self.dtype,
      kernel_init=nn.initializers.zeros,
      bias_init=nn.initializers.constant(model_lib.HALT_BIAS),
    )

  def embed(self, inputs: jax.Array, puzzle_vectors: jax.Array) -> jax.Array:
    """Embeds each cell's role for each symbol: [B, L] int32 to [B, F L, D]."""
    del puzzle_vectors
    others = np.setdiff1d(np.arange(self.vocab_size), self.symbols)
    this, another = len(others), len(others) + 1
    roles = np.full(self.vocab_size, another)
    roles[others] = np.arange(len(others))
    # By symbol and token.
    table = np.tile(roles, (len(self.symbols), 1))
    table[np.arange(len(self.symbols)), self.symbols] = this
    by_symbol = jnp.moveaxis(jnp.asarray(table, jnp.int32)[:, inputs], 0, 1)
    x = self.role_embedding(by_symbol.reshape(inputs.shape[0], -1))
    return layers.scaled(x)

  def recurse(
    self, x: jax.Array, latents: types.Latents, *, differentiated: bool = True
  ) -> types.Latents:
    """Runs the T cycles with symbols as rows of the batch, [B F, L, D]."""
    x, latents = _reshaped((x, latents), self.seq_len)
    latents = super().recurse(x, latents, differentiated=differentiated)
    return _reshaped(latents, self.total_len)

  def read_out(self, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns answer logits [B, L, V] and halting logits [B, 2] of y."""
    by_symbol = self.answer_head(y).reshape(-1, len(self.symbols), self.seq_len)
    shape = (y.shape[0], self.seq_len, self.vocab_size)
    logits = jnp.full(shape, _NEVER, y.dtype)
    logits = logits.at[:, :, np.array(self.symbols)].set(
      jnp.moveaxis(by_symbol, 1, 2)
    )
    mean = jnp.mean(y.astype(jnp.float32), axis=1)
    return logits, self.halt_head(mean.astype(y.dtype))


def _reshaped(tree: Any, length: int) -> Any:
  """Reshapes [b, s, ...] to [b s / length, length, ...]."""
  return jax.tree.map(lambda a: a.reshape(-1, length, *a.shape[2:]), tree)
