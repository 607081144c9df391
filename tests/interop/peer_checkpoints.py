#!/usr/bin/env python3
"""Quantizes a model with other people's tools, and compares what lowp reads in their files with the values they mean.

    python tests/interop/peer_checkpoints.py LOWP MODEL [WHO...]

WHO: hqq, bitsandbytes, gptqmodel, modelopt, llmcompressor, autoround, autoawq, mlx; by default all. Each needs its own
package, and all but mlx torch and transformers; one whose package is missing is 'skipped'. The values that a tool means come from its own
dequantization, or, where it has none that runs on a CPU, from the formula in its documentation applied to its tensors here.
lowp's are what `lowp quantize --recipe bf16 --requantize` writes: every layer decoded, rounded to the dtype of the model.
Prints a line for each; exit code 1 if a value differs.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TQDM_DISABLE", "1")
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def load(model):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, tie_word_embeddings=True)


def linears(model):
    return {name: module for name, module in model.named_modules() if name.rpartition(".")[2] in LINEARS}


def write(out, model, tensors, quantization, key="quantization_config"):
    """A folder with the tensors of a state dict, the config of the model, and a description of the quantization."""
    from safetensors.torch import save_file

    out.mkdir()
    config = json.loads((model / "config.json").read_text()) | {key: quantization}
    (out / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out / "model.safetensors",
              metadata={"format": "pt"})


def rest(network):
    """The tensors that are not quantized."""
    return {name: tensor for name, tensor in network.state_dict().items()
            if name.split(".")[-2] not in LINEARS and name != "lm_head.weight"}


# --- the tools: each writes OUT and returns {module: values}

def hqq(model, out):
    import torch
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    network, values = load(model), {}
    tensors = rest(network)
    widths = [4, 8, 3, 2, 1]
    for i, (name, module) in enumerate(linears(network).items()):
        config = BaseQuantizeConfig(nbits=widths[i % len(widths)], group_size=64, axis=1)
        layer = HQQLinear(module, config, compute_dtype=torch.bfloat16, device="cpu", initialize=True)
        tensors |= {f"{name}.{key}": value for key, value in layer.state_dict().items()}
        values[name] = layer.dequantize()
    write(out, model, tensors, {"quant_method": "hqq", "quant_config": {}})
    return values


def bitsandbytes(model, out):
    import bitsandbytes.functional as F
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                bnb_4bit_compute_dtype=torch.bfloat16)
    network = AutoModelForCausalLM.from_pretrained(model, quantization_config=config, dtype=torch.bfloat16, device_map="cpu")
    network.save_pretrained(out)
    return {name: F.dequantize_4bit(module.weight.data, module.weight.quant_state)
            for name, module in linears(network).items()}


def gptqmodel(model, out):
    """Its packing, with round-to-nearest in activation order: no calibration."""
    import torch
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    network, values = load(model), {}
    tensors = rest(network)
    generator = torch.Generator().manual_seed(1)
    for i, (name, module) in enumerate(linears(network).items()):
        n, k = module.weight.shape
        groups = k // 64
        order = torch.randperm(k, generator=generator) if i % 2 else torch.arange(k)
        g_idx = torch.empty(k, dtype=torch.int32)
        g_idx[order] = torch.arange(k, dtype=torch.int32) // 64
        weight = module.weight.detach().float()[:, order].reshape(n, groups, 64)
        low, high = weight.amin(-1).clamp(max=0), weight.amax(-1).clamp(min=0)
        scale = ((high - low) / 15).clamp(min=1e-5).half().float()
        zero = (-low / scale).round().clamp(0, 15)
        layer = TorchLinear(bits=4, group_size=64, sym=False, desc_act=True, in_features=k, out_features=n, bias=False,
                            pack_dtype=torch.int32, register_buffers=True)
        layer.pack_original(linear=module.float(), scales=scale, zeros=zero, g_idx=g_idx)
        stored = {key: value for key, value in layer.state_dict().items() if key in ("qweight", "qzeros", "scales", "g_idx")}
        tensors |= {f"{name}.{key}": value for key, value in stored.items()}
        spread = scale[:, g_idx]
        code = ((module.weight.detach().float() + (scale * zero)[:, g_idx]) / spread).round().clamp(0, 15)
        values[name] = ((code - zero[:, g_idx]) * stored["scales"].float().T[:, g_idx]).half()
    write(out, model, tensors, {"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": False, "desc_act": True,
                                "checkpoint_format": "gptq_v2"})
    return values


def modelopt_values(tensors, name):
    """The formulas of checkpoint formats that ModelOpt writes."""
    import torch

    weight, scale = tensors[f"{name}.weight"], tensors[f"{name}.weight_scale"]
    table = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])
    if weight.dtype == torch.float8_e4m3fn:
        scale = torch.exp2(scale.float() - 127) if scale.dtype == torch.uint8 else scale.float()
        scale = scale.reshape(-1, 1) if scale.ndim == 1 else scale
        return weight.float() * (scale.repeat_interleave(32, 1) if scale.ndim == 2 and scale.shape[1] > 1 else scale)
    if scale.dtype == torch.float8_e4m3fn:
        codes = torch.stack([table[(weight & 15).long()], table[(weight >> 4).long()]], -1).reshape(weight.shape[0], -1)
        return codes * (scale.float() * tensors[f"{name}.weight_scale_2"]).repeat_interleave(16, 1)
    codes = torch.stack([weight & 15, weight >> 4], 1).reshape(-1, weight.shape[1]).to(torch.int8)
    codes = torch.where(codes > 7, codes - 16, codes)
    return codes * scale.float().repeat_interleave(weight.shape[1] // scale.shape[1], 1)


def modelopt(model, out, which=("FP8_DEFAULT_CFG", "NVFP4_DEFAULT_CFG", "MXFP8_DEFAULT_CFG", "INT4_AWQ_CFG")):
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_hf_checkpoint
    from safetensors.torch import load_file

    done = {}
    for config in which:
        network, folder = load(model), out.with_name(f"{out.name}-{config}")
        ids = torch.randint(0, network.config.vocab_size, (4, 64), generator=torch.Generator().manual_seed(1))
        mtq.quantize(network, getattr(mtq, config), lambda m: m(ids))
        export_hf_checkpoint(network, export_dir=str(folder))
        tensors = load_file(folder / "model.safetensors")
        done[folder] = {name: modelopt_values(tensors, name) for name in linears(load(model))}
    return done


def llmcompressor(model, out, schemes=("W8A8", "W4A16", "W4A16_ASYM", "FP8_DYNAMIC", "FP8_BLOCK", "NVFP4A16", "MXFP4A16")):
    import torch
    from compressed_tensors.compressors import ModelCompressor
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier

    del ModelCompressor
    done = {}
    for scheme in schemes:
        network, folder = load(model), out.with_name(f"{out.name}-{scheme}")
        oneshot(model=network, recipe=QuantizationModifier(targets="Linear", scheme=scheme, ignore=["lm_head"]))
        values = {}
        for name, module in linears(network).items():
            from compressed_tensors.quantization.lifecycle.forward import fake_quantize

            scale = {"scale": module.weight_scale, "zero_point": getattr(module, "weight_zero_point", None),
                     "global_scale": getattr(module, "weight_global_scale", None)}
            values[name] = fake_quantize(module.weight, args=module.quantization_scheme.weights, **scale).detach().bfloat16()
        network.save_pretrained(folder, save_compressed=True)
        done[folder] = values
    return done


def autoround(model, out, formats=("auto_round:auto_gptq", "auto_round:auto_awq", "auto_gptq", "auto_awq")):
    import torch
    from auto_round import AutoRound
    from transformers import AutoTokenizer

    done = {}
    for kind in formats:
        folder = out.with_name(f"{out.name}-{kind.replace(':', '-')}")
        tuner = AutoRound(load(model), AutoTokenizer.from_pretrained(model), bits=4, group_size=64, sym="awq" not in kind,
                          iters=0, device_map="cpu", disable_opt_rtn=True)
        tuner.quantize_and_save(str(folder), format=kind)
        found = sorted(folder.rglob("model.safetensors"))[0].parent
        done[found] = transposed_values(found, "awq" in kind)
    del torch
    return done


def transposed_values(folder, awq):
    """GPTQ's (version 1) and AWQ's own formulas."""
    import torch
    from safetensors.torch import load_file

    tensors, values = load_file(folder / "model.safetensors"), {}
    shifts = torch.arange(8) * 4

    def nibbles(words, dim):
        codes = (words.unsqueeze(dim + 1) >> shifts.reshape(-1, *[1] * (words.ndim - 1 - dim))) & 15
        if awq:
            codes = codes.index_select(dim + 1, torch.tensor([0, 4, 1, 5, 2, 6, 3, 7]))
        return codes.flatten(dim, dim + 1)

    for name in (key.removesuffix(".qweight") for key in tensors if key.endswith(".qweight")):
        codes = nibbles(tensors[f"{name}.qweight"], 1 if awq else 0)
        zeros = nibbles(tensors[f"{name}.qzeros"], 1)
        zeros = zeros if awq else (zeros + 1) & 15
        scale = tensors[f"{name}.scales"]
        group = codes.shape[0] // scale.shape[0]
        spread = lambda x: x.repeat_interleave(group, 0)  # noqa: E731
        values[name] = ((codes - spread(zeros)).float() * spread(scale.float())).T.to(scale.dtype)
    return values


def autoawq(model, out):
    import torch
    from awq.modules.linear.gemm import WQLinear_GEMM

    network, values = load(model), {}
    tensors = rest(network)
    for name, module in linears(network).items():
        n, k = module.weight.shape
        weight = module.weight.detach().float().reshape(n, -1, 64)
        low, high = weight.amin(-1), weight.amax(-1)
        scale = ((high - low).clamp(min=1e-5) / 15).half().float()
        zero = (-(low / scale).round()).clamp(0, 15)
        code = ((weight / scale[..., None]).round() + zero[..., None]).clamp(0, 15)
        exact = ((code - zero[..., None]) * scale[..., None]).reshape(n, k)
        module.weight.data = exact.half()
        layer = WQLinear_GEMM.from_linear(module.half(), 4, 64, False, scale.T.half(), zero.T)
        tensors |= {f"{name}.{key}": value for key, value in layer.state_dict().items() if key in ("qweight", "qzeros", "scales")}
        values[name] = exact.half()
    write(out, model, tensors, {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"})
    return values


def mlx(model, out):
    import mlx.core as mx
    import numpy as np

    source = mx.load(str(model / "model.safetensors"))
    done = {}
    for mode, bits, group in (("affine", 4, 64), ("affine", 3, 32), ("affine", 8, 128), ("affine", 6, 64), ("affine", 2, 64),
                              ("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)):
        folder, tensors, values = out.with_name(f"{out.name}-{mode}-{bits}"), {}, {}
        for name, tensor in source.items():
            if name.split(".")[-2] not in LINEARS:
                tensors[name] = tensor
                continue
            packed, *scales = mx.quantize(tensor, group_size=group, bits=bits, mode=mode)
            module = name.removesuffix(".weight")
            tensors |= {name: packed} | {f"{module}.{part}": value for part, value in zip(("scales", "biases"), scales)}
            plain = mx.dequantize(packed, *scales, group_size=group, bits=bits, mode=mode, dtype=mx.float32) \
                if mode != "affine" else mx.dequantize(packed, scales[0].astype(mx.float32), scales[1].astype(mx.float32), group, bits)
            values[module] = np.array(plain.astype(mx.float32))
        folder.mkdir()
        config = json.loads((model / "config.json").read_text())
        config["quantization"] = {"group_size": group, "bits": bits, "mode": mode}
        (folder / "config.json").write_text(json.dumps(config))
        mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "mlx"})
        done[folder] = values
    return done


TOOLS = {f.__name__: f for f in (hqq, bitsandbytes, gptqmodel, modelopt, llmcompressor, autoround, autoawq, mlx)}


def rounded(values, dtype):
    """f32 values that `dtype`, as safetensors spells it, holds."""
    import numpy as np

    if dtype == "F16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "F32":
        return values
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def stored(path):
    """{name: (values in f32, dtype)} of a safetensors file of floats."""
    import numpy as np

    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:begin]).items():
        if name == "__metadata__":
            continue
        first, last = (begin + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(data[first:last], dtype="<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(data[first:last], dtype={"F16": "<f2", "F32": "<f4"}[entry["dtype"]]).astype(np.float32)
        tensors[name] = values.reshape(entry["shape"]), entry["dtype"]
    return tensors


def compare(lowp, folder, values):
    """A report of one checkpoint, and whether all values are equal."""
    import numpy as np

    dense = folder.with_name(folder.name + "-dense")
    done = subprocess.run([lowp, "quantize", folder, "--recipe", "bf16", "--requantize", "-o", dense], capture_output=True,
                          text=True)
    if done.returncode:
        return f"{folder.name}: lowp refuses it: {done.stderr.strip()}", False
    ours = stored(dense / "model.safetensors")
    differ = total = 0
    worst = 0.0
    for name, expected in values.items():
        found, dtype = ours[f"{name}.weight"]
        if not isinstance(expected, np.ndarray):
            expected = expected.detach().float().numpy()
        expected = rounded(expected.reshape(found.shape), dtype)
        unequal = found != expected
        differ += int(unequal.sum())
        total += found.size
        if unequal.any():
            worst = max(worst, float((np.abs(found - expected) / np.maximum(np.abs(expected), 1e-30))[unequal].max()))
    shutil.rmtree(dense)
    if not values or differ:
        return f"{folder.name}: {differ} of {total} values differ, by {worst:.1e} at most", False
    return f"{folder.name}: {total} values of {len(values)} layers are equal", True


def main():
    lowp, model = str(pathlib.Path(sys.argv[1]).resolve()), pathlib.Path(sys.argv[2]).resolve()
    failed = 0
    for who in sys.argv[3:] or TOOLS:
        with tempfile.TemporaryDirectory(prefix="lowp-peer-") as scratch:
            out = pathlib.Path(scratch) / who
            try:
                made = TOOLS[who](model, out)
            except ImportError as error:
                print(f"{who}: skipped: {error}", flush=True)
                continue
            except Exception:  # whatever their code raises: there is nothing to compare
                print(f"{who}: did not run: {traceback.format_exc(limit=-3)}", flush=True)
                failed += 1
                continue
            for folder, values in (made.items() if isinstance(next(iter(made)), pathlib.Path) else [(out, made)]):
                text, equal = compare(lowp, folder, values)
                print(text, flush=True)
                failed += not equal
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
