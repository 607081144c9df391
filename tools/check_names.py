"""Checks that format names stand only where the "one place" rule allows: code elsewhere works from the tables.

Allowed: lowp/formats (the tables), dialect files (they spell foreign schemes), tests, docs, the command line's help and its words
for what keys and values are stored as and for what attention computes in.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = re.compile(r'"(mxfp[468]\w*|nvfp4\w*|fp8(_\w+)?|int[1-8]_\w+|codebook4_\w+|q[2-8]_[0k])"')
ALLOWED = re.compile(r"lowp/formats/|lowp/checkpoint/(compressed_tensors|torchao|lowp_dialect|dialects|fp8_block|gpt_oss|modelopt|bitsandbytes|hqq|mlx|gguf)|cli/model_options\.cpp$|lowp/ops/attention_mode\.h$|_test\.cpp$|^tests/")


def main():
    found = []
    for top in ("lowp", "cli"):
        for path in sorted((ROOT / top).rglob("*.*")):
            name = str(path.relative_to(ROOT))
            if path.suffix not in {".h", ".cpp", ".cu", ".cuh"} or ALLOWED.search(name):
                continue
            found += [f"{name}:{i}: {line.strip()}" for i, line in enumerate(path.read_text().splitlines(), 1) if NAME.search(line)]
    print("\n".join(found) if found else "format names stand where they belong")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
