"""launch/tpu_vm.sh, run for real on a made-up machine."""

import shlex
import tarfile

import made_up_machine
import pytest

WHERE = ["--project=lab", "--zone=us-central1-a"]
PARTS = {
  "create": [],
  "install": [],
  "start": made_up_machine.COMMAND,
  "logs": [],
  "ssh": [],
  "status": [],
  "stop": [],
  "delete": [],
  "babysit": made_up_machine.COMMAND,
}


@pytest.fixture
def machine(tmp_path):
  return made_up_machine.Machine(tmp_path)


READY = {"request": "ACTIVE", "machines": "READY", "services": ["active"] * 4}
IDLE = READY | {"services": ["inactive", "failed", "inactive", "inactive"]}


@pytest.mark.parametrize("part", PARTS)
def test_a_dry_run_does_nothing_and_needs_no_gcloud(machine, part):
  for name in ("gcloud", "tar", "sleep"):
    machine.program(name, 'touch "$CLOUD/executed"')
  result = machine.run(
    made_up_machine.TPU_VM,
    part,
    "--dry_run",
    "--",
    *PARTS[part],
    **made_up_machine.SETTINGS,
  )
  assert result.returncode == 0
  assert result.stderr == ""
  assert not machine.executed
  assert "gcloud compute tpus" in result.stdout


@pytest.mark.parametrize("part", [part for part in PARTS if part != "babysit"])
def test_what_a_dry_run_prints_is_what_is_done(machine, part):
  words = (made_up_machine.TPU_VM, part, "--spot=1", "--", *PARTS[part])
  machine.gcloud(READY)
  assert machine.run(*words, **made_up_machine.SETTINGS).returncode == 0
  done = machine.calls()
  assert done
  machine.gcloud(READY)
  text = machine.run(
    *words[:3], "--dry_run", *words[3:], **made_up_machine.SETTINGS
  ).stdout
  assert machine.run("bash", "-euc", text).returncode == 0
  assert machine.calls() == done


def test_what_is_asked_for(machine):
  lines = machine.run(
    made_up_machine.TPU_VM, "create", "--dry_run", **made_up_machine.SETTINGS
  ).stdout
  create = ["gcloud", "compute", "tpus", "queued-resources", "create", "arc-1"]
  create += [*WHERE, "--node-id=arc-1", "--accelerator-type=v6e-32"]
  create += ["--runtime-version=v2-alpha-tpuv6e"]
  assert shlex.split(lines.splitlines()[0]) == create
  lines = machine.run(
    made_up_machine.TPU_VM,
    "create",
    "--dry_run",
    "--spot=1",
    "--name=b c",
    **made_up_machine.SETTINGS,
  ).stdout
  spot = [word.replace("arc-1", "b c") for word in create] + ["--spot"]
  assert shlex.split(lines.splitlines()[0]) == spot


def test_create_waits_until_the_slice_is_active(machine):
  waiting = {"request": "WAITING_FOR_RESOURCES"}
  creating = {"request": "ACTIVE", "machines": "CREATING"}
  machine.gcloud(waiting, waiting, creating, READY)
  result = machine.run(
    made_up_machine.TPU_VM, "create", **made_up_machine.SETTINGS
  )
  assert result.returncode == 0
  assert result.stdout.splitlines()[-1] == "# arc-1 is ACTIVE"
  assert result.stdout.count("looking again") == 3
  machine.gcloud(waiting, {"request": "FAILED"})
  result = machine.run(
    made_up_machine.TPU_VM, "create", **made_up_machine.SETTINGS
  )
  assert result.returncode == 1
  assert "error: arc-1 is FAILED" in result.stderr


