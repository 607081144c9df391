"""Token ids of lowp and of the `tokenizers` package, for 10,000 varied strings and any tokenizer.json:

    python tokenizer_check.py TOKENIZE_LINES TEXT FOLDER...

TOKENIZE_LINES is the binary that the tests build; each FOLDER has a tokenizer.json. Special tokens are not added.
"""

import json
import pathlib
import subprocess
import sys

from tokenizers import Tokenizer
from varied_strings import strings


def main():
    binary, text, *folders = sys.argv[1:]
    made = strings(pathlib.Path(text).read_text(encoding="utf-8"), 10000)
    lines = "".join(json.dumps(s) + "\n" for s in made)
    good = True
    for folder in folders:
        theirs = Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
        result = subprocess.run([binary, folder], input=lines, capture_output=True, text=True, check=True)
        ours = [json.loads(line) for line in result.stdout.splitlines()]
        wanted = [one.ids for one in theirs.encode_batch(made, add_special_tokens=False)]
        different = [(s, a, b) for s, a, b in zip(made, ours, wanted) if a != b]
        good &= not different
        print(f"{folder}: {len(made) - len(different)} of {len(made)} strings equal")
        for s, a, b in different[:5]:
            print(f"  {s!r}: lowp {a}, tokenizers {b}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
