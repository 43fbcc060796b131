"""Reads PyTorch and safetensors files without running anything in them.

A file of torch.save is a zip archive of one pickle and the tensors' bytes. A
pickle is a program that may call anything importable, and an allowlist of names
alone does not tame it, because its other opcodes can change what those names
refer to. So nothing is unpickled: `pickletools` decodes the opcodes, and only
those that build plain values and describe tensors are interpreted. Objects and
calls of anything else (a Lightning checkpoint's callbacks, a dataclass of
settings, a path) become placeholders: no name is looked up. Nothing is unpacked
to disk, and reading a file takes no more memory than its size. PyTorch is not
needed.
"""

import math
import os
import pickletools
import zipfile
from collections.abc import Callable
from typing import IO, Any

import ml_dtypes
import numpy as np
import safetensors
from etils import epath

from trm_jax import errors
from trm_jax.runtime import processes

SAFETENSORS = ".safetensors"

_PICKLE = "data.pkl"
_SCRIPT = "constants.pkl"  # only TorchScript archives have it
_MAX_PICKLE = 2**21  # bytes; that of a state dict has some thousand
_MAX_AXES = 8
_MAX_SIZE = 2**63  # of offsets, lengths and strides
_MAX_KEY = 1000  # characters; names of tensors have some dozen
_MAX_TEXT = 80  # characters of a value in a message
_MAX_ATTRIBUTES = 2**16  # of all objects of a file
_MAX_BITS = 128  # as seeds of random numbers; no size comes near it

_DTYPES = {  # by storage class of torch
  "torch DoubleStorage": np.dtype(np.float64),
  "torch FloatStorage": np.dtype(np.float32),
  "torch HalfStorage": np.dtype(np.float16),
  "torch BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "torch LongStorage": np.dtype(np.int64),
  "torch IntStorage": np.dtype(np.int32),
  "torch ShortStorage": np.dtype(np.int16),
  "torch CharStorage": np.dtype(np.int8),
  "torch ByteStorage": np.dtype(np.uint8),
  "torch BoolStorage": np.dtype(np.bool_),
}
_SAFETENSORS_DTYPES = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
  "I64": np.int64,
  "I32": np.int32,
}
_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETERS = (
  "torch._utils _rebuild_parameter",
  "torch._utils _rebuild_parameter_with_state",
)
_SUBCLASS = "torch._tensor _rebuild_from_type_v2"
_KNOWN = frozenset((_DICT, _TENSOR, *_PARAMETERS, _SUBCLASS, *_DTYPES))

# Opcodes that push their own argument.
_VALUES = frozenset({
  "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT",
  "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
  "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
})  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_SAVE_AGAIN = (
  "load it in PyTorch and save it again: torch.save(torch.load(OLD), NEW)"
)

# (key of a storage, dtype, number of elements) -> its elements, one axis.
ReadStorage = Callable[[str, np.dtype, int], np.ndarray]


class Placeholder(dict):
  """A class, function or object of the program that wrote a file.

  It is never looked up, made or called. As a dict it holds the object's
  attributes or items, if the file has them.

  Attributes:
    name: "module attribute" of the class or function.
  """

  def __init__(self, name: str):
    super().__init__()
    self.name = name


def read(path: epath.PathLike) -> Any:
  """Reads a file of torch.save (version 1.6 or later) or of safetensors.

  Args:
    path: the file; safetensors if its name ends so.

  Returns:
    Tensors and parameters as read-only NumPy arrays (bfloat16 of ml_dtypes),
    plain values, dicts, lists and tuples of them, and placeholders for anything
    else, which a line on stderr names.

  Raises:
    UserError: the file is unreadable, damaged or of another kind.
  """
  path = epath.Path(path)
  if path.name.endswith(SAFETENSORS):
    return _read_safetensors(path)
  with (
    errors.user_error_context(f"cannot read {path}"),
    path.open("rb") as file,
  ):
    return _read_torch(file, str(path))


