"""Kernels of made-up GPU programs: their FLOPs, times, seconds."""

import dataclasses

import pytest

from launch import aot_gpus, aot_kernels

# A byte a nanosecond, and as many FLOPs in it as a byte has bits.
GPU = dataclasses.replace(aot_gpus.GPUS["h200"], bandwidth=1e9, flops=8e9)


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


# --- products ----------------------------------------------------------------

_DOT = """
%inner (a: bf16[3,8,4]) -> f32[3,8,5] {
  %two = f32[6,4,5]{2,1,0} parameter(1)
  %one = f32[3,4,5]{2,1,0} slice(%two), slice={[0:3], [0:4], [0:5]}
  %b = bf16[3,4,5]{2,1,0} convert(%one)
  %a = bf16[3,8,4]{2,1,0} parameter(0)
  ROOT %dot = f32[3,8,5]{2,1,0} dot(%a, %b), lhs_batch_dims={0},\
 lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}
}
"""


def test_a_product_in_a_fusion_in_a_fusion():
  """Of one operand the outer one takes a part, of the other the inner one."""
  (kernel,) = _find(
    "  ROOT %f = bf16[3,8,5]{2,1,0} fusion(%x, %m), kind=kCustom, calls=%outer",
    _DOT
    + """
%outer (p: bf16[6,8,4], q: f32[6,4,5]) -> bf16[3,8,5] {
  %q = f32[6,4,5]{2,1,0} parameter(1)
  %p = bf16[6,8,4]{2,1,0} parameter(0)
  %part = bf16[3,8,4]{2,1,0} slice(%p), slice={[3:6], [0:8], [0:4]}
  %f = f32[3,8,5]{2,1,0} fusion(%part, %q), kind=kCustom, calls=%inner
  ROOT %y = bf16[3,8,5]{2,1,0} convert(%f)
}
""",
  )
  assert kernel.kind == "kCustom"
  assert kernel.flops == 2 * (3 * 8 * 5) * 4
  assert kernel.read == 2 * (3 * 8 * 4) + 4 * (3 * 4 * 5)
  assert kernel.written == 2 * 3 * 8 * 5


@pytest.mark.parametrize(
  ("left", "right", "result", "contracted", "flops"),
  [
    ("f32[6,10]", "f32[7,10]", "f32[6,7]", "1", 2 * 6 * 7 * 10),
    ("f32[10,6]", "f32[10,7]", "f32[6,7]", "0", 2 * 6 * 7 * 10),
    ("f32[5,6,10]", "f32[5,7,10]", "f32[5,6,7]", "2", 2 * 5 * 6 * 7 * 10),
    ("f32[2,3,4]", "f32[2,3,4]", "f32[4,4]", '0","1', 2 * 4 * 4 * 2 * 3),
  ],
)
def test_products_of_cublas(left, right, result, contracted, flops):
  batch = '"0"' if left.count(",") == 2 and result.count(",") == 2 else ""
  (kernel,) = _find(
    f"""
  %a = {left}{{0}} get-tuple-element(%x), index=0
  %b = {right}{{0}} get-tuple-element(%x), index=1
  ROOT %c = ({result}{{0}}, s8[4194304]{{0}}) custom-call(%a, %b),\
 custom_call_target="__cublas$lt$matmul", metadata={{op_name="f/mlp/dot"}},\
 backend_config={{"gemm_backend_config":{{"dot_dimension_numbers":{{\
"lhs_contracting_dimensions":["{contracted}"],\
"rhs_contracting_dimensions":["0"],"lhs_batch_dimensions":[{batch}]}}}}}}"""
  )
  assert kernel.kind == "__cublas$lt$matmul"
  assert kernel.name == "f/mlp/dot"
  assert kernel.flops == flops
  sizes = {"f32[6,7]": 168, "f32[5,6,7]": 840, "f32[4,4]": 64}
  assert kernel.written == sizes[result]  # the workspace is none of it


