"""Where a sweep keeps what."""

import dataclasses
import os
import pathlib
import tempfile

from etils import epath

_DATABASE = "sweep.db"


@dataclasses.dataclass(frozen=True)
class Place:
  """Folders and database of a sweep."""

  workdir: str  # a folder, or gs://...
  storage: str  # URL of the database; empty: a file in the workdir

  @property
  def folder(self) -> epath.Path:
    """With the trials' folders, and what was found."""
    return epath.Path(self.workdir).expanduser()

  @property
  def name(self) -> str:
    """Of the sweep in the database, which may hold others."""
    return str(self.folder) if self.is_shared else self.folder.name

  @property
  def url(self) -> str:
    """Of the database."""
    return self.storage or f"sqlite:///{self.folder / _DATABASE}"

  @property
  def is_shared(self) -> bool:
    """Whether workers on other machines may use the database."""
    return not self.url.startswith("sqlite")

  @property
  def is_remote(self) -> bool:
    """Whether the folder is reached over the network only."""
    return "://" in self.workdir

  @property
  def log_folder(self) -> pathlib.Path:
    """On this machine: for the trials' logs."""
    return self.scratch if self.is_remote else pathlib.Path(self.folder)

  @property
  def lock_folder(self) -> pathlib.Path:
    """On this machine: a mounted bucket has no locks."""
    return (self.scratch if self.is_shared else self.log_folder) / "locks"

  @property
  def scratch(self) -> pathlib.Path:
    """On this machine: for what no other needs."""
    user = pathlib.Path(tempfile.gettempdir()) / f"trm_sweeps_{os.getuid()}"
    return user / str(self.folder).strip("/").replace("/", "_")
