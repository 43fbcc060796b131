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
# # Watching it think
#
# A TRM improves its answer in supervision steps. This notebook shows the answer
# after each of them, and how sure the network is that it is right.

# %%
import numpy as np

import trm_jax

WORKDIR = "runs/quickstart"  # any trained run, or a folder of weights

solver = trm_jax.load(WORKDIR)
look = solver.look
print(f"grids of {look.rows} x {look.cols} cells, step {solver.step}")

# %% [markdown]
# ## A puzzle that takes several steps
#
# Of new puzzles we take the one whose answer changes most often.

# %%
from trm_jax.data import tasks

test = tasks.load(solver.config.data).test
inputs, labels = test.inputs[:100], test.labels[:100]
trace = solver.trace_tokens(inputs)  # answers [steps, puzzles, cells]
changes = (trace.answers[1:] != trace.answers[:-1]).any(-1).sum(0)
solved = (trace.answers[-1] == labels).all(-1)
hardest = int(np.argmax(np.where(solved, changes, -1)))
print(look.text(inputs[hardest]))

# %% [markdown]
# ## Step by step

# %%
for step, answer in enumerate(trace.answers[:, hardest], 1):
  wrong = int((answer != labels[hardest]).sum())
  confidence = trace.confidence[step - 1, hardest]
  print(f"step {step}: {wrong} cells wrong, confidence {confidence:.1%}")
  print(look.text(answer), end="\n\n")
  if wrong == 0:
    break

# %% [markdown]
# ## All puzzles at once
#
# The share of exact answers by supervision step, and the mean confidence.

# %%
import matplotlib.pyplot as plt

exact = (trace.answers == labels).all(-1).mean(1)
steps = np.arange(1, len(exact) + 1)
fig, ax = plt.subplots(figsize=(6, 3))
ax.plot(steps, 100 * exact, marker="o", label="exact answers")
ax.plot(steps, 100 * trace.confidence.mean(1), marker=".", label="confidence")
ax.set(xlabel="supervision steps", ylabel="%", ylim=(0, 105))
ax.legend()
fig.savefig("steps.png")
