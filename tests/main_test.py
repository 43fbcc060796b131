"""The command line, as a person types it: what it prints and how it ends."""

import gzip
import json
import re
import shutil

import command_line
import pytest
import tiny

from experiments import sudoku
from trm_jax import config as config_lib
from trm_jax import errors, train
from trm_jax.data import tasks

HEADER = "source,question,answer,rating\n"
QUESTION = (
  "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5"
  "....8..79"
)
ANSWER = (
  "534678912672195348198342567859761423426853791713924856961537284287419635"
  "345286179"
)

TINY = (
  "--config.data.box_rows=2",
  "--config.data.box_cols=2",
  "--config.data.num_clues=6",
  "--config.data.num_train=8",
  "--config.data.num_test=4",
  "--config.model.hidden_size=16",
  "--config.model.puzzle_embed_dim=16",
  "--config.model.num_layers=1",
  "--config.model.latent_updates=1",
  "--config.model.recursion_cycles=1",
  "--config.train.batch_size=4",
  "--config.eval.batch_size=4",
  "--config.eval.supervision_steps=1",
  "--config.log.every_steps=1",
)


def source_of(tmp_path, *rows, header=HEADER, name="train.csv") -> str:
  folder = tmp_path / "source"
  folder.mkdir()
  good = f"made up,{QUESTION},{ANSWER},0\n"
  (folder / name).write_text(header + "".join(rows or [good]))
  (folder / "test.csv").write_text(HEADER + good)
  return str(folder)


def sudoku_config(tmp_path, source) -> config_lib.Config:
  config = sudoku.get_config()
  config.data.update(
    source=source, cache_dir=str(tmp_path / "cache"), num_train=1, num_test=1
  )
  return config_lib.from_config_dict(config)


@pytest.fixture(name="trained", scope="module")
def _trained(tmp_path_factory):
  """The workdir of a run of one step, and what it printed."""
  workdir = tmp_path_factory.mktemp("trained")
  result = command_line.run(
    *TINY,
    "--config.train.num_steps=1",
    f"--workdir={workdir}",
    compiles_fast=True,
  )
  assert result.returncode == 0, result.stderr
  return workdir, result.stdout


