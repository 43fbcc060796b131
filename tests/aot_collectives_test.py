"""What travels between chips, by the text of a compiled module."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch import aot_collectives
from trm_jax.core import parallel
from trm_jax.runtime import mesh as mesh_lib

P = jax.sharding.PartitionSpec

_MODULE = """HloModule made_up, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%part_1 (p: f32[2,8]) -> f32[8,8] {
  ROOT %g1 = f32[8,8]{1,0:T(8,128)} all-gather(%p), x={chain_id="0"}
}

%part_2 (p: f32[2,8]) -> f32[8,8] {
  ROOT %g2 = f32[8,8]{1,0:T(8,128)} all-gather(%p), x={chain_id="0"}
}

%condition (s: (s32[], f32[4])) -> pred[] {
  %three = s32[]{:T(128)} constant(3)
  ROOT %lt = pred[] compare(%i, %three), direction=LT
}

%body (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %kernel = f32[4] custom-call(%x), backend_config={"sizes": {"a": {
"block": 512
}}, metadata={op_name="all-reduce(of no kind"}
  %r = (bf16[4]{0:T(256)(2,1)}, /*index=1*/f32[]{:T(128)}) all-reduce(%x, %y)
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %start = (f32[2]{0}, f32[8]{0}) all-gather-start(%x), dimensions={0}
  %done = f32[8]{0} all-gather-done(%start)
  %f1 = f32[8,8] fusion(%x), kind=kLoop, calls=%part_1
  %f2 = f32[8,8] fusion(%x), kind=kLoop, calls=%part_2
  %scatter = f32[3,5]{1,0} reduce-scatter(%x), dimensions={0}, to_apply=%sum
  %while = (s32[], f32[4]) while(%t), condition=%condition, body=%body
}
"""


def test_collectives_of_a_made_up_module():
  found = aot_collectives.find(_MODULE, num_devices=4)
  assert sorted((c.kind, c.num_bytes, c.times) for c in found) == [
    ("all-gather", 8 * 4, 1),  # started and done
    ("all-gather", 64 * 4, 1),  # in two parts
    ("all-reduce", 4 * 2 + 4, 3),  # in a loop, behind a kernel
    ("reduce-scatter", 4 * 15 * 4, 1),
  ]


def test_collectives_that_start_with_their_operands():
  """As compilers for GPUs write them: what an op takes, and what it gives."""
  found = aot_collectives.find(
    """HloModule made_up

%s (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

ENTRY %main (x: f32[8,4]) -> f32[2,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %a = ((f32[8,4]{1,0}), f32[2,4]{1,0}) reduce-scatter-start(%x), to_apply=%s
  %b = f32[2,4]{1,0} reduce-scatter-done(%a)
  %c = (f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%b), dimensions={0}
  %d = f32[8,4]{1,0} all-gather-done(%c)
  %e = f32[8,4]{1,0} all-reduce-start(%d), to_apply=%s
  %f = f32[8,4]{1,0} all-reduce-done(%e)
  %g = ((f32[8,4]{1,0}), f32[8,4]{1,0}) all-to-all-start(%f), dimensions={0}
  ROOT %h = f32[8,4]{1,0} all-to-all-done(%g)
}
""",
    num_devices=4,
  )
  whole = 8 * 4 * 4
  assert sorted((c.kind, c.num_bytes, c.times) for c in found) == [
    ("all-gather", whole, 1),
    ("all-reduce", whole, 1),
    ("all-to-all", whole, 1),
    ("reduce-scatter", whole, 1),
  ]


def test_a_collective_in_a_loop_of_unknown_length_is_no_guess():
  endless = _MODULE.replace("direction=LT", "direction=NE")
  with pytest.raises(ValueError, match="unknown length"):
    aot_collectives.find(endless, num_devices=4)


def test_collectives_of_a_compiled_module():
  """A sum over the devices in two loops, one in the other."""
  mesh = mesh_lib.make_mesh(4)

  def summed(x):
    def inner(x, _):
      return jnp.tanh(x + jax.lax.psum(x, parallel.DATA)), None

    def outer(x, _):
      return jax.lax.scan(inner, x, None, length=5)[0], None

    return jax.lax.scan(outer, x, None, length=3)[0]

  compiled = (
    jax.jit(
      jax.shard_map(summed, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    )
    .lower(np.zeros((8, 6), np.float32))
    .compile()
  )
  (found,) = aot_collectives.find(compiled.as_text(), num_devices=4)
  assert (found.kind, found.num_bytes, found.times) == ("all-reduce", 48, 15)
  assert found.total == 48 * 15
