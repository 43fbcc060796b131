"""Counter-based random numbers from 64-bit keys.

There is no generator state. What is drawn for a row of a batch, a puzzle or an
example is a pure function of its key, and so the same in any batch, on any host
and after any restart.
"""

import numpy as np

# Constants of splitmix64 (Steele, Lea, Flood 2014).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(values: np.ndarray) -> np.ndarray:
  """Hashes uint64 values bijectively (the finaliser of splitmix64)."""
  values = (values ^ (values >> np.uint64(30))) * _MIX_1
  values = (values ^ (values >> np.uint64(27))) * _MIX_2
  return values ^ (values >> np.uint64(31))


def key(*parts: int | np.ndarray) -> np.ndarray:
  """Hashes integers to keys.

  Args:
    *parts: Integers or integer arrays of broadcastable shapes; order matters.

  Returns:
    Keys, uint64, of the common shape, at least [1].
  """
  result = np.zeros(1, np.uint64)  # 1-d: scalar arithmetic warns on overflow
  for part in parts:
    word = part % 2**64 if isinstance(part, int) else part
    result = _mix((result ^ np.asarray(word).astype(np.uint64)) + _GOLDEN)
  return result


def stream(row_keys: np.ndarray, count: int) -> np.ndarray:
  """Draws `count` numbers per key, [B] to uint64 [B, count]."""
  counters = np.arange(1, count + 1, dtype=np.uint64)
  return _mix(_mix(row_keys)[:, None] + counters * _GOLDEN)
