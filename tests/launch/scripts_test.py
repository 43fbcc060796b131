"""The other launch scripts and pages, run for real on a simulated machine."""

import configparser
import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import simulated_machine
import yaml

PAGES = "".join(
  (simulated_machine.ROOT / "docs/howto" / name).read_text()
  for name in ("machines.md", "sweeps.md")
)
SKY_TASKS = ("sky_gpu.yaml", "sky_tpu.yaml")


@pytest.fixture
def machine(tmp_path):
  return simulated_machine.Machine(tmp_path)


# --- slurm.sbatch ------------------------------------------------------------


@pytest.mark.parametrize(
  ("command", "state", "status", "queues"),
  [
    ("true", "RUNNING", 0, True),
    ("true", "COMPLETING", 0, False),  # cancelled
    ("false", "RUNNING", 1, False),
    ('mkdir -p "a b"; touch "a b/result.json"', "RUNNING", 0, False),
  ],
)
def test_a_job_queues_again_until_there_is_a_result(
  machine, command, state, status, queues
):
  machine.slurm(state)
  result = machine.run(
    "bash", simulated_machine.SLURM, "bash", "-c", command, "--workdir=a b"
  )
  assert result.returncode == status
  queued = machine.folder / "queued"
  assert queued.exists() == queues
  assert not queues or queued.read_text() == "requeue 17\n"


@pytest.mark.parametrize(
  ("status", "queues"), [(0, False), (143, True), (1, False)]
)
def test_a_sweep_queues_again_only_if_it_was_stopped(machine, status, queues):
  machine.slurm()
  command = ["bash", "-c", f"exit {status}", "launch.sweep", "--workdir=x"]
  result = machine.run("bash", simulated_machine.SLURM, *command)
  assert result.returncode == (1 if status == 1 else 0)
  assert (machine.folder / "queued").exists() == queues


def test_a_preempted_job_saves_and_queues_again(machine):
  machine.slurm()
  assert (
    machine.run_and_terminate(
      "bash", simulated_machine.SLURM, "save", "--workdir=x"
    )
    == 0
  )
  assert (machine.folder / "queued").read_text() == "requeue 17\n"


def test_a_dry_run_of_a_job_prints_what_it_would_do(machine):
  command = [
    *simulated_machine.COMMAND[:3],
    "--workdir=~/arc run",
    *simulated_machine.COMMAND[4:],
  ]
  lines = machine.run(
    "bash", simulated_machine.SLURM, "--dry_run", *command
  ).stdout.splitlines()
  assert not machine.executed
  (run,) = (line for line in lines if "srun" in line and line[0] != "#")
  words = shlex.split(run)
  assert words[0] == "srun"
  assert words[-len(command) :] == command
  assert shlex.split(lines[-2]) == ["ls", f"{machine.home}/arc run/result.json"]
  settings = dict(
    re.findall(r"^#SBATCH --([\w-]+)=(.*)", "\n".join(lines), re.M)
  )
  # One process per GPU, and SIGTERM to them, not to the script ("B:").
  assert settings["ntasks-per-node"] == settings["gpus-per-node"]
  assert re.fullmatch(r"TERM@\d{3,}", settings["signal"])


@pytest.mark.parametrize(
  ("words", "message"),
  [
    ([], "say what to run"),
    (["python", "-m", "trm_jax.main"], "needs --workdir=FOLDER"),
    (["python", "--workdir=gs://bucket/arc"], "needs --workdir=FOLDER"),
    (["python", "--workdir=x"], "this is no job"),
  ],
)
def test_a_mistake_in_a_job_is_one_line(machine, words, message):
  assert message in simulated_machine.error_of(
    machine.run("bash", simulated_machine.SLURM, *words)
  )


PARSE = """
import json, sys
import sky, yaml
for path in sys.argv[1:]:
  task = sky.Task.from_yaml_config(
    yaml.safe_load(open(path)), env_overrides=[("BUCKET", "mine")])
  (resources,) = task.resources
  storage = task.storage_mounts["/bucket"]
  print(json.dumps({
    "gpus": resources.accelerators, "spot": resources.use_spot,
    "recovery": resources.job_recovery, "bucket": storage.name,
    "mode": storage.mode.value, "envs": task.envs}))
"""


def test_skypilot_reads_the_tasks(machine):
  result = machine.run(
    sys.executable,
    "-c",
    PARSE,
    *(simulated_machine.LAUNCH / name for name in SKY_TASKS),
  )
  assert result.returncode == 0, result.stderr
  gpu, tpu = map(json.loads, result.stdout.splitlines())
  assert gpu["gpus"] == {"H100": 8}
  assert tpu["gpus"] == {"tpu-v6e-32": 1}
  for task in (gpu, tpu):
    assert task["spot"]
    assert task["recovery"]["recover_on_exit_codes"] == [75]
    assert (task["bucket"], task["mode"]) == ("mine", "MOUNT")
    assert task["envs"]["WORKDIR"].startswith("/bucket/")


