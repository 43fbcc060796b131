"""The public ARC tasks as TFDS builders: ARC-AGI-1, ARC-AGI-2, ConceptARC."""

import pathlib
import re
import zipfile
import zlib
from collections.abc import Sequence
from typing import ClassVar

import tensorflow_datasets as tfds

from trm_jax import errors
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.data.downloads import prepare

# Limits of a public archive. The longest task has less than 50 kB; a longer
# file, or more files, would be something else.
_MAX_TASK_BYTES = 2**20
_MAX_TASKS = 10_000


class PublicArc(prepare.PuzzleBuilder):
  """Tasks of a public repository, read from its zip archive.

  There is one record per task.

  Attributes:
    url: Address of the archive.
    members: Pattern of the files of each subset.
  """

  folder_hint = (
    "ARC tasks, e.g. arc-agi_training_challenges.json or training/*.json"
  )
  url: ClassVar[str]
  members: ClassVar[dict[str, str]]

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=f"{self.title}, as JSON.",
      features=tfds.features.FeaturesDict({"task": tfds.features.Text()}),
      disable_shuffling=True,  # keep the order of the file
    )

  def _generate_examples(self, tasks):
    for index, task in enumerate(tasks):
      yield index, {"task": arc_tasks.to_json(task)}

  def _split_generators(self, dl_manager):
    archive = self.download(dl_manager, {"archive": self.url}, origin=self.url)[
      "archive"
    ]
    with self.keeping_user_errors():
      return {
        subset: self._generate_examples(self._read(archive, pattern))
        for subset, pattern in self.members.items()
      }

  def _read(self, path: pathlib.Path, pattern: str) -> list[arc_tasks.ArcTask]:
    """Reads the tasks of an archive, sorted by name, in memory."""
    where = self.url
    found: dict[str, str] = {}
    try:
      with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
          match = re.fullmatch(pattern, member)
          if match and found.setdefault(match["name"], member) != member:
            raise errors.UserError(
              f"{where} has two tasks {match['name']!r}: {member} and"
              f" {found[match['name']]}"
            )
        if not 1 <= len(found) <= _MAX_TASKS:
          raise errors.UserError(
            f"{where} has {len(found)} files like {pattern!r}, expected 1 to"
            f" {_MAX_TASKS:,}: it is not the expected archive"
          )
        return [
          _read_task(archive, member, name, where=f"{where} {member}")
          for name, member in sorted(found.items())
        ]
    # NotImplementedError, RuntimeError: unknown compression, encryption.
    except (
      zipfile.BadZipFile,
      zlib.error,
      EOFError,
      OSError,
      NotImplementedError,
      RuntimeError,
    ) as error:
      raise errors.UserError(
        f"the download of {where} is damaged"
        f" ({errors.first_line(error)}): delete {path} to download it again, or"
        f" set config.data.source to a folder with {self.folder_hint}"
      ) from error


class ArcAgi1(PublicArc):
  """ARC-AGI-1: 400 tasks for training and 400 for evaluation."""

  title = "ARC-AGI-1"
  url = "https://github.com/fchollet/ARC-AGI/archive/refs/heads/master.zip"
  members = {  # noqa: RUF012, read only
    "training": r"[^/]+/data/training/(?P<name>[^/]+)\.json",
    "evaluation": r"[^/]+/data/evaluation/(?P<name>[^/]+)\.json",
  }


class ArcAgi2(PublicArc):
  """ARC-AGI-2: 1,000 tasks for training and 120 for evaluation."""

  title = "ARC-AGI-2"
  url = "https://github.com/arcprize/ARC-AGI-2/archive/refs/heads/main.zip"
  members = {  # noqa: RUF012, read only
    "training2": r"[^/]+/data/training/(?P<name>[^/]+)\.json",
    "evaluation2": r"[^/]+/data/evaluation/(?P<name>[^/]+)\.json",
  }


class ConceptArc(PublicArc):
  """ConceptARC: 10 tasks for each of 16 concepts."""

  title = "ConceptARC"
  url = "https://github.com/victorvikram/ConceptARC/archive/refs/heads/main.zip"
  members = {  # noqa: RUF012, read only
    # The "minimal" tasks checked whether human subjects paid attention.
    "concept": r"[^/]+/corpus/[^/]+/(?P<name>[^/]+(?<!Minimal))\.json",
  }


_PUBLIC: dict[str, type[PublicArc]] = {
  subset: builder_class
  for builder_class in (ArcAgi1, ArcAgi2, ConceptArc)
  for subset in builder_class.members
}


def load(
  subsets: Sequence[str], *, cache_dir: str
) -> dict[str, list[arc_tasks.ArcTask]]:
  """Loads public tasks, downloaded and prepared on first use.

  Args:
    subsets: Names: "training" and "evaluation" are ARC-AGI-1, "training2" and
      "evaluation2" ARC-AGI-2, "concept" is ConceptARC.
    cache_dir: `config.data.cache_dir`.

  Returns:
    The tasks of each subset in the order asked for.

  Raises:
    UserError: on an unknown subset or a failed download.
  """
  for subset in subsets:
    if subset not in _PUBLIC:
      raise errors.UserError(
        f"there is no public ARC subset {subset!r}, expected"
        f" {', '.join(sorted(_PUBLIC))}; for tasks of your own, set"
        " config.data.source to their folder"
      )
  builders = {
    builder_class: prepare.prepare(
      builder_class, origin=builder_class.url, cache_dir=cache_dir
    )
    for builder_class in dict.fromkeys(_PUBLIC[subset] for subset in subsets)
  }
  return {
    subset: _read_tasks(builders[_PUBLIC[subset]], subset) for subset in subsets
  }


def _read_tasks(builder: PublicArc, subset: str) -> list[arc_tasks.ArcTask]:
  records = prepare.open_split(builder, subset)
  rows = prepare.read(builder, subset, records, range(len(records)))
  texts = [row["task"] for row in rows]
  with prepare.damage_named(builder.data_path):
    return [arc_tasks.from_json(text) for text in texts]


def _read_task(
  archive: zipfile.ZipFile, member: str, name: str, *, where: str
) -> arc_tasks.ArcTask:
  # Bounded, whatever size the archive declares.
  with archive.open(member) as file:
    data = file.read(_MAX_TASK_BYTES + 1)
  if len(data) > _MAX_TASK_BYTES:
    raise errors.UserError(
      f"{where}: has more than {_MAX_TASK_BYTES:,} bytes, too many for a task"
    )
  value = arc_tasks.load_json(data, where=where)
  return arc_tasks.parse_task(name, value, solutions=None, where=where)
