"""Bytes that kernels of made-up GPU programs move, counted by hand."""

import pytest

from launch import aot_kernels


def _find(entry: str, others: str = "") -> list[aot_kernels.Kernel]:
  """Returns the kernels of a program that begins with some arrays."""
  return aot_kernels.find(f"""HloModule made_up, is_scheduled=true
{others}
ENTRY %main (x: f32[100], m: f32[6,10], i: s32[]) -> f32[100] {{
  %x = f32[100]{{0}} parameter(0)
  %m = f32[6,10]{{1,0}} parameter(1)
  %i = s32[] parameter(2)
{entry}
}}
""")


def _fused(body: str, *, result: str, operands: str) -> aot_kernels.Kernel:
  """Returns the kernel that computes a body."""
  (kernel,) = _find(
    f"  ROOT %f = {result} fusion({operands}), kind=kLoop, calls=%body",
    f"\n%body (p: f32[]) -> f32[] {{\n{body}\n}}\n",
  )
  return kernel


def test_a_kernel_reads_its_operands_and_writes_its_results():
  (kernel,) = _find(
    "  ROOT %y = (f32[100]{0}, bf16[100]{0}, pred[3]{0}) custom-call(%x, %i),"
    ' custom_call_target="mine"'
  )
  assert (kernel.read, kernel.written) == (400 + 4, 400 + 200 + 3)
  assert (kernel.kind, kernel.name, kernel.times) == ("mine", "y", 1)
  assert kernel.total_bytes == 1007


def test_names_of_memory_are_no_kernels():
  assert not _find("""
  %a = (f32[100]{0}, s32[]) tuple(%x, %i)
  %b = f32[100]{0} get-tuple-element(%a), index=0
  %c = f32[10,10]{1,0} bitcast(%b)
  %d = f32[100]{0} constant({...})
  %e = u32[] partition-id()
  %f = f32[100]{0} all-reduce-start(%x), to_apply=%sum
  ROOT %g = f32[100]{0} all-reduce-done(%f)""")


@pytest.mark.parametrize(
  ("line", "read", "written"),
  [
    ("f32[10]{0} slice(%x), slice={[5:15]}", 40, 40),
    ("f32[1,10]{1,0} dynamic-slice(%m, %i, %i)", 40 + 4, 40),
    ("f32[600]{0} broadcast(%i), dimensions={}", 4, 2400),
    ("f32[60]{0} copy(%m)", 240, 240),
    ("f32[100]{0} copy(f32[100]{0:S(5)} %x)", 400, 400),  # with its type
    ("f32[6]{0} reduce(%m, %i), dimensions={1}", 240 + 4, 24),
  ],
)
def test_kernels_of_one_operation(line, read, written):
  (kernel,) = _find(f"  ROOT %y = {line}")
  assert (kernel.read, kernel.written) == (read, written)


def test_rows_that_are_gathered():
  """Of a table of six rows three, by their numbers."""
  kernel = _fused(
    """
  %table = f32[6,10]{1,0} parameter(0)
  %rows = s32[3,1]{1,0} parameter(1)
  %chosen = f32[3,10]{1,0} gather(%table, %rows), slice_sizes={1,10}
  ROOT %y = bf16[3,10]{1,0} convert(%chosen)""",
    result="bf16[3,10]{1,0}",
    operands="%m, %x",
  )
  assert (kernel.read, kernel.written) == (30 * 4 + 3 * 4, 30 * 2)


def test_of_what_is_sliced_the_part_is_read():
  """Also where other operations come before the slice."""
  kernel = _fused(
    """
  %p = f32[100]{0} parameter(0)
  %b = f32[10,10]{1,0} bitcast(%p)
  %n = f32[10,10]{1,0} negate(%b)
  %s = f32[2,10]{1,0} slice(%n), slice={[0:2], [0:10]}
  %t = f32[1,10]{1,0} slice(%b), slice={[4:5], [0:10]}
  ROOT %y = f32[3,10]{1,0} concatenate(%s, %t), dimensions={0}""",
    result="f32[3,10]{1,0}",
    operands="%x",
  )
  assert (kernel.read, kernel.written) == (120, 120)


def test_of_what_is_repeated_the_part_is_read():
  kernel = _fused(
    """
  %p = f32[100]{0} parameter(0)
  %b = f32[6,100]{1,0} broadcast(%p), dimensions={1}
  ROOT %y = f32[1,5]{1,0} slice(%b), slice={[2:3], [0:5]}""",
    result="f32[1,5]{1,0}",
    operands="%x",
  )
  assert (kernel.read, kernel.written) == (20, 20)


