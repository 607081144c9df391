"""Checks that docs/FORMATS.md is what the tables say: `check_docs.py LOWP`."""
import difflib
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "FORMATS.md"


def main():
    expected = subprocess.run([sys.argv[1], "recipes", "--formats", "--markdown"], check=True, capture_output=True, text=True).stdout
    found = PAGE.read_text() if PAGE.exists() else ""
    difference = list(difflib.unified_diff(found.splitlines(), expected.splitlines(), str(PAGE.name), "tables", lineterm=""))
    print("\n".join(difference) if difference else "docs/FORMATS.md is up to date")
    sys.exit(bool(difference))


if __name__ == "__main__":
    main()