def _run_sky(machine, name):
  """The task's command, and its environment on the second of two machines."""
  text = yaml.safe_load((simulated_machine.LAUNCH / name).read_text())["run"]
  environment = {
    "CONFIG": "experiments/arc.py:2",
    "WORKDIR": str(machine.folder / "a b"),
    "ARGUMENTS": "--config.seed=1  --config.data.subsets=('a','b')",
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_RANK": "1",
  }
  return ("bash", "-c", text), environment


@pytest.mark.parametrize("name", SKY_TASKS)
def test_a_managed_job_ends_only_with_a_result(machine, name):
  words, environment = _run_sky(machine, name)
  machine.records_python(machine.folder / ".venv/bin")
  assert machine.run(*words, **environment).returncode == 75
  many = ["--coordinator=10.0.0.1:8476", "--num_processes=2", "--process_id=1"]
  assert machine.python_words() == [
    "-m",
    "trm_jax.main",
    "--config=experiments/arc.py:2",
    f"--workdir={environment['WORKDIR']}",
    *(many if name == "sky_gpu.yaml" else []),
    "--config.seed=1",
    "--config.data.subsets=('a','b')",
  ]
  (machine.folder / "a b").mkdir()
  (machine.folder / "a b/result.json").touch()
  assert machine.run(*words, **environment).returncode == 0
  simulated_machine.executable(machine.folder / ".venv/bin/python", "exit 3")
  assert machine.run(*words, **environment).returncode == 3


@pytest.mark.parametrize("name", SKY_TASKS)
def test_a_preempted_managed_job_goes_on_elsewhere(machine, name):
  words, environment = _run_sky(machine, name)
  machine.slurm()
  (machine.folder / ".venv/bin").mkdir(parents=True)
  (machine.folder / "bin/save").rename(machine.folder / ".venv/bin/python")
  assert machine.run_and_terminate(*words, **environment) == 75


def test_shellcheck_has_nothing_to_say(tmp_path):
  scripts = [
    simulated_machine.TPU_VM,
    simulated_machine.SLURM,
    simulated_machine.REPRODUCE,
    simulated_machine.ROOT / ".ci/run",
  ]
  for name in SKY_TASKS:
    task = yaml.safe_load((simulated_machine.LAUNCH / name).read_text())
    for part in ("setup", "run"):
      scripts.append(tmp_path / f"{name}.{part}.bash")
      scripts[-1].write_text(task[part])
  shellcheck = pathlib.Path(sys.executable).with_name("shellcheck")
  result = subprocess.run(
    [shellcheck, "--shell=bash", *scripts],
    capture_output=True,
    text=True,
    check=False,
  )
  assert (result.returncode, result.stdout) == (0, "")
  for script in scripts:
    assert "shellcheck disable" not in script.read_text()


def test_the_dockerfile_names_what_there_is():
  text = (simulated_machine.LAUNCH / "Dockerfile").read_text()
  sources = re.findall(r"^COPY (.+) \S+$", text, re.M)
  assert sources
  for source in " ".join(sources).split():
    assert (simulated_machine.ROOT / source).exists()
  setup = configparser.ConfigParser()
  setup.read(simulated_machine.ROOT / "setup.cfg")
  (extra,) = re.findall(r"^ARG EXTRA=(\w+)$", text, re.M)
  assert extra in setup["options.extras_require"]


def _commands(text):
  """Commands in the fenced blocks of a page, each in one line."""
  blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
  return "".join(blocks).replace("\\\n", " ").splitlines()


def test_the_commands_of_the_documentation_are_accepted(machine):
  shown = set()
  for line in _commands(PAGES):
    for script, arguments in re.findall(r"launch/([\w.]+)(.*)", line):
      words = shlex.split(arguments, comments=True)
      if script == simulated_machine.TPU_VM.name:
        shown.add(words[0])
        words = [simulated_machine.TPU_VM, words[0], "--dry_run", *words[1:]]
      elif script == simulated_machine.SLURM.name and words[0] != "--dry_run":
        words = ["bash", simulated_machine.SLURM, "--dry_run", *words]
      else:
        assert (simulated_machine.LAUNCH / script).exists()
        continue
      result = machine.run(*words, **simulated_machine.SETTINGS)
      assert result.returncode == 0, (line, result.stderr)
  assert len(shown) == 8
