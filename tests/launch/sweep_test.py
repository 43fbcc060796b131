"""Searches through the command line, with a trainer that only writes files."""

import math
import os
import signal
import subprocess
import time

import optuna
import pytest
import sweep_command
import sweep_trainer

from experiments import quickstart
from launch import sweep_spec, sweep_study, sweep_worker
from trm_jax.runtime import metric_writer

RATES = (1e-3, 1e-4, 3e-3)
CHOICES = f'space={{"optimizer.learning_rate": Choice{RATES}}}'
KINDS = 'space={"optimizer.weight_decay": Choice(%s)}'


def test_a_grid_is_trained_once_and_reported(tmp_path):
  command = sweep_command.Command.of_search(tmp_path, CHOICES)
  output = command.run()
  rows = command.rows()
  rates = [float(row["optimizer.learning_rate"]) for row in rows.values()]
  assert list(rows) == [0, 2, 1]  # sorted by the result
  assert rates == [1e-3, 3e-3, 1e-4]
  assert float(rows[0]["exact_accuracy"]) == 1.0
  assert float(rows[1]["exact_accuracy"]) == 0.0
  assert {row["state"] for row in rows.values()} == {"complete"}
  starts = command.events("start")
  assert sorted(f for f, _ in starts) == sorted(
    row["folder"] for row in rows.values()
  )
  table = (command.workdir / "results.md").read_text()
  assert table in output
  assert "| 0     | 0.001 " in table
  assert (command.workdir / "results.png").read_bytes()[:4] == b"\x89PNG"

  # The command that repeats the best one is the one that it was run with.
  last = output.splitlines()[-1]
  assert last.startswith("best: trial 0 with exact_accuracy=1.0000")
  flags = dict(starts)[rows[0]["folder"]]["flags"]
  for flag in flags:
    assert flag in last or flag.startswith("--workdir=")
  assert "--config.optimizer.learning_rate=0.001" in flags
  assert "--config.train.num_steps=6" in flags

  # Repeated, there is nothing to do, and --report prints the same.
  again = command.run()
  assert len(command.events("start")) == 3
  assert again.splitlines()[-1] == last
  (command.workdir / "results.md").unlink()
  assert command.run("--report").splitlines()[-1] == last
  assert (command.workdir / "results.md").read_text() == table

  # Another sweep is refused by its differences.
  message = command.run("--config.train.num_steps=8", status=1)
  assert "config.train.num_steps was 6, is 8" in message
  assert len(message.splitlines()) == 1
  other = sweep_command.Command.of_search(
    tmp_path, CHOICES + ', metric="loss", direction="minimize"'
  )
  message = other.run(status=1)
  assert "metric was 'exact_accuracy', is 'loss'" in message
  assert "direction was" in message
  # What changes no result may change.
  sweep_command.Command.of_search(tmp_path, CHOICES).run(
    "--config.log.every_steps=7"
  )
  assert len(command.events("start")) == 3


def test_failures_are_reported_and_the_sweep_continues(tmp_path):
  kinds = (
    *(sweep_trainer.FAILS, sweep_trainer.RESULT_IS_NAN),
    *(sweep_trainer.DIES_ONCE, 0.1),
  )
  command = sweep_command.Command.of_search(
    tmp_path, KINDS % ", ".join(map(str, kinds))
  )
  output = command.run()
  assert command.states() == {
    **{0: "failed", 1: "failed"},
    **{2: "complete", 3: "complete"},
  }
  text = (command.workdir / "results.md").read_text()
  assert "\ntrial 0: the loss is nan at step 3\n" in text
  assert "older line" not in text
  reason = "\ntrial 1: the exact_accuracy of its result is not a number\n"
  assert reason in text
  assert "best: trial 2" in output
  # The one that was killed resumed from its checkpoint.
  folder = command.rows()[2]["folder"]
  starts = [e["step"] for f, e in command.events("start") if f == folder]
  assert starts == [0, 2]
  # Repeated, what has failed is tried again, and nothing else.
  command.run()
  assert len(command.events("start")) == 5 + 1
  assert sorted(command.states()) == [2, 3, 4, 5]


def test_without_any_result_the_end_is_an_error(tmp_path):
  command = sweep_command.Command.of_search(
    tmp_path, KINDS % sweep_trainer.FAILS
  )
  message = command.run(status=1)
  assert message == "error: no trial has a result yet; see the table above\n"


def test_a_missing_metric_is_named(tmp_path):
  command = sweep_command.Command.of_search(
    tmp_path, CHOICES + ', metric="exact_acuracy"'
  )
  message = command.run(status=1)
  assert "did you mean 'exact_accuracy'?" in message
  assert len(message.splitlines()) == 1


