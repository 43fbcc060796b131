"""Reads and writes the pickles of torch.save, and runs none of them.

A pickle is a program: it may call whatever can be imported, and a list of
allowed names alone does not tame it, since its other instructions can change
what those names lead to. So nothing is unpickled here. `pickletools` takes the
instructions apart, and only those that make plain values and describe tensors
are known; all others are refused.
"""

import dataclasses
import math
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from trm_jax import errors
from trm_jax.interop import torch_shown

# The storages of torch, by the dtype of their numbers.
_DTYPES = {
  "DoubleStorage": np.dtype(np.float64),
  "FloatStorage": np.dtype(np.float32),
  "HalfStorage": np.dtype(np.float16),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "LongStorage": np.dtype(np.int64),
  "IntStorage": np.dtype(np.int32),
  "ShortStorage": np.dtype(np.int16),
  "CharStorage": np.dtype(np.int8),
  "ByteStorage": np.dtype(np.uint8),
  "BoolStorage": np.dtype(np.bool_),
}
_STORAGE_NAMES = {dtype: f"torch {name}" for name, dtype in _DTYPES.items()}

_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_NAMES = frozenset((_DICT, _TENSOR, _PARAMETER, *_STORAGE_NAMES.values()))

# Instructions that put the value on the stack that stands in the pickle.
_VALUES = frozenset(
  (
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "LONG4",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
  )
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MAX_AXES = 8
_MAX_SIZE = 2**63  # of what says where numbers are
_MAX_KEY = 1000  # characters; names of tensors have some dozen

# (key of a storage, dtype, how many numbers) -> its numbers, one axis.
ReadStorage = Callable[[str, np.dtype, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Name:
  """Something of the program that wrote the pickle; means itself only."""

  name: str


def parse(content: bytes, read_storage: ReadStorage, *, where: str) -> Any:
  """Returns what a pickle of torch.save describes.

  Args:
    content: the pickle.
    read_storage: called for each storage; checks that there is such a one.
    where: the file, begins the text of an error.

  Returns:
    None, bool, int, float, str, and of those tuples, lists and dicts; tensors
    and parameters are read-only arrays of NumPy.

  Raises:
    UserError: it is damaged, or holds anything else. Nothing of it was run.
  """
  machine = _Machine(read_storage, where)
  try:
    for opcode, argument, _ in pickletools.genops(content):
      machine.do(opcode.name, argument)
    return machine.result()
  except errors.UserError:
    raise
  except Exception as error:  # whatever bytes without a meaning lead to
    raise errors.UserError(
      f"{where} is damaged: {errors.first_line(error)}"
    ) from error


class _Machine:
  """What the instructions work on: a stack, marks in it, and a memory."""

  def __init__(self, read_storage: ReadStorage, where: str):
    self._read_storage = read_storage
    self._where = where
    self._stack: list[Any] = []
    self._below_marks: list[list[Any]] = []
    self._memory: dict[int, Any] = {}

  def result(self) -> Any:
    (value,) = self._stack
    return value

  def do(self, name: str, argument: Any) -> None:
    stack = self._stack
    match name:
      case "PROTO" | "FRAME" | "STOP":
        pass
      case "MARK":
        self._below_marks.append(stack)
        self._stack = []
      case "EMPTY_DICT":
        stack.append({})
      case "EMPTY_LIST":
        stack.append([])
      case "EMPTY_TUPLE":
        stack.append(())
      case "TUPLE":
        items = self._above_mark()
        self._stack.append(tuple(items))
      case "TUPLE1" | "TUPLE2" | "TUPLE3":
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
      case "APPEND" | "APPENDS":
        items = self._above_mark() if name == "APPENDS" else [stack.pop()]
        self._last(list).extend(items)
      case "SETITEM" | "SETITEMS":
        if name == "SETITEMS":
          items = self._above_mark()
        else:
          items = [stack.pop(-2), stack.pop()]
        self._last(dict).update(self._pairs(items))
      case "BINPUT" | "LONG_BINPUT":
        self._memory[argument] = stack[-1]
      case "MEMOIZE":
        self._memory[len(self._memory)] = stack[-1]
      case "BINGET" | "LONG_BINGET":
        stack.append(self._memory[argument])
      case "GLOBAL":
        stack.append(self._name(argument))
      case "STACK_GLOBAL":
        module, attribute = stack.pop(-2), stack.pop()
        for part in (module, attribute):
          if not isinstance(part, str) or not torch_shown.is_short(part):
            raise self._refused(f"{torch_shown.shown(part)} as a name")
        stack.append(self._name(f"{module} {attribute}"))
      case "BINPERSID":
        stack.append(self._storage(stack.pop()))
      case "REDUCE":
        function, arguments = stack.pop(-2), stack.pop()
        stack.append(self._made(function, arguments))
      case "BUILD":  # a state dict's _metadata, which says nothing of weights
        stack.pop()
        self._last(dict)
      case _ if name in _VALUES:
        if isinstance(argument, int) and not torch_shown.is_short(argument):
          raise self._refused(torch_shown.shown(argument))
        stack.append(argument)
      case _ if name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
      case _:
        raise self._refused(f"an instruction {name} in its pickle")

  def _above_mark(self) -> list[Any]:
    items, self._stack = self._stack, self._below_marks.pop()
    return items

  def _last(self, kind: type) -> Any:
    if not isinstance(self._stack[-1], kind):
      raise ValueError(f"no {kind.__name__} where one is filled")
    return self._stack[-1]

  def _pairs(self, items: list[Any]) -> dict[Any, Any]:
    # No tuples: deeply nested ones overflow the interpreter's own stack.
    if not all(isinstance(key, str | int | float) for key in items[::2]):
      raise self._refused("a dictionary with keys that are no names or numbers")
    # One long key may stand in many dicts, and is read in each.
    if any(isinstance(key, str) and len(key) > _MAX_KEY for key in items[::2]):
      raise self._refused(f"a key of more than {_MAX_KEY:,} characters")
    return dict(zip(items[::2], items[1::2], strict=True))

  def _name(self, name: str) -> _Name:
    if name not in _NAMES:
      shown = torch_shown.shown(name.replace(" ", "."))
      raise self._refused(f"{shown}, which is neither a tensor nor a number")
    return _Name(name)

  def _storage(self, description: Any) -> np.ndarray:
    """Reads the storage ('storage', kind, key, device, how many numbers)."""
    match description:
      case ("storage", _Name(name), str(key), str(), int(size)):
        if name.startswith("torch ") and 0 <= size < _MAX_SIZE:
          return self._read_storage(key, _DTYPES[name.split()[1]], size)
    raise self._refused("a reference that is none to a storage of numbers")

  def _made(self, function: Any, arguments: Any) -> Any:
    match function, arguments:
      case _Name(name), () if name == _DICT:
        return {}
      case _Name(name), (np.ndarray() as tensor, *_) if name == _PARAMETER:
        return tensor
      case _Name(name), (np.ndarray() as storage, offset, shape, strides, *_):
        if name == _TENSOR:
          return self._tensor(storage, offset, shape, strides)
    raise self._refused("a call that makes no tensor")

  def _tensor(
    self, storage: np.ndarray, offset: Any, shape: Any, strides: Any
  ) -> np.ndarray:
    """Returns a view of a storage after checking that it lies within."""
    if (
      storage.ndim != 1
      or not (isinstance(shape, tuple) and isinstance(strides, tuple))
      or not len(shape) == len(strides) <= _MAX_AXES
      or not all(map(_is_size, (offset, *shape, *strides)))
    ):
      raise self._refused("a tensor without a proper shape")
    last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    count = math.prod(shape)
    # More numbers than there are would be the same ones again and again: a
    # few bytes could ask for any memory.
    if count > storage.size or (count and offset + last >= storage.size):
      raise self._refused(
        f"a tensor of shape {shape} that is not within its storage of"
        f" {storage.size} numbers"
      )
    return np.lib.stride_tricks.as_strided(
      storage[offset:] if count else storage[:0],
      shape,
      [step * storage.itemsize for step in strides],
      writeable=False,
    )

  def _refused(self, what: str) -> errors.UserError:
    return errors.UserError(
      f"{self._where} holds {what}, and only tensors, plain values and dicts of"
      " them are read; nothing of it was run. If you trust the file, load it"
      " with PyTorch and save its state dict alone:"
      " torch.save(model.state_dict(), NEW)"
    )


def _is_size(number: Any) -> bool:
  return type(number) is int and 0 <= number < _MAX_SIZE


def dump(tensors: Mapping[str, np.ndarray]) -> bytes:
  """Writes the pickle of an OrderedDict of tensors.

  Args:
    tensors: by name; the numbers of the i-th, in rows, are storage i.
  """
  new_dict = _global(_DICT) + pickle.EMPTY_TUPLE + pickle.REDUCE
  parts = [pickle.PROTO, b"\2", new_dict, pickle.MARK]
  for index, (name, tensor) in enumerate(tensors.items()):
    steps = [1]
    for length in tensor.shape[:0:-1]:
      steps.insert(0, steps[0] * length)
    parts += [
      _plain(name),
      _global(_TENSOR),
      pickle.MARK,
      pickle.MARK,
      _plain("storage"),
      _global(_STORAGE_NAMES[tensor.dtype]),
      _plain(str(index)),
      _plain("cpu"),
      _plain(tensor.size),
      pickle.TUPLE,
      pickle.BINPERSID,
      _plain(0),  # offset
      _plain(tensor.shape),
      _plain(tuple(steps[: tensor.ndim])),
      pickle.NEWFALSE,  # asks for no gradients
      new_dict,  # backward hooks
      pickle.TUPLE,
      pickle.REDUCE,
    ]
  return b"".join([*parts, pickle.SETITEMS, pickle.STOP])


def _global(name: str) -> bytes:
  return pickle.GLOBAL + name.replace(" ", "\n").encode() + b"\n"


def _plain(value: str | int | tuple[int, ...]) -> bytes:
  """Returns the instructions that put a plain value on the stack."""
  whole = pickle.dumps(value, protocol=2)
  return whole[2:-1]  # without the protocol and the end
