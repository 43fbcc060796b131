"""Who may run a trial: one worker at a time, whatever dies.

On one machine a claim is a lock on a file. The kernel gives it back when its
last holder ends, and the trial's own process holds it, too: a lock that can be
had means that neither the worker nor what it started is alive.

Workers on many machines share a database, and there a claim is a lease as
well: a row in which its owner counts beats. Who sees the same beat for
LEASE_SECONDS may take the row over; clocks are never compared. An owner who
was thought dead notices at the next beat, and stops.
"""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import time
import uuid
from collections.abc import Iterator

import sqlalchemy as sa

LEASE_SECONDS = 300.0  # longer than a trial is given to save and end

_LEASES = sa.Table(
  "sweep_leases",
  sa.MetaData(),
  sa.Column("name", sa.String(255), primary_key=True),
  sa.Column("owner", sa.String(64), nullable=False),  # empty: free
  sa.Column("beat", sa.Integer, nullable=False),
)


@dataclasses.dataclass(frozen=True)
class Claim:
  """The right to do something, until it is released."""

  name: str
  lock: int  # file descriptor, for the trial's process to hold as well


class Claims:
  """The claims of one worker."""

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    engine: sa.Engine | None = None,
    scope: str = "",
    lease_seconds: float = LEASE_SECONDS,
  ):
    """Makes the folder and, for leases, the table.

    Args:
      folder: of the lock files, on this machine.
      engine: of the database where workers on other machines have their
        leases; None if there are none.
      scope: tells the leases of this sweep from those of others.
      lease_seconds: how long an owner is thought alive without a beat.
    """
    self._folder = folder
    self._folder.mkdir(parents=True, exist_ok=True)
    self._scope = scope
    self._leases = None if engine is None else _Leases(engine, lease_seconds)

  def take(self, name: str) -> Claim | None:
    """Returns the claim, or None while another has it."""
    descriptor = os.open(self._path(name), os.O_RDWR | os.O_CREAT, 0o644)
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      os.close(descriptor)
      return None
    if self._leases and not self._leases.take(self._scope + name):
      os.close(descriptor)
      return None
    os.ftruncate(descriptor, 0)
    return Claim(name=name, lock=descriptor)

  def keep(self, claim: Claim) -> bool:
    """Beats; returns False if another has taken the claim over."""
    return not self._leases or self._leases.keep(self._scope + claim.name)

  def release(self, claim: Claim) -> None:
    """Gives the claim back."""
    if self._leases:
      self._leases.release(self._scope + claim.name)
    os.close(claim.lock)

  def note_process(self, claim: Claim, process_id: int) -> None:
    """Writes down who else holds the lock, for a person to find."""
    os.pwrite(claim.lock, f"{process_id}\n".encode(), 0)

  def holder(self, name: str) -> str:
    """Returns the process noted in a lock file, or ''."""
    try:
      return self._path(name).read_text().strip()
    except OSError:
      return ""

  def seen_alive(self, name: str) -> bool:
    """Tells whether a worker on another machine was seen to be alive."""
    return self._leases is not None and self._leases.seen_alive(
      self._scope + name
    )

  @contextlib.contextmanager
  def taking(self, name: str) -> Iterator[bool]:
    """Holds a claim meanwhile; yields whether it could be had."""
    claim = self.take(name)
    try:
      yield claim is not None
    finally:
      if claim is not None:
        self.release(claim)

  def _path(self, name: str) -> pathlib.Path:
    return self._folder / f"{name}.lock"


@contextlib.contextmanager
def waiting(folder: pathlib.Path, name: str) -> Iterator[None]:
  """Holds a lock of this machine meanwhile, however long it has to wait."""
  with (folder / f"{name}.lock").open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


class _Leases:
  """Rows of a table; each change names what it expects to find."""

  def __init__(self, engine: sa.Engine, seconds: float):
    self._engine = engine
    self._seconds = seconds
    self._me = uuid.uuid4().hex
    self._seen: dict[str, tuple[tuple[str, int], float]] = {}
    self._alive: set[str] = set()
    _LEASES.metadata.create_all(engine)

  def take(self, name: str) -> bool:
    row = self._read(name)
    if row is None:
      return self._insert(name)
    if row[0] and not self._is_stale(name, row):
      return False
    return self._write(name, row, owner=self._me)

  def keep(self, name: str) -> bool:
    row = self._read(name)
    return (
      row is not None
      and row[0] == self._me
      and self._write(name, row, owner=self._me)
    )

  def release(self, name: str) -> None:
    row = self._read(name)
    if row is not None and row[0] == self._me:
      self._write(name, row, owner="")

  def seen_alive(self, name: str) -> bool:
    return name in self._alive

  def _is_stale(self, name: str, row: tuple[str, int]) -> bool:
    seen, since = self._seen.get(name, (None, 0.0))
    if seen == row:
      return time.monotonic() - since >= self._seconds
    if seen is not None and seen[0] == row[0]:
      self._alive.add(name)
    self._seen[name] = (row, time.monotonic())
    return False

  def _read(self, name: str) -> tuple[str, int] | None:
    query = sa.select(_LEASES.c.owner, _LEASES.c.beat)
    with self._engine.connect() as connection:
      row = connection.execute(query.where(_LEASES.c.name == name)).first()
    return row and (row.owner, row.beat)

  def _insert(self, name: str) -> bool:
    values = {"name": name, "owner": self._me, "beat": 0}
    try:
      with self._engine.begin() as connection:
        connection.execute(_LEASES.insert().values(values))
    except sa.exc.IntegrityError:  # another was quicker
      return False
    return True

  def _write(self, name: str, row: tuple[str, int], *, owner: str) -> bool:
    """Changes the row if it is still as it was read."""
    owner_before, beat = row
    change = (
      _LEASES.update()
      .where(
        _LEASES.c.name == name,
        _LEASES.c.owner == owner_before,
        _LEASES.c.beat == beat,
      )
      .values(owner=owner, beat=beat + 1)
    )
    with self._engine.begin() as connection:
      return connection.execute(change).rowcount == 1
