r"""The TRM paper's ablations on Sudoku-Extreme, one mechanism each.

The name after the colon of ablations.py, what it changes in sudoku.py, and the
paper's exact accuracy (arXiv 2510.04871) in %:

  table 1   trm                nothing                                   87.4
            hrm                HRM, as hrm.py has it                     55.0
            continue_loss      halting by Q-learning ("w/ ACT")          86.1
            separate_networks  one network for z, one for y              82.4
            no_ema             the latest weights are evaluated          79.9
            four_layers        4 layers, n = 3                           79.5
            attention          self-attention instead of MLP mixing      74.7
            t2_n2              T = 2, n = 2                              73.7
            one_step_gradient  only the last update of z and of y        56.5
  table 2   multi_scale        a separate z for each of the n updates    77.6
            single_latent      no z, only the answer                     71.9
  table 3   trm_kK_tT          n = 2 K, T, 2 layers
            hrm_kK_tT          HRM with n = K, T, 4 layers
  table 4   direct             a transformer of 8 layers, once            0.0

Table 3 has K, T of 1, 1; 2, 2; 3, 3; 4, 4; 6, 3; 3, 6; 6, 6, with TRM 63.2,
81.9, 87.4, 84.2, out of memory, 85.8, out of memory, and with HRM 46.4, 55.0,
61.6, 59.5, 62.3, 58.8, 57.5.

The transformer answers at once: one supervision step, on HRM's recipe. Its 0.0
is from HRM's paper, which gives its size, 27M, and little else. In the official
code it may take 16 steps, like the others (here with
--config.train.max_supervision_steps=16 --config.eval.supervision_steps=16), and
has 12 heads of size 42, not 8 of 64, which cannot be set here.

Not yet run here; `launch.sweep` makes the table (experiments/sweeps/tables.py).
Training times are those of sudoku.py, in proportion to each row's depth.

  python -m trm_jax.main --config=experiments/ablations.py:no_ema

Add `smoke` (`ablations.py:no_ema,smoke`) for a few steps of a narrow network on
generated 9x9 puzzles, or `quickstart` (`ablations.py:hrm,quickstart`) for the
quickstart's network and 6x6 puzzles, which a laptop trains in minutes.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import ml_collections

from experiments import arguments, hrm, quickstart, sudoku

# (K, T) of table 3 and the accuracy of TRM and of HRM; None: out of memory.
_RECURSIONS = (
  (1, 1, 63.2, 46.4),
  (2, 2, 81.9, 55.0),
  (3, 3, 87.4, 61.6),
  (4, 4, 84.2, 59.5),
  (6, 3, None, 62.3),
  (3, 6, 85.8, 58.8),
  (6, 6, None, 57.5),
)


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the paper's tables."""

  text: str  # as the table names it
  change: Callable[[ml_collections.ConfigDict], None]  # to sudoku.py
  accuracy: float | None  # the paper's, in %; None: out of memory there
  parameters: str  # the paper's, as in the table; "" where it does not say


def _nothing(config: ml_collections.ConfigDict) -> None:
  del config


def _continue_loss(config: ml_collections.ConfigDict) -> None:
  config.train.halt_rule = "halt_over_continue"


def _separate_networks(config: ml_collections.ConfigDict) -> None:
  config.model.separate_networks = True


def _no_ema(config: ml_collections.ConfigDict) -> None:
  config.optimizer.ema_decay = 0.0


def _four_layers(config: ml_collections.ConfigDict) -> None:
  config.model.num_layers = 4
  config.model.latent_updates = 3


def _attention(config: ml_collections.ConfigDict) -> None:
  config.model.token_mixing = "attention"
  config.model.position_encoding = "rope"


def _recursions(
  config: ml_collections.ConfigDict, *, updates: int, cycles: int
) -> None:
  config.model.latent_updates = updates
  config.model.recursion_cycles = cycles


def _one_step_gradient(config: ml_collections.ConfigDict) -> None:
  config.model.gradient_updates = 1


def _multi_scale(config: ml_collections.ConfigDict) -> None:
  config.model.recursion_type = "latent_per_update"


