"""Checks that includes follow the layers of docs/ARCHITECTURE.md: a module may include what its row lists, and itself.

Also: what only some files may name, such as environment reads or a library.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

BASE = ["base"]
FORMATS = BASE + ["formats"]
TENSOR = FORMATS + ["tensor"]
KERNEL = TENSOR + ["kernels"]
OPS = KERNEL + ["ops"]
CHECKPOINT = TENSOR + ["checkpoint"]
QUANT = sorted({*OPS, *CHECKPOINT, "quant"})
TEXT = BASE + ["text"]
MODELS = sorted({*OPS, *CHECKPOINT, "models"})
ENGINE = MODELS + ["engine"]
SERVER = sorted({*ENGINE, *TEXT, "server"})
EVAL = sorted({*ENGINE, *TEXT, "eval"})
REPORT = sorted({*QUANT, *EVAL, "report"})
PUBLIC = sorted({*REPORT, *SERVER})
BENCH = PUBLIC + ["bench"]
LAYERS = {
    "lowp/base": BASE,
    "lowp/formats": FORMATS,
    "lowp/tensor": TENSOR,
    "lowp/kernels": KERNEL,
    "lowp/ops": OPS,
    "lowp/checkpoint": CHECKPOINT,
    "lowp/quant": QUANT,
    "lowp/text": TEXT,
    "lowp/models": MODELS,
    "lowp/engine": ENGINE,
    "lowp/server": SERVER,
    "lowp/eval": EVAL,
    "lowp/report": REPORT,
    "bench": BENCH,
    "cli": BENCH + ["cli"],
    "tests": PUBLIC + ["tests"],
}
# A backend may include the seam (kernels/kernel.h) and itself, never another backend; ops reaches a backend by its header.
BACKENDS = ["ref", "cpu", "cuda"]

# What only these files may name.
SINGLE = {
    r"\bgetenv\b": ["lowp/base/env.cpp"],
    r"#include <nlohmann": ["lowp/base/json.h"],
    r"#include <pcre2": ["lowp/base/match.cpp", "lowp/text/regex.cpp"],
    r"#include <boost": [f"lowp/server/{name}" for name in ("http.cpp", "http_client.cpp", "tls.cpp", "tls.h", "wire_stream.h")],
    r"#include <openssl": ["lowp/server/tls.cpp"],
    r"#include <prometheus": ["lowp/server/metrics.cpp"],
    r"#include <utf8proc": ["lowp/text/normalizer.cpp"],
}


def sources():
    for top in ("lowp", "bench", "cli", "tests"):
        yield from (p for p in sorted((ROOT / top).rglob("*")) if p.suffix in {".h", ".cpp", ".cu", ".cuh"})


def layer_of(path):
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2]) if parts[0] == "lowp" else parts[0]


def problems(path):
    name = str(path.relative_to(ROOT))
    text = path.read_text()
    allowed = LAYERS.get(layer_of(path))
    if allowed is None:
        yield f"{name}: {layer_of(path)} is not in the layer table"
        return
    is_test = name.endswith(("_test.cpp", "_testing.h"))
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r'#include "([^"]+)"', line):
            target = match.group(1).split("/")
            module = target[1] if target[0] == "lowp" else target[0]
            if module not in allowed and not (is_test and module == "tests"):
                yield f"{name}:{number}: {layer_of(path)} may not include {match.group(1)}"
            if module == "kernels" and len(target) > 3 and path.parent.name in BACKENDS and target[2] != path.parent.name:
                yield f"{name}:{number}: a backend may not include another one"
        for pattern, owners in SINGLE.items():
            if name not in owners and not is_test and re.search(pattern, line):
                yield f"{name}:{number}: only {' and '.join(owners)} may use this: {line.strip()}"


def main():
    found = [problem for path in sources() for problem in problems(path)]
    print("\n".join(found) if found else "layers hold")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
