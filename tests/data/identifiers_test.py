"""The file that says what the rows of the puzzle table stand for."""

import hashlib
import json

import pytest

from trm_jax import errors
from trm_jax.data import identifiers


@pytest.mark.parametrize(
  "names", [[], ["<blank>"], ["<blank>", 'quote"', "ünïcode", "a\\b"]]
)
def test_file_of_identifiers(tmp_path, names):
  path = tmp_path / "new" / "identifiers.json"
  identifiers.write(path, names)
  content = path.read_bytes()
  assert content == json.dumps(names).encode()
  assert identifiers.digest(names) == hashlib.sha256(content).hexdigest()
  assert identifiers.read(path) == names
  assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path):
  path = tmp_path / "identifiers.json"
  identifiers.write(path, ["old"])
  with pytest.raises(TypeError):
    identifiers.write(path, ["new", object()])
  assert identifiers.read(path) == ["old"]
  assert list(tmp_path.iterdir()) == [path]


def test_identifiers_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match=r"cannot write .*/ids\.json: "):
    identifiers.write(tmp_path / "file" / "ids.json", ["<blank>"])


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "is not JSON: Expecting value"),
    (b'["<blank>", ', "is not JSON"),
    (b"[\xff]", "is not JSON"),
    (b"[" * 100_000, "is not JSON"),
    (b'{"a": 1}', "does not hold a JSON list"),
    (b'["<blank>", "a", 7]', "entry 2: 7 is not a string"),
  ],
)
def test_files_that_hold_no_identifiers(tmp_path, content, message):
  path = tmp_path / "ids.json"
  path.write_bytes(content)
  with pytest.raises(errors.UserError) as caught:
    identifiers.read(path)
  assert str(caught.value).startswith(str(path))
  assert message in str(caught.value)
  assert "\n" not in str(caught.value)


def test_missing_file_of_identifiers(tmp_path):
  with pytest.raises(
    errors.UserError, match=r"ids\.json cannot be read: No such"
  ):
    identifiers.read(tmp_path / "ids.json")
