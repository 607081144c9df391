"""Strings that tokenizers might disagree about."""

import random
import unicodedata

HARD = [
    "", " ", "  ", "\n", "\n\n\n", "\t\t x", "a  b   c    d", "héllo wörld", "日本語のテキスト", "한국어 텍스트", "Привет, мир!",
    "مرحبا بالعالم", "שלום", "👩‍👩‍👧‍👦 🇫🇷 👍🏽", "\u0000\u0001\u007f", "x" * 300, "0123456789" * 5, "¼ ½ ﬁ Ⅷ", "e\u0301 \u00e9",
    "<b>html</b> &amp;", "if (a <= b && c != d) { return x->y; }", " leading", "trailing ", "\u200b\u00a0\u3000", "▁▁", "𝔘𝔫𝔦",
]  # fmt: skip


def code(rng):
    """A character that Python's Unicode knows: newer ones split differently elsewhere."""
    while True:
        begin, end = rng.choice([(32, 127), (0xA0, 0x800), (0x800, 0xD800), (0x1F300, 0x1FAFF)])
        found = rng.randrange(begin, end)
        if unicodedata.category(chr(found)) not in ("Cn", "Cs", "Co"):
            return found


def strings(text, count):
    """Pieces of the text, hard strings and their mixtures, random characters."""
    rng = random.Random(7)
    made = list(HARD)
    while len(made) < count:
        kind = rng.random()
        if kind < 0.6:
            at = rng.randrange(len(text))
            made.append(text[at : at + rng.randrange(1, 120)])
        elif kind < 0.8:
            made.append("".join(rng.choice(HARD) for _ in range(rng.randrange(1, 5))))
        else:
            made.append("".join(chr(code(rng)) for _ in range(rng.randrange(1, 30))))
    return made[:count]
