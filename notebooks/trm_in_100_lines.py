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
# # TRM in 100 lines of JAX
#
# The Tiny Recursive Model (arXiv 2510.04871) with MLP mixing, written out in
# plain functions of dictionaries of arrays: the network, the recursion, deep
# supervision and halting. At the end, its numbers are compared with those of
# the package.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax

L, V, D = 16, 6, 64  # cells, tokens, hidden size: 4x4 Sudoku
N, T, MAX_STEPS = 3, 2, 8  # updates of z, cycles, supervision steps
LAYERS, BATCH, STEPS = 2, 64, 300


# %% [markdown]
# ## The network
#
# Two layers without biases. Each mixes the cells with one MLP, then the
# channels with another; both are SwiGLU, and an RMS norm follows each. `net`
# maps a state and what is added to it to the new state.


# %%
def norm(x, axis=-1):
  return x * jax.lax.rsqrt(jnp.mean(x**2, axis, keepdims=True) + 1e-5)


def swiglu(p, x):
  gate, up = jnp.split(x @ p["gate_up"], 2, axis=-1)
  return (jax.nn.silu(gate) * up) @ p["down"]


def net(params, state, injection):
  h = state + injection
  for p in params:
    t = jnp.swapaxes(h, 1, 2)  # [B, D, L]
    h = jnp.swapaxes(norm(t + swiglu(p["tokens"], t)), 1, 2)
    h = norm(h + swiglu(p["channels"], h))
  return h


