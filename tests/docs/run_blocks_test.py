"""Python blocks behind <!-- run --> run, on a small untrained network."""

import re

import pages
import pytest
import saved_run
import tiny

from experiments import quickstart
from trm_jax import config as config_lib
from trm_jax.runtime import program

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device")]

BLOCK = re.compile(r"<!-- run -->\n```python\n(.*?)^```$", re.M | re.S)


def _blocks():
  found = []
  for page, text in pages.pages().items():
    for match in BLOCK.finditer(text):
      line = text[: match.start()].count("\n") + 1
      found.append(pytest.param(match[1], id=f"{page}:{line}"))
  return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_device):
  """A folder with pretrained/ and with runs/quickstart, which is untrained."""
  folder = tmp_path_factory.mktemp("blocks")
  (folder / "pretrained").symlink_to(pages.ROOT / "pretrained")
  config = config_lib.changed(
    config_lib.from_config_dict(quickstart.get_config()),
    {
      "data.num_train": 8,
      "data.num_test": 8,
      "train.batch_size": 8,
      "eval.batch_size": 8,
      **{
        f"model.{name}": getattr(tiny.config().model, name)
        for name in ("hidden_size", "mlp_multiple", "puzzle_embed_dim")
      },
    },
  )
  saved_run.save(program.load(config), folder / "runs/quickstart", {700: 0.5})
  return folder


def test_the_marks_are_found():
  assert len(_blocks()) >= 5


@pytest.mark.parametrize("text", _blocks())
def test_a_block_runs(text, folder, monkeypatch):
  monkeypatch.chdir(folder)
  exec(compile(text, "block", "exec"), {"__name__": "block"})
