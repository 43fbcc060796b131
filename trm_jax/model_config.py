"""Settings of the network and of how often it is applied."""

import dataclasses

from trm_jax import checks, errors


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The network and its recursion (paper, section 4)."""

  hidden_size: int
  num_heads: int
  num_layers: int
  mlp_expansion: float
  mlp_multiple: int
  mlp_gate: str
  token_mixing: str
  positions: str
  rope_base: float
  norm_epsilon: float
  puzzle_vector_size: int
  num_prefix_tokens: int
  latent_updates: int
  recursion_cycles: int
  recurrence: str
  separate_networks: bool
  gradient_updates: int
  compute_dtype: str
  remat: str
  attention_kernel: str
  gate_kernel: str
  unroll: bool
  token_multiple: int

  def __post_init__(self):
    checks.one_of("model.mlp_gate", self.mlp_gate, ("silu", "normed"))
    checks.one_of("model.token_mixing", self.token_mixing, ("attention", "mlp"))
    checks.one_of(
      "model.positions", self.positions, ("rope", "learned", "none")
    )
    checks.one_of(
      "model.compute_dtype", self.compute_dtype, ("float32", "bfloat16")
    )
    checks.one_of("model.remat", self.remat, ("auto", "none", "dots", "full"))
    checks.one_of(
      "model.attention_kernel",
      self.attention_kernel,
      ("auto", "xla", "splash", "cudnn"),
    )
    checks.one_of("model.gate_kernel", self.gate_kernel, ("xla", "triton"))
    for name in ("hidden_size", "num_heads", "num_layers", "mlp_multiple"):
      checks.at_least(f"model.{name}", getattr(self, name), 1)
    for name in ("latent_updates", "recursion_cycles"):
      checks.at_least(f"model.{name}", getattr(self, name), 1)
    for name in ("puzzle_vector_size", "num_prefix_tokens", "token_multiple"):
      checks.at_least(f"model.{name}", getattr(self, name), 0)
    checks.between(
      "model.gradient_updates", self.gradient_updates, 0, self.latent_updates
    )
    for name in ("mlp_expansion", "rope_base", "norm_epsilon"):
      checks.positive(f"model.{name}", getattr(self, name))
    if self.unroll and self.remat != "none":
      raise errors.UserError(
        f"config.model.unroll needs config.model.remat 'none', not"
        f" {self.remat!r}: unrolled, nothing that is kept can be left out"
      )
    if self.token_mixing == "attention" and self.hidden_size % self.num_heads:
      raise errors.UserError(
        f"config.model.hidden_size {self.hidden_size} does not divide into"
        f" config.model.num_heads {self.num_heads}"
      )
    if self.positions == "rope" and self.hidden_size // self.num_heads % 2:
      raise errors.UserError(
        "config.model.positions 'rope' needs heads of even size, not"
        f" {self.hidden_size // self.num_heads}; change"
        " config.model.num_heads or config.model.hidden_size"
      )
    if self.token_mixing == "mlp" and self.positions == "rope":
      raise errors.UserError(
        "config.model.positions 'rope' rotates attention's queries and keys;"
        " with token_mixing 'mlp' choose 'none' or 'learned'"
      )
    if self.puzzle_vector_size > self.num_prefix_tokens * self.hidden_size:
      raise errors.UserError(
        f"config.model.puzzle_vector_size {self.puzzle_vector_size} does not"
        f" fit into {self.num_prefix_tokens} prefix tokens of"
        f" {self.hidden_size}; raise config.model.num_prefix_tokens"
      )
    if self.num_prefix_tokens and not self.puzzle_vector_size:
      raise errors.UserError(
        "config.model.num_prefix_tokens needs a puzzle vector: set"
        " config.model.puzzle_vector_size, or no prefix tokens"
      )
