"""Files of torch.save and safetensors; hostile ones run nothing.

golden_torch/kinds/kinds.pt was saved by PyTorch 2.15 on a CPU:

  base = torch.arange(24, dtype=torch.float32)
  torch.save({
    "bfloat16": torch.linspace(-3, 3, 7).bfloat16(),
    "transposed": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
    "shared": base.view(4, 6)[1:3, ::2], "also_shared": base[3:9],
    "parameter": torch.nn.Parameter(torch.full((2, 2), 0.5)),
    "float16": torch.tensor([0.25, -1.0]).half(),
    "float64": torch.tensor(0.1, dtype=torch.float64),
    "int64": torch.tensor([2**40]), "bool": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
    "module": torch.nn.Linear(1, 1, bias=False).state_dict(),
    "plain": {"list": [1, 2.5, None, True, "text"], "tuple": ("x", -7),
              "large": 2**70},
  }, "kinds.pt")
"""

import collections
import dataclasses
import datetime
import os
import pathlib
import pickle
import struct
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from trm_jax import errors
from trm_jax.interop import torch_reader, torch_settings

KINDS = (
  pathlib.Path(__file__).parent.parent / "golden_torch" / "kinds" / "kinds.pt"
)


def _error(path) -> str:
  with pytest.raises(errors.UserError) as caught:
    torch_reader.read(path)
  assert "\n" not in str(caught.value)
  assert str(path) in str(caught.value)
  return str(caught.value)


# --- what PyTorch wrote ------------------------------------------------------


def test_every_kind_of_tensor_that_pytorch_saves():
  base = np.arange(24, dtype=np.float32)
  expected = {
    "bfloat16": np.arange(-3, 4).astype(ml_dtypes.bfloat16),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "shared": base.reshape(4, 6)[1:3, ::2],
    "also_shared": base[3:9],
    "parameter": np.full((2, 2), 0.5, np.float32),
    "float16": np.array([0.25, -1.0], np.float16),
    "float64": np.array(0.1),
    "int64": np.array([2**40]),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 4), np.float32),
  }
  tree = torch_reader.read(KINDS)
  for name, array in expected.items():
    assert tree[name].dtype == array.dtype, name
    np.testing.assert_array_equal(tree[name], array, err_msg=name)
    assert not tree[name].flags.writeable
  assert tree["module"]["weight"].shape == (1, 1)
  assert tree["plain"] == {
    "list": [1, 2.5, None, True, "text"],
    "tuple": ("x", -7),
    "large": 2**70,
  }
  assert set(tree) == {*expected, "module", "plain"}


def test_pickles_of_every_kind_of_opcode_agree(tmp_path):
  """Protocol 2 names and memoizes otherwise than protocol 4."""
  tree = {"plain": [{"a": 1, "b": (1, 2, 3, 4)}] * 2, "none": None}
  for protocol in range(2, 6):
    content = pickle.dumps(tree, protocol=protocol)
    path = _archive(tmp_path / "step_1", content)
    assert torch_reader.read(path) == tree


# --- attacks -----------------------------------------------------------------


def _archive(path, content, parts=(("data/0", bytes(24)),), **options):
  with zipfile.ZipFile(path, "w", **options) as archive:
    archive.writestr("archive/data.pkl", content)
    for name, part in parts:
      archive.writestr(f"archive/{name}", part)
  return path


class _Call:
  """Pickles as a call of any function with any arguments."""

  def __init__(self, function, *arguments):
    self.made = function, arguments

  def __reduce__(self):
    return self.made


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_something_runs_nothing(
  tmp_path, capsys, protocol
):
  made = tmp_path / "made"
  attack = pickle.dumps({"w": _Call(os.mkdir, str(made))}, protocol=protocol)
  pickle.loads(attack)
  made.rmdir()  # it does what it is meant to do
  path = _archive(tmp_path / "step_1", attack)
  if not protocol:  # never used by torch.save
    assert "opcode" in _error(path)
  else:
    tree = torch_reader.read(path)
    assert tree["w"].name == f"{os.mkdir.__module__} mkdir"
    assert tree["w"] == {}
    assert f"nothing was run: '{os.mkdir.__module__}.mkdir'" in (
      capsys.readouterr().err
    )
  assert not made.exists()


