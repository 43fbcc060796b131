"""The public ARC archives: downloaded and prepared once."""

import io
import json
import urllib.error
import urllib.request
import zipfile
from unittest import mock

import pytest
import tensorflow_datasets as tfds

from trm_jax import errors
from trm_jax.data.downloads import arc as download_arc


def _task(colour):
  """A task whose grids tell it from others; its test output is known."""
  pair = {"input": [[colour, 0]], "output": [[colour], [1]]}
  return {"train": [pair], "test": [pair, pair]}


def _colours(tasks):
  return {task.name: int(task.train[0].input[0, 0]) for task in tasks}


@pytest.fixture(name="cache")
def _cache(tmp_path):
  return tmp_path / "cache"


def _prepared(cache):
  return [path for path in cache.rglob("*array_record*") if path.is_file()]


def _archive(tmp_path, members):
  path = tmp_path / "downloaded.zip"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, value in members.items():
      data = value if isinstance(value, bytes) else json.dumps(value).encode()
      archive.writestr(name, data)
  return path


def _load_public(path, cache, *subsets):
  """Loads from an archive in place of the download; returns the addresses."""
  asked = []

  def download(self, urls):
    asked.append(urls)
    return dict.fromkeys(urls, path)

  with (
    mock.patch.object(tfds.download.DownloadManager, "download", download),
    mock.patch.object(urllib.request, "urlopen") as opened,
  ):
    tasks = download_arc.load(subsets, cache_dir=str(cache))
  for call in opened.call_args_list:
    assert call.args[0].get_method() == "HEAD"
  return tasks, [url for urls in asked for url in urls.values()]


ARC_1 = {
  "ARC-AGI-master/": b"",
  "ARC-AGI-master/README.md": b"read me",
  "ARC-AGI-master/data/training/b.json": _task(1),
  "ARC-AGI-master/data/training/a.json": _task(2),
  "ARC-AGI-master/data/evaluation/c.json": _task(3),
  "ARC-AGI-master/apps/data/training/d.json": _task(4),
}


def test_arc_agi_1(tmp_path, cache, capfd):
  path = _archive(tmp_path, ARC_1)
  tasks, urls = _load_public(path, cache, "training")
  assert list(_colours(tasks["training"]).items()) == [("a", 2), ("b", 1)]
  url = "https://github.com/fchollet/ARC-AGI/archive/refs/heads/master.zip"
  assert urls == [url]
  assert capfd.readouterr().err == f"preparing ARC-AGI-1, once, from {url}\n"
  tasks, urls = _load_public(path, cache, "evaluation")
  assert _colours(tasks["evaluation"]) == {"c": 3}
  assert urls == []
  assert capfd.readouterr().err == ""
  for prepared in _prepared(cache):
    prepared.write_bytes(prepared.read_bytes()[:1000])
  with pytest.raises(errors.UserError, match=r"damaged.*delete that folder"):
    _load_public(path, cache, "training")


def test_the_order_of_the_parts_and_all_outputs_are_kept(tmp_path, cache):
  reverse = dict(reversed(_task(1).items()))
  unknown = {"train": _task(2)["train"], "test": [{"input": [[3]]}]}
  path = _archive(
    tmp_path,
    ARC_1
    | {
      "ARC-AGI-master/data/training/b.json": reverse,
      "ARC-AGI-master/data/training/a.json": unknown,
    },
  )
  first, second = _load_public(path, cache, "training")[0]["training"]
  assert (first.test_first, second.test_first) == (False, True)
  assert first.test[0].output is None
  assert second.test[1].output.tolist() == [[1], [1]]


def test_arc_agi_2(tmp_path, cache):
  path = _archive(
    tmp_path,
    {
      "ARC-AGI-2-main/data/training/b.json": _task(1),
      "ARC-AGI-2-main/data/evaluation/c.json": _task(3),
    },
  )
  tasks, urls = _load_public(path, cache, "evaluation2", "training2")
  assert [_colours(some) for some in tasks.values()] == [{"c": 3}, {"b": 1}]
  assert urls == [
    "https://github.com/arcprize/ARC-AGI-2/archive/refs/heads/main.zip"
  ]


