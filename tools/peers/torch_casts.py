"""Times torchao's casts on a GPU, as JSON lines that `lowp bench kernels --device cuda --compare FILE` understands.

usage: torch_casts.py [--small] > peers.jsonl      needs torch with CUDA and torchao; what is missing is said on stderr

Compiled reference code (torch.compile) and torchao's Triton kernels where they run on this GPU. A call is timed with events,
the second-level cache flushed before it; median of 15.
"""
import argparse
import json
import statistics
import sys

import torch

M, K = 16384, 8192


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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="only the row-wise casts")
    small = parser.parse_args().small
    from torchao.prototype.mx_formats.config import ScaleCalculationMode as Mode
    from torchao.prototype.mx_formats.mx_tensor import to_mx
    from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize, per_tensor_amax_to_scale
    from torchao.quantization import PerRow
    from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor
    from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor

    def compiled(f):
        return torch.compile(f, fullgraph=True, dynamic=False)

    e4m3, fp4 = torch.float8_e4m3fn, torch.float4_e2m1fn_x2
    modes = {"floor": Mode.FLOOR, "rceil": Mode.RCEIL}
    rows = [(f"cast:bf16:{name}", recipe, compiled(lambda x, e=element, m=mode: to_mx(x, e, 32, m)))
            for recipe, element in (("mxfp8", e4m3), ("mxfp4", fp4)) for name, mode in modes.items()]
    rows += [("cast:bf16", "nvfp4_single", compiled(lambda x: nvfp4_quantize(x, 16))),
             ("amax+cast:bf16", "nvfp4", compiled(lambda x: nvfp4_quantize(x, 16, per_tensor_amax_to_scale(x.abs().amax())))),
             ("cast:bf16", "fp8", compiled(lambda x: Float8Tensor.from_hp(x, granularity=PerRow()).qdata)),
             ("cast:bf16", "int8", compiled(lambda x: Int8Tensor.from_hp(x, granularity=PerRow()).qdata))]
    if not small:
        rows += [(f"cast_n:bf16:{name}", "mxfp8", compiled(lambda x, m=mode: to_mx(x.t().contiguous(), e4m3, 32, m)))
                 for name, mode in modes.items()]
    device = torch.cuda.get_device_name()
    flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")

    def measure(op, recipe, call, x, m, n, k):
        try:
            seconds = median_seconds(lambda: call(x), flush)
        except Exception as error:  # one peer that does not run must not hide the others
            print(f"{op} {recipe}: {type(error).__name__}: {str(error).splitlines()[0][:200]}", file=sys.stderr)
            return
        print(json.dumps({"op": op, "recipe": recipe, "m": m, "n": n, "k": k, "device": device, "seconds": seconds, "bytes": 0,
                          "flop": 0, "limit_name": "copy", "limit": 0, "share": 0, "peer": "", "peer_seconds": None,
                          "ratio": None, "samples": [seconds]}), flush=True)

    x = torch.randn(M, K, device="cuda", dtype=torch.bfloat16)
    for op, recipe, call in rows:
        measure(op, recipe, call, x, M, 0, K)
    if small:
        return
    for experts in (1, 8):
        x = torch.randn(experts, 8192, 5120, device="cuda", dtype=torch.bfloat16)
        for name, mode in modes.items():
            call = compiled(lambda x, m=mode: to_mx(x.transpose(-2, -1).contiguous(), e4m3, 32, m))
            measure(f"experts:bf16:{name}", "mxfp8", call, x, experts, 8192, 5120)


if __name__ == "__main__":
    main()
