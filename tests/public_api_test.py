"""What `import trm_jax` offers, and that it starts nothing by itself."""

import subprocess
import sys

import pytest

import trm_jax


@pytest.mark.parametrize("name", trm_jax.__all__)
def test_every_public_name_is_there_and_documented(name):
  value = getattr(trm_jax, name)
  assert name in dir(trm_jax)
  assert isinstance(value, str) or value.__doc__


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="no attribute 'deep_recurson'"):
    _ = trm_jax.deep_recurson


def test_to_ask_for_the_version_jax_need_not_start():
  code = "import sys, trm_jax; print(trm_jax.__version__, 'jax' in sys.modules)"
  output = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  ).stdout
  assert output.split() == [trm_jax.__version__, "False"]