# B = 2 examples, H = 3 heads of K = 4 numbers, S = 5 tokens.
_ATTENTION = """
  %q = bf16[2,5,3,4]{{3,2,1,0}} bitcast(%x)
  %s = f32[2,3,5]{{2,1,0}} bitcast(%m)
  ROOT %y = ({results}, u8[64]{{0}}) custom-call({operands}),\
 custom_call_target="{target}", backend_config={{"cudnn_fmha_backend_config":\
 {{"algorithm": {{"tuning_knobs": {{"17": "1"}}}}, "intermediate_tensor_shape":\
 {{"element_type": "BF16", "dimensions": ["2", "3", "5", "5"]}},\
 "bmm1_dot_dimension_numbers": {{"lhs_contracting_dimensions": ["3"]}}}}}}"""
_QUERIES = "bf16[2,3,5,4]{3,1,2,0}"


def test_attention_of_cudnn():
  (kernel,) = _find(
    _ATTENTION.format(
      results=f"{_QUERIES}, f32[2,3,5]{{2,1,0}}",
      operands="%q, %q, %q",
      target="__cudnn$fmhaSoftmax",
    )
  )
  assert kernel.flops == 2 * 3 * 4 * 5 * 5 * 4  # B H 4 S S K
  assert kernel.written == 240 + 120


def test_the_gradient_of_attention_of_cudnn():
  (kernel,) = _find(
    _ATTENTION.format(
      results=", ".join([_QUERIES] * 3),
      operands="%q, %q, %q, %s, %q, /*index=5*/%q",
      target="__cudnn$fmhaSoftmaxBackward",
    )
  )
  assert kernel.flops == 2.5 * (2 * 3 * 4 * 5 * 5 * 4)
  assert kernel.written == 3 * 240


def test_the_gated_product():
  (kernel,) = _find(
    r"""
  %a = bf16[6,4]{1,0} bitcast(%x)
  %b = bf16[6,8]{1,0} bitcast(%m)
  ROOT %y = bf16[8,4]{1,0} custom-call(%a, %b, %b),\
 custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="mlp/gate"},\
 backend_config={debug = false, grid_x = 4 : i32, ir = "ML\EFR,;?)\00",\
 name = "gated_product", num_stages = 3 : i32}""".replace("\\\n", "")
  )
  assert kernel.flops == 2 * (2 * 8 * 4 * 6)


def test_a_product_that_says_nothing_is_no_guess():
  with pytest.raises(ValueError, match="does not say what it multiplies: ROOT"):
    _find(
      "  ROOT %c = f32[6,6]{1,0} custom-call(%m, %m),"
      ' custom_call_target="__cublas$gemm"'
    )


# --- how often ---------------------------------------------------------------

_LOOPS = """
%inner (t: (s32[], f32[100])) -> (s32[], f32[100]) {
  %t = (s32[], f32[100]{0}) parameter(0)
  %v = f32[100]{0} get-tuple-element(%t), index=1
  %n = f32[100]{0} negate(%v)
}

%outer (t: (s32[], f32[100])) -> (s32[], f32[100]) {
  %t = (s32[], f32[100]{0}) parameter(0)
  %v = f32[100]{0} get-tuple-element(%t), index=1
  %e = f32[100]{0} exponential(%v)
  %w = (s32[], f32[100]{0}) while(%t), condition=%c, body=%inner,\
 backend_config={"known_trip_count":{"n":"5"},"known_init_step":{"init":"0"}}
}
"""
_CONDITION = """
%c (t: (s32[], f32[100])) -> pred[] {
  %limit = s32[] constant(3)
  ROOT %lt = pred[] compare(%i, %limit), direction=DIRECTION
}
"""
_LOOP = """
  %t = (s32[], f32[100]{0}) tuple(%i, %x)
  ROOT %w = (s32[], f32[100]{0}) while(%t), condition=%c, body=%outer"""


def _times(kernels):
  return {k.kind: (k.times, k.exact) for k in kernels}


def test_kernels_in_loops():
  condition = _CONDITION.replace("DIRECTION", "LT")
  found = _find(_LOOP, condition + _LOOPS)
  assert _times(found) == {"exponential": (3, True), "negate": (15, True)}
  assert [k.total_bytes for k in found if k.kind == "negate"] == [15 * 800]


