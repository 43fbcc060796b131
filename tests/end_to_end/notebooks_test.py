"""The notebooks run, and each file has its pair."""

import pathlib

import jupytext
import pytest
import saved_run
import tiny

from trm_jax.runtime import program

NOTEBOOKS = pathlib.Path(__file__).resolve().parents[2] / "notebooks"

# What makes them short: (as written, as run).
SHORTER = {
  "quickstart": (("num_steps = 700", "num_steps = 2"),),
  "trm_in_100_lines": (
    ("LAYERS, BATCH, STEPS = 2, 64, 300", "LAYERS, BATCH, STEPS = 2, 16, 20"),
  ),
  "watching_it_think": (('"runs/quickstart"', '"trained"'),),
}


@pytest.mark.parametrize("name", SHORTER)
def test_both_forms_have_the_same_cells(name):
  script, notebook = (
    jupytext.read(NOTEBOOKS / f"{name}.{suffix}") for suffix in ("py", "ipynb")
  )

  def cells(found):
    return [(cell.cell_type, cell.source) for cell in found.cells]

  assert cells(script) == cells(notebook)
  assert not any(cell.get("outputs") for cell in notebook.cells)


def test_every_notebook_is_tested():
  found = {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
  assert found == set(SHORTER)


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("name", SHORTER)
def test_a_notebook_runs(name, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  if name == "watching_it_think":
    config = tiny.config()
    saved_run.save(program.load(config), tmp_path / "trained", {1: 0.5})
  text = (NOTEBOOKS / f"{name}.py").read_text()
  for written, run in SHORTER[name]:
    assert text.count(written) == 1
    text = text.replace(written, run)
  exec(compile(text, f"{name}.py", "exec"), {"__name__": "__main__"})
  assert capsys.readouterr().out
