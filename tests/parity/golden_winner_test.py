"""Golden case 25: winner-take-all over four starts (SiC)."""

import functools

import flax.linen as nn
import golden_support as golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_model

from trm_jax.core import (
  halting,
  losses,
  train_state,
  train_step,
  types,
  winner,
)
from trm_jax.core import model as model_lib


class WithBias(model_lib.TinyRecursiveModel):
  """TRM whose answer head has a bias, as theirs has."""

  def setup(self):
    super().setup()
    self.answer_bias = self.param(
      "answer_bias", nn.initializers.zeros, (self.vocab_size,)
    )

  def __call__(self, *args, **kwargs):
    output = super().__call__(*args, **kwargs)
    bias = self.answer_bias.reshape(1, 1, -1)
    return output.replace(logits=output.logits + bias)


@functools.cache
def _case():
  return golden.load("case25_sic_wta")


@functools.cache
def _model():
  config = golden.json_of(_case(), "config")
  model = small_model.build(
    vocab_size=config["vocab"],
    seq_len=config["cells"],
    hidden_size=config["hidden"],
    num_heads=1,
    num_layers=config["layers"],
    mlp_expansion=4.0,
    mlp_multiple=256,
    mlp_gate="normed",
    token_mixing="mlp",
    num_prefix_tokens=0,
    latent_updates=config["L_cycles"],
    recursion_cycles=config["H_cycles"],
    compute_dtype="float32",
    remat="none",
  )
  fields = {name: getattr(model, name) for name in model.__dataclass_fields__}
  del fields["parent"], fields["name"]
  return WithBias(**fields)


def _params(sd):
  """Ours, of parameters or gradients by their names."""

  def mlp(prefix):
    return {
      "gate_up": {"kernel": jnp.asarray(sd[f"{prefix}.up_proj.weight"].T)},
      "down": {"kernel": jnp.asarray(sd[f"{prefix}.down_proj.weight"].T)},
    }

  num_layers = golden.json_of(_case(), "config")["layers"]
  # Their only halting logit is the first of our two.
  second = ((0, 0), (0, 1))
  return {
    "token_embedding": {"embedding": jnp.asarray(sd["embed_tokens.weight"])},
    "answer_head": {"kernel": jnp.asarray(sd["head.weight"].T)},
    "answer_bias": jnp.asarray(sd["head.bias"]),
    "halt_head": {
      "kernel": jnp.pad(sd["q_head.weight"].T, second),
      "bias": jnp.pad(sd["q_head.bias"], (0, 1)),
    },
    "network": {
      f"layers_{i}": {
        "token_mlp": mlp(f"reasoning.{i}.attn"),
        "channel_mlp": mlp(f"reasoning.{i}.mlp"),
      }
      for i in range(num_layers)
    },
  }


def _slots(step):
  """The slots with a puzzle: their numbers, chains and carry."""
  case = golden.under(_case(), f"step{step}/before/")
  active = np.flatnonzero(case["active"])
  chains = case["chain_indices"][active]
  first_alive = chains.max(axis=1)  # -1 for those that were removed
  labels = case["labels"][active]
  batch = types.Batch(
    inputs=jnp.asarray(case["inputs"][active]),
    labels=jnp.where(labels == 0, types.IGNORED_LABEL, labels),
    puzzle_ids=jnp.zeros((len(active),), jnp.int32),
  )
  carry = types.Carry(
    latents=types.Latents(
      y=jnp.asarray(case["z_H"][first_alive]),
      z=jnp.asarray(case["z_L"][chains]),
    ),
    batch=batch,
    steps=jnp.asarray(case["h_step"][active]),
    halted=jnp.zeros((len(active),), bool),
    alive=jnp.asarray(chains >= 0),
  )
  return active, chains, carry


def _answer_costs(output, labels):
  config = golden.json_of(_case(), "config")
  return losses.answer_losses(
    output,
    labels,
    answer_loss="softmax",
    label_smoothing=config["label_smoothing"],
  )


@functools.cache
def _race():
  return jax.jit(
    lambda params, carry: winner.race(
      _model(), params, jnp.zeros((len(carry.steps), 0)), carry, _answer_costs
    )
  )