def test_a_loop_of_unknown_length_counts_once_and_says_so():
  condition = _CONDITION.replace("DIRECTION", "NE")
  found = _find(_LOOP, condition + _LOOPS)
  assert _times(found) == {"exponential": (1, False), "negate": (5, False)}
  lines = list(aot_kernels.lines(found, GPU, model_flops=1.0, count=0))
  assert lines[0].endswith(
    "of 6 kernels, a loop of unknown length counted once"
  )
  assert "rate" not in lines[1].split("everything else")[1]


_CALLED = """
%body (p: f32[100]) -> f32[10] {
  %p = f32[100]{0} parameter(0)
  ROOT %s = f32[10]{0} slice(%p), slice={[0:10]}
}
"""


def test_what_is_called_or_started():
  found = _find(
    """
  %c = f32[10]{0} call(%x), to_apply=%body
  %a = ((f32[100]{0}), f32[10]{0}) async-start(%x), calls=%body
  %b = f32[10]{0} async-done(%a)
  %d = (f32[100]{0}, f32[100]{0}, u32[]) copy-start(%x)
  %e = f32[100]{0} copy-done(%d)
  %f = ((f32[100]{0}), f32[10]{0}) fusion-start(%x), kind=kLoop, calls=%body
  %g = f32[10]{0} fusion-done(%f)
  %h = ((f32[100]{0}), f32[20]{0}) slice-start(%x), slice={[0:20]}
  ROOT %k = f32[20]{0} slice-done(%h)""",
    _CALLED,
  )
  assert sorted((k.kind, k.times, k.read, k.written) for k in found) == [
    ("copy", 1, 400, 400),
    ("kLoop", 1, 40, 40),
    ("slice", 1, 80, 80),
    ("slice", 2, 40, 40),  # called and started
  ]


# --- what they cost ----------------------------------------------------------


def _kernel(**changes) -> aot_kernels.Kernel:
  kernel = aot_kernels.Kernel(
    kind="kLoop",
    name="a/b",
    times=2,
    exact=True,
    read=300,
    written=100,
    flops=0,
  )
  return dataclasses.replace(kernel, **changes)


def test_a_kernel_takes_what_its_bytes_or_its_products_take():
  assert _kernel().seconds(GPU) == pytest.approx(800e-9)
  assert _kernel(flops=3200).seconds(GPU) == pytest.approx(800e-9)
  assert _kernel(flops=6400).seconds(GPU) == pytest.approx(1600e-9)
  # One after another: not the larger of all bytes and all products.
  both = [_kernel(), _kernel(read=0, written=0, flops=6400)]
  assert aot_kernels.least_seconds(both, GPU) == pytest.approx(2400e-9)


def test_the_costliest_kernels_those_that_are_alike_as_one():
  found = aot_kernels.costliest(
    [_kernel(), _kernel(read=600), _kernel(times=3), _kernel(name="c")],
    GPU,
    count=2,
  )
  assert found == [_kernel(times=5), _kernel(read=600)]


def test_lines():
  kernels = [
    _kernel(times=2000, read=10**6, written=0, name="layers_0/mlp/add"),
    _kernel(times=1, read=0, written=0, flops=8 * 10**9, kind="kCustom"),
  ]
  assert list(aot_kernels.lines(kernels, GPU, model_flops=6e9, count=9)) == [
    "  device memory traffic of a step: 2.0 GB per chip, of 2,001 kernels",
    "  the least seconds of a step: 3 at 0.001 TB/s and 0.008 TFLOP/s; products"
    " 1, everything else 2; at most 25% of the bfloat16 rate",
    "  the costliest kernels: times, GB, ms at least, TFLOP",
    "     2,000     2.000  2000.000     0.000  kLoop layers_0/mlp/add",
    "         1     0.000  1000.000     0.008  kCustom a/b",
  ]


def test_the_name_is_the_last_of_what_jax_calls_it():
  found = _find("""
  %y.12 = f32[100]{0} negate(%x)
  ROOT %z = f32[100]{0} negate(%y.12), metadata={op_name="f/M.g/mlp/a/a.b/neg"}
""")
  assert [kernel.name for kernel in found] == ["y", "mlp/a/neg"]