def test_the_command_reaches_python_word_by_word(machine):
  machine.gcloud(READY)
  assert (
    machine.run(
      made_up_machine.TPU_VM,
      "start",
      "--",
      *made_up_machine.COMMAND,
      **made_up_machine.SETTINGS,
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
  assert machine.python_words() == made_up_machine.COMMAND[1:]
  assert (machine.home / "trm.log").exists()


def test_what_is_installed(machine):
  machine.gcloud(READY)
  assert (
    machine.run(
      made_up_machine.TPU_VM, "install", **made_up_machine.SETTINGS
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
  made_up_machine.executable(
    machine.home / ".local/bin/uv", 'echo "$@" >>$CLOUD/uv'
  )
  text = install[-1].removeprefix("--command=")
  assert machine.run("bash", "-c", f"cd; {text}").returncode == 0
  assert run.exists()
  assert not lost.exists()
  assert (machine.home / "trm_jax/trm_jax/main.py").exists()
  assert ".[tpu]" in (machine.folder / "uv").read_text()


def _kind(call):
  """What a call of gcloud does; None for those that only look."""
  if "list" in call or "ls" in call or "is-active" in call[-1]:
    return None
  if "ssh" in call:
    return "start" if "systemd-run" in call[-1] else "install"
  return next(word for word in ("create", "delete", "scp") if word in call)


BEGIN = ["scp", "install", "start"]


@pytest.mark.parametrize(
  ("rows", "expected"),
  [
    ([READY | {"result": True}], ["delete"]),
    ([IDLE | {"result": True}], ["delete"]),  # ended just now
    ([IDLE, READY | {"result": True}], [*BEGIN, "delete"]),
    (
      [
        {"request": ""},
        {"request": "WAITING_FOR_RESOURCES"},
        IDLE,
        READY,
        READY | {"services": ["inactive", "active"]},  # ends, one by one
        READY | {"machines": "PREEMPTED"},
        {"request": "SUSPENDING"},
        {"request": ""},
        {"request": "PROVISIONING"},
        IDLE | {"machines": "CREATING"},
        IDLE,
        READY | {"result": True},
      ],
      ["create", *BEGIN, "delete", "delete", "create", *BEGIN, "delete"],
    ),
    ([{"request": "FAILED"}, READY | {"result": True}], ["delete"] * 2),
    ([READY | {"machines": ""}, READY | {"result": True}], ["delete"] * 2),
  ],
)
def test_babysit_makes_the_slice_again_until_there_is_a_result(
  machine, rows, expected
):
  machine.gcloud(*rows)
  result = machine.run(
    made_up_machine.TPU_VM,
    "babysit",
    "--",
    *made_up_machine.COMMAND,
    **made_up_machine.SETTINGS,
  )
  assert (result.returncode, result.stderr) == (0, "")
  assert [kind for call in machine.calls() if (kind := _kind(call))] == expected
  starts = [call for call in machine.calls() if _kind(call) == "start"]
  assert all(call == starts[0] for call in starts)
  looks = [call for call in machine.calls() if call[0] == "storage"]
  assert looks[0] == ["storage", "ls", "gs://bucket/arc run/result.json"]


def test_babysit_gives_up_on_a_training_that_always_fails(machine):
  machine.gcloud(IDLE)
  result = machine.run(
    made_up_machine.TPU_VM,
    "babysit",
    "--max_starts=2",
    "--",
    *made_up_machine.COMMAND,
    **made_up_machine.SETTINGS,
  )
  assert result.returncode == 1
  assert "ended 2 times on arc-1 without a result" in result.stderr
  assert [k for c in machine.calls() if (k := _kind(c))] == [*BEGIN, *BEGIN]


def test_babysit_leaves_alone_what_does_not_answer(machine):
  machine.gcloud(READY, READY | {"result": True})
  gcloud = machine.folder / "bin" / "gcloud"
  gcloud.rename(machine.folder / "bin" / "cloud")
  machine.program(
    "gcloud",  # the connection fails once
    "[[ $* != *is-active* || -e $CLOUD/failed ]] || { touch $CLOUD/failed; "
    'exit 255; }\nexec cloud "$@"',
  )
  result = machine.run(
    made_up_machine.TPU_VM,
    "babysit",
    "--",
    *made_up_machine.COMMAND,
    **made_up_machine.SETTINGS,
  )
  assert result.returncode == 0
  assert "do not answer" in result.stdout
  assert [k for c in machine.calls() if (k := _kind(c))] == ["delete"]


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_setting_is_one_line(machine, part):
  needed = ["NAME", "PROJECT", "ZONE"]
  if part in ("create", "babysit"):
    needed = list(made_up_machine.SETTINGS)
  for name in needed:
    others = {k: v for k, v in made_up_machine.SETTINGS.items() if k != name}
    result = machine.run(
      made_up_machine.TPU_VM, part, "--dry_run", "--", "x", **others
    )
    assert made_up_machine.error_of(result).startswith(
      f"error: {name.lower()} is missing: "
    )


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["strat"], "what is 'strat'?"),
    (["stop", "--nmae=x"], "what is '--nmae=x'?"),
    (["start"], "say what to run"),
    (["create", "--spot=yes"], "spot is 'yes'"),
    (["babysit", "--", "python", "--workdir=runs/arc"], "--workdir=gs://..."),
    (["stop"], "gcloud is missing"),
  ],
)
def test_a_mistake_is_one_line(machine, words, message):
  (machine.folder / "bin/gcloud").unlink()
  for name in ("bash", "dirname"):
    machine.program(name, f'exec /usr/bin/{name} "$@"')
  only_these = {"PATH": str(machine.folder / "bin")}
  assert message in made_up_machine.error_of(
    machine.run(
      made_up_machine.TPU_VM, *words, **made_up_machine.SETTINGS, **only_these
    )
  )