@functools.cache
def _step():
  config = golden.json_of(_case(), "config")
  return jax.jit(
    functools.partial(
      train_step.supervision_step,
      model=_model(),
      optimizer=optax.sgd(1.0),
      config=train_step.StepConfig(
        max_supervision_steps=config["halt_max_steps"],
        exploration_prob=config["exploration"],
        halt_rule="halt",
        answer_loss="softmax",
        label_smoothing=config["label_smoothing"],
        halt_loss_weight=config["q_weight"],
        puzzle_learning_rate=lambda step: 0.0,
        puzzle_weight_decay=0.0,
        ema_decay=0.0,
        freeze_network=False,
        num_starts=config["K"],
      ),
    )
  )


def _noise(name):
  return golden.json_of(_case(), "noise")["perturb"][name]


@pytest.mark.parametrize("step", range(4))
def test_the_winners_are_the_golden_ones(step):
  case = golden.under(_case(), f"step{step}/")
  active, chains, carry = _slots(step)
  race = _race()(_params(golden.under(_case(), "sd/")), carry)
  alive = chains >= 0
  golden.assert_close(
    np.asarray(race.costs)[alive],
    case["losses"][chains[alive]],
    _noise("losses"),
  )
  found = chains[np.arange(len(active)), race.winner]
  np.testing.assert_array_equal(found, case["winner_chains"][active])


@pytest.mark.parametrize("step", range(4))
def test_the_supervision_step_is_the_golden_one(step):
  case = golden.under(_case(), f"step{step}/")
  active, chains, carry = _slots(step)
  params = _params(golden.under(_case(), "sd/"))
  state = train_state.TrainState(
    step=jnp.zeros([], jnp.int32),
    params=params,
    ema_params=params,
    opt_state=optax.sgd(1.0).init(params),
    puzzle_table=jnp.zeros((1, 0)),
    initial_latents=types.Latents(
      y=jnp.asarray(_case()["H_init"][0]),
      z=jnp.zeros_like(carry.latents.y[0, 0]),
    ),
    carry=carry,
  )
  draws = halting.ExplorationDraws(
    uniform=jnp.asarray(case["rand"][active]),
    min_steps=jnp.asarray(case["randint"][active]),
    starts=carry.latents.z,
  )
  after, sums = _step()(state, carry.batch, draws)
  loss = sums["loss"] / len(active)
  golden.assert_close(loss, case["loss"], _noise("loss"))

  # Who halts: their slot is then empty or has a new puzzle.
  goes_on = case["after/active"][active] & (
    case["after/h_step"][active] == case["before/h_step"][active] + 1
  )
  np.testing.assert_array_equal(after.carry.halted, ~goes_on)
  assert (~goes_on).sum() == case["n_halted"]
  kept = np.asarray(after.carry.alive)[goes_on]
  chains = chains[goes_on]
  expected = case["after/chain_indices"][active][goes_on]
  np.testing.assert_array_equal(kept, expected >= 0)
  assert ((chains >= 0) & ~kept).sum() == case["n_expunged"]
  y = np.asarray(after.carry.latents.y)[goes_on][:, None]
  z = np.asarray(after.carry.latents.z)[goes_on]
  golden.assert_close(
    np.broadcast_to(y, z.shape)[kept],
    case["after/z_H"][chains[kept]],
    _noise("z_H"),
  )
  golden.assert_close(z[kept], case["after/z_L"][chains[kept]], _noise("z_L"))

  # With SGD of rate 1 the parameters move by just the gradients.
  moved = jax.tree.map(lambda a, b: a - b, params, after.params)
  if step == 0:
    gradients = _params(golden.under(case, "grad/"))
    noise = jax.tree.map(lambda _: _noise("grad_rel_max"), gradients)
    golden.assert_moved_by(gradients, params, after.params, noise)
  names = golden.json_of(_case(), "grad_names")
  numbered = {
    name: np.full_like(_case()[f"sd/{name}"], i, np.float32)
    for i, name in enumerate(names)
  }
  places = _params({n: a.astype(np.float32) + 1 for n, a in numbered.items()})
  squares = np.zeros(len(names) + 1)
  for place, gradient in zip(
    jax.tree.leaves(places), jax.tree.leaves(moved), strict=True
  ):
    number = int(np.asarray(place).max())
    squares[number] += float(jnp.sum(jnp.square(gradient)))
  norms = case["grad_norms"]
  # Differences of parameters keep their last digit.
  digit = max(
    float(np.spacing(np.abs(p).max())) for p in jax.tree.leaves(params)
  )
  size = max(p.size for p in jax.tree.leaves(params)) ** 0.5
  golden.assert_close(
    np.sqrt(squares[1:]), norms, _noise("grad_rel_max") * norms + digit * size
  )
