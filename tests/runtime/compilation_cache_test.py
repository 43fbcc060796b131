"""Compiled programs on disk: kept, found, and never in the way."""

import os
import warnings

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from trm_jax.runtime import compilation_cache

SETTINGS = (
  "jax_compilation_cache_dir",
  "jax_enable_compilation_cache",
  "jax_persistent_cache_min_compile_time_secs",
  "jax_compilation_cache_max_size",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """The folder of a user who has said nothing of it."""
  before = {name: getattr(jax.config, name) for name in SETTINGS}
  jax.config.update("jax_compilation_cache_dir", None)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
  jax_cache.reset_cache()
  yield tmp_path / "trm_jax/programs"
  for name, value in before.items():
    jax.config.update(name, value)
  jax_cache.reset_cache()


@pytest.fixture
def hits():
  """Counts the programs that were found."""
  found = []

  def listen(event, **_):
    if event == "/jax/compilation_cache/cache_hits":
      found.append(event)

  jax.monitoring.register_event_listener(listen)
  yield found
  jax.monitoring.unregister_event_listener(listen)


def compile_as_if_new(*names):
  """Compiles a program of each name, as a process that was just started."""
  jax_cache.reset_cache()
  # Else these programs would be too small to keep.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  for name in names:

    def double(x):
      return 2 * x

    double.__name__ = name
    np.testing.assert_array_equal(jax.jit(double)(np.arange(3)), [0, 2, 4])


def kept(folder):
  return {path.name.partition("-")[0] for path in folder.glob("*-cache")}


def test_programs_are_kept_and_found_again(folder, hits):
  compilation_cache.enable()
  compile_as_if_new("a", "b")
  assert kept(folder) == {"jit_a", "jit_b"}
  assert folder.stat().st_mode & 0o077 == 0  # whoever may write may run code
  assert not hits
  compile_as_if_new("a", "b")
  assert len(hits) == 2


def test_what_takes_long_is_kept_without_being_asked_for(folder):
  compilation_cache.enable()
  assert jax.config.jax_persistent_cache_min_compile_time_secs < 1.0


def test_a_folder_of_the_users_own_stays(folder, tmp_path, capfd):
  own = str(tmp_path / "own")
  jax.config.update("jax_compilation_cache_dir", own)
  compilation_cache.enable()
  assert jax.config.jax_compilation_cache_dir == own
  assert not folder.exists()


def test_a_user_who_wants_none_has_none(folder):
  jax.config.update("jax_enable_compilation_cache", False)
  compilation_cache.enable()
  compile_as_if_new("a")
  assert jax.config.jax_compilation_cache_dir is None
  assert not folder.exists()


def test_of_several_processes_none_keeps_what_others_miss(folder, monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  compilation_cache.enable()
  assert jax.config.jax_compilation_cache_dir is None


def warning(capfd):
  """The one line that was printed."""
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith("WARNING: the compilation cache ")
  return line


def test_a_file_in_the_folders_place(folder, capfd):
  folder.parent.mkdir()
  folder.touch()
  compilation_cache.enable()
  assert str(folder) in warning(capfd)
  compile_as_if_new("a")
  assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_is_found_unusable_while_training(
  folder, tmp_path, capfd
):
  (tmp_path / "file").touch()
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "file"))
  compilation_cache.enable()
  compile_as_if_new("a", "b")
  assert "file" in warning(capfd)


def test_programs_that_were_cut_off_are_compiled_and_kept_anew(
  folder, hits, capfd
):
  compilation_cache.enable()
  compile_as_if_new("a", "b")
  for path in folder.glob("*-cache"):
    os.truncate(path, path.stat().st_size // 2)
  compile_as_if_new("a", "b")
  warning(capfd)
  assert not hits
  compile_as_if_new("a", "b")
  assert len(hits) == 2
  assert not capfd.readouterr().err


@pytest.mark.parametrize(
  ("is_ours", "message"),
  [
    (False, "Error reading {} 'jit_a': ZstdError: cut off"),
    (True, "Error reading {} 'jit_a': TimeoutError: the net is slow"),
    (True, "Error writing {} 'jit_a': OSError: No space left"),
  ],
)
def test_good_programs_stay_whatever_happens(
  folder, tmp_path, capfd, is_ours, message
):
  if not is_ours:
    folder = tmp_path / "own"
    jax.config.update("jax_compilation_cache_dir", str(folder))
  compilation_cache.enable()
  compile_as_if_new("a")
  text = message.format("persistent compilation cache entry for")
  warnings.warn(text, stacklevel=1)
  warning(capfd)
  assert kept(folder) == {"jit_a"}


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_write_to_is_not_used(folder, capfd, mode):
  folder.mkdir(parents=True)
  folder.chmod(mode)
  compilation_cache.enable()
  assert "others may write to it" in warning(capfd)
  assert jax.config.jax_compilation_cache_dir is None


def test_a_user_without_a_home(folder, capfd, monkeypatch):
  monkeypatch.delenv("XDG_CACHE_HOME")
  monkeypatch.setattr(os.path, "expanduser", lambda path: path)
  compilation_cache.enable()
  assert "no home folder" in warning(capfd)


def test_other_warnings_are_shown(folder):
  shown = []
  warnings.showwarning = lambda message, *_: shown.append(str(message))
  compilation_cache.enable()
  warnings.warn("the sky is falling", stacklevel=1)
  assert shown == ["the sky is falling"]


def test_the_least_recently_used_program_makes_room(folder, monkeypatch):
  compilation_cache.enable()
  compile_as_if_new("a")
  (path,) = folder.glob("*-cache")
  monkeypatch.setattr(
    compilation_cache, "_MAX_BYTES", int(2.5 * path.stat().st_size)
  )
  jax.config.update("jax_compilation_cache_dir", None)
  compilation_cache.enable()
  compile_as_if_new("b", "a", "c")
  assert kept(folder) == {"jit_a", "jit_c"}