def test_a_pruned_trial_is_stopped_and_saves(tmp_path):
  command = sweep_command.Command.of_search(
    tmp_path,
    CHOICES + ", pruner=MedianPruner(n_startup_trials=1)",
    "--config.train.num_steps=60",
    "--config.eval.every_steps=20",
  )
  command.run()
  assert command.states() == {0: "complete", 1: "pruned", 2: "pruned"}
  rows = command.rows()
  stopped = [folder for folder, _ in command.events("SIGTERM")]
  assert sorted(stopped) == sorted(rows[n]["folder"] for n in (1, 2))
  assert [f for f, _ in command.events("result")] == [rows[0]["folder"]]
  assert 20 <= int(rows[1]["step"]) < 60


def test_the_last_evaluation_prunes_nothing(tmp_path):
  command = sweep_command.Command.of_search(
    tmp_path,
    CHOICES + ", pruner=MedianPruner(n_startup_trials=1)",
    "--config.eval.every_steps=6",
  )
  command.run()
  assert set(command.states().values()) == {"complete"}


def test_workers_run_at_once_on_their_own_devices(tmp_path, monkeypatch):
  # Each trial waits for the other to have started.
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
  command = sweep_command.Command.of_search(
    tmp_path,
    "rows=({},"
    ' {"optimizer.learning_rate": 3e-3, "seed": 5, "optimizer.name": "muon"}),'
    f' fixed={{"optimizer.weight_decay": {sweep_trainer.WAITS_FOR_ANOTHER}}}',
  )
  command.run(
    *("--workers=2", "--devices_per_worker=2"),
    start=command.start_with_workers,
  )
  assert command.states() == {0: "complete", 1: "complete"}
  starts = dict(command.events("start"))
  assert {event["devices"] for event in starts.values()} == {"4,5", "6,7"}
  # Rows are trained as they are.
  first, second = (
    set(starts[command.rows()[n]["folder"]]["flags"]) for n in (0, 1)
  )
  folder = command.rows()[1]["folder"]
  assert not any("seed" in flag or "optimizer.name" in flag for flag in first)
  assert second - first == {
    *("--config.seed=5", "--config.optimizer.learning_rate=0.003"),
    *("--config.optimizer.name=muon", f"--workdir={command.workdir}/{folder}"),
  }
  message = command.run("--workers=3", "--devices_per_worker=2", status=1)
  assert "need 6; CUDA_VISIBLE_DEVICES has 4" in message


def test_more_trials_may_follow_and_draws_are_repeatable(tmp_path):
  drawn = (
    'space={"optimizer.learning_rate": FloatDistribution(1e-4, 1e-2, log=True)'
    '}, sampler="random", num_trials='
  )
  sweep_command.Command.of_search(tmp_path, drawn + "1").run()
  command = sweep_command.Command.of_search(tmp_path, drawn + "3")
  command.run()
  assert sorted(command.rows()) == [0, 1, 2]
  assert len(command.events("start")) == 3
  rates = {n: r["optimizer.learning_rate"] for n, r in command.rows().items()}
  assert len(set(rates.values())) == 3
  # As two commands at once draw them.
  fresh = tmp_path / "fresh"
  fresh.mkdir()
  other = sweep_command.Command.of_search(fresh, drawn + "3")
  both = [other.start(), other.start()]
  outputs = [process.communicate() for process in both]
  assert [process.returncode for process in both] == [0, 0], outputs
  assert len(other.events("start")) == 3
  assert rates == {
    n: row["optimizer.learning_rate"] for n, row in other.rows().items()
  }
  assert all("best: trial" in output for output, _ in outputs)


FIVE = 'space={"optimizer.learning_rate": Choice(1e-3, 5e-4, 2e-3, 3e-3, 2e-4)}'


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_sweep_resumes_with_nothing_lost_or_doubled(tmp_path, how):
  command = sweep_command.Command.of_search(
    tmp_path, FIVE, "--config.train.num_steps=20"
  )
  process = command.start()
  sweep_command.wait_for(lambda: max([0, *command.saved().values()]) >= 5)
  process.send_signal(how)
  output, _ = process.communicate()
  assert process.returncode == (-9 if how == signal.SIGKILL else 143)
  if how == signal.SIGTERM:
    assert "stopped; the same command resumes" in output
  finished = {folder for folder, _ in command.events("result")}
  assert len(finished) < 5

  command.run()
  starts = command.events("start")
  folders = {folder for folder, _ in starts}
  assert sorted(f for f, _ in command.events("result")) == sorted(folders)
  assert list(command.states().values()) == ["complete"] * 5
  resumed = {folder for folder, event in starts if event["step"] > 0}
  assert resumed
  # Trainers of a killed sweep get SIGTERM, and save.
  assert resumed <= {folder for folder, _ in command.events("SIGTERM")}
  for folder in folders:
    mine = [event["flags"] for f, event in starts if f == folder]
    assert all(flags == mine[0] for flags in mine)
    assert folder not in finished or len(mine) == 1


