"""A module that stands in for torch: what an export calls, and torch.save.

As strict as torch where that is easy to get wrong: `from_numpy` refuses
bfloat16 arrays, and read-only ones, of which torch warns.
"""

import collections
import pickle
import sys
import types
import zipfile
from unittest import mock

import ml_dtypes

torch = types.ModuleType("torch")
torch.bfloat16 = ml_dtypes.bfloat16
_utils = types.ModuleType("torch._utils")
_STORAGES = {
  "float64": "DoubleStorage",
  "float32": "FloatStorage",
  "float16": "HalfStorage",
  "bfloat16": "BFloat16Storage",
  "int64": "LongStorage",
  "int16": "ShortStorage",
}
for _name in _STORAGES.values():
  setattr(torch, _name, type(_name, (), {"__module__": "torch"}))


def _rebuild_tensor_v2():
  raise NotImplementedError


_rebuild_tensor_v2.__module__ = "torch._utils"
_utils._rebuild_tensor_v2 = _rebuild_tensor_v2


class _Storage:
  def __init__(self, array):
    self.array = array


class Tensor:
  """A contiguous tensor."""

  def __init__(self, array):
    self.array = array

  def view(self, dtype):
    return Tensor(self.array.view(dtype))

  def __reduce__(self):
    strides = tuple(n // self.array.itemsize for n in self.array.strides)
    hooks = collections.OrderedDict()
    shape = self.array.shape
    arguments = (_Storage(self.array), 0, shape, strides, False, hooks)
    return _rebuild_tensor_v2, arguments


def _from_numpy(array):
  if array.dtype.name not in _STORAGES or array.dtype == ml_dtypes.bfloat16:
    raise TypeError(f"can't convert np.ndarray of type {array.dtype}")
  assert array.flags.writeable
  assert array.flags.c_contiguous
  return Tensor(array)


class _Pickler(pickle.Pickler):
  """Puts storages aside, as torch's does."""

  def __init__(self, file):
    super().__init__(file, protocol=2)
    self.storages = []

  def persistent_id(self, value):
    if not isinstance(value, _Storage):
      return None
    key = str(len(self.storages))
    self.storages.append(value.array)
    storage = getattr(torch, _STORAGES[value.array.dtype.name])
    return "storage", storage, key, "cpu", value.array.size


def _save(tree, file):
  """Writes plain values and tensors, in the parts that torch.save writes."""
  with zipfile.ZipFile(file, "w") as archive:

    def open_part(name):
      return archive.open(zipfile.ZipInfo(f"archive/{name}"), "w")

    modules = {"torch": torch, "torch._utils": _utils}
    with open_part("data.pkl") as part, mock.patch.dict(sys.modules, modules):
      pickler = _Pickler(part)
      pickler.dump(tree)
    parts = {f"data/{i}": a.tobytes() for i, a in enumerate(pickler.storages)}
    for name, content in {
      "byteorder": b"little", **parts, "version": b"3\n",
    }.items():  # fmt: skip
      with open_part(name) as part:
        part.write(content)


torch.from_numpy = _from_numpy
torch.save = _save
