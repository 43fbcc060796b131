"""A machine for the launch scripts, with a simulated gcloud, srun, ..."""

import json
import os
import pathlib
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "launch"
TPU_VM = LAUNCH / "tpu_vm.sh"
SLURM = LAUNCH / "slurm.sbatch"
REPRODUCE = LAUNCH / "reproduce.sh"

# Of tpu_vm.sh.
SETTINGS = {
  "NAME": "arc-1",
  "PROJECT": "lab",
  "ZONE": "us-central1-a",
  "ACCELERATOR_TYPE": "v6e-32",
  "RUNTIME_VERSION": "v2-alpha-tpuv6e",
}
# What shells, ssh and systemd would like to read in their own way.
COMMAND = [
  "python",
  "-m",
  "trm_jax.main",
  "--workdir=gs://bucket/arc run",
  "--config.data.subsets=('training','it\"s')",
  "--config.name=$HOME ${USER} %i `date` \\n * ;& | > x",
  "",
]

# Writes down what it was called with; asked for the state of the request, it
# prints the next of its states.
GCLOUD = """
import json, os, pathlib, sys
folder = pathlib.Path(os.environ["CLOUD"])
words = sys.argv[1:]
with (folder / "calls").open("a") as file:
  file.write(json.dumps(words) + "\\n")
if "describe" in words:
  states = json.loads((folder / "states").read_text())
  (folder / "states").write_text(json.dumps(states[1:] or states))
  sys.exit("no connection") if not states[0] else print(states[0])
"""


def executable(path, text, interpreter="/bin/bash"):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f"#!{interpreter}\n{text}\n")
  path.chmod(0o755)


class Machine:
  """A folder of simulated programs that shadow the real ones."""

  def __init__(self, folder):
    self.folder = folder
    self.home = folder / "home"
    self.home.mkdir()
    self.environment = {
      "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
      "HOME": str(self.home),
      "CLOUD": str(folder),
      "TMPDIR": str(folder),
      "POLL_SECONDS": "0",
    }
    for name in ("gcloud", "srun", "sbatch", "scontrol", "squeue", "sudo"):
      self.program(name, 'touch "$CLOUD/executed"; exit 1')

  def program(self, name, text, interpreter="/bin/bash"):
    """Puts a program where it is found before the real one."""
    executable(self.folder / "bin" / name, text, interpreter)

  def gcloud(self, *states):
    """Puts in a gcloud whose request has each state in turn.

    Args:
      *states: Those of the request; the last one stays. "": it fails.
    """
    self.program("gcloud", GCLOUD, f"{sys.executable} -SE")
    (self.folder / "states").write_text(json.dumps(states))
    (self.folder / "calls").unlink(missing_ok=True)

  def calls(self):
    """The words of each call of gcloud."""
    text = (self.folder / "calls").read_text()
    return [json.loads(line) for line in text.splitlines()]

  @property
  def executed(self):
    """Whether one of the programs that no test has put in was called."""
    return (self.folder / "executed").exists()

  def slurm(self, state="RUNNING"):
    """Puts in SLURM, for a job of this state, and `save`, a training."""
    self.program("srun", 'while [[ $1 == --* ]]; do shift; done; exec "$@"')
    self.program("squeue", f"echo {state}")
    self.program("scontrol", 'echo "$@" >"$CLOUD/queued"')
    self.program(
      "save", 'trap "exit 0" TERM; touch "$CLOUD/up"; sleep 99 & wait'
    )
    self.environment["SLURM_JOB_ID"] = "17"

  def run(self, *words, **environment):
    """Runs a program to its end."""
    return subprocess.run(
      [str(word) for word in words],
      cwd=self.folder,
      env=self.environment | environment,
      capture_output=True,
      text=True,
      check=False,
    )

  def run_and_terminate(self, *words, **environment):
    """Sends SIGTERM to all its processes once `save` is up; returns the status.

    Its child `sleep` gets it, too: nothing is left behind.
    """
    process = subprocess.Popen(
      [str(word) for word in words],
      cwd=self.folder,
      env=self.environment | environment,
      start_new_session=True,
    )
    while not (self.folder / "up").exists():
      assert process.poll() is None
    os.killpg(process.pid, signal.SIGTERM)
    return process.wait()

  def records_python(self, folder):
    """Puts a `python` into a folder that writes down its words."""
    executable(
      folder / "python",
      f"import json, sys; json.dump(sys.argv[1:], open({str(self.folder)!r}"
      " + '/python_words', 'w'))",
      f"{sys.executable} -SE",
    )

  def python_words(self):
    """What that `python` was called with."""
    return json.loads((self.folder / "python_words").read_text())


def error_of(result):
  """The one line of an error; there is nothing else."""
  assert result.returncode == 1
  assert result.stdout == ""
  (line,) = result.stderr.splitlines()
  assert line.startswith("error: ")
  return line