@dataclasses.dataclass
class _Settings:
  """What people save beside their weights."""

  H_cycles: int = 3
  L_cycles: int = 6
  path: pathlib.PurePath | None = None


@pytest.mark.parametrize("protocol", range(2, 6))
def test_objects_beside_the_tensors_are_stepped_over(
  tmp_path, capsys, protocol
):
  """As in a Lightning checkpoint: paths, dataclasses, sets, dates, dtypes."""
  tree = {
    "epoch": 3,
    "hyper_parameters": collections.OrderedDict(hidden_size=16),
    "callbacks": {
      "ModelCheckpoint{'monitor': None}": {
        "best": pathlib.PurePosixPath("a/b"),
        "seen": {1, 2},
        "kept": frozenset((3,)),
        "when": datetime.datetime(2025, 1, 1),
        "by": collections.defaultdict(list, {"a": [1]}),
      },
      ("a", 1): "no name of a tensor",
    },
    "config": _Settings(path=pathlib.PurePosixPath("a/b")),
    "dtype": np.dtype("float32"),
    "raw": b"bytes",
  }
  path = _archive(tmp_path / "last.ckpt", pickle.dumps(tree, protocol))
  read = torch_reader.read(path)
  assert read["epoch"] == 3
  assert read["hyper_parameters"] == {"hidden_size": 16}
  assert {name: read["config"][name] for name in ("H_cycles", "L_cycles")} == {
    "H_cycles": 3,
    "L_cycles": 6,
  }
  assert torch_settings.find(read) is read["config"]
  (callback,) = read["callbacks"].values()
  assert callback["by"] == {"a": [1]}
  assert torch_reader.quoted(callback["when"]) == (
    "an object of type datetime datetime"
  )
  said = capsys.readouterr().err
  assert "objects besides its tensors, of which nothing was run: '" in said
  assert said.count("\n") == 1
  assert " more\n" in said


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
STORAGE += b"X\x03\x00\x00\x00cpuK\x06tQ"


def _of_tensor(arguments):
  """The pickle of a tensor of storage 0, 6 numbers, with these arguments."""
  # Each without the protocol and the end. The mark stands in STORAGE.
  items = b"".join(pickle.dumps(a, protocol=2)[2:-1] for a in arguments)
  return b"\x80\x02" + TENSOR + STORAGE + items + b"\x89NtR."


def test_a_tensor_made_by_hand(tmp_path):
  numbers = np.arange(6, dtype=np.float32)
  path = _archive(
    tmp_path / "step_1",
    _of_tensor((1, (2, 2), (3, 1))),
    [("data/0", numbers.tobytes())],
  )
  np.testing.assert_array_equal(torch_reader.read(path), [[1, 2], [4, 5]])


@pytest.mark.parametrize(
  "arguments",
  [
    (0, (7,), (1,)),  # one too many
    (1, (6,), (1,)),
    (0, (2, 3), (4, 1)),
    (0, (2, 2), (2**40, 1)),
    (6, (1,), (1,)),
    (-1, (2,), (1,)),
    (5, (2,), (-1,)),
    (0, (-1,), (1,)),
    (0, (3,), (1, 1)),
    (0, (2.0,), (1,)),
    (True, (2,), (1,)),
    (2**63, (2,), (1,)),
    (0, (2**63, 0), (1, 1)),
    (0, (2,), (2**63,)),
    (0, [2], [1]),
    (0, ("a",), (1,)),
    (0, (1,) * 40, (1,) * 40),
    (0, (10**6, 10**6), (0, 0)),  # few bytes, much memory
    (0, (2**62, 2**62), (0, 0)),
    (0, (7, 1), (0, 1)),
  ],
)
def test_tensors_that_do_not_lie_within_their_storage(tmp_path, arguments):
  path = _archive(tmp_path / "step_1", _of_tensor(arguments))
  message = _error(path)
  assert "within its storage" in message or "proper shape" in message


EVAL = b"cbuiltins\neval\n"


