"""Files of torch.save: zip archives of a pickle and of tensors' numbers.

Needs no PyTorch. Nothing of a file is run or unpacked to disk, and reading one
takes no more memory than its size.
"""

import os
import struct
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from etils import epath

from trm_jax import errors
from trm_jax.data import files
from trm_jax.interop import torch_pickle, torch_shown

_PICKLE = "data.pkl"
_MAX_PICKLE = 2**21  # bytes; a state dict's has some thousand
_SCRIPT = "constants.pkl"  # only TorchScript has it
_ALIGNMENT = 64  # bytes, of storages in the file
_LOCAL_HEADER = 30  # bytes, without the name
_SAVE_AGAIN = (
  "load it with a PyTorch that can and save it again:"
  " torch.save(torch.load(OLD), NEW)"
)


def read(path: epath.PathLike) -> Any:
  """Reads what torch.save wrote, of version 1.6 or later.

  Args:
    path: of the file.

  Returns:
    Plain values, and dicts, lists and tuples of them; tensors and parameters
    are read-only arrays of NumPy, bfloat16 ones of ml_dtypes.

  Raises:
    UserError: it cannot be read, is damaged, of another kind, or holds
      anything that is neither a tensor nor a plain value.
  """
  path = epath.Path(path)
  with errors.told(f"cannot read {path}"), path.open("rb") as file:
    return _read(file, str(path))


def _read(file: IO[bytes], where: str) -> Any:
  start = file.read(4)
  if start[:1] == b"\x80":
    raise errors.UserError(
      f"{where} is in torch.save's format of before version 1.6, or another"
      f" pickle; {_SAVE_AGAIN}"
    )
  if start != b"PK\3\4":
    raise errors.UserError(
      f"{where} is no file of torch.save, and its name does not end in"
      " .safetensors"
    )
  file.seek(0, os.SEEK_END)
  size = file.tell()
  try:
    with zipfile.ZipFile(file) as archive:
      return _Archive(archive, where, size).tree()
  except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
    raise errors.UserError(
      f"{where} is damaged: {errors.first_line(error)}"
    ) from error


class _Archive:
  """The parts of one file, found by their exact names."""

  def __init__(self, archive: zipfile.ZipFile, where: str, size: int):
    self._archive = archive
    self._where = where
    self._parts = {part.filename: part for part in archive.infolist()}
    self._storages: dict[str, np.ndarray] = {}
    pickles = [
      name for name in self._parts if name.rpartition("/")[2] == _PICKLE
    ]
    if any(name.rpartition("/")[2] == _SCRIPT for name in self._parts):
      raise errors.UserError(
        f"{where} is a TorchScript program, not weights; in PyTorch save"
        " torch.jit.load(OLD).state_dict() by torch.save"
      )
    if len(pickles) != 1:
      raise errors.UserError(
        f"{where} is a zip file, but not one of torch.save: it has"
        f" {len(pickles)} parts {_PICKLE}, expected 1"
      )
    self._prefix = pickles[0].removesuffix(_PICKLE)
    self._check_stored(size)

  def tree(self) -> Any:
    order = self._prefix + "byteorder"
    if order in self._parts and self._content(order) != b"little":
      raise errors.UserError(
        f"{self._where} is of a big-endian machine; {_SAVE_AGAIN}"
      )
    if self._parts[self._prefix + _PICKLE].file_size > _MAX_PICKLE:
      raise errors.UserError(
        f"{self._where} has more than {_MAX_PICKLE:,} bytes beside its"
        f" tensors; {_SAVE_AGAIN}, the state dict alone"
      )
    content = self._content(self._prefix + _PICKLE)
    return torch_pickle.parse(content, self._storage, where=self._where)

  def _check_stored(self, size: int) -> None:
    """Raises UserError if anything would grow when it is read.

    torch.save compresses nothing, and no byte is of two of its parts. Files
    that are made to fill the memory are not so.
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
        f"{self._where} is damaged: its parts have more bytes than the file"
      )

  def _content(self, name: str) -> bytes:
    return self._archive.read(self._parts[name])

  def _storage(self, key: str, dtype: np.dtype, size: int) -> np.ndarray:
    """Returns the numbers of a storage; those of one key are read once."""
    name = f"{self._prefix}data/{key}"
    if name not in self._parts:
      raise errors.UserError(
        f"{self._where} is damaged: storage {torch_shown.shown(key)} is missing"
      )
    there, wanted = self._parts[name].file_size, size * dtype.itemsize
    if there != wanted:
      raise errors.UserError(
        f"{self._where} is damaged: storage {torch_shown.shown(key)} has"
        f" {there} bytes, expected {wanted}"
      )
    if key not in self._storages:
      self._storages[key] = np.frombuffer(self._content(name), np.uint8)
    return self._storages[key].view(dtype)


def write(path: epath.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
  """Writes a file as torch.save does of an OrderedDict of tensors.

  Args:
    path: of the file; one that is there is replaced.
    tensors: by name.

  Raises:
    UserError: it cannot be written; then the old one is still there.
  """
  with files.writing(path) as file, zipfile.ZipFile(file, "w") as archive:

    def add(name: str, content: bytes | memoryview) -> None:
      part = zipfile.ZipInfo(f"archive/{name}")
      position = file.tell() + _LOCAL_HEADER + len(part.filename)
      part.extra = _filling(position)
      archive.writestr(part, content)

    add(_PICKLE, torch_pickle.dump(tensors))
    add("byteorder", b"little")
    for index, tensor in enumerate(tensors.values()):
      add(f"data/{index}", tensor.reshape(-1).view(np.uint8).data)
    add("version", b"3\n")


def _filling(position: int) -> bytes:
  """Returns an extra field that ends where a storage may begin."""
  filling = -(position + 4) % _ALIGNMENT
  return struct.pack("<2sH", b"FB", filling) + bytes(filling)
