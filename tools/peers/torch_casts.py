"""Times torchao's casts on a GPU, as JSON lines that `lowp bench kernels --device cuda --compare FILE` understands.

usage: torch_casts.py [--only casts|experts] > peers.jsonl     needs torch with CUDA and torchao; what is missing is said on stderr

Two peers: the reference code under torch.compile, and torchao's Triton kernels, whose MX ones are built from sm_100 on: their
gate is lifted, which works on Hopper. A row is the faster of the two; stderr has both. A call is timed with events, the
second-level cache flushed before it; median of 15.
"""
import argparse
import importlib
import json
import statistics
import sys

import torch

M, K = 16384, 8192
E4M3, FP4 = torch.float8_e4m3fn, torch.float4_e2m1fn_x2


def median_seconds(call, flush):
    for _ in range(3):
        call()
    times = []
    for _ in range(15):
        flush.zero_()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e-3)
    return statistics.median(times)


def triton_kernels():
    """torchao's module of Triton kernels for MX, made to believe that it is on sm_100 while it is imported."""
    import torchao.utils
    gate = torchao.utils.is_sm_at_least_100
    torchao.utils.is_sm_at_least_100 = lambda: True
    try:
        return importlib.import_module("torchao.prototype.mx_formats.kernels")
    finally:
        torchao.utils.is_sm_at_least_100 = gate


class Bench:
    def __init__(self):
        self.device = torch.cuda.get_device_name()
        self.flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")

    def measure(self, op, recipe, x, shape, **peers):
        """Writes the row of the fastest of the peers that run."""
        best = None
        for name, call in peers.items():
            try:
                seconds = median_seconds(lambda: call(x), self.flush)
            except Exception as error:  # one peer that does not run must not hide the others
                print(f"{op} {recipe} {name}: {type(error).__name__}: {str(error).splitlines()[0][:200]}", file=sys.stderr)
                continue
            print(f"{op} {recipe} {list(x.shape)} {name}: {seconds * 1e6:.1f} us", file=sys.stderr, flush=True)
            best = min(seconds, best or seconds)
        if best is None:
            return
        m, n, k = shape
        print(json.dumps({"op": op, "recipe": recipe, "m": m, "n": n, "k": k, "device": self.device, "seconds": best, "bytes": 0,
                          "flop": 0, "limit_name": "copy", "limit": 0, "share": 0, "peer": "", "peer_seconds": None,
                          "ratio": None, "samples": [best]}), flush=True)


def compiled(f):
    return torch.compile(f, fullgraph=True, dynamic=False)


def casts(bench, triton, modes, to_mx):
    from torchao.prototype.blockwise_fp8_training.kernels import triton_fp8_blockwise_act_quant_lhs
    from torchao.prototype.moe_training.kernels.float8_rowwise import triton_fp8_rowwise_2d_scale_and_cast
    from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize, per_tensor_amax_to_scale
    from torchao.quantization import PerRow
    float8 = importlib.import_module("torchao.quantization.quantize_.workflows.float8.float8_tensor")
    float8._is_mslk_available = lambda: False  # it looks for a module, which cannot be traced
    from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor

    def parts(tensor):
        return tensor.qdata, tensor.scale

    x, shape = torch.randn(M, K, device="cuda", dtype=torch.bfloat16), (M, 0, K)
    for name, mode in modes.items():
        bench.measure(f"cast:bf16:{name}", "mxfp8", x, shape, compiled=compiled(lambda x: to_mx(x, E4M3, 32, mode)),
                      triton=lambda x: triton.triton_to_mxfp8_dim0(x, 32, name))
        bench.measure(f"cast_n:bf16:{name}", "mxfp8", x, shape,
                      compiled=compiled(lambda x: to_mx(x.t().contiguous(), E4M3, 32, mode)),
                      triton=lambda x: triton.triton_to_mxfp8_dim1(x, 32, name))
        bench.measure(f"cast:bf16:{name}", "mxfp4", x, shape, compiled=compiled(lambda x: to_mx(x, FP4, 32, mode)))
    bench.measure("cast:bf16", "nvfp4_single", x, shape, compiled=compiled(lambda x: nvfp4_quantize(x, 16)))
    bench.measure("amax+cast:bf16", "nvfp4", x, shape,
                  compiled=compiled(lambda x: nvfp4_quantize(x, 16, per_tensor_amax_to_scale(x.abs().amax()))))
    bench.measure("cast:bf16", "fp8", x, shape,
                  compiled=compiled(lambda x: parts(float8.Float8Tensor.from_hp(x, granularity=PerRow()))),
                  triton=lambda x: triton_fp8_rowwise_2d_scale_and_cast(x))
    bench.measure("cast:bf16", "fp8_group128", x, shape, triton=lambda x: triton_fp8_blockwise_act_quant_lhs(x))
    bench.measure("cast:bf16", "int8", x, shape,
                  compiled=compiled(lambda x: parts(Int8Tensor.from_hp(x, granularity=PerRow()))))
    scale, codes = to_mx(x, E4M3, 32, modes["floor"])
    bench.measure("dequantize:bf16", "mxfp8", codes, shape,
                  triton=lambda q: triton.triton_mxfp8_dequant_dim0(q, scale.view(torch.uint8), torch.bfloat16))


def experts(bench, triton, modes, to_mx):
    """The table of ao PR 3002: its reference, and the 2D kernel over (E * N, K) with a copy to each expert's layout."""
    # Compiled once for all E but the first, which compiling for each would only take longer.
    reference = {name: torch.compile(lambda x, m=mode: to_mx(x.transpose(-2, -1).contiguous(), E4M3, 32, m))
                 for name, mode in modes.items()}
    for count in (1, 2, 4, 8, 16, 64):
        x = torch.randn(count, 8192, 5120, device="cuda", dtype=torch.bfloat16)
        for name in modes:
            def by_2d(x):
                e, n, k = x.shape
                codes, scale = triton.triton_to_mxfp8_dim1(x.view(e * n, k), 32, name)
                return codes.t().view(k, e, n).permute(1, 0, 2).contiguous(), scale

            bench.measure(f"experts:bf16:{name}", "mxfp8", x, (count, 8192, 5120),
                          reference=reference[name])
            bench.measure(f"experts_2d:bf16:{name}", "mxfp8", x, (count, 8192, 5120), triton=by_2d)
        del x
        torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["casts", "experts"])
    only = parser.parse_args().only
    bench, triton = Bench(), triton_kernels()  # before anything else imports that module
    from torchao.prototype.mx_formats.config import ScaleCalculationMode as Mode
    from torchao.prototype.mx_formats.mx_tensor import to_mx
    torch._dynamo.config.cache_size_limit = 64
    modes = {"floor": Mode.FLOOR, "rceil": Mode.RCEIL}
    if only != "experts":
        casts(bench, triton, modes, to_mx)
    if only != "casts":
        experts(bench, triton, modes, to_mx)


if __name__ == "__main__":
    main()
