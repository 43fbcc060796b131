"""Times calls, compiling, and matrix products; tells of memory."""

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


@dataclasses.dataclass(frozen=True)
class Timing:
  """How long each of some equal calls took; seconds."""

  median: float
  quartiles: tuple[float, float]  # a quarter took less, a quarter more
  fastest: float

  @classmethod
  def of(cls, seconds: list[float]) -> "Timing":
    """Sums up the seconds of the calls, of which there is at least one."""
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
  """Calls again and again, and waits for the arrays of each call.

  Args:
    call: returns what to wait for, a tree of arrays.
    calls: how many to time.
    warm_up: how many before them, in which what is jitted is compiled.
  """
  for _ in range(warm_up):
    jax.block_until_ready(call())
  seconds = []
  for _ in range(calls):
    start = time.perf_counter()
    jax.block_until_ready(call())
    seconds.append(time.perf_counter() - start)
  return Timing.of(seconds)


@dataclasses.dataclass(frozen=True)
class LargeProduct:
  """Products of two square matrices, one after the other in one call."""

  size: int
  dtype: str
  repeats: int  # so many that the host's part of a call does not count


_LARGE_PRODUCTS = {"cpu": LargeProduct(2048, "float32", 1)}
_ON_ACCELERATORS = LargeProduct(8192, "bfloat16", 16)


def product_rate(platform: str) -> float:
  """Returns FLOP per second of a large matrix product on one device.

  The fastest of five calls: what the device can do, not what it did while it
  was busy with something else.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'; it chooses size and dtype.
  """
  large = _LARGE_PRODUCTS.get(platform, _ON_ACCELERATORS)
  # Scaled so that values neither grow nor vanish: hardware is faster, and
  # cooler, on zeros.
  left, right = (
    random_array((large.size, large.size), large.dtype, seed) for seed in (1, 2)
  )
  right = right * large.size**-0.5

  @jax.jit
  def multiply(left, right):
    for _ in range(large.repeats):
      left = left @ right
    return left

  timing = time_calls(lambda: multiply(left, right), calls=5, warm_up=1)
  return 2 * large.size**3 * large.repeats / timing.fastest


def random_array(shape: tuple[int, ...], dtype: str, seed: int) -> jax.Array:
  """Draws from the normal distribution, on the first device."""
  draw = jax.jit(lambda key: jax.random.normal(key, shape, jnp.dtype(dtype)))
  return draw(jax.random.key(seed))


def peak_bytes() -> int:
  """Returns the most memory of a device in use so far.

  Where the host's memory is the device's, the most that the process had.
  """
  stats = [device.memory_stats() for device in jax.local_devices()]
  if all(stats):
    return max(each["peak_bytes_in_use"] for each in stats)
  return peak_host_bytes()


def peak_host_bytes() -> int:
  """Returns the most of the host's memory that this process had so far."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # from KiB


@dataclasses.dataclass(frozen=True)
class Compiling:
  """What compiling took and what came of it."""

  trace_seconds: float  # Python's part, which no cache saves
  cold_seconds: float | None  # None: not measured
  cached_seconds: float | None
  temporary_bytes: int  # of a device, by the compiler's account

  def fields(self) -> dict[str, Any]:
    """Returns the fields of a measurement."""
    return {
      "temporaries_gb": self.temporary_bytes / 1e9,
      "trace_seconds": self.trace_seconds,
      "compile_seconds_cold": self.cold_seconds,
      "compile_seconds_cached": self.cached_seconds,
    }


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
  """Lets JAX keep all that it compiles in a folder that begins empty.

  Also where a user's own settings name a folder, or no cache at all. What was
  compiled before is forgotten, so that it is cold, too.
  """
  with tempfile.TemporaryDirectory() as folder:
    wanted = {
      "jax_enable_compilation_cache": True,
      "jax_compilation_cache_dir": folder,
      "jax_persistent_cache_min_compile_time_secs": 0.0,
      "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    _change_cache(wanted)
    try:
      yield
    finally:
      _change_cache(before)


def _change_cache(settings: dict[str, Any]) -> None:
  for name, value in settings.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()  # it keeps to the folder it began with
  jax.clear_caches()


def compile_step(function: Any, *arguments: Any, cold: bool) -> Compiling:
  """Compiles a jitted function; calls of it then need not.

  Args:
    function: of jax.jit.
    *arguments: its arguments, or their shapes.
    cold: says that this is within `empty_cache` and before anything like it
      was compiled: how long it takes is measured, and how long it takes with
      the cache that it leaves.
  """
  trace_seconds, cold_seconds, compiled = _compile(function, arguments)
  cached_seconds = None
  if cold:
    jax.clear_caches()
    _, cached_seconds, _ = _compile(function, arguments)
  return Compiling(
    trace_seconds=trace_seconds,
    cold_seconds=cold_seconds if cold else None,
    cached_seconds=cached_seconds,
    temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
  )


def _compile(function: Any, arguments: Any) -> tuple[float, float, Any]:
  start = time.perf_counter()
  lowered = function.lower(*arguments)
  traced = time.perf_counter()
  compiled = lowered.compile()
  return traced - start, time.perf_counter() - traced, compiled


@contextlib.contextmanager
def told_if_too_big(remedy: str) -> Iterator[None]:
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