def init(key):
  keys = iter(jax.random.split(key, 6 * LAYERS + 6))

  def normal(fan_in, *shape):
    std = 1 / np.sqrt(fan_in)
    return std * jax.random.truncated_normal(next(keys), -2, 2, shape)

  def mlp(size):
    width = -(-round(4 * size * 2 / 3) // 32) * 32
    return {
      "gate_up": normal(size, size, 2 * width),
      "down": normal(width, width, size),
    }

  return {
    "embedding": normal(D, V, D),
    "net": [{"tokens": mlp(L), "channels": mlp(D)} for _ in range(LAYERS)],
    "head": normal(D, D, V),
    "halt": {"w": jnp.zeros(D), "b": jnp.array(-5.0)},
  }, {"y": normal(1, D), "z": normal(1, D)}


# %% [markdown]
# ## The recursion
#
# One supervision step: `T` cycles of `N` updates of the latent z and one of the
# answer y. Only the last cycle has gradients.


# %%
def cycle(net_params, x, y, z):
  def update(z, _):
    return net(net_params, z, y + x), None

  z, _ = jax.lax.scan(update, z, length=N)
  return net(net_params, y, z), z


def supervision_step(params, tokens, y, z):
  x = params["embedding"][tokens] * np.sqrt(D)
  frozen, fixed = jax.lax.stop_gradient((params["net"], x))
  for _ in range(T - 1):
    y, z = cycle(frozen, fixed, y, z)
  y, z = cycle(params["net"], x, *jax.lax.stop_gradient((y, z)))
  logits = y @ params["head"]
  halt = y[:, 0] @ params["halt"]["w"] + params["halt"]["b"]
  return logits, halt, jax.lax.stop_gradient((y, z))


# %% [markdown]
# ## Training
#
# Deep supervision: every supervision step is one step of the optimizer, and the
# next one continues from its latents. A slot takes a new puzzle when the
# network believes its answer to be right, or after `MAX_STEPS`. The loss is
# stablemax cross-entropy for the answer and a binary one for the halting.


# %%
def log_stablemax(logits):
  s = jnp.where(logits >= 0, logits + 1, 1 / (1 - jnp.minimum(logits, 0)))
  return jnp.log(s / jnp.sum(s, -1, keepdims=True))


def loss_fn(params, tokens, labels, y, z):
  logits, halt, latents = supervision_step(params, tokens, y, z)
  log_p = jnp.take_along_axis(log_stablemax(logits), labels[..., None], -1)
  exact = jnp.all(jnp.argmax(logits, -1) == labels, -1)
  bce = optax.sigmoid_binary_cross_entropy(halt, exact.astype(jnp.float32))
  return jnp.mean(-log_p) + 0.5 * jnp.mean(bce), (halt, exact, latents)


optimizer = optax.adamw(optax.linear_schedule(0, 3e-3, 30), weight_decay=0.1)


@jax.jit
def train_step(params, start, opt_state, slots, fresh):
  def choose(new, old):
    halted = slots["halted"].reshape(-1, *[1] * (old.ndim - 1))
    return jnp.where(halted, new, old)

  full = (BATCH, L, D)
  begin = {k: jnp.broadcast_to(start[k], full) for k in ("y", "z")}
  now = jax.tree.map(
    choose, fresh | begin, {k: slots[k] for k in fresh | begin}
  )
  steps = jnp.where(slots["halted"], 0, slots["steps"]) + 1
  arguments = (now["tokens"], now["labels"], now["y"], now["z"])
  grad = jax.grad(loss_fn, has_aux=True)(params, *arguments)
  gradients, (halt, exact, (y, z)) = grad
  updates, opt_state = optimizer.update(gradients, opt_state, params)
  halted = (steps >= MAX_STEPS) | (halt > 0)
  slots = now | {"y": y, "z": z, "steps": steps, "halted": halted}
  return optax.apply_updates(params, updates), opt_state, slots, exact.mean()


# %% [markdown]
# ## Puzzles
#
# The package's generator makes 4x4 Sudokus; 1 is an empty cell, 2 to 5 the
# digits.

# %%
from trm_jax.data.sudoku import generator

train_set, test_set = generator.generate_split(
  200, 100, box_rows=2, box_cols=2, num_clues=6, seed=0
)
params, start = init(jax.random.key(0))
opt_state = optimizer.init(params)
slots = {
  "tokens": jnp.zeros((BATCH, L), int),
  "labels": jnp.zeros((BATCH, L), int),
  "y": jnp.zeros((BATCH, L, D)),
  "z": jnp.zeros((BATCH, L, D)),
  "steps": jnp.zeros(BATCH, int),
  "halted": jnp.ones(BATCH, bool),
}
rng = np.random.default_rng(0)
for step in range(STEPS):
  rows = rng.integers(len(train_set.inputs), size=BATCH)
  digits = np.concatenate([[0, 1], 2 + rng.permutation(4)])  # rename the digits
  fresh = {
    "tokens": jnp.asarray(digits[train_set.inputs[rows]]),
    "labels": jnp.asarray(digits[train_set.labels[rows]]),
  }
  params, opt_state, slots, exact = train_step(
    params, start, opt_state, slots, fresh
  )
  if step % 50 == 0 or step == STEPS - 1:
    print(f"step {step}: {exact:.1%} of the slots exact")


# %% [markdown]
# ## New puzzles

# %%
tokens, labels = jnp.asarray(test_set.inputs), jnp.asarray(test_set.labels)
y, z = (jnp.broadcast_to(start[k], (*tokens.shape, D)) for k in ("y", "z"))
for _ in range(MAX_STEPS):
  logits, halt, (y, z) = jax.jit(supervision_step)(params, tokens, y, z)
exact = np.mean(np.all(np.argmax(logits, -1) == labels, -1))
print(f"{exact:.1%} of {len(tokens)} new puzzles solved")

# %% [markdown]
# ## The same numbers as the package
#
# The weights of the notebook, given to `trm_jax`'s own model, must give the
# same logits.

# %%
from trm_jax.core import model, network, types

packaged = model.TinyRecursiveModel(
  vocab_size=V,
  seq_len=L,
  hidden_size=D,
  network_config=network.NetworkConfig(
    num_layers=LAYERS,
    num_heads=1,
    mlp_expansion=4.0,
    mlp_multiple=32,
    token_mixing="mlp",
  ),
  num_prefix_tokens=0,
  latent_updates=N,
  recursion_cycles=T,
)


def kernels(mlp):
  return {name: {"kernel": kernel} for name, kernel in mlp.items()}


halting = jnp.stack([params["halt"]["w"], jnp.zeros(D)], axis=1)
variables = {
  "token_embedding": {"embedding": params["embedding"]},
  "network": {
    f"layers_{i}": {
      "token_mlp": kernels(layer["tokens"]),
      "channel_mlp": kernels(layer["channels"]),
    }
    for i, layer in enumerate(params["net"])
  },
  "answer_head": {"kernel": params["head"]},
  "halt_head": {
    "kernel": halting,
    "bias": jnp.stack([params["halt"]["b"], jnp.array(0.0)]),
  },
}
y, z = (jnp.broadcast_to(start[k], (*tokens.shape, D)) for k in ("y", "z"))
no_vectors = jnp.zeros((len(tokens), 0))
latents = types.Latents(y=y, z=z)
output = packaged.apply({"params": variables}, tokens, no_vectors, latents)
logits, halt, _ = supervision_step(params, tokens, y, z)
np.testing.assert_allclose(output.logits, logits, rtol=1e-3, atol=1e-3)
np.testing.assert_allclose(output.halt_logits, halt, rtol=1e-3, atol=1e-3)
print("largest difference:", float(jnp.abs(output.logits - logits).max()))
