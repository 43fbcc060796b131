r"""New ARC tasks on old weights: rows of the puzzle table are added for them.

A trained network has a row of the table for each variant of the tasks it was
trained on, and none for others. Here such tasks get rows at its end, rows and
network learn their demonstrations for a while, and their test inputs are
answered, all variants voting; test answers need not be known. FOLDER has the
new tasks as arc-agi_test_challenges.json (Kaggle's layout) or as
test/NAME.json, runs/arc is the run to start from:

  python -m trm_jax.main --config=experiments/arc_adapt.py \
    --config.checkpoint.init_from=runs/arc --config.data.source=FOLDER \
    --workdir=runs/adapted

writes runs/adapted/evaluations/step_12500/submission.json. Another subset:
"--config.data.subsets=('evaluation',)" --config.data.test_subset=evaluation.
Its network must be that of arc.py; another is said on the command line, as in
the old run.

  arc_adapt.py       everything is trained, also rows of older tasks where the
                     data have them
  arc_adapt.py:rows  the rows alone are trained, the network stays as it is
  arc_adapt.py:deep  from a run of arc.py:deep

"Test-time Adaptation of Tiny Recursive Models" (arXiv 2511.02886) reports
6.67 % on the hidden tasks of ARC-AGI-2 after 12,500 steps, which fit into a
contest's time, and that the rows alone solved hardly any hidden task.
Not repeated here: no score of ours to show.

New rows begin as the mean of the trained ones; --config.data.new_rows=zeros has
them begin at zero, as all rows of a first training do. The same command, typed
again, goes on, and with --mode=evaluate it evaluates. Both read runs/arc's
identifiers.json; when that run is gone, --config.data.identifiers=runs/adapted
does, since the new run keeps a list of all its rows. Both runs' answers count
where a warning says that training saw test answers.

`arc_adapt.py:smoke` (and `arc_adapt.py:rows,smoke`) takes a few steps on
made-up tasks, two of which are new to a run of `arc.py:smoke`:

  python -m trm_jax.main --config=experiments/arc.py:smoke --workdir=runs/smoke
  python -m trm_jax.main --config=experiments/arc_adapt.py:smoke \
    --config.checkpoint.init_from=runs/smoke --workdir=runs/smoke_adapted
"""

import ml_collections

from experiments import arc, arguments


def get_config(text: str = "") -> ml_collections.ConfigDict:
  """Returns the config of the variants named in `text`."""
  words = arguments.parse(text, ("rows", "deep", "smoke"))
  config = arc.get_config(",".join(sorted(words - {"rows"})))
  config.name = "_".join(["arc_adapt", *sorted(words)])

  # The old run says what its rows are, unless another list is named.
  config.data.identifiers = config.checkpoint.get_oneway_ref("init_from")
  config.data.new_rows = "mean"
  config.train.freeze_network = "rows" in words
  if "smoke" in words:
    config.data.num_test = 5
    return config

  config.data.subsets = ("test",)
  config.data.test_subset = "test"
  config.optimizer.warmup_steps = 200
  config.train.num_steps = 12500
  config.eval.every_steps = 0
  return config