@pytest.mark.parametrize(
  ("content", "text"),
  [
    (b"(K\1ios\nsystem\n.", "INST"),
    (b"\x82\x01.", "EXT1"),
    # Names and numbers of any size.
    (b"]X\x06\0\0\0system\x93.", "holds an object of type list as a name"),
    (b"X\x02\x00\x00\x00osK\1\x93.", "holds 1 as a name"),
    (b"X\xe8\3\0\0" + b"x" * 1000 + b"X\1\0\0\0x\x93.", "xxx...' as a name"),
    (b"\x8a\x12" + b"\1" * 18 + b".", "holds a number of 137 bits"),
    (b"\x8b\0\x10\0\0" + b"\1" * 4096 + b".", "holds a number of 32,761 bits"),
    (b"}X\xe9\3\0\0" + b"x" * 1001 + b"Ns.", "a key of more than 1,000"),
    # References to something else than a storage.
    (b"X\x01\x00\x00\x000Q.", "other than a storage"),
    (b"(X\6\0\0\0modulectorch\nFloatStorage\nX\1\0\0\x000X\1\0\0\0cK\6tQ.",
     "other than a storage"),
    (STORAGE.replace(b"K\x06", b"J\xff\xff\xff\xff")[1:] + b".",
     "other than a storage"),
    (b"Pother\n.", "PERSID"),
    # Storages that are not there, or not so.
    (STORAGE.replace(b"K\x06", b"K\x07")[1:] + b".", "24 bytes, expected 28"),
    (STORAGE.replace(b"K\x06", b"\x8a\x08" + b"\xff" * 7 + b"\x7f")[1:] + b".",
     "24 bytes, expected"),
    (STORAGE.replace(b"X\1\0\0\x000", b"X\1\0\0\x001")[1:] + b".",
     "storage '1' is missing"),
    (STORAGE.replace(b"X\1\0\0\x000", b"X\x0b\0\0\0/etc/passwd")[1:] + b".",
     "storage '/etc/passwd' is missing"),
    (STORAGE.replace(b"X\1\0\0\x000", b"X\x0b\0\0\0../data.pkl")[1:] + b".",
     "storage '../data.pkl' is missing"),
    # No pickles at all.
    (b"", "is damaged"),
    (b"K\1", "is damaged"),
    (b".", "is damaged"),
    (b"K\1K\1.", "is damaged"),
    (b"t.", "is damaged"),
    (b"h\7.", "is damaged"),
    (b"]K\1u.", "is damaged"),
    (b"\xff.", "is damaged"),
  ],
)  # fmt: skip
def test_pickles_with_anything_else(tmp_path, content, text):
  assert text in _error(_archive(tmp_path / "step_1", content))


