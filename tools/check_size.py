"""Checks that the tree stays small: 45 MiB in all, 800 lines a source file (400 is worth a look)."""
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_MIB, LIMIT_LINES, LOOK_LINES = 45, 800, 400


def tracked():
    """Files that belong to the tree; without git (an exported tree) every file outside build folders."""
    result = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True)
    if result.returncode == 0:
        names = result.stdout.decode().split("\0")
        return [ROOT / n for n in names if n and (ROOT / n).is_file()]
    return [p for p in ROOT.rglob("*") if p.is_file() and not p.relative_to(ROOT).parts[0].startswith(("build", ".git"))]


def main():
    files = tracked()
    bad = 0
    total = sum(f.stat().st_size for f in files) / 2**20
    print(f"tree: {total:.1f} MiB of {LIMIT_MIB}")
    bad += total >= LIMIT_MIB
    for file in files:
        if file.suffix in {".h", ".cpp", ".cu", ".cuh", ".py"}:
            lines = len(file.read_text().splitlines())
            if lines > LOOK_LINES:
                print(f"{file.relative_to(ROOT)}: {lines} lines" + (f", more than {LIMIT_LINES}" if lines > LIMIT_LINES else ""))
            bad += lines > LIMIT_LINES
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
