"""Writes casts.safetensors: inputs, and the bytes torchao makes of them, for every format.

    python make_casts.py OUT_DIR          (torchao 0.18, torch 2.13, CPU eager)

Tensors:
    in/<kind>/<dtype>                               the input, dtype f32 or bf16
    out/<format>[@<mode>]/<kind>/<dtype>/<field>    field: data, scale, tensor_scale, zero_point,
                                                    dequant_<dtype>, sqnr
    layout/<name>/...                               scale layouts for block-scaled GEMMs
    rceil/d_bits, rceil/byte                        the exponent byte of the RCEIL scale divisor

Everything comes from torchao's own functions, but for these, marked NOT TORCHAO below:
  * MX blocks that hold a NaN or Inf: scale 255 and every code NaN, as torchao 0.19 defines it
    (0.18 on the CPU keeps zeros, or a finite scale, in such a block);
  * int4_g128_sym8: its quantizer is in another package, so the formula is written out.
int4_g<G>_float: the tile-packed tensor class needs a GPU, so the two primitives it calls are used.
A result is left out where torchao divides by a zero or overflowing scale: fp8 and two-level
nvfp4 of all-zero input, and fp8 rows or nvfp4 tensors whose scale underflows.
"""

import argparse
import pathlib

import numpy as np
import torch
import torchao
from safetensors.torch import save_file
from torchao.prototype.moe_training.kernels.mxfp8.quant import (
    torch_to_blocked_2d_K_groups,
    torch_to_blocked_2d_M_groups,
    torch_to_blocked_per_group_3d,
)
from torchao.prototype.mx_formats import kernels
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.constants import DTYPE_FP6_E2M3, DTYPE_FP6_E3M2
from torchao.prototype.mx_formats.mx_tensor import _to_mx_rceil, to_dtype, to_mx
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale
from torchao.prototype.mx_formats.utils import to_blocked
from torchao.prototype.quantization.codebook import codebook_ops
from torchao.quantization import PerBlock, PerGroup, PerRow, PerTensor
from torchao.quantization import quant_primitives as qp
from torchao.quantization.quant_primitives import MappingType
from torchao.quantization.quantize_.common import KernelPreference
from torchao.quantization.quantize_.workflows import (
    Float8Tensor,
    Int8Tensor,
    IntxChooseQParamsAlgorithm,
    IntxUnpackedToInt8Tensor,
)

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
MAX_POS = {"e4m3": 448.0, "e5m2": 57344.0, "e2m3": 7.5, "e3m2": 28.0, "e2m1": 6.0}
FLOATS = {"e4m3": (4, 3), "e5m2": (5, 2), "e2m3": (2, 3), "e3m2": (3, 2), "e2m1": (2, 1)}


# ---------------------------------------------------------------- inputs


def add_ulps(x, n):
    """x moved away from zero by n units in its last place."""
    bits = torch.int32 if x.dtype == torch.float32 else torch.int16
    return (x.view(bits) + n).view(x.dtype)


def midpoints(elem):
    """The positive values halfway between neighbours of a float format, and its maximum."""
    ebits, mbits = FLOATS[elem]
    bias = 2 ** (ebits - 1) - 1
    grid = [
        (m if e == 0 else m + 2**mbits) * 2.0 ** (max(e, 1) - bias - mbits)
        for e in range(2**ebits)
        for m in range(2**mbits)
    ]
    grid = np.array([v for v in grid if v <= MAX_POS[elem]])
    return (grid[1:] + grid[:-1]) / 2


