# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart
#
# Trains a Tiny Recursive Model on 6x6 Sudokus, which takes a few minutes on a
# laptop's CPU, and solves new puzzles with it. It is the same experiment as
# `python -m trm_jax.main --config=experiments/quickstart.py`. Run it from a
# clone of the repository, where the folder `experiments` is.

# %%
from experiments import quickstart
from trm_jax import config, train

WORKDIR = "runs/quickstart_notebook"

settings = quickstart.get_config()
settings.train.num_steps = 700

# %% [markdown]
# ## Train
#
# Every line of the log has the loss of the answers, the share of puzzles whose
# answer is exactly right, and the mean number of supervision steps (ACT steps)
# that a puzzle stays in its slot. The accuracy of the log is that of puzzles
# being trained on; the evaluation at the end uses new ones.

# %%
result = train.train(config.from_config_dict(settings), WORKDIR)

# %% [markdown]
# ## Solve
#
# `trm_jax.load` opens what a training saved. A puzzle is one character per
# cell, row after row, with a dot for an empty cell.

# %%
import trm_jax

solver = trm_jax.load(WORKDIR)
puzzle = ".32.1..........24.4...316143.2...1.."
(answer,) = solver.solve([puzzle])
print(answer.text)
print(f"confidence {answer.confidence:.1%} after {answer.steps} steps")

# %% [markdown]
# `answer.valid` checks the rules of Sudoku, which the network never sees.

# %%
print(answer.grid)
print("valid solution:", answer.valid)
