"""Times calls, compilation and a large matrix product; reads peak memory."""

import contextlib
import dataclasses
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from jax.experimental.compilation_cache import compilation_cache

from trm_jax import errors

CALLS = flags.DEFINE_integer("calls", 10, "Timed calls.", lower_bound=1)
WARM_UP = flags.DEFINE_integer(
  "warm_up", 2, "Calls before the timed ones.", lower_bound=1
)

# Size, dtype, and products per call, enough to hide the dispatch.
_LARGE_PRODUCTS = {"cpu": (2048, "float32", 1)}
_ON_ACCELERATORS = (8192, "bfloat16", 16)

_EMPTY_CACHE = {
  "jax_enable_compilation_cache": True,
  "jax_persistent_cache_min_compile_time_secs": 0.0,
  "jax_persistent_cache_min_entry_size_bytes": 0,
}


@dataclasses.dataclass(frozen=True)
class Timing:
  """Seconds of each of several equal calls.

  Attributes:
    median: half of the calls took less.
    quartiles: a quarter took less than the first, more than the second.
    fastest: the least.
  """

  median: float
  quartiles: tuple[float, float]
  fastest: float

  @classmethod
  def of(cls, seconds: list[float]) -> "Timing":
    """Summarizes the seconds of one or more calls."""
    # The method wants two values.
    first, median, third = statistics.quantiles(
      seconds * 2 if len(seconds) == 1 else seconds, n=4, method="inclusive"
    )
    return cls(median=median, quartiles=(first, third), fastest=min(seconds))

  def divided(self, parts: int) -> "Timing":
    """Returns the timing of one of the equal parts of a call."""
    first, third = self.quartiles
    return Timing(
      median=self.median / parts,
      quartiles=(first / parts, third / parts),
      fastest=self.fastest / parts,
    )

  def fields(self) -> dict[str, Any]:
    """Returns the fields of a measurement whose unit is a step."""
    return {
      "seconds_per_step": self.median,
      "quartiles": list(self.quartiles),
      "fastest": self.fastest,
    }


def time_calls(call: Callable[[], Any], *, calls: int, warm_up: int) -> Timing:
  """Times calls, and waits for the arrays of each.

  Args:
    call: returns what to wait for, a tree of arrays.
    calls: number of timed calls.
    warm_up: number of calls before them, in which jitted code is compiled.
  """
  for _ in range(warm_up):
    jax.block_until_ready(call())
  seconds = []
  for _ in range(calls):
    start = time.perf_counter()
    jax.block_until_ready(call())
    seconds.append(time.perf_counter() - start)
  return Timing.of(seconds)


def product_rate(platform: str) -> float:
  """Returns FLOP per second of a large matrix product on one device.

  The fastest of five calls: what the device can do, not what it did while it
  was busy with something else.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'; it determines size and dtype.
  """
  size, dtype, repeats = _LARGE_PRODUCTS.get(platform, _ON_ACCELERATORS)
  # Scaled so that values neither grow nor vanish: hardware is faster, and
  # cooler, on zeros.
  left, right = jax.random.normal(
    jax.random.key(1), (2, size, size), jnp.dtype(dtype)
  )
  right = right * size**-0.5

  @jax.jit
  def multiply(left, right):
    for _ in range(repeats):
      left = left @ right
    return left

  timing = time_calls(lambda: multiply(left, right), calls=5, warm_up=1)
  return 2 * size**3 * repeats / timing.fastest


def peak_bytes() -> int:
  """Returns the peak memory of a device so far.

  For devices that use the host's memory, that of the process.
  """
  stats = [device.memory_stats() for device in jax.local_devices()]
  if all(stats):
    return max(each["peak_bytes_in_use"] for each in stats)
  return peak_host_bytes()


def peak_host_bytes() -> int:
  """Returns this process's peak of the host's memory so far."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # from KiB


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
  """Makes JAX cache compiled programs in a folder that is empty at first.

  Overrides the user's settings of the cache, and forgets what was compiled
  before.
  """
  with tempfile.TemporaryDirectory() as folder:
    settings = _EMPTY_CACHE | {"jax_compilation_cache_dir": folder}
    before = {name: getattr(jax.config, name) for name in settings}
    _change_cache(settings)
    try:
      yield
    finally:
      _change_cache(before)


def _change_cache(settings: dict[str, Any]) -> None:
  for name, value in settings.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()  # it sticks to its first folder
  jax.clear_caches()


def compile_step(function: Any, *arguments: Any, cold: bool) -> dict[str, Any]:
  """Compiles a jitted function, so that calls of it need not.

  Args:
    function: of jax.jit.
    *arguments: its arguments, or their shapes.
    cold: whether to time compiling, cold and from the cache. Only within
      `empty_cache`, before anything like it was compiled.

  Returns:
    The fields of a measurement: memory of temporaries by the compiler's
    account, seconds of tracing (which no cache saves) and of compiling.
  """
  trace_seconds, cold_seconds, compiled = _compile(function, arguments)
  cached_seconds = None
  if cold:
    jax.clear_caches()
    _, cached_seconds, _ = _compile(function, arguments)
  return {
    "temporaries_gb": compiled.memory_analysis().temp_size_in_bytes / 1e9,
    "trace_seconds": trace_seconds,
    "compile_seconds_cold": cold_seconds if cold else None,
    "compile_seconds_cached": cached_seconds,
  }


def _compile(function: Any, arguments: Any) -> tuple[float, float, Any]:
  start = time.perf_counter()
  lowered = function.lower(*arguments)
  traced = time.perf_counter()
  compiled = lowered.compile()
  return traced - start, time.perf_counter() - traced, compiled


@contextlib.contextmanager
def explain_out_of_memory(remedy: str) -> Iterator[None]:
  """Raises UserError where the device's or the host's memory is too small.

  Args:
    remedy: what the user can do.
  """
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    on_device = not isinstance(error, MemoryError)
    if on_device and "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise errors.UserError(
      f"this does not fit the memory; {remedy} ({errors.first_line(error)})"
    ) from error
