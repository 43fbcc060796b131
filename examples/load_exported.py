"""Solves a puzzle with an exported solver; does not need trm_jax.

`pip install jax flatbuffers` is all that this program wants. The folder comes
from `python -m trm_jax.main --mode=export --workdir=RUN --output=FOLDER`.

  python examples/load_exported.py FOLDER 4.....1.2...
"""

import json
import sys

import jax
import numpy as np
from jax import export

folder, question = sys.argv[1:]
with open(f"{folder}/about.json") as file:
  tokens = json.load(file)["tokens"]
with open(f"{folder}/solver.stablehlo", "rb") as file:
  solve = jax.jit(export.deserialize(bytearray(file.read())).call)
weights = dict(np.load(f"{folder}/weights.npz"))
questions = np.array([[tokens.index(c) for c in question]], np.int32)
answers, confidence, steps = solve(weights, questions, np.zeros(1, np.int32))
print("".join(tokens[token] for token in answers[0].tolist()))
print(f"confidence {confidence[0]:.3f}, {steps[0]} supervision steps")