@pytest.mark.parametrize(
  ("content", "name"),
  [
    (EVAL + b"(X\x03\x00\x00\x001+1tR.", "builtins eval"),
    (b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93.", "os system"),
    (b"cbuiltins\ngetattr\n(ctorch\nFloatStorage\nX\1\0\0\0atR.",
     "builtins getattr"),
    (b"ccollections\nOrderedDict.fromkeys\n)R.",
     "collections OrderedDict.fromkeys"),
    (b"ctorch\nsave\n)\x81.", "torch save"),
    (b"ctorch\nsave\n)}\x92.", "torch save"),
    # Known names, in other ways.
    (b"ccollections\nOrderedDict\n(]tR.", "collections OrderedDict"),
    (TENSOR + b"(K\1K\2tR.", "torch._utils _rebuild_tensor_v2"),
    (b"ctorch\nFloatStorage\n(K\x09tR.", "torch FloatStorage"),
    (b"ctorch\nFloatStorage\n" + STORAGE + b"K\0K\6\x85K\1\x85tR.",
     "torch FloatStorage"),
    (STORAGE.replace(b"ctorch\nFloatStorage", b"ctorch\nOtherStorage")[1:]
     + b".", "torch OtherStorage"),
  ],
)  # fmt: skip
def test_calls_of_anything_else_are_placeholders(tmp_path, content, name):
  found = torch_reader.read(_archive(tmp_path / "step_1", content))
  assert isinstance(found, torch_reader.Placeholder)
  assert found.name == name
  assert found == {}


def test_objects_that_share_their_attributes_take_no_more_memory(tmp_path):
  """Each placeholder has a copy: a few bytes could ask for any number."""
  shared = b"}q\0(" + b"".join(
    b"X\4\0\0\0%04dN" % number for number in range(1000)
  )
  objects = b"cos\nPath\n)\x81h\0b" * 100
  path = _archive(tmp_path / "step_1", b"](" + shared + b"u" + objects + b"e.")
  assert "objects of too many attributes" in _error(path)


def test_names_of_placeholders_are_shown_short_and_harmless(tmp_path, capsys):
  torch_reader.read(
    _archive(tmp_path / "step_1", b"c" + b"\x1b" * 1000 + b"\nx\n.")
  )
  said = capsys.readouterr().err.strip()
  assert said.isprintable()
  assert len(said) < 400


def test_tuples_nested_without_end(tmp_path):
  nested = b")" + b"\x85" * 200_000
  path = _archive(tmp_path / "step_1", nested + b".")
  torch_reader.read(path)  # the interpreter's stack is not used
  path = _archive(tmp_path / "step_1", b"}" + nested + b"K\1s.")
  assert torch_reader.read(path) == {}  # nor with one as a key


def test_a_name_whose_text_would_fill_the_memory(tmp_path):
  """Lists of ten times the list before, by references: 300 bytes."""
  content = b"]q\0"
  for level in range(40):
    content += (
      b"](" + bytes((ord("h"), level)) * 10 + b"eq" + bytes((level + 1,))
    )
  path = _archive(tmp_path / "step_1", content + b"X\1\0\0\0x\x93.")
  assert "an object of type list as a name" in _error(path)


def test_a_dict_that_holds_itself(tmp_path):
  path = _archive(tmp_path / "step_1", b"}q\0X\1\0\0\0ah\0s.")
  tree = torch_reader.read(path)
  assert tree["a"] is tree


# --- other files -------------------------------------------------------------


@pytest.mark.parametrize(
  "method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_bomb_of_any_size(tmp_path, method):
  """Few bytes that become many; or say that they do not."""
  for size in (2**22, 24):
    path = _archive(
      tmp_path / "step_1",
      _of_tensor((0, (6,), (1,))),
      [("data/0", bytes(size))],
      compression=method,
    )
    assert path.stat().st_size < 2**16
    assert "compressed or encrypted" in _error(path)


def _overlapping(parts):
  """A zip file whose parts each hold all that follow, headers and all."""
  content, directory = b"", b""
  for name, own in reversed(parts):
    content = own + content
    header = struct.pack(
      "<5H3L2H", 20, 0, 0, 0, 33, zlib.crc32(content), len(content),
      len(content), len(name), 0
    )  # fmt: skip
    directory = struct.pack("<4sH", b"PK\1\2", 20) + header + bytes(10) + (
      struct.pack("<L", len(content)) + name + directory
    )  # fmt: skip
    content = b"PK\3\4" + header + name + content
  # Where each begins was counted from the end, which is known only now.
  place = 0
  for name, _ in parts:
    (left,) = struct.unpack_from("<L", directory, place + 42)
    start = len(content) - left - 30 - len(name)
    directory = (
      directory[: place + 42]
      + struct.pack("<L", start)
      + directory[place + 46 :]
    )
    place += 46 + len(name)
  end = struct.pack(
    "<4s4H2LH", b"PK\5\6", 0, 0, len(parts), len(parts), len(directory),
    len(content), 0
  )  # fmt: skip
  return content + directory + end


def test_parts_that_share_their_bytes(tmp_path):
  path = tmp_path / "step_1"
  storages = [(b"archive/data/%d" % number, b"") for number in range(50)]
  last = (b"archive/data/50", bytes(10_000))
  path.write_bytes(
    _overlapping([(b"archive/data.pkl", b"}."), *storages, last])
  )
  assert path.stat().st_size < 20_000
  with zipfile.ZipFile(path) as archive:
    sizes = [part.file_size for part in archive.infolist()]
  assert sum(sizes) > 50 * 10_000
  assert "its members have more bytes than the file" in _error(path)
  # As many parts that share nothing are read.
  _archive(path, b"}.", [(f"data/{n}", bytes(200)) for n in range(51)])
  assert torch_reader.read(path) == {}


def test_a_pickle_as_large_as_tensors(tmp_path):
  path = _archive(tmp_path / "step_1", b"}" + b"N0" * 2**20 + b".")
  assert "more than 2,097,152 bytes besides its tensors" in _error(path)


@pytest.mark.parametrize("key", ["archive/data.pkl", "other/data.pkl"])
def test_names_that_lead_out_of_the_folder_are_only_names(tmp_path, key):
  inside = tmp_path / "inside"
  inside.mkdir()
  path = inside / "step_1"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr(key, b"}.")
    archive.writestr("../outside", b"x")
    archive.writestr("/absolute", b"x")
  assert torch_reader.read(path) == {}
  assert list(tmp_path.iterdir()) == [inside]
  assert list(inside.iterdir()) == [path]


@pytest.mark.parametrize(
  ("content", "text"),
  [
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "before version 1.6"),
    (b"\x80\x04\x95", "before version 1.6"),
    (b"question,answer\n", "not a torch.save file"),
    (b"", "not a torch.save file"),
    (b"PK\3\4and so on", "is damaged"),
  ],
)
def test_files_of_other_kinds(tmp_path, content, text):
  path = tmp_path / "step_1"
  path.write_bytes(content)
  assert text in _error(path)


def test_archives_of_other_kinds(tmp_path):
  path = tmp_path / "step_1"
  _archive(path, b"}.", [("constants.pkl", b").")])
  assert "TorchScript program" in _error(path)
  _archive(path, b"}.", [("byteorder", b"big")])
  assert "big-endian" in _error(path)
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("weights.npy", b"")
  assert "0 members data.pkl" in _error(path)
  assert "No such file" in _error(tmp_path / "missing")
  assert "Is a directory" in _error(tmp_path)


def _refusal(path) -> str:
  """The line of an error, "" if the file is read; nothing else may happen."""
  try:
    torch_reader.read(path)
  except errors.UserError as error:
    text = str(error)
  else:
    text = ""
  assert "\n" not in text
  return text


def test_whatever_happened_to_a_file_it_is_read_or_refused(tmp_path):
  """Cut or with other bytes; never another exception, never a crash."""
  whole = KINDS.read_bytes()
  path = tmp_path / "step_1"
  rng = np.random.default_rng(0)
  refused = 0
  for number in range(400):
    content = bytearray(whole)
    if number % 4 == 0:
      del content[rng.integers(len(content)) :]
    else:
      # The pickle is where there is most to break.
      limit = 1200 if number % 4 == 1 else len(content)
      for place in rng.integers(limit, size=rng.integers(1, 4)):
        content[place] = rng.integers(256)
    path.write_bytes(content)
    refused += bool(_refusal(path))
  assert 100 < refused < 400


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_pickles_of_random_bytes_are_read_or_refused(tmp_path):
  with zipfile.ZipFile(KINDS) as archive:
    stored = {name: archive.read(name) for name in archive.namelist()}
  whole = stored["kinds/data.pkl"]
  rng = np.random.default_rng(1)
  path = tmp_path / "step_1"
  parts = [
    (name.removeprefix("kinds/"), content)
    for name, content in stored.items()
    if "/data/" in name
  ]
  refused = 0
  for _ in range(400):
    content = bytearray(whole)
    for place in rng.integers(len(content), size=rng.integers(1, 5)):
      content[place] = rng.integers(256)
    refused += bool(_refusal(_archive(path, bytes(content), parts)))
  assert 100 < refused < 400


# --- safetensors -------------------------------------------------------------


def test_a_damaged_file_of_safetensors(tmp_path):
  path = tmp_path / "x.safetensors"
  for content in (b"", b"x", b"\xff" * 64, bytes(8)):
    path.write_bytes(content)
    assert "cannot read" in _error(path)


def test_a_dtype_that_no_weights_have(tmp_path):
  path = tmp_path / "x.safetensors"
  safetensors.numpy.save_file({"a": np.ones(2, np.uint8)}, path)
  assert "has tensors of dtype U8" in _error(path)