def _single_latent(config: ml_collections.ConfigDict) -> None:
  config.model.recursion_type = "single_latent"


def _hrm_recursions(
  config: ml_collections.ConfigDict, *, updates: int, cycles: int
) -> None:
  hrm.make_hrm(config)
  _recursions(config, updates=updates, cycles=cycles)


def _direct(config: ml_collections.ConfigDict) -> None:
  _attention(config)
  _recursions(config, updates=1, cycles=1)
  config.model.recursion_type = "direct"
  config.model.num_layers = 8
  config.model.num_prefix_tokens = 1
  config.optimizer.ema_decay = 0.0
  config.train.max_supervision_steps = 1
  config.eval.supervision_steps = 1


def _of_table_3() -> dict[str, Row]:
  """Returns the rows of table 3, TRM's first."""
  rows = {}
  for kind, layers, factor, change, place in (
    ("trm", 2, 2, _recursions, 2),
    ("hrm", 4, 1, _hrm_recursions, 3),
  ):
    for row in _RECURSIONS:
      k, cycles, updates = row[0], row[1], factor * row[0]
      rows[f"{kind}_k{k}_t{cycles}"] = Row(
        f"{kind.upper()}, T = {cycles}, n = {updates}, {layers} layers",
        functools.partial(change, updates=updates, cycles=cycles),
        row[place],
        "",
      )
  return rows


_OF_TABLE_1 = {
  "hrm": Row("HRM", hrm.make_hrm, 55.0, "27M"),
  "trm": Row("TRM (T = 3, n = 6)", _nothing, 87.4, "5M"),
  "continue_loss": Row("w/ ACT (continue loss)", _continue_loss, 86.1, "5M"),
  "separate_networks": Row(
    "w/ separate networks", _separate_networks, 82.4, "10M"
  ),
  "no_ema": Row("no EMA", _no_ema, 79.9, "5M"),
  "four_layers": Row("w/ 4 layers, n = 3", _four_layers, 79.5, "10M"),
  "attention": Row("w/ self-attention", _attention, 74.7, "7M"),
  "t2_n2": Row(
    "w/ T = 2, n = 2",
    functools.partial(_recursions, updates=2, cycles=2),
    73.7,
    "5M",
  ),
  "one_step_gradient": Row(
    "w/ 1-step gradient", _one_step_gradient, 56.5, "5M"
  ),
}
_OF_TABLE_2 = {
  "multi_scale": Row("TRM multi-scale z", _multi_scale, 77.6, ""),
  "single_latent": Row("TRM single z", _single_latent, 71.9, ""),
}
_OF_TABLE_3 = _of_table_3()
_DIRECT = {"direct": Row("Direct prediction", _direct, 0.0, "27M")}

ROWS: Mapping[str, Row] = {
  **_OF_TABLE_1,
  **_OF_TABLE_2,
  **_OF_TABLE_3,
  **_DIRECT,
}
TABLES: Mapping[str, tuple[str, ...]] = {
  "table1": tuple(_OF_TABLE_1),
  "table2": ("trm", *_OF_TABLE_2),
  "table3": tuple(_OF_TABLE_3),
  "table4": ("direct", "hrm", "attention", "trm"),  # Sudoku's column
}


def get_config(text: str = "") -> ml_collections.ConfigDict:
  """Returns the config of the row, and on what, that `text` names."""
  words = arguments.parse(text, (*ROWS, "smoke", "quickstart"))
  rows = words & set(ROWS)
  if len(rows) > 1 or len(words - rows) > 1:
    raise ValueError(
      f"{text!r} names {', '.join(sorted(words))}; name one row, and smoke or"
      " quickstart"
    )
  row = next(iter(rows), "trm")
  if "quickstart" in words:
    config = quickstart.get_config()
  else:
    config = sudoku.get_config(",".join(words - rows))
    if "smoke" not in words and (row.startswith("hrm") or row == "direct"):
      config.train.num_steps = hrm.STEPS
  ROWS[row].change(config)
  config.name = "_".join(["ablations", *rows, *(words - rows)])
  return config