def test_what_is_also_needed_whole_is_read_once():
  kernel = _fused(
    """
  %p = f32[100]{0} parameter(0)
  %s = f32[10]{0} slice(%p), slice={[0:10]}
  %n = f32[100]{0} negate(%p)
  ROOT %y = (f32[10]{0}, f32[100]{0}) tuple(%s, %n)""",
    result="(f32[10]{0}, f32[100]{0})",
    operands="%x",
  )
  assert (kernel.read, kernel.written) == (400, 440)


def test_of_what_is_summed_all_is_read():
  kernel = _fused(
    """
  %p = f32[6,10]{1,0} parameter(0)
  %zero = f32[] constant(0)
  %s = f32[6]{0} reduce(%p, %zero), dimensions={1}, to_apply=%sum
  ROOT %y = f32[2]{0} slice(%s), slice={[0:2]}""",
    result="f32[2]{0}",
    operands="%m",
  )
  assert (kernel.read, kernel.written) == (240, 8)


_UPDATE = """
  %p = f32[6,10]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %row = f32[10]{0} parameter(2)
  %new = f32[1,10]{1,0} bitcast(%row)
"""


@pytest.mark.parametrize(
  ("lines", "read", "written"),
  [
    (
      "ROOT %y = f32[6,10]{1,0} dynamic-update-slice(%p, %new, %i, %i)",
      *(4 + 40, 40),
    ),
    (  # past other names, and beside another result
      """%b = f32[6,1,10]{2,1,0} bitcast(%p)
  %n = f32[1,1,10]{2,1,0} bitcast(%new)
  %u = f32[6,1,10]{2,1,0} dynamic-update-slice(%b, %n, %i, %i, %i)
  %v = f32[6,10]{1,0} bitcast(%u)
  ROOT %y = (f32[6,10]{1,0}, f32[10]{0}) tuple(%v, %row)""",
      *(4 + 40, 40 + 40),
    ),
    (  # twice
      """%u = f32[6,10]{1,0} dynamic-update-slice(%p, %new, %i, %i)
  ROOT %y = f32[6,10]{1,0} dynamic-update-slice(%u, %new, %i, %i)""",
      *(4 + 40, 80),
    ),
    (  # rows are added to rows
      """%at = s32[1,1]{1,0} bitcast(%i)
  ROOT %y = f32[6,10]{1,0} scatter(%p, %at, %new), to_apply=%sum""",
      *(4 + 40, 40),
    ),
    (  # what was there is wanted elsewhere
      """%u = f32[6,10]{1,0} dynamic-update-slice(%p, %new, %i, %i)
  %w = f32[6,10]{1,0} negate(%p)
  ROOT %y = (f32[6,10]{1,0}, f32[6,10]{1,0}) tuple(%u, %w)""",
      *(240 + 4 + 40, 40 + 240),
    ),
    (  # not in place: what is updated is made here
      """%w = f32[6,10]{1,0} negate(%p)
  ROOT %y = f32[6,10]{1,0} dynamic-update-slice(%w, %new, %i, %i)""",
      *(240 + 4 + 40, 240),
    ),
    (  # not in place: what is updated goes on into something else
      """%u = f32[6,10]{1,0} dynamic-update-slice(%p, %new, %i, %i)
  ROOT %y = bf16[6,10]{1,0} convert(%u)""",
      *(240 + 4 + 40, 120),
    ),
  ],
)
def test_updates(lines, read, written):
  kernel = _fused(
    _UPDATE + f"  {lines}", result="f32[6,10]{1,0}", operands="%m, %i, %x"
  )
  assert (kernel.read, kernel.written) == (read, written)


def test_a_long_chain_of_operations():
  """As of random numbers: each takes the last one twice."""
  lines = ["  %p0 = f32[100]{0} parameter(0)"]
  for n in range(1, 3000):
    lines.append(f"  %p{n} = f32[100]{{0}} add(%p{n - 1}, %p{n - 1})")
  lines.append("  ROOT %y = f32[100]{0} negate(%p2999)")
  kernel = _fused("\n".join(lines), result="f32[100]{0}", operands="%x")
  assert (kernel.read, kernel.written) == (400, 400)
