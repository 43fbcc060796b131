r"""New ARC tasks on trained weights: adds rows to the puzzle table for them.

A trained network has a row of the table for each variant of the tasks that it
was trained on, and none for others. This experiment adds rows for new tasks at
the end of the table, trains on their demonstrations, and answers their test
inputs by a vote of all variants. Test answers need not be known. FOLDER has the
new tasks as arc-agi_test_challenges.json (Kaggle's layout) or as
test/NAME.json; runs/arc is the run to start from:

  python -m trm_jax.main --config=experiments/arc_adapt.py \
    --config.checkpoint.init_from=runs/arc --config.data.source=FOLDER \
    --workdir=runs/adapted

writes runs/adapted/evaluations/step_12500/submission.json. Another subset:
"--config.data.subsets=('evaluation',)" --config.data.test_subset=evaluation.
Its network must be that of arc.py; repeat the settings of the old run if it was
another.

  arc_adapt.py       trains everything, including rows of older tasks if the
                     data have them
  arc_adapt.py:rows  trains the rows only; the network stays as it is
  arc_adapt.py:deep  starts from a run of arc.py:deep

"Test-time Adaptation of Tiny Recursive Models" (arXiv 2511.02886) reports
6.67 % on the hidden tasks of ARC-AGI-2 after 12,500 steps, within the contest's
time limit, and that training the rows alone solved hardly any hidden task. Not
yet run here.

New rows start as the mean of the trained ones; with
--config.data.new_rows=zeros they start at zero, like all rows of a new
training. The same command resumes, and with --mode=evaluate it evaluates. Both
read the identifiers.json of runs/arc. If that run is gone, use
--config.data.identifiers=runs/adapted: the new run keeps a list of all its
rows. A warning that training saw test answers considers both runs.

`arc_adapt.py:smoke` (and `arc_adapt.py:rows,smoke`) takes a few steps on
generated tasks, two of which are new to a run of `arc.py:smoke`:

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

  # The rows are those of the old run unless another list is named.
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
