"""Locates a checkpoint: a file, a folder, or a Hugging Face repository."""

import contextlib
import dataclasses
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from trm_jax import errors
from trm_jax.data import files as files_lib
from trm_jax.data import identifiers as identifiers_lib
from trm_jax.interop import torch_settings

_HUB = "hf:"
_STEP = re.compile(r"step_(\d{1,9})(?:\D|$)")
# The published weights of HRM are named "checkpoint".
_LOOKS_LIKE_WEIGHTS = re.compile(
  r"step_\d+$|(^|/)checkpoint$|\.(safetensors|pt|pth|bin|ckpt)$",
  re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Source:
  """The files of a checkpoint.

  Attributes:
    weights: the state dict.
    config: all_config.yaml beside it, if any.
    identifiers: identifiers.json beside it, if any: the puzzle table's rows.
  """

  weights: epath.Path
  config: epath.Path | None
  identifiers: epath.Path | None

  @property
  def step(self) -> int:
    """Supervision step in a file name step_<N>; 0 in any other."""
    match = _STEP.match(self.weights.name)
    return int(match.group(1)) if match else 0


def locate(source: str) -> Source:
  """Finds a checkpoint, and downloads it if need be.

  Args:
    source: a file, a folder with one, or hf:OWNER/NAME[/FILE_OR_FOLDER], which
      is downloaded to the cache of huggingface_hub.

  Raises:
    UserError: there is none or more than one, or the hub is unreachable.
  """
  if not source:
    raise errors.UserError(
      "--source must name the checkpoint to import: a file, a folder, or"
      " hf:OWNER/NAME"
    )
  if source.startswith(_HUB):
    return _on_hub(source)
  path = files_lib.folder(source)
  with errors.user_error_context(f"cannot read {path}"):
    if path.is_dir():
      names = [entry.name for entry in path.iterdir() if entry.is_file()]
      path = path / _only(names, source)
    elif not path.exists():
      raise errors.UserError(f"there is no file {path}")

    def beside(name):
      other = path.parent / name
      return other if other.exists() else None

    return Source(
      path, beside(torch_settings.FILE), beside(identifiers_lib.FILE)
    )


def _only(names: Sequence[str], where: str) -> str:
  """Returns the only weights file among the names."""
  # Unprintable names are not shown; such a file can still be named itself.
  found = sorted(
    name
    for name in names
    if _LOOKS_LIKE_WEIGHTS.search(name) and name.isprintable()
  )
  if len(found) == 1:
    return found[0]
  if not found:
    raise errors.UserError(
      f"{where} has no weights file: none is named step_<N> or checkpoint,"
      " or ends in .safetensors, .pt, .pth, .bin or .ckpt; name the file itself"
    )
  raise errors.UserError(
    f"{where} has {len(found)} weights files, {', '.join(found[:5])}"
    f"{', ...' if len(found) > 5 else ''}: name one of them"
  )


def _on_hub(source: str) -> Source:
  """Downloads a checkpoint and the files beside it."""
  owner, _, rest = source.removeprefix(_HUB).partition("/")
  name, _, inside = rest.partition("/")
  if not owner or not name:
    raise errors.UserError(
      f"--source={source} names no repository; use hf:OWNER/NAME or"
      " hf:OWNER/NAME/FILE"
    )
  hub = _hub()
  repository = f"{owner}/{name}"
  with _reaching(source):
    files = hub.list_repo_files(repository)
  inside = inside.rstrip("/")
  if inside not in files:
    folder = f"{inside}/" if inside else ""
    in_folder = [
      file.removeprefix(folder) for file in files if file.startswith(folder)
    ]
    if not in_folder:
      raise errors.UserError(f"{repository} on Hugging Face has no {inside}")
    inside = folder + _only(in_folder, source)

  def fetch(file):
    if file not in files:
      return None
    with _reaching(source):
      return epath.Path(hub.hf_hub_download(repository, file))

  folder = inside.rpartition("/")[0]
  beside = f"{folder}/" if folder else ""
  weights = fetch(inside)
  assert weights is not None
  return Source(
    weights,
    fetch(beside + torch_settings.FILE),
    fetch(beside + identifiers_lib.FILE),
  )


def _hub() -> Any:
  try:
    import huggingface_hub
  except ImportError as error:
    raise errors.UserError(
      "downloading from Hugging Face needs the package huggingface_hub, which"
      " is not installed: pip install huggingface_hub"
    ) from error
  # It logs every retry; what it raises in the end is reported.
  logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
  return huggingface_hub


@contextlib.contextmanager
def _reaching(source: str) -> Iterator[None]:
  """Turns any error of the hub or the network into one line."""
  try:
    yield
  except Exception as error:
    raise errors.UserError(
      f"cannot download {source} from Hugging Face ({errors.reason(error)});"
      " download the file and all_config.yaml by other means, and pass its path"
    ) from error
