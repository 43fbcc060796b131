"""Files of the package safetensors, which is installed by choice."""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from trm_jax import errors
from trm_jax.data import files

SUFFIX = ".safetensors"

_DTYPES = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
  "I64": np.int64,
  "I32": np.int32,
}


def read(path: epath.Path) -> dict[str, np.ndarray]:
  """Reads tensors by name.

  Raises:
    UserError: the file is damaged, or the package is missing.
  """
  package = _package("reading")
  with errors.told(f"cannot read {path}"):
    parts = package.deserialize(path.read_bytes())
    # The package's own reader for NumPy knows no bfloat16.
    unknown = sorted({part["dtype"] for _, part in parts} - set(_DTYPES))
    if unknown:
      raise errors.UserError(
        f"{path} has tensors of {unknown[0]}, which no TRM has"
      )
    return {
      name: np.frombuffer(part["data"], _DTYPES[part["dtype"]]).reshape(
        part["shape"]
      )
      for name, part in parts
    }


def write(path: epath.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
  """Writes tensors by name; raises as `read`."""
  package = _package("writing")
  content = package.numpy.save(
    {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()},
    metadata={"format": "pt"},
  )
  with files.writing(path) as file:
    file.write(content)


def _package(doing: str) -> Any:
  try:
    import safetensors
    import safetensors.numpy
  except ImportError as error:
    raise errors.UserError(
      f"{doing} {SUFFIX} needs a package that is not installed: pip install"
      " safetensors"
    ) from error
  return safetensors
