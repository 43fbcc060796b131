"""Searches through the command line, with a trainer that only writes files."""

import math
import os
import signal
import time

import optuna
import pytest
import sweep_command
import sweep_trainer
import tiny

from trm_jax.runtime import metric_writer

CHOICES = 'space={"optimizer.learning_rate": Choice(1e-3, 1e-4, 3e-3)}'
KINDS = 'space={"optimizer.weight_decay": Choice(%s)}'
DRAWN = (
  'space={"optimizer.learning_rate": FloatDistribution(1e-4, 1e-2, log=True)},'
  " sampler=RandomSampler(seed=3), num_trials="
)


def test_a_grid_is_trained_once_and_reported(tmp_path):
  command = sweep_command.Command.of_search(tmp_path, CHOICES)
  output = command.run()
  rows = command.rows()
  assert list(rows) == [0, 2, 1]  # best first
  rates = [float(row["optimizer.learning_rate"]) for row in rows.values()]
  assert rates == [1e-3, 3e-3, 1e-4]
  assert float(rows[0]["exact_accuracy"]) == 1.0
  assert {row["state"] for row in rows.values()} == {"complete"}
  starts = dict(command.events("start"))
  assert set(starts) == {row["folder"] for row in rows.values()}
  table = (command.workdir / "results.md").read_text()
  assert table in output
  assert "| 0     | 0.001 " in table
  assert (command.workdir / "results.png").read_bytes()[:4] == b"\x89PNG"

  # The command that repeats the best one is the one that it was run with.
  last = output.splitlines()[-1]
  assert last.startswith("best: trial 0 with exact_accuracy=1.0000")
  flags = starts[rows[0]["folder"]]["flags"]
  assert {"--config.optimizer.learning_rate=0.001"} < set(flags)
  assert all(flag in last for flag in flags[:-1])

  # Repeated, there is nothing to do, and --report prints the same.
  assert command.run().splitlines()[-1] == last
  (command.workdir / "results.md").unlink()
  assert command.run("--report").splitlines()[-1] == last
  assert (command.workdir / "results.md").read_text() == table

  # Another sweep is refused.
  message = command.run("--config.train.num_steps=8", status=1)
  assert "the sweep file or the settings changed" in message
  other = sweep_command.Command.of_search(
    tmp_path, CHOICES + ', metric="loss", direction="minimize"'
  )
  assert "use another --workdir" in other.run(status=1)
  # What changes no result may change.
  sweep_command.Command.of_search(tmp_path, CHOICES).run(
    "--config.log.every_steps=7"
  )
  assert len(command.events("start")) == 3


def test_one_setting_at_a_time_with_further_metrics(tmp_path):
  rate, decay = "optimizer.learning_rate", "optimizer.weight_decay"
  command = sweep_command.Command.of_search(
    tmp_path,
    f'space={{"{rate}": Choice(1e-3, 1e-4), "{decay}": Choice(0.5, 1.0)}},'
    ' one_at_a_time=True, shown=("cell_accuracy", "halt_accuracy")',
  )
  command.run()
  rows = command.rows().values()
  found = {(float(row[rate]), float(row[decay])) for row in rows}
  assert found == {(1e-3, 0.5), (1e-4, 0.5), (1e-3, 1.0)}
  assert {row["cell_accuracy"] for row in rows} == {"0.75"}
  assert {row["halt_accuracy"] for row in rows} == {""}  # not measured


def test_failures_are_reported_and_retried_by_the_same_command(tmp_path):
  kinds = (
    *(sweep_trainer.FAILS, sweep_trainer.RESULT_IS_NAN),
    *(sweep_trainer.DIES_ONCE, 0.1),
  )
  command = sweep_command.Command.of_search(
    tmp_path, KINDS % ", ".join(map(str, kinds))
  )
  command.run()
  assert command.states() == {
    **{0: "failed", 1: "failed", 2: "failed", 3: "complete"}
  }
  text = (command.workdir / "results.md").read_text()
  assert "\ntrial 0 failed: exit status 1: error: the loss is nan at" in text
  assert "older line" not in text
  assert "trial 1 failed: the exact_accuracy of its result is not a" in text
  assert "\ntrial 2 failed: exit status -9: " in text
  folder = command.rows()[2]["folder"]
  command.run()
  assert command.states() == {
    **{3: "complete", 4: "failed", 5: "failed", 6: "complete"}
  }
  # The one that was killed resumed from its checkpoint.
  steps = [e["step"] for f, e in command.events("start") if f == folder]
  assert steps == [0, 2]


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (KINDS % sweep_trainer.FAILS, "no trial has a result yet"),
    (CHOICES + ', metric="exact_acuracy"', "they have cell_accuracy, exact_"),
  ],
)
def test_without_any_result_the_end_is_an_error(tmp_path, arguments, said):
  command = sweep_command.Command.of_search(tmp_path, arguments)
  message = command.run(status=1)
  assert message.startswith("error: ")
  assert said in message
  assert len(message.splitlines()) == 1


