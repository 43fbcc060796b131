"""Golden case 03: eight supervision steps without optimizer."""

import golden_support as golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.core import halting, puzzle_embedding, types


def _supervision_steps(whole, case, variant, params):
  """Our 8 (or 3) supervision steps on the recorded batches and draws."""
  config = golden.json_of(case, "config")
  model = golden.build_model(config)
  state_dict = golden.under(whole, "sd/")
  table = golden.table_of(state_dict)
  max_steps = config["halt_max_steps"]
  carry = golden.carry_of(whole, "carry0/")
  apply = jax.jit(model.apply)
  num_steps = len({k.split("/")[0] for k in case if k.startswith("step")})
  assert num_steps >= 3
  results = []
  for t in range(num_steps):
    recorded = golden.under(case, f"step{t}/")
    batch = golden.batch_of(
      {k: v[t] for k, v in golden.under(whole, "batches/").items()}
    )
    carry = halting.refill(carry, batch, golden.constants_of(state_dict))
    vectors = puzzle_embedding.lookup(table, carry.batch.puzzle_ids)
    arguments = {"params": params}, carry.batch.inputs, vectors
    output = apply(*arguments, carry.latents)
    steps = carry.steps + 1
    halted = steps >= max_steps
    if variant != "eval":
      # Without recorded draws (one step at most) they decide nothing.
      zeros = np.zeros(steps.shape, np.int32)
      halted = halting.halt(
        steps,
        output,
        halt_rule=golden.halt_rule(config),
        max_supervision_steps=max_steps,
        exploration_prob=config["halt_exploration_prob"],
        draws=halting.ExplorationDraws(
          uniform=jnp.asarray(recorded.get("rand", zeros)),
          min_steps=jnp.asarray(recorded.get("randint", zeros)),
        ),
      )
    target = None
    if golden.halt_rule(config) == "halt_over_continue":
      ahead = apply(*arguments, output.latents)
      target = halting.continue_targets(
        steps, ahead, max_supervision_steps=max_steps
      )
    carry = types.Carry(
      latents=output.latents, batch=carry.batch, steps=steps, halted=halted
    )
    results.append((output, target, carry))
  return results


@pytest.mark.parametrize(
  "variant", ["no_continue", "with_continue_fixed", "eval", "max_steps1"]
)
def test_golden_supervision_steps(variant):
  """The file records no noise: ours is that of the same perturbation."""
  whole = golden.load("case03_act")
  case = golden.under(whole, f"{variant}/")
  params = golden.params_of(golden.under(whole, "sd/"))
  results = _supervision_steps(whole, case, variant, params)
  others = [
    _supervision_steps(whole, case, variant, golden.perturbed(params, seed))
    for seed in golden.PERTURBATIONS
  ]
  for t, (output, target, carry) in enumerate(results):
    noise = max(
      golden.difference((output, target), other[t][:2]) for other in others
    )
    expected = golden.under(case, f"step{t}/")
    golden.assert_close(output.halt_logits, expected["q_halt"], noise)
    golden.assert_close(output.continue_logits, expected["q_continue"], noise)
    if "logits" in expected:
      golden.assert_close(output.logits, expected["logits"], noise)
    assert (target is None) == ("target_q_continue" not in expected)
    if target is not None:
      golden.assert_close(target, expected["target_q_continue"], noise)
    golden.assert_same_carry(carry, case, f"step{t}/carry/", noise)