def quoted(value: Any) -> str:
  """Returns ASCII text on one line for any value from a file.

  Whoever made the file chose the value: it may be huge, or lists in each other
  whose text outgrows any memory, or hold control sequences of a terminal.
  """
  if isinstance(value, str):
    text = ascii(value[:_MAX_TEXT])
    is_whole = len(value) <= _MAX_TEXT and len(text) <= _MAX_TEXT + 2
    return text if is_whole else f"{text[:_MAX_TEXT]}...{text[0]}"
  if is_short(value):
    return repr(value)
  if isinstance(value, int):
    return f"a number of {value.bit_length():,} bits"
  name = value.name if isinstance(value, Placeholder) else type(value).__name__
  return f"an object of type {ascii(name[:_MAX_TEXT])[1:-1]}"


def is_short(value: Any) -> bool:
  """Tells whether a value is None, or a string or number of usual length."""
  if isinstance(value, str):
    return len(value) <= _MAX_TEXT
  if isinstance(value, int):
    return value.bit_length() <= _MAX_BITS
  return value is None or isinstance(value, float)


def _read_safetensors(path: epath.Path) -> dict[str, np.ndarray]:
  with errors.user_error_context(f"cannot read {path}"):
    parts = safetensors.deserialize(path.read_bytes())
    # The package's own reader for NumPy has no bfloat16.
    unknown = sorted(
      {part["dtype"] for _, part in parts}.difference(_SAFETENSORS_DTYPES)
    )
    if unknown:
      raise errors.UserError(
        f"{path} has tensors of dtype {unknown[0]}, which no TRM has"
      )
    return {
      name: np.frombuffer(
        part["data"], _SAFETENSORS_DTYPES[part["dtype"]]
      ).reshape(part["shape"])
      for name, part in parts
    }


def _read_torch(file: IO[bytes], where: str) -> Any:
  start = file.read(4)
  if start[:1] == b"\x80":
    raise errors.UserError(
      f"{where} is in torch.save's format from before version 1.6, or another"
      f" pickle; {_SAVE_AGAIN}"
    )
  if start != b"PK\3\4":
    raise errors.UserError(
      f"{where} is not a torch.save file, and its name does not end in"
      f" {SAFETENSORS}"
    )
  size = file.seek(0, os.SEEK_END)
  try:
    with zipfile.ZipFile(file) as archive:
      return _Archive(archive, where, size).tree()
  except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
    raise errors.UserError(
      f"{where} is damaged: {errors.first_line(error)}"
    ) from error


class _Archive:
  """The members of one torch.save file, looked up by exact name."""

  def __init__(self, archive: zipfile.ZipFile, where: str, size: int):
    self._archive = archive
    self._where = where
    self._parts = {part.filename: part for part in archive.infolist()}
    self._storages: dict[str, np.ndarray] = {}
    basenames = [name.rpartition("/")[2] for name in self._parts]
    if _SCRIPT in basenames:
      raise errors.UserError(
        f"{where} is a TorchScript program, not weights; in PyTorch run"
        " torch.save(torch.jit.load(OLD).state_dict(), NEW)"
      )
    if basenames.count(_PICKLE) != 1:
      raise errors.UserError(
        f"{where} is a zip file, but not one of torch.save: it has"
        f" {basenames.count(_PICKLE)} members {_PICKLE}, expected 1"
      )
    (pickle,) = (n for n in self._parts if n.rpartition("/")[2] == _PICKLE)
    self._prefix = pickle.removesuffix(_PICKLE)
    self._check_stored(size)

  def tree(self) -> Any:
    order = self._prefix + "byteorder"
    if order in self._parts and self._content(order) != b"little":
      raise errors.UserError(
        f"{self._where} was saved on a big-endian machine; {_SAVE_AGAIN}"
      )
    if self._parts[self._prefix + _PICKLE].file_size > _MAX_PICKLE:
      raise errors.UserError(
        f"{self._where} has more than {_MAX_PICKLE:,} bytes besides its"
        f" tensors; {_SAVE_AGAIN}, the state dict alone"
      )
    content = self._content(self._prefix + _PICKLE)
    return _parse(content, self._storage, where=self._where)

  def _check_stored(self, size: int) -> None:
    """Raises UserError if any member would grow when it is read.

    torch.save compresses nothing, and no byte belongs to two of its members.
    Files made to exhaust the memory break one of the two.
    """
    if any(
      part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1
      for part in self._parts.values()
    ):
      raise errors.UserError(
        f"{self._where} is compressed or encrypted, which torch.save's files"
        f" never are; unpack it, or {_SAVE_AGAIN}"
      )
    if sum(part.file_size for part in self._archive.infolist()) > size:
      raise errors.UserError(
        f"{self._where} is damaged: its members have more bytes than the file"
      )

  def _content(self, name: str) -> bytes:
    return self._archive.read(self._parts[name])

  def _storage(self, key: str, dtype: np.dtype, size: int) -> np.ndarray:
    """Returns the elements of a storage; each key is read once."""
    name = f"{self._prefix}data/{key}"
    if name not in self._parts:
      raise errors.UserError(
        f"{self._where} is damaged: storage {quoted(key)} is missing"
      )
    found, expected = self._parts[name].file_size, size * dtype.itemsize
    if found != expected:
      raise errors.UserError(
        f"{self._where} is damaged: storage {quoted(key)} has {found} bytes,"
        f" expected {expected}"
      )
    if key not in self._storages:
      self._storages[key] = np.frombuffer(self._content(name), np.uint8)
    return self._storages[key].view(dtype)


