"""Where official checkpoints are found, also on Hugging Face."""

import pathlib
import shutil
import sys
import types

import pytest
import torch_files

from trm_jax import errors
from trm_jax.interop import torch_source


def test_a_folder_with_one_checkpoint_and_with_several(tmp_path):
  config = torch_files.config()
  path = torch_files.save(tmp_path / "x", config)
  assert torch_source.locate(str(path.parent)).weights.name == "step_30"
  shutil.copy(path, path.with_name("step_7"))
  shutil.copy(path, path.with_name("model.safetensors"))
  with pytest.raises(errors.UserError) as caught:
    torch_source.locate(str(path.parent))
  assert "3 weights files, model.safetensors, step_30, step_7: name" in str(
    caught.value
  )


@pytest.mark.parametrize(
  ("name", "step"),
  [
    ("step_30", 30),
    ("step_518071.safetensors", 518071),
    ("last.pt", 0),
    ("step_x", 0),
    ("my_step_3", 0),
    ("step_99999999999999", 0),
  ],
)
def test_the_step_in_a_name(name, step):
  source = torch_source.Source(pathlib.Path("x") / name, None, None)
  assert source.step == step


def test_sources_that_are_not_there(tmp_path):
  for source, text in (
    ("", "must name the checkpoint to import"),
    (str(tmp_path / "missing"), "there is no file"),
    (str(tmp_path), "has no weights file"),
    ("hf:owner", "names no repository; use hf:OWNER/NAME"),
    ("hf:/name", "names no repository"),
  ):
    with pytest.raises(errors.UserError, match=text):
      torch_source.locate(source)


class _Hub(types.ModuleType):
  """What of huggingface_hub is used, with files of this machine."""

  def __init__(self, folder):
    super().__init__("huggingface_hub")
    self.folder, self.is_reached = folder, True

  def list_repo_files(self, repository):
    if not self.is_reached:
      raise ConnectionError("[Errno -2] Name or service not known")
    assert repository == "someone/trm"
    files = [p for p in self.folder.rglob("*") if p.is_file()]
    return [str(file.relative_to(self.folder)) for file in files]

  def hf_hub_download(self, repository, filename):
    assert repository == "someone/trm"
    return str(self.folder / filename)


@pytest.fixture(name="hub")
def _hub(tmp_path, monkeypatch):
  config = torch_files.config()
  folder = tmp_path / "hub"
  folder.mkdir()
  for name in ("sudoku", "maze"):
    torch_files.save(folder / name, config)
  hub = _Hub(folder)
  monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
  return hub


@pytest.mark.parametrize("inside", ["sudoku", "sudoku/", "sudoku/step_30"])
def test_a_repository_of_hugging_face(tmp_path, hub, inside):
  source = f"hf:someone/trm/{inside}"
  located = torch_source.locate(source)
  assert located.weights == hub.folder / "sudoku" / "step_30"
  assert located.config == hub.folder / "sudoku" / "all_config.yaml"
  assert located.identifiers is None


def test_names_that_a_terminal_would_obey_are_not_shown(hub):
  """Nor taken; who wants such a file can name it."""
  torch_files.save(
    hub.folder / "other", torch_files.config(), name="a\x1b[31m.pt"
  )
  torch_files.save(hub.folder / "other", torch_files.config(), name="step_1\n")
  with pytest.raises(errors.UserError, match="2 weights files, maze/step_"):
    torch_source.locate("hf:someone/trm")
  with pytest.raises(errors.UserError, match="other has no weights file"):
    torch_source.locate(str(hub.folder / "other"))


def test_a_repository_whose_weights_are_named_checkpoint(hub):
  """As those of HRM's authors."""
  for name in ("sudoku", "maze"):
    shutil.rmtree(hub.folder / name)
  torch_files.save(hub.folder, torch_files.config(), name="checkpoint")
  (hub.folder / "README.md").touch()
  (hub.folder / "last_checkpoint").touch()
  located = torch_source.locate("hf:someone/trm")
  assert located.weights == hub.folder / "checkpoint"
  assert located.config == hub.folder / "all_config.yaml"
  assert located.step == 0
  assert torch_source.locate(str(hub.folder)).weights == located.weights
  torch_files.save(hub.folder / "maze", torch_files.config(), name="checkpoint")
  with pytest.raises(errors.UserError, match="checkpoint, maze/checkpoint: na"):
    torch_source.locate("hf:someone/trm")


def test_repositories_that_do_not_tell_what_to_take(hub):
  for inside, text in (
    ("", "2 weights files, maze/step_30, sudoku/step_30: name one"),
    ("/other", "someone/trm on Hugging Face has no other"),
  ):
    with pytest.raises(errors.UserError, match=text):
      torch_source.locate(f"hf:someone/trm{inside}")
  hub.is_reached = False
  with pytest.raises(errors.UserError) as caught:
    torch_source.locate("hf:someone/trm/sudoku")
  assert "cannot download hf:someone/trm/sudoku from Hugging Face" in str(
    caught.value
  )
  assert "download the file and all_config.yaml" in str(caught.value)


def test_a_missing_package_of_the_hub_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(errors.UserError, match="pip install huggingface_hub"):
    torch_source.locate("hf:someone/trm")