def test_a_worker_that_was_thought_dead_stops_its_trainer(tmp_path):
  """As when a machine was suspended and another one retries its trial."""
  command = sweep_command.Command.of_search(
    tmp_path, KINDS % 0.1, "--config.train.num_steps=2000"
  )
  process = command.start()
  sweep_command.wait_for(lambda: max([0, *command.saved().values()]) >= 3)
  study = optuna.load_study(
    study_name="sweep", storage=f"sqlite:///{command.workdir}/sweep.db"
  )
  study.tell(0, state=optuna.trial.TrialState.FAIL)
  output, message = process.communicate()
  assert process.returncode == 1
  assert "was taken over" in output
  assert message.startswith("error: no trial has a result yet")
  ((folder, _),) = command.events("start")
  saved = command.saved()[folder]
  time.sleep(5 * sweep_trainer.STEP_SECONDS)
  assert command.saved()[folder] == saved < 2000


def test_a_lock_is_held_as_long_as_its_trainer_lives(tmp_path):
  path = tmp_path / "lock"
  with sweep_study.locked(path) as lock:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(lock,))
  with pytest.raises(InterruptedError), sweep_study.locked(path, [15]):
    pass
  child.stdin.close()
  child.wait()
  with sweep_study.locked(path, [15]):
    pass


@pytest.mark.slow
def test_a_sweep_is_complete_although_a_worker_is_killed(tmp_path):
  command = sweep_command.Command.of_search(
    tmp_path,
    'space={"optimizer.learning_rate": Choice(1e-3, 5e-4, 2e-3, 3e-3)}',
    "--config.train.num_steps=50",
  )
  process = command.start_with_workers("--workers=2")
  sweep_command.wait_for(lambda: max([0, *command.saved().values()]) >= 10)
  folder, event = command.events("start")[0]
  os.kill(event["worker"], signal.SIGKILL)
  output, mistakes = process.communicate()
  assert process.returncode == 0, output + mistakes
  assert "was killed by SIGKILL; the others retry its trial" in output
  assert command.states() == dict.fromkeys(range(4), "complete")
  steps = [event["step"] for f, event in command.events("start") if f == folder]
  assert len(steps) == 2
  assert steps[0] == 0 < steps[1]  # it resumed from its checkpoint
  assert len(command.events("start")) == 5
  assert len(command.events("result")) == 4
  assert command.events("TWO AT ONCE") == []
  assert (command.workdir / "results.md").read_text() in output
  assert (command.workdir / "results.png").read_bytes()[:4] == b"\x89PNG"
  assert output.splitlines()[-1].startswith("best: trial 0 ")


def test_a_result_that_is_there_is_read(tmp_path):
  """As when a worker is killed just before it reports; with real files."""
  sweep_command.Command.of_search(tmp_path, CHOICES)
  plan = sweep_spec.plan(
    sweep_spec.load(str(tmp_path / "search_file.py")),
    experiment="experiments/quickstart.py",
    config=quickstart.get_config(),
    overrides={},
  )
  for rate in RATES:
    point = {"optimizer.learning_rate": rate}
    folder = tmp_path / plan.trial(point).folder
    folder.mkdir()
    run = metric_writer.Writer(
      str(folder),
      first_step=0,
      is_finished=False,
      tensorboard=False,
      active=True,
    )
    run.scalars(1, "train", {"exact_accuracy": 0.9})
    run.scalars(2, "eval", {"exact_accuracy": rate, "loss": math.nan})
    run.result(3, {"exact_accuracy": 2 * rate})
  place = sweep_study.Place(tmp_path)
  study = sweep_study.prepare(plan, place)
  handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
  assert sweep_worker.Worker(study, plan, place).run() == 0
  for number, handler in zip(
    (signal.SIGINT, signal.SIGTERM), handlers, strict=True
  ):
    signal.signal(number, handler)
  assert [trial.value for trial in study.trials] == [2 * r for r in RATES]
  assert study.trials[0].intermediate_values == {2: RATES[0]}
