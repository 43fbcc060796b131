"""ARC tasks as TFDS builders: ARC-AGI-1, ARC-AGI-2, ConceptARC, a folder."""

import dataclasses
import pathlib
import re
import zipfile
import zlib
from collections.abc import Sequence
from typing import ClassVar

import tensorflow_datasets as tfds

from trm_jax import errors
from trm_jax.data.arc import files as arc_files
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.data.downloads import prepare

# Of a public archive. The longest task has less than 50 kB; a longer file or
# more of them than this would be something else.
_MAX_TASK_BYTES = 2**20
_MAX_TASKS = 10_000


class ArcBuilder(prepare.PuzzleBuilder):
  """One record per task, in the order of the files."""

  title = "ARC tasks"
  folder_hint = (
    "ARC tasks, e.g. arc-agi_training_challenges.json or training/*.json"
  )

  def split_of(self, subset: str) -> str:
    """Returns the name under which TFDS keeps a subset."""
    return subset

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


class PublicArc(ArcBuilder):
  """Tasks of a public repository, read from its zip archive."""

  url: ClassVar[str]
  # Which files of the archive are the tasks of each subset.
  members: ClassVar[dict[str, str]]

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
    """Reads the tasks of an archive, sorted by name; never unpacks to disk."""
    try:
      with zipfile.ZipFile(path) as archive:
        return _read_archive(archive, pattern, where=self.url)
    # NotImplementedError and RuntimeError: packed or encrypted in another way.
    except (
      zipfile.BadZipFile,
      zlib.error,
      EOFError,
      OSError,
      NotImplementedError,
      RuntimeError,
    ) as error:
      raise errors.UserError(
        f"what was downloaded from {self.url} is damaged"
        f" ({errors.first_line(error)}): delete {path} to have it downloaded"
        f" again, or set config.data.source to a folder with {self.folder_hint}"
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
    # The "minimal" task of a concept was a check that people pay attention.
    "concept": r"[^/]+/corpus/[^/]+/(?P<name>[^/]+(?<!Minimal))\.json",
  }


@dataclasses.dataclass
class ArcFolderConfig(tfds.core.BuilderConfig):
  """Says which files to prepare.

  Attributes:
    subsets: The files of each subset.
  """

  subsets: dict[str, arc_files.SubsetFiles] = dataclasses.field(
    default_factory=dict
  )


class ArcFolder(ArcBuilder):
  """Subsets of a folder, whatever their names."""

  def split_of(self, subset: str) -> str:
    """As `ArcBuilder.split_of`; TFDS does not allow every name."""
    return f"subset_{sorted(self.builder_config.subsets).index(subset)}"

  def _split_generators(self, dl_manager):
    del dl_manager
    with self.keeping_user_errors():
      return {
        self.split_of(subset): self._generate_examples(files.read())
        for subset, files in self.builder_config.subsets.items()
      }


_PUBLIC: dict[str, type[PublicArc]] = {
  subset: builder_class
  for builder_class in (ArcAgi1, ArcAgi2, ConceptArc)
  for subset in builder_class.members
}


def load_arc(
  source: str, subsets: Sequence[str], *, cache_dir: str
) -> dict[str, list[arc_tasks.ArcTask]]:
  """Loads tasks, prepared on first use and read from the cache afterwards.

  Args:
    source: A folder as in `arc_files.find_files`, or "" for the public files.
    subsets: Names of subsets. Of the public files, "training" and "evaluation"
      are ARC-AGI-1, "training2" and "evaluation2" ARC-AGI-2, "concept" is
      ConceptARC.
    cache_dir: Where prepared data are kept; "" for the default of TFDS.

  Returns:
    The tasks of each subset in the order asked for.

  Raises:
    UserError: on missing or malformed files, an unknown subset or a failed
      download.
  """
  if not subsets:
    raise errors.UserError(
      "no ARC subset is asked for: name at least one in config.data.subsets"
    )
  builders: dict[str, ArcBuilder] = {}
  if source:
    builders = dict.fromkeys(
      subsets, _prepare_folder(source, subsets, cache_dir)
    )
  else:
    builders = _prepare_public(subsets, cache_dir)
  return {
    subset: _read_tasks(builder, builder.split_of(subset))
    for subset, builder in builders.items()
  }


def _prepare_folder(
  source: str, subsets: Sequence[str], cache_dir: str
) -> ArcFolder:
  files = arc_files.find_files(source, subsets)
  digest = prepare.digest(
    (f"{subset}/{path.name}", path)
    for subset, some in files.items()
    for path in some.paths
  )
  config = ArcFolderConfig(
    name=f"folder_{digest}", description=f"From {source}", subsets=files
  )
  return prepare.prepare(
    ArcFolder, config=config, origin=source, cache_dir=cache_dir
  )


def _prepare_public(
  subsets: Sequence[str], cache_dir: str
) -> dict[str, PublicArc]:
  for subset in subsets:
    if subset not in _PUBLIC:
      raise errors.UserError(
        f"there is no public ARC subset {subset!r}, expected"
        f" {', '.join(sorted(_PUBLIC))}; for tasks of your own, set"
        " config.data.source to their folder"
      )
  ready = {
    builder_class: prepare.prepare(
      builder_class, config=None, origin=builder_class.url, cache_dir=cache_dir
    )
    for builder_class in dict.fromkeys(_PUBLIC[subset] for subset in subsets)
  }
  return {subset: ready[_PUBLIC[subset]] for subset in subsets}


def _read_tasks(builder: ArcBuilder, split: str) -> list[arc_tasks.ArcTask]:
  records = prepare.open_split(builder, split)
  rows = prepare.read(builder, split, records, range(len(records)))
  texts = [row["task"] for row in rows]
  with prepare.damage_named(builder.data_path):
    return [arc_tasks.from_json(text) for text in texts]


def _read_archive(
  archive: zipfile.ZipFile, pattern: str, *, where: str
) -> list[arc_tasks.ArcTask]:
  found: dict[str, zipfile.ZipInfo] = {}
  for member in archive.infolist():
    match = re.fullmatch(pattern, member.filename)
    if match and found.setdefault(match["name"], member) is not member:
      raise errors.UserError(
        f"{where} has two tasks {match['name']!r}: {member.filename} and "
        f"{found[match['name']].filename}"
      )
  if not 1 <= len(found) <= _MAX_TASKS:
    raise errors.UserError(
      f"{where} has {len(found)} files like {pattern!r}, expected 1 to "
      f"{_MAX_TASKS:,}: it is not the archive that was looked for"
    )
  tasks = []
  for name, member in sorted(found.items()):
    # Bounded, whatever size the archive claims.
    with archive.open(member) as file:
      data = file.read(_MAX_TASK_BYTES + 1)
    place = f"{where} {member.filename}"
    if len(data) > _MAX_TASK_BYTES:
      raise errors.UserError(
        f"{place}: has more than {_MAX_TASK_BYTES:,} bytes, too many for a task"
      )
    value = arc_tasks.load_json(data, where=place)
    tasks.append(arc_tasks.parse_task(name, value, solutions=None, where=place))
  return tasks
