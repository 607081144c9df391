#!/usr/bin/env bash
# Checks (or with --fix, applies) clang-format on all C++ sources.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=(--dry-run -Werror)
[ "${1:-}" != --fix ] || mode=(-i)
find lowp bench cli tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | sort | xargs clang-format "${mode[@]}"