def _parse(content: bytes, read_storage: ReadStorage, *, where: str) -> Any:
  """Returns what a pickle of torch.save describes; runs none of it.

  Args:
    content: the pickle.
    read_storage: called for each storage; checks that it exists.
    where: the file, for messages.

  Raises:
    UserError: it is damaged, or holds what torch.save does not write.
  """
  machine = _Machine(read_storage, where)
  try:
    for opcode, argument, _ in pickletools.genops(content):
      machine.do(opcode.name, argument)
    result = machine.result()
  except errors.UserError:
    raise
  except Exception as error:  # whatever meaningless bytes lead to
    raise errors.UserError(
      f"{where} is damaged: {errors.first_line(error)}"
    ) from error
  names = [quoted(name.replace(" ", ".")) for name in machine.unknown]
  if names:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    processes.log_once(
      f"{where} has objects besides its tensors, of which nothing was run:"
      f" {', '.join(names[:3])}{more}"
    )
  return result


class _Machine:
  """Interprets the allowed opcodes on a stack, its marks and a memo."""

  def __init__(self, read_storage: ReadStorage, where: str):
    self._read_storage = read_storage
    self._where = where
    self._stack: list[Any] = []
    self._below_marks: list[list[Any]] = []
    self._memo: dict[int, Any] = {}
    self._attributes = 0  # of all placeholders
    self.unknown: dict[str, None] = {}  # names, in the order of the file

  def result(self) -> Any:
    (value,) = self._stack
    return value

  def do(self, name: str, argument: Any) -> None:
    """Interprets one opcode."""
    stack = self._stack
    match name:
      case "PROTO" | "FRAME" | "STOP":
        pass
      case "MARK":
        self._below_marks.append(stack)
        self._stack = []
      case "EMPTY_DICT":
        stack.append({})
      case "EMPTY_LIST" | "EMPTY_SET":
        stack.append([])
      case "EMPTY_TUPLE":
        stack.append(())
      case "TUPLE" | "FROZENSET":
        items = self._above_mark()
        self._stack.append(tuple(items))
      case "TUPLE1" | "TUPLE2" | "TUPLE3":
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
      case "APPEND" | "APPENDS" | "ADDITEMS":
        items = [stack.pop()] if name == "APPEND" else self._above_mark()
        if not isinstance(self._stack[-1], Placeholder):
          _expect(self._stack[-1], list).extend(items)
      case "SETITEM" | "SETITEMS":
        if name == "SETITEMS":
          items = self._above_mark()
        else:
          items = [stack.pop(-2), stack.pop()]
        _expect(self._stack[-1], dict).update(self._pairs(items))
      case "BINPUT" | "LONG_BINPUT":
        self._memo[argument] = stack[-1]
      case "MEMOIZE":
        self._memo[len(self._memo)] = stack[-1]
      case "BINGET" | "LONG_BINGET":
        stack.append(self._memo[argument])
      case "GLOBAL":
        stack.append(self._name(argument))
      case "STACK_GLOBAL":
        module, attribute = stack.pop(-2), stack.pop()
        for part in (module, attribute):
          if not isinstance(part, str) or not is_short(part):
            raise self._refused(f"{quoted(part)} as a name")
        stack.append(self._name(f"{module} {attribute}"))
      case "BINPERSID":
        stack.append(self._storage(stack.pop()))
      case "REDUCE" | "NEWOBJ":
        function, arguments = stack.pop(-2), stack.pop()
        stack.append(self._call(function, arguments))
      case "NEWOBJ_EX":
        stack[-3:] = [self._call(stack[-3], ())]
      case "BUILD":
        state = stack.pop()
        # Of a state dict it is _metadata, which says nothing of weights.
        if isinstance(stack[-1], Placeholder):
          for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
              self._attributes += len(part)
              if self._attributes > _MAX_ATTRIBUTES:  # of one dict, many times
                raise self._refused("objects of too many attributes")
              stack[-1].update(part)
      case _ if name in _VALUES:
        if isinstance(argument, int) and not is_short(argument):
          raise self._refused(quoted(argument))
        stack.append(argument)
      case _ if name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
      case _:
        raise self._refused(f"the opcode {name} in its pickle")

  def _above_mark(self) -> list[Any]:
    items, self._stack = self._stack, self._below_marks.pop()
    return items

  def _pairs(self, items: list[Any]) -> dict[Any, Any]:
    # One long key may occur in many dicts, and is read in each.
    if any(isinstance(key, str) and len(key) > _MAX_KEY for key in items[::2]):
      raise self._refused(f"a key of more than {_MAX_KEY:,} characters")
    # No state dict has other keys. Deeply nested tuples would overflow the
    # interpreter's own stack.
    return {
      key: value
      for key, value in zip(items[::2], items[1::2], strict=True)
      if isinstance(key, str | int | float)
    }

  def _name(self, name: str) -> Placeholder:
    if name not in _KNOWN:
      self.unknown[name] = None
    return Placeholder(name)

  def _storage(self, description: Any) -> np.ndarray | Placeholder:
    """Reads ('storage', class, key, device, number of elements)."""
    match description:
      case ("storage", Placeholder() as kind, str(key), str(), int(size)):
        if kind.name not in _DTYPES:
          return kind
        if 0 <= size < _MAX_SIZE:
          return self._read_storage(key, _DTYPES[kind.name], size)
    raise self._refused("a reference to something other than a storage")

  def _call(self, function: Any, arguments: Any) -> Any:
    """Returns a dict, a tensor or, of any other call, a placeholder."""
    name = _expect(function, Placeholder).name
    match _expect(arguments, tuple):
      case () if name == _DICT:
        return {}
      case (np.ndarray() as tensor, *_) if name in _PARAMETERS:
        return tensor
      case (Placeholder() as inner, _, tuple() as rest, *_) if (
        name == _SUBCLASS and inner.name in (_TENSOR, *_PARAMETERS)
      ):
        return self._call(inner, rest)
      case (np.ndarray() as storage, offset, shape, strides, *_) if (
        name == _TENSOR
      ):
        return self._tensor(storage, offset, shape, strides)
    self.unknown.setdefault(name)
    return Placeholder(name)

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
    # A tensor with more elements than its storage repeats them: a few bytes
    # could ask for any amount of memory.
    if count > storage.size or (count and offset + last >= storage.size):
      raise self._refused(
        f"a tensor of shape {shape} that is not within its storage of"
        f" {storage.size} elements"
      )
    return np.lib.stride_tricks.as_strided(
      storage[offset:] if count else storage[:0],
      shape,
      [step * storage.itemsize for step in strides],
      writeable=False,
    )

  def _refused(self, what: str) -> errors.UserError:
    return errors.UserError(
      f"{self._where} holds {what}, which torch.save does not write; nothing of"
      " it was run. If you trust the file, load it in PyTorch and save the"
      " state dict alone: torch.save(model.state_dict(), NEW)"
    )


def _expect(value: Any, kind: type) -> Any:
  if not isinstance(value, kind):
    raise ValueError(f"no {kind.__name__} where one is used")
  return value


def _is_size(number: Any) -> bool:
  return type(number) is int and 0 <= number < _MAX_SIZE
