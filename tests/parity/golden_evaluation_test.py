"""Golden case 09: an evaluation in batches with padding."""

import golden_support as golden
import jax
import jax.numpy as jnp
import numpy as np

from trm_jax.core import eval_step, metrics


def _results(case):
  """Returns a function of parameters: the result of every batch."""
  config = golden.json_of(case, "config")
  state_dict = golden.under(case, "sd/")
  evaluate_batch = jax.jit(
    eval_step.make_evaluate_batch(
      golden.build_model(config),
      supervision_steps=config["halt_max_steps"],
      answer_loss="stablemax",
      halt_loss_weight=0.5,
    )
  )

  def results(params):
    weights = golden.weights_of(state_dict).replace(params=params)
    batches = [
      golden.batch_of(golden.under(case, f"batch{t}/batch/"))
      for t in range(len(golden.json_of(case, "batch_sets")))
    ]
    # The official evaluation counts the losses of padding rows, too.
    return [
      jax.device_get(
        evaluate_batch(weights, batch, jnp.ones(batch.puzzle_ids.shape, bool))
      )
      for batch in batches
    ]

  return results


def test_golden_evaluation():
  """The file records no noise: ours is that of the same perturbation."""
  case = golden.load("case09_eval")
  params = golden.params_of(golden.under(case, "sd/"))
  results = _results(case)
  evaluated = results(params)
  others = [
    results(golden.perturbed(params, seed)) for seed in golden.PERTURBATIONS
  ]
  totals: dict = {}
  loss_noise: dict = {}
  for t, name in enumerate(golden.json_of(case, "batch_sets")):
    result = evaluated[t]
    np.testing.assert_array_equal(result.answers[-1], case[f"batch{t}/preds"])
    noise = max(
      golden.difference(result.last.halt_logits, run[t].last.halt_logits)
      for run in others
    )
    golden.assert_close(
      result.last.halt_logits, case[f"batch{t}/q_halt_logits"], noise
    )
    noise = {
      key: max(np.abs(value - run[t].sums[key]).max() for run in others)
      for key, value in result.sums.items()
      if key.endswith("loss")
    }
    each_step = golden.json_of(case, f"batch{t}/metric_sums_each_step")
    for number, expected in enumerate(each_step):
      last = number == len(each_step) - 1
      for official, value in expected.items():
        key = golden.OUR_METRICS[official]
        if official.endswith("loss") or last:
          golden.assert_close(
            result.sums[key][number], value, noise.get(key, 0.0), official
          )
    totals[name] = metrics.add(totals.get(name, {}), result.sums)
    loss_noise[name] = metrics.add(loss_noise.get(name, {}), noise)
  for name, expected in golden.json_of(case, "result").items():
    final = {key: value[-1] for key, value in totals[name].items()}
    for official, value in expected.items():
      # Officially every sum is divided by the count of labelled rows.
      key = golden.OUR_METRICS[official]
      golden.assert_close(
        final[key] / final["count"],
        value,
        loss_noise[name].get(key, 0.0) / final["count"],
        official,
      )
