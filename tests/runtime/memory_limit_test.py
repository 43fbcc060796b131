"""The least of a machine's memory and of its control groups' limits."""

import os

import pytest

from trm_jax.runtime import host_memory

MACHINE = 10**9


@pytest.fixture
def linux(monkeypatch, tmp_path):
  """A machine of MACHINE bytes; writes its files as they are given."""
  sizes = {"SC_PHYS_PAGES": MACHINE, "SC_PAGE_SIZE": 1}
  monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
  monkeypatch.setattr(host_memory, "_GROUPS", tmp_path / "cgroup")
  monkeypatch.setattr(host_memory, "_MOUNTED", tmp_path / "mounted")

  def write(groups, **limits):
    (tmp_path / "cgroup").write_text(groups)
    for name, text in limits.items():
      path = tmp_path / "mounted" / name.replace("__", "/").replace("0", ".")
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(f"{text}\n")

  return write


NEWER = "0::/slurm/job_7/step_1\n"
OLDER = "5:devices:/\n4:cpu,memory:/jobs/7\n0::/\n"


@pytest.mark.parametrize(
  ("groups", "limits", "expected"),
  [
    ("", {}, MACHINE),
    (NEWER, {}, MACHINE),
    (NEWER, {"memory0max": "max"}, MACHINE),
    # A container sees the top of its own group only.
    (NEWER, {"memory0max": "300"}, 300),
    (NEWER, {"slurm__job_7__step_1__memory0max": "400"}, 400),
    # Of a group above, of two groups, of more than the machine has.
    (
      NEWER,
      {
        "slurm__job_7__step_1__memory0max": "max",
        "slurm__job_7__memory0max": "500",
        "slurm__memory0max": "600",
      },
      500,
    ),
    (NEWER, {"memory0max": str(2 * MACHINE)}, MACHINE),
    ("0::/../other\n", {"memory0max": "300"}, 300),
    (OLDER, {"memory__jobs__7__memory0limit_in_bytes": "700"}, 700),
    (OLDER, {"memory__memory0limit_in_bytes": "800"}, 800),
    (OLDER, {"unified__memory0max": "900"}, 900),
    # The limit of another group.
    (OLDER, {"memory__jobs__8__memory0limit_in_bytes": "700"}, MACHINE),
  ],
)
def test_the_least_limit_counts(linux, groups, limits, expected):
  linux(groups, **limits)
  assert host_memory.process_limit() == expected


def test_without_control_groups_it_is_the_machine(linux):
  del linux  # wrote nothing
  assert host_memory.process_limit() == MACHINE


def test_where_the_system_does_not_tell(monkeypatch):
  def fail(name):
    raise ValueError(name)

  monkeypatch.setattr(os, "sysconf", fail)
  assert host_memory.process_limit() == 0