def test_concept_arc_without_its_minimal_tasks(tmp_path, cache):
  path = _archive(
    tmp_path,
    {
      "ConceptARC-main/corpus/Copy/Copy10.json": _task(1),
      "ConceptARC-main/corpus/Copy/CopyMinimal.json": _task(2),
      "ConceptARC-main/corpus/Copy/.DS_Store": b"\0",
      "ConceptARC-main/corpus/AboveBelow/AboveBelow2.json": _task(3),
      "ConceptARC-main/MinimalTasks/CleanUpMinimal.json": _task(4),
    },
  )
  tasks, urls = _load_public(path, cache, "concept")
  assert _colours(tasks["concept"]) == {"AboveBelow2": 3, "Copy10": 1}
  assert urls == [
    "https://github.com/victorvikram/ConceptARC/archive/refs/heads/main.zip"
  ]


def test_unknown_public_subset(cache):
  with pytest.raises(
    errors.UserError,
    match=r"no public ARC subset 'dev', expected concept, evaluation, "
    r"evaluation2, training, training2; .* set config.data.source",
  ):
    download_arc.load(["training", "dev"], cache_dir=str(cache))


def test_failed_download_says_what_to_do(cache):
  with (
    mock.patch.object(
      urllib.request, "urlopen", side_effect=urllib.error.URLError("no\nnet")
    ),
    pytest.raises(
      errors.UserError,
      match=r"^cannot download https://github.*set config\.data\.source to a",
    ) as caught,
  ):
    download_arc.load(["training"], cache_dir=str(cache))
  assert "\n" not in str(caught.value)
  assert not _prepared(cache)


def _truncated(path):
  path.write_bytes(path.read_bytes()[:-30])


def _flipped(path):
  data = bytearray(path.read_bytes())
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    member = archive.getinfo("ARC-AGI-master/data/training/a.json")
  data[member.header_offset + 30 + len(member.filename) + 5] ^= 255
  path.write_bytes(data)


@pytest.mark.parametrize("damage", [_truncated, _flipped])
def test_damaged_archive(tmp_path, cache, damage):
  path = _archive(tmp_path, ARC_1)
  damage(path)
  with pytest.raises(
    errors.UserError, match=r"master.zip is damaged .*: delete .*downloaded.zip"
  ):
    _load_public(path, cache, "training")
  assert not _prepared(cache)


@pytest.mark.parametrize(
  ("name", "value", "text"),
  [
    (
      "data/training/x.json",
      b" " * 2_000_000,
      "master.zip ARC-AGI-master/data/training/x.json: has more than",
    ),
    ("data/training/x.json", b"[1,", "x.json line 1, column 4: is not JSON"),
    ("data/training/x.json", {}, "x.json task 'x': has no train"),
  ],
)
def test_faults_in_an_archive(tmp_path, cache, name, value, text):
  path = _archive(tmp_path, ARC_1 | {f"ARC-AGI-master/{name}": value})
  with pytest.raises(errors.UserError) as caught:
    _load_public(path, cache, "evaluation")
  assert text in str(caught.value)
  assert not _prepared(cache)


def test_archive_of_something_else(tmp_path, cache):
  path = _archive(tmp_path, {"ARC-AGI-master/README.md": b"moved"})
  with pytest.raises(errors.UserError, match=r"has 0 files like .*training"):
    _load_public(path, cache, "training")


def test_two_tasks_of_one_name(tmp_path, cache):
  path = _archive(
    tmp_path, {"m/corpus/A/T1.json": _task(1), "m/corpus/B/T1.json": _task(2)}
  )
  with pytest.raises(errors.UserError, match="two tasks 'T1': m/corpus/B/T1"):
    _load_public(path, cache, "concept")
