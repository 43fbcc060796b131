"""launch/tpu_vm.sh, run for real on a simulated machine."""

import shlex
import tarfile

import pytest
import simulated_machine

WHERE = ["--project=lab", "--zone=us-central1-a"]
PARTS = {
  "create": [],
  "install": [],
  "start": simulated_machine.COMMAND,
  "logs": [],
  "ssh": [],
  "status": [],
  "stop": [],
  "delete": [],
}


@pytest.fixture
def machine(tmp_path):
  return simulated_machine.Machine(tmp_path)


@pytest.mark.parametrize("part", PARTS)
def test_a_dry_run_does_nothing_and_needs_no_gcloud(machine, part):
  for name in ("gcloud", "tar", "sleep"):
    machine.program(name, 'touch "$CLOUD/executed"')
  result = machine.run(
    simulated_machine.TPU_VM,
    part,
    "--dry_run",
    "--",
    *PARTS[part],
    **simulated_machine.SETTINGS,
  )
  assert result.returncode == 0
  assert result.stderr == ""
  assert not machine.executed
  assert "gcloud compute tpus" in result.stdout


@pytest.mark.parametrize("part", PARTS)
def test_what_a_dry_run_prints_is_what_is_done(machine, part):
  words = (simulated_machine.TPU_VM, part, "--spot=1", "--", *PARTS[part])
  machine.gcloud("ACTIVE")
  assert machine.run(*words, **simulated_machine.SETTINGS).returncode == 0
  done = machine.calls()
  assert done
  machine.gcloud("ACTIVE")
  text = machine.run(
    *words[:3], "--dry_run", *words[3:], **simulated_machine.SETTINGS
  ).stdout
  assert machine.run("bash", "-euc", text).returncode == 0
  assert machine.calls() == done


def test_what_is_asked_for(machine):
  lines = machine.run(
    simulated_machine.TPU_VM,
    "create",
    "--dry_run",
    **simulated_machine.SETTINGS,
  ).stdout
  create = ["gcloud", "compute", "tpus", "queued-resources", "create", "arc-1"]
  create += [*WHERE, "--node-id=arc-1", "--accelerator-type=v6e-32"]
  create += ["--runtime-version=v2-alpha-tpuv6e"]
  assert shlex.split(lines.splitlines()[0]) == create
  lines = machine.run(
    simulated_machine.TPU_VM,
    "create",
    "--dry_run",
    "--spot=1",
    "--name=b c",
    **simulated_machine.SETTINGS,
  ).stdout
  spot = [word.replace("arc-1", "b c") for word in create] + ["--spot"]
  assert shlex.split(lines.splitlines()[0]) == spot


def test_create_waits_until_the_slice_is_active(machine):
  machine.gcloud("WAITING_FOR_RESOURCES", "", "PROVISIONING", "ACTIVE")
  result = machine.run(
    simulated_machine.TPU_VM, "create", **simulated_machine.SETTINGS
  )
  assert result.returncode == 0
  assert result.stdout.splitlines()[-1] == "# arc-1 is ACTIVE"
  assert result.stdout.count("checking again") == 3
  assert "arc-1 is UNKNOWN" in result.stdout  # no connection
  machine.gcloud("WAITING_FOR_RESOURCES", "FAILED")
  result = machine.run(
    simulated_machine.TPU_VM, "create", **simulated_machine.SETTINGS
  )
  assert result.returncode == 1
  assert "error: arc-1 is FAILED" in result.stderr


def test_the_command_reaches_python_word_by_word(machine):
  machine.gcloud("ACTIVE")
  assert (
    machine.run(
      simulated_machine.TPU_VM,
      "start",
      "--",
      *simulated_machine.COMMAND,
      **simulated_machine.SETTINGS,
    ).returncode
    == 0
  )
  (call,) = machine.calls()
  assert call[:4] == ["compute", "tpus", "tpu-vm", "ssh"]
  assert "--worker=all" in call
  text = call[-1].removeprefix("--command=")
  # The worker's side of the connection: a shell reads the text.
  machine.program("sudo", 'exec "$@"')
  machine.program("systemctl", "exit 1")
  machine.program(
    "systemd-run",
    "[[ $* != *[%$]* ]] || exit 9  # it would expand these\n"
    'while [[ $1 == --* ]]; do shift; done; exec "$@"',
  )
  machine.records_python(machine.home / "trm_jax/.venv/bin")
  result = machine.run("bash", "-c", f"cd; {text}")
  assert (result.returncode, result.stderr) == (0, "")
  assert machine.python_words() == simulated_machine.COMMAND[1:]
  assert (machine.home / "trm.log").exists()


def test_what_is_installed(machine):
  machine.gcloud("ACTIVE")
  assert (
    machine.run(
      simulated_machine.TPU_VM, "install", **simulated_machine.SETTINGS
    ).returncode
    == 0
  )
  copy, install = machine.calls()
  archive = machine.folder / "trm_jax-arc-1.tar.gz"
  assert copy[:5] == ["compute", "tpus", "tpu-vm", "scp", str(archive)]
  with tarfile.open(archive) as tar:
    names = tar.getnames()
  assert {"setup.cfg", "trm_jax/main.py", "experiments/arc.py"} <= set(names)
  assert not [name for name in names if "__pycache__" in name]
  # The worker's side: what a run left stays, what the project lost goes.
  archive.rename(machine.home / copy[5].removeprefix("arc-1:"))
  run, lost = (
    machine.home / "trm_jax" / name
    for name in ("runs/arc/metrics.jsonl", "trm_jax/gone.py")
  )
  for path in (run, lost):
    path.parent.mkdir(parents=True)
    path.touch()
  machine.program("python3", "exit 0")
  simulated_machine.executable(
    machine.home / ".local/bin/uv", 'echo "$@" >>$CLOUD/uv'
  )
  text = install[-1].removeprefix("--command=")
  assert machine.run("bash", "-c", f"cd; {text}").returncode == 0
  assert run.exists()
  assert not lost.exists()
  assert (machine.home / "trm_jax/trm_jax/main.py").exists()
  assert ".[tpu]" in (machine.folder / "uv").read_text()


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_setting_is_one_line(machine, part):
  needed = ["NAME", "PROJECT", "ZONE"]
  if part == "create":
    needed = list(simulated_machine.SETTINGS)
  for name in needed:
    others = {k: v for k, v in simulated_machine.SETTINGS.items() if k != name}
    result = machine.run(
      simulated_machine.TPU_VM, part, "--dry_run", "--", "x", **others
    )
    assert simulated_machine.error_of(result).startswith(
      f"error: {name.lower()} is missing: "
    )


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["strat"], "unknown part 'strat'"),
    (["stop", "--nmae=x"], "unexpected argument '--nmae=x'"),
    (["start"], "say what to run"),
    (["create", "--spot=yes"], "spot is 'yes'"),
    (["stop"], "gcloud is missing"),
  ],
)
def test_a_mistake_is_one_line(machine, words, message):
  (machine.folder / "bin/gcloud").unlink()
  for name in ("bash", "dirname"):
    machine.program(name, f'exec /usr/bin/{name} "$@"')
  only_these = {"PATH": str(machine.folder / "bin")}
  assert message in simulated_machine.error_of(
    machine.run(
      simulated_machine.TPU_VM,
      *words,
      **simulated_machine.SETTINGS,
      **only_these,
    )
  )