def test_a_training_names_what_it_wrote(trained):
  workdir, output = trained
  assert re.fullmatch(r"exact_accuracy=\d\.\d+", output.splitlines()[-1])
  for name in ("checkpoints", "metrics.jsonl", "curves.png", "example.png"):
    assert (workdir / name).exists()
    assert str(workdir / name) in output
  assert list((workdir / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_a_training_continues_and_its_weights_are_evaluated(trained, tmp_path):
  run = tmp_path / "run"
  shutil.copytree(trained[0], run)
  (run / "curves.png").unlink()
  (run / "curves.png").mkdir()  # a picture that fails costs nothing else
  arguments = [*TINY, f"--workdir={run}"]
  result = command_line.run(
    *arguments, "--config.train.num_steps=2", compiles_fast=True
  )
  assert result.returncode == 0, result.stderr
  assert "resuming from step 1" in result.stdout
  assert "step 2/2" in result.stdout
  assert "step 1/2" not in result.stdout
  assert f"WARNING: cannot draw {run / 'curves.png'}: " in result.stdout
  assert json.loads((run / "result.json").read_text())["step"] == 2
  # The same weights, evaluated on their own, give the same number.
  again = command_line.run(*arguments, "--mode=evaluate", compiles_fast=True)
  assert again.returncode == 0, again.stderr
  assert again.stdout.splitlines()[-1] == result.stdout.splitlines()[-1]


def test_workdir_of_another_experiment(trained):
  """Of a training, tests/runtime/checkpointing_test.py has it."""
  message = command_line.error_of(
    *TINY,
    f"--workdir={trained[0]}",
    "--config.model.num_layers=2",
    "--mode=evaluate",
  )
  assert "config.model.num_layers is 1 in the checkpoint, 2 here" in message
  assert "omit --config to use the run's own settings" in message


@pytest.mark.slow
def test_learns_4x4_through_main(tmp_path):
  """At least 90 % exact on unseen puzzles within 400 steps."""
  arguments = [
    f"--workdir={tmp_path}",
    "--config.data.box_rows=2",
    "--config.data.box_cols=2",
    "--config.data.num_clues=6",
    "--config.data.num_train=400",
    "--config.data.num_test=200",
    "--config.model.hidden_size=64",
    "--config.model.puzzle_embed_dim=64",
  ]
  result = command_line.run(
    *arguments,
    "--config.train.batch_size=32",
    "--config.train.num_steps=400",
    "--config.eval.every_steps=0",
    "--config.eval.batch_size=200",
  )
  assert result.returncode == 0, result.stderr
  last = result.stdout.splitlines()[-1]
  match = re.fullmatch(r"exact_accuracy=(\d\.\d+)", last)
  assert match, last
  assert float(match.group(1)) >= 0.9
  # The same weights, evaluated on their own, give the same number.
  again = command_line.run(
    *arguments,
    "--mode=evaluate",
    "--config.eval.batch_size=50",
  )
  assert again.returncode == 0, again.stderr
  assert again.stdout.splitlines()[-1] == last


@pytest.mark.slow
def test_real_format_trains_and_continues(tmp_path):
  """Two tiny runs on a CSV folder, plain and zipped, in one workdir."""
  folder = tmp_path / "source"
  folder.mkdir()
  rows = HEADER + f"made up,{QUESTION},{ANSWER},0\n" * 4
  (folder / "train.csv.gz").write_bytes(gzip.compress(rows.encode()))
  (folder / "test.csv").write_text(rows)
  arguments = [
    "--config.data.task=sudoku",
    f"--config.data.source={folder}",
    f"--config.data.cache_dir={tmp_path / 'cache'}",
    "--config.data.num_train=3",
    "--config.data.num_test=2",
    f"--workdir={tmp_path / 'run'}",
  ]
  for num_steps in (2, 3):
    result = command_line.run(
      *arguments,
      f"--config.train.num_steps={num_steps}",
      config="experiments/sudoku.py:attention,smoke",
      compiles_fast=True,
    )
    assert result.returncode == 0, result.stderr
  assert "resuming from step 2" in result.stdout
  assert "step 3/3" in result.stdout
  assert "step 2/3" not in result.stdout


def test_missing_folder(tmp_path):
  config = sudoku_config(tmp_path, str(tmp_path / "nowhere"))
  with pytest.raises(errors.UserError) as caught:
    train.train(config, str(tmp_path / "run"))
  assert "nowhere" in str(caught.value)
  assert "train.csv" in str(caught.value)
  assert_nothing_half_written(tmp_path)


@pytest.mark.parametrize(
  ("header", "question", "text"),
  [
    (
      "a,b,grid,answer\n",
      QUESTION,
      "train.csv line 1: the columns are 'a,b,grid,answer'; expected one"
      " 'question' and one 'answer'",
    ),
    (HEADER, f"a{QUESTION[1:]}", "train.csv line 2: question has 'a'"),
    (HEADER, f"{QUESTION[:2]}1{QUESTION[3:]}", "train.csv line 2"),
  ],
  ids=["header", "letter", "contradiction"],
)
def test_faults_of_a_file(tmp_path, header, question, text):
  row = f"made up,{question},{ANSWER},0\n"
  config = sudoku_config(tmp_path, source_of(tmp_path, row, header=header))
  with pytest.raises(errors.UserError) as caught:
    train.train(config, str(tmp_path / "run"))
  message = str(caught.value)
  assert text in message
  assert "\n" not in message
  assert_nothing_half_written(tmp_path)


def assert_nothing_half_written(tmp_path):
  """There is no prepared data, and no workdir."""
  assert not (tmp_path / "run").exists()
  assert not list((tmp_path / "cache").rglob("*array_record*"))


def test_row_of_80_characters_through_main(tmp_path):
  source = source_of(tmp_path, f"made up,{QUESTION[:-1]},{ANSWER},0\n")
  message = command_line.error_of(
    f"--config.data.source={source}",
    f"--config.data.cache_dir={tmp_path / 'cache'}",
    "--config.data.num_train=1",
    f"--workdir={tmp_path / 'run'}",
    config="experiments/sudoku.py",
  )
  assert "train.csv line 2: question has 80 characters, expected 81" in message
  assert_nothing_half_written(tmp_path)


def test_misspelt_knob():
  message = command_line.error_of("--config.model.hiden_size=3")
  assert "config.model.hiden_size" in message
  assert "did you mean config.model.hidden_size?" in message


def test_wrong_type_of_knob():
  message = command_line.error_of("--config.train.batch_size=many")
  assert "config.train.batch_size is 'many'; it must be an integer" in message


def test_help_lists_config_and_print_config_all_settings():
  help_text = command_line.run("--help").stdout
  assert "--config: " in help_text
  assert "--print_config" in help_text
  result = command_line.run("--print_config", "--config.train.num_steps=7")
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  assert "config.train.num_steps = 7" in lines
  assert "config.name = 'quickstart'" in lines
  assert [line.split(" = ")[0].partition(".")[2] for line in lines] == list(
    config_lib.knob_names()
  )


def test_a_word_that_is_no_flag_gets_a_hint():
  message = command_line.error_of("train")
  assert "unexpected argument 'train'; did you mean --mode=train?" in message


def test_batch_size_0(tmp_path):
  message = command_line.error_of(
    "--config.train.batch_size=0", f"--workdir={tmp_path}"
  )
  assert "config.train.batch_size is 0; it must be at least 1" in message


def test_unknown_variant_and_missing_config():
  assert "no variant 'atention'" in command_line.error_of(
    config="experiments/sudoku.py:atention"
  )
  assert "nowhere.py" in command_line.error_of(config="experiments/nowhere.py")


def test_experiments_that_cannot_be_loaded(tmp_path):
  for name, text, expected in (
    ("syntax", "def", "invalid syntax"),
    ("missing", "import nowhere_to_be_found", "nowhere_to_be_found"),
    ("raises", "undefined", "NameError"),
    ("empty", "", "no function get_config"),
    ("three", "def get_config():\n  return 3", "int"),
  ):
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    assert expected in command_line.error_of(config=str(path)), name


def test_generated_puzzles_need_a_number(tmp_path):
  config = config_lib.changed(tiny.config(), {"data.num_test": 0})
  with pytest.raises(errors.UserError, match=r"config\.data\.num_test"):
    train.train(config, str(tmp_path / "run"))


def test_a_byte_order_mark_is_no_mistake(tmp_path):
  source = source_of(tmp_path, header="\ufeff" + HEADER)
  task = tasks.load(sudoku_config(tmp_path, source).data)
  assert task.train.num_examples == task.test.num_examples == 1


def test_unknown_flag():
  assert "wrkdir" in command_line.error_of("--wrkdir=x")


def test_evaluation_without_a_checkpoint(tmp_path):
  message = command_line.error_of(
    "--mode=evaluate", f"--workdir={tmp_path / 'empty'}"
  )
  assert "holds no checkpoint" in message


def test_a_run_to_start_from_that_is_not_there(tmp_path):
  config = config_lib.changed(
    tiny.config(), {"checkpoint.init_from": str(tmp_path / "nowhere")}
  )
  with pytest.raises(errors.UserError) as caught:
    train.train(config, str(tmp_path / "run"))
  assert "config.checkpoint.init_from: " in str(caught.value)
  assert "nowhere holds no checkpoint" in str(caught.value)
  assert not (tmp_path / "run").exists()