def edge(rng, dtype):
    """Blocks of 32: a maximum that fixes the scale, and 31 midpoints, exact or one ulp off them;
    then blocks whose maximum lies a few ulps above max_pos * 2^k."""
    blocks = []
    for elem, top in MAX_POS.items():
        mids = midpoints(elem)
        for step in (0, 1, -1):
            for chunk in np.array_split(rng.permutation(mids), -(-len(mids) // 31)):
                chunk = np.resize(chunk, 31) * rng.choice([-1.0, 1.0], 31)
                k = 2.0 ** rng.integers(-12, 12)
                body = add_ulps(torch.tensor(chunk * k, dtype=dtype), step)
                blocks.append(torch.cat([torch.tensor([top * k], dtype=dtype), body]))
    for i in range(64 - len(blocks)):
        blocks.append(above_max(rng, dtype, list(MAX_POS)[i % 5], 1 + 2 * i))
    return torch.stack(blocks).reshape(8, 256)


def above_max(rng, dtype, elem, ulps):
    """A block whose largest magnitude is max_pos(elem) * 2^k, `ulps` higher."""
    k = 2.0 ** int(rng.integers(-110, 100))
    block = torch.tensor(rng.uniform(-1, 1, 32) * MAX_POS[elem] * k, dtype=dtype)
    sign = float(rng.choice([-1.0, 1.0]))
    block[0] = add_ulps(torch.tensor(sign * MAX_POS[elem] * k, dtype=dtype), ulps)
    return block


def ulp(rng, dtype):
    """The same at every distance from 1 to 40 ulps, for each element format: [25, 256]."""
    blocks = [above_max(rng, dtype, e, j) for e in MAX_POS for j in range(1, 41)]
    return torch.stack(blocks).reshape(25, 256)


def edge_fp8(rng, dtype):
    """Each 128 values hold 448 (scale 1) and all midpoints of e4m3, some off by an ulp."""
    groups = []
    for i in range(16):
        body = rng.permutation(np.append(midpoints("e4m3"), 449.0)) * rng.choice([-1.0, 1.0], 127)
        body = add_ulps(torch.tensor(body, dtype=dtype), [0, 0, 1, -1][i % 4])
        groups.append(torch.cat([torch.tensor([448.0], dtype=dtype), body.clamp(-448, 448)]))
    return torch.stack(groups).reshape(8, 256)


def edge_nvfp4(rng, dtype):
    """A tensor maximum of 2688 (tensor scale 1), and in each block of 16 a maximum that makes the
    block scale an e4m3 value, or a midpoint of two, and midpoints of e2m1 times that scale."""
    blocks = []
    for i in range(128):
        midpoint = 0.5 if i % 4 == 3 else 0.0
        scale = (rng.integers(8, 16) + midpoint) * 2.0 ** rng.integers(-9, 5) if i else 448.0
        mids = rng.choice(np.append(midpoints("e2m1"), 6.0), 15) * rng.choice([-1.0, 1.0], 15)
        body = torch.tensor(mids * scale, dtype=dtype)
        body = torch.where(body.abs() < 6 * scale, add_ulps(body, [0, 1, -1][i % 3]), body)
        blocks.append(torch.cat([torch.tensor([6 * scale], dtype=dtype), body]))
    return torch.stack(blocks).reshape(8, 256)


def edge_int(rng, dtype):
    """Half-integers, scaled so that the integer codes of 1..8 bits fall on rounding ties."""
    rows = []
    for bits in range(1, 9):
        top = (2**bits - 1) / 2
        row = rng.integers(0, 2**bits, 256) - top
        row[::32] = top
        row[1::32] = -top
        rows.append(row * 2.0 ** (3 * (bits - 4)))
    return torch.tensor(np.array(rows), dtype=dtype)


def subnormal(rng, dtype):
    """Values around and below 2^-126, down to 2^-149. Each block of 32 has its own largest
    exponent, in some high enough for an MX scale above the smallest."""
    tops = np.tile([-104, -120, -133, -149, -126, -112, -118, -140], 8).repeat(32)
    exponent = np.maximum(tops - rng.integers(0, 12, 2048), -149)
    x = rng.choice([-1.0, 1.0], 2048) * rng.uniform(1, 2, 2048) * 2.0**exponent
    return torch.tensor(x.reshape(8, 256), dtype=torch.float32).to(dtype)


def wide(rng, dtype):
    x = rng.choice([-1.0, 1.0], (8, 256)) * rng.uniform(1, 2, (8, 256))
    x = x * 2.0 ** rng.integers(-30, 31, (8, 256))
    x[0, :32] = 0  # a zero block in a tensor that is not zero
    x[1, 3:7] = -0.0
    return torch.tensor(x, dtype=dtype)


def constant(rng, dtype):
    rows = [1.0, -2.0**-20, 448.0, -57344.0, 0.0075, -480 * 2.0**9, 6.0, 28 * 2.0**-40]
    return torch.tensor(rows, dtype=dtype)[:, None].repeat(1, 256)


def zero(rng, dtype):
    return torch.tensor(rng.choice([0.0, -0.0], (8, 256)), dtype=dtype)


def nonfinite(rng, dtype):
    """NaN and Inf alone in their blocks, among finite blocks, some of them huge or zero."""
    x = torch.tensor(rng.standard_normal((8, 256)), dtype=dtype)
    x[0, 5], x[1, 40], x[2, 70] = float("nan"), float("inf"), float("-inf")
    x[3, 96:128], x[4, 130] = float("nan"), -float("nan")
    x[5, 160], x[5, 161] = float("inf"), float("nan")
    x[6, 192] = 1.25 * 2.0**127
    x[6, 224:] = 0
    x[7] *= 2.0**120
    x[7, 255] = float("inf")
    return x


def gaussian(shape):
    return lambda rng, dtype: torch.tensor(0.05 * rng.standard_normal(shape), dtype=dtype)


def heavy(shape):
    def make(rng, dtype):
        x = 0.02 * rng.standard_t(3, shape)
        x[rng.random(shape) < 0.002] *= 60
        return torch.tensor(x, dtype=dtype)

    return make


KINDS = {
    "normal": gaussian((8, 256)),
    "heavy": heavy((8, 256)),
    "subnormal": subnormal,
    "constant": constant,
    "zero": zero,
    "wide": wide,
    "edge": edge,
    "edge_fp8": edge_fp8,
    "edge_nvfp4": edge_nvfp4,
    "edge_int": edge_int,
    "nan": nonfinite,
    "ulp": ulp,
    "normal_tall": gaussian((128, 256)),
    "heavy_tall": heavy((128, 256)),
    "normal3d": gaussian((3, 32, 64)),
}


# ---------------------------------------------------------------- formats
# A format is a function of the input: (fields, dequantized tensor or None).


def u8(t):
    return t.view(torch.uint8)


def mx(elem_dtype, elem, mode):
    mode = ScaleCalculationMode[mode.upper()]

    def run(x):
        scale, data = to_mx(x, elem_dtype, 32, mode)
        fields = {"data": u8(data).clone(), "scale": u8(scale).clone()}
        bad = ~x.isfinite().reshape(*scale.shape, 32).all(-1)
        if bad.any():  # NOT TORCHAO: scale 255, and the whole block NaN
            fields["scale"][bad] = 255
            blocks = fields["data"].view(*scale.shape, -1)
            blocks[bad] = NAN_CODE[elem]
        return fields, to_dtype(data, scale, elem_dtype, 32, x.dtype)

    return run


def nan_code(cast):
    return int(cast(torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32))[0])


NAN_CODE = {
    "e4m3": 0x7F,
    "e5m2": 0x7F,
    "e2m3": nan_code(kernels.f32_to_f6_e2m3_unpacked),
    "e3m2": nan_code(kernels.f32_to_f6_e3m2_unpacked),
    "e2m1": 0x11 * nan_code(kernels.f32_to_f4_unpacked),  # two codes to a byte
}


def nvfp4(two_level):
    def run(x):
        g = None
        if two_level:
            dims = (1, 2) if x.dim() == 3 else (0, 1)
            g = per_tensor_amax_to_scale(x.abs().amax(dims, keepdim=x.dim() == 3))
        t = NVFP4Tensor.to_nvfp4(x, per_tensor_scale=g)
        fields = {"data": t.qdata, "scale": u8(t.scale)}
        if two_level:
            fields["tensor_scale"] = g.reshape(-1)
        return fields, t.dequantize(x.dtype)

    return run


def fp8(granularity):
    def run(x):
        t = Float8Tensor.from_hp(
            x, granularity=granularity, kernel_preference=KernelPreference.TORCH
        )
        return {"data": u8(t.qdata), "scale": t.scale}, t.dequantize()

    return run


def int8(granularity, mapping=MappingType.SYMMETRIC):
    def run(x):
        t = Int8Tensor.from_hp(x, granularity, mapping)
        fields = {"data": t.qdata, "scale": t.scale}
        if mapping is MappingType.ASYMMETRIC:
            fields["zero_point"] = t.zero_point
        return fields, t.dequantize()

    return run


def intx_tensor(x, bits, group, mapping, algorithm=IntxChooseQParamsAlgorithm.AFFINE):
    return IntxUnpackedToInt8Tensor.from_hp(
        x,
        (1, group or x.shape[-1]),
        getattr(torch, f"int{bits}"),
        mapping_type=mapping,
        intx_choose_qparams_algorithm=algorithm,
    )


def intx(bits, group, mapping):
    def run(x):
        t = intx_tensor(x, bits, group, mapping)
        fields = {"data": t.qdata, "scale": t.scale.float()}
        if mapping is MappingType.ASYMMETRIC:
            fields["zero_point"] = t.zero_point
        return fields, t.dequantize()

    return run


def int4_float(group):
    """The two primitives the tile-packed tensor class calls, with its arguments."""

    def run(x):
        block = (1, group)
        args = dict(quant_min=0, quant_max=15)
        scale, zero = qp._choose_qparams_affine_tinygemm(
            x, MappingType.ASYMMETRIC, block, torch.int32,
            scale_dtype=x.dtype, zero_point_dtype=x.dtype, **args,
        )  # fmt: skip
        q = qp._quantize_affine_tinygemm(x, block, scale, zero, torch.int32, **args)
        dequant = qp._dequantize_affine_tinygemm(
            q, block, scale, zero, torch.int32, output_dtype=x.dtype, **args
        )
        shape = (x.shape[0], -1)
        fields = {
            "data": q.to(torch.uint8),
            "scale": scale.float().reshape(shape),
            "zero_point": zero.float().reshape(shape),
        }
        return fields, dequant

    return run


def int4_sym8(x):
    """NOT TORCHAO: the formula of the quantizer that torchao imports for this format."""
    groups = x.float().reshape(x.shape[0], -1, 128)
    scale = groups.abs().amax(-1, keepdim=True).clamp(min=1e-6) / 8
    q = (groups / scale).round().clamp(-8, 7)
    return {"data": q.to(torch.int8).reshape(x.shape), "scale": scale[..., 0]}, None


SYM, ASYM = MappingType.SYMMETRIC, MappingType.ASYMMETRIC
MX_ELEMS = {
    "mxfp8": (torch.float8_e4m3fn, "e4m3"),
    "mxfp8_e5m2": (torch.float8_e5m2, "e5m2"),
    "mxfp6": (DTYPE_FP6_E2M3, "e2m3"),
    "mxfp6_e3m2": (DTYPE_FP6_E3M2, "e3m2"),
    "mxfp4": (torch.float4_e2m1fn_x2, "e2m1"),
}
MX = {
    f"{name}@{mode}": mx(*elem, mode)
    for name, elem in MX_ELEMS.items()
    for mode in ("floor", "ceil", "even", "rceil")
}
NVFP4 = {"nvfp4": nvfp4(True), "nvfp4_single": nvfp4(False)}
FP8 = {"fp8": fp8(PerRow()), "fp8_tensor": fp8(PerTensor()), "fp8_group128": fp8(PerGroup(128))}
FP8_BLOCK = {"fp8_block128": fp8(PerBlock([128, 128]))}
INT8 = {
    "int8": int8(PerRow()),
    "int8_tensor": int8(PerTensor()),
    "int8_g32": int8(PerGroup(32)),
    "int8_asym": int8(PerRow(), ASYM),
}
INTX = {}
for bits, group in [(b, 32) for b in range(1, 9)] + [(4, 64), (4, 128), (4, 256), (4, 0), (8, 0)]:
    name = f"int{bits}_g{group}" if group else f"int{bits}_channel"
    if name != "int8_g32":  # that one is the int8 tensor class
        INTX[name] = intx(bits, group, SYM)
    INTX[name + "_asym"] = intx(bits, group, ASYM)
INT4 = {f"int4_g{g}_float": int4_float(g) for g in (32, 64, 128, 256)}
INT4["int4_g128_sym8"] = int4_sym8
INTS = {**INT8, **INTX, **INT4}

NARROW = {name: f for name, f in INTX.items() if name[3] in "23567"}
INTS = {name: f for name, f in {**INT8, **INTX, **INT4}.items() if name not in NARROW}
ALL = {**MX, **NVFP4, **FP8, **INTS, **NARROW}


def pick(names):
    return {name: ALL[name] for name in names.split()}


MX_RCEIL = {name: f for name, f in MX.items() if name.endswith("@rceil")}
DECODED = {
    **MX_RCEIL, **NVFP4, **FP8, **INT8,
    **pick("int1_g32 int4_g32 int4_g32_asym int4_channel int7_g32_asym int8_channel_asym"),
    **pick("int4_g32_float int4_g128_float"),
}  # fmt: skip

# formats, kinds of input, dtypes, whether to keep the dequantized values
FLAT = "normal heavy subnormal constant zero wide "
CASES = [
    (MX, FLAT + "edge nan", "f32 bf16", False),
    (MX_RCEIL, "ulp", "f32", False),
    (NVFP4, FLAT + "edge_nvfp4", "f32 bf16", False),
    (FP8, FLAT + "edge_fp8", "f32 bf16", False),
    (FP8_BLOCK, "normal_tall heavy_tall", "f32 bf16", False),
    (INTS, FLAT + "edge_int", "f32 bf16", False),
    (NARROW, "normal heavy edge_int", "f32 bf16", False),
    (pick("mxfp8@floor mxfp8@rceil nvfp4 int8"), "normal3d", "bf16", False),
    (DECODED, "normal", "f32 bf16", True),
    (DECODED, "wide", "f32", True),
]


def usable(fields):
    """False where the scale made torchao divide by zero or overflow."""
    scale = fields["tensor_scale"] if "tensor_scale" in fields else fields["scale"]
    if scale.dtype != torch.float32:
        return True
    limit = (1 / scale) if "tensor_scale" in fields else scale
    return bool((scale != 0).all() and limit.isfinite().all())


# ---------------------------------------------------------------- quality of the iterative methods


def sqnr(x, y):
    x, y = x.double(), y.double()
    return (20 * torch.log10(x.norm() / (x - y).norm())).float().reshape(1)


def hqq(x):
    q, scale, zero, _ = qp._choose_qparams_and_quantize_affine_hqq(
        x, nbits=4, group_size=64, axis=1, compute_dtype=torch.bfloat16, device="cpu",
        raw_output=False,
    )  # fmt: skip
    args = dict(quant_min=0, quant_max=15, output_dtype=torch.bfloat16)
    return qp._dequantize_affine_tinygemm(
        q.to(torch.int32), (1, 64), scale, zero, torch.int32, **args
    )


def hqq_scale_only(x):
    return intx_tensor(x, 4, 64, SYM, IntxChooseQParamsAlgorithm.HQQ_SCALE_ONLY).dequantize()


def codebook(x):
    """As the codebook tensor class does it: computed in f32, then kept in the input's dtype."""
    book, scale = codebook_ops.choose_qparams_codebook(x.float(), (1, 1), 64, torch.uint4)
    codes = codebook_ops.quantize_codebook(x.float(), book, scale, code_dtype=torch.uint4)
    book, scale = book.to(x.dtype), scale.to(x.dtype)
    return codebook_ops.dequantize_codebook(codes.int(), book, scale, x.dtype)


QUALITY = {"int4_g64_float_hqq": hqq, "int4_g64@hqq": hqq_scale_only, "codebook4_g64": codebook}


# ---------------------------------------------------------------- layouts and the RCEIL byte


def layouts(rng):
    def scales(*shape):
        return torch.tensor(rng.integers(1, 256, shape), dtype=torch.uint8)

    out = {}
    for i, shape in enumerate([(130, 7), (128, 4), (5, 3), (300, 12)]):
        m = scales(*shape)
        out |= {f"layout/tiled{i}/in": m, f"layout/tiled{i}/out": to_blocked(m)}

    # ends are exclusive row ends here (torchao needs a multiple of 4 columns) ...
    m, ends = scales(300, 8), torch.tensor([100, 100, 229, 300], dtype=torch.int32)
    blocked, starts = torch_to_blocked_2d_M_groups(m, ends)
    out |= group("m_groups", m, ends, blocked, starts)
    # ... and exclusive ends in columns of the scale matrix here (elements / 32).
    m, ends = scales(130, 13), torch.tensor([3, 3, 8, 13], dtype=torch.int32)
    blocked, starts = torch_to_blocked_2d_K_groups(m, ends)
    out |= group("k_groups", m, ends, blocked, starts)

    m = scales(3, 130, 7)
    return out | {
        "layout/per_expert/in": m,
        "layout/per_expert/out": torch_to_blocked_per_group_3d(m),
    }


def group(name, m, ends, blocked, starts):
    fields = {"in": m, "ends": ends, "out": blocked, "starts": starts}
    return {f"layout/{name}/{k}": v for k, v in fields.items()}


def rceil_bytes():
    """The byte for d = 2^e (1 + j 2^-23): torchao takes it from a rounded log2."""
    steps = [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 20, 21, 22, 23, 24, 25, 32, 40, 64]
    d = np.array([2.0**e * (1 + j * 2.0**-23) for e in range(-149, 128) for j in steps])
    d = d[d.astype(np.float32) == d].astype(np.float32)
    d = torch.tensor(d)
    byte, _ = _to_mx_rceil(d, d, 1.0)  # a maximum of 1 makes the divisor d itself
    return {"rceil/d_bits": d.view(torch.int32), "rceil/byte": byte}


# ---------------------------------------------------------------- main


def build():
    out, inputs = {}, {}
    for i, (kind, make) in enumerate(KINDS.items()):
        for name, dtype in DTYPES.items():
            inputs[kind, name] = make(np.random.default_rng(1000 + i), dtype)

    def keep(kind, name):
        out[f"in/{kind}/{name}"] = inputs[kind, name]
        return inputs[kind, name]

    for formats, kinds, dtypes, decode in CASES:
        for kind in kinds.split():
            for dtype in dtypes.split():
                x = keep(kind, dtype)
                for name, run in formats.items():
                    fields, dequant = run(x)
                    if not usable(fields):
                        continue
                    if decode:
                        fields[f"dequant_{dtype}"] = dequant
                    for field, value in fields.items():
                        out[f"out/{name}/{kind}/{dtype}/{field}"] = value

    for name, run in QUALITY.items():
        for kind in ("normal_tall", "heavy_tall"):
            for dtype in DTYPES:
                x = keep(kind, dtype)
                out[f"out/{name}/{kind}/{dtype}/sqnr"] = sqnr(x, run(x))

    out |= layouts(np.random.default_rng(1))
    return out | rceil_bytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=pathlib.Path)
    path = parser.parse_args().out_dir / "casts.safetensors"
    torch.set_num_threads(1)
    tensors = {name: t.contiguous().clone() for name, t in sorted(build().items())}
    versions = f"torch {torch.__version__.split('+')[0]}, torchao {torchao.__version__}"
    save_file(tensors, path, metadata={"versions": versions})  # one key: its order is not random
    print(f"{path}: {len(tensors)} tensors, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
