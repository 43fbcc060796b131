"""Golden case 09: an evaluation in batches with padding."""

import golden_support as golden
import jax
import jax.numpy as jnp
import numpy as np

from trm_jax.core import eval_step, metrics, types


def test_golden_evaluation():
  case = golden.load("case09_eval")
  config = golden.json_of(case, "config")
  model = golden.build_model(config)
  state_dict = golden.under(case, "sd/")
  sets = golden.json_of(case, "batch_sets")
  evaluate_batch = jax.jit(
    eval_step.make_evaluate_batch(
      model,
      supervision_steps=config["halt_max_steps"],
      answer_loss="stablemax",
      halt_loss_weight=0.5,
    )
  )
  totals: dict = {}
  for t, name in enumerate(sets):
    batch = golden.batch_of(golden.under(case, f"batch{t}/batch/"))
    # The official evaluation counts the losses of padding rows, too.
    rows = jnp.ones(batch.puzzle_ids.shape, bool)
    result = evaluate_batch(
      types.Weights(
        params=golden.params_of(state_dict),
        puzzle_table=golden.table_of(state_dict),
        initial_latents=golden.constants_of(state_dict),
      ),
      batch,
      rows,
    )
    sums = jax.device_get(result.sums)
    np.testing.assert_array_equal(result.answers[-1], case[f"batch{t}/preds"])
    golden.assert_close(
      result.last.halt_logits, case[f"batch{t}/q_halt_logits"], 1e-5
    )
    each_step = golden.json_of(case, f"batch{t}/metric_sums_each_step")
    for number, expected in enumerate(each_step):
      last = number == len(each_step) - 1
      for key, value in expected.items():
        if key.endswith("loss") or last:
          golden.assert_close(
            sums[golden.OUR_METRICS[key]][number], value, 1e-5, key
          )
    totals[name] = metrics.add(totals.get(name, {}), sums)
  for name, expected in golden.json_of(case, "result").items():
    final = {key: value[-1] for key, value in totals[name].items()}
    for key, value in expected.items():
      # Officially every sum is divided by the count of labelled rows.
      ours = final[golden.OUR_METRICS[key]] / final["count"]
      golden.assert_close(ours, value, 1e-6, key)