@pytest.mark.slow
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
    'space={"optimizer.name": Choice("adamw", "muon")},'
    f' fixed={{"optimizer.weight_decay": {sweep_trainer.WAITS_FOR_ANOTHER}}}',
  )
  command.run("--workers=2", "--devices_per_worker=2")
  assert command.states() == {0: "complete", 1: "complete"}
  events = [event for _, event in command.events("start")]
  assert {event["devices"] for event in events} == {"4,5", "6,7"}
  first, second = (set(event["flags"]) for event in events)
  assert {flag.partition("=")[0] for flag in first ^ second} == {
    *("--config.optimizer.name", "--workdir")
  }
  message = command.run("--workers=3", "--devices_per_worker=2", status=1)
  assert "6 devices needed; CUDA_VISIBLE_DEVICES has 4" in message


def test_more_trials_may_follow_and_commands_may_run_at_once(tmp_path):
  sweep_command.Command.of_search(tmp_path, DRAWN + "1").run()
  command = sweep_command.Command.of_search(tmp_path, DRAWN + "4")
  both = [command.start(), command.start()]
  outputs = [process.communicate() for process in both]
  assert [process.returncode for process in both] == [0, 0], outputs
  assert all("best: trial" in output for output, _ in outputs)
  assert len(command.events("start")) == 4
  rates = {r["optimizer.learning_rate"] for r in command.rows().values()}
  assert len(rates) == 4  # although the sampler has a seed


@pytest.mark.parametrize(
  "how",
  [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
)
def test_a_stopped_sweep_resumes_with_nothing_lost_or_doubled(tmp_path, how):
  command = sweep_command.Command.of_search(
    tmp_path, DRAWN + "3", "--config.train.num_steps=20"
  )
  process = command.start()
  sweep_command.wait_for(lambda: max([0, *command.saved().values()]) >= 5)
  process.send_signal(how)
  output, _ = process.communicate()
  assert process.returncode == (-9 if how == signal.SIGKILL else 143)
  if how == signal.SIGTERM:
    assert "unfinished; the same command resumes" in output
    assert set(command.states().values()) == {"unfinished", "not run"}
  command.run()
  starts = command.events("start")
  folders = {folder for folder, _ in starts}
  assert sorted(f for f, _ in command.events("result")) == sorted(folders)
  assert list(command.states().values()) == ["complete"] * 3
  # Trainers of a killed sweep get SIGTERM, and save.
  ((stopped, event),) = command.events("SIGTERM")
  steps = [e["step"] for folder, e in starts if folder == stopped]
  assert steps == [0, event["step"]]
  assert len(starts) == 4


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


@pytest.mark.slow
def test_a_sweep_is_complete_although_a_worker_is_killed(tmp_path):
  command = sweep_command.Command.of_search(
    tmp_path,
    'space={"optimizer.learning_rate": Choice(1e-3, 5e-4, 2e-3, 3e-3)}',
    "--config.train.num_steps=50",
  )
  process = command.start("--workers=2")
  sweep_command.wait_for(lambda: max([0, *command.saved().values()]) >= 10)
  folder, event = command.events("start")[0]
  os.kill(event["worker"], signal.SIGKILL)
  output, mistakes = process.communicate()
  assert process.returncode == 0, output + mistakes
  assert "1 of 2 workers were killed" in output
  assert list(command.states().values()) == ["complete"] * 4
  steps = [event["step"] for f, event in command.events("start") if f == folder]
  assert len(steps) == 2
  assert steps[0] == 0 < steps[1]  # it resumed from its checkpoint
  assert len(command.events("start")) == 5
  assert len(command.events("result")) == 4
  assert command.events("TWO AT ONCE") == []
  assert (command.workdir / "results.md").read_text() in output
  assert (command.workdir / "results.png").read_bytes()[:4] == b"\x89PNG"
  assert output.splitlines()[-1].startswith("best: trial ")


def test_a_result_that_is_there_is_read(tmp_path):
  """As when a worker is killed just before it reports; with real files."""
  command = sweep_command.Command.of_search(tmp_path, CHOICES)
  command.run()
  folders = [row["folder"] for row in command.rows().values()]
  (command.workdir / "sweep.db").unlink()
  for folder in folders:
    run = metric_writer.Writer(
      str(command.workdir / folder),
      first_step=0,
      is_finished=False,
      active=True,
      config=tiny.config(),
    )
    run.scalars(1, "train", {"exact_accuracy": 0.9})
    run.scalars(2, "eval", {"exact_accuracy": 0.2, "loss": math.nan})
    run.result(3, {"exact_accuracy": 0.5})
  command.run()
  rows = command.rows().values()
  assert [row["exact_accuracy"] for row in rows] == ["0.5"] * 3
  assert len(command.events("start")) == 3
