"""Writes tokenizer_cases.jsonl and tokenizer_<name>.json: small tokenizers, texts, and the ids that the `tokenizers`
package gives them.

    python make_tokenizer.py OUT_DIR          (tokenizers 0.23)

The small tokenizers have the pipelines of GPT-2, Llama 3, Qwen 2/3 and gpt-oss, one mixed from the parts that those do
not use, SentencePiece's BPE as in Llama 2, Mistral and Gemma, a Unigram as in T5, and vocabularies trained here on
generated text. The model's own, models/bookworm-8m/tokenizer.json, is "bookworm".

tokenizer_cases.jsonl: the first line is {"tokenizers": [name, ...]}; each other line {"text": t, "repeat": n (if not 1),
"counts": [...], "hashes": [...], "ids": [...] (of the first tokenizer, in the first cases)}. The input is the text n
times; counts and hashes (FNV-1a over the ids as little-endian int32) are of the ids of each tokenizer, with special
tokens; "texts" are the hashes of what the ids decode to, of the tokenizers that are not byte-level.

PCRE2 10.42 knows Unicode 14, the tokenizers package 16: the texts have only characters of 14, which is what Python 3.11
knows.
"""

import json
import pathlib
import random
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors, trainers
from tokenizers import pre_tokenizers as pre

ROOT = pathlib.Path(__file__).resolve().parents[2]
VOCABULARY = 640

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = "|".join([
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIX}", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIX}",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])

WORDS = """the a of and to in is was that it for with as on be at by this had not are but from or have an they which
one you were all her she there would their we him been has when who will no more if out so said what up its about than
into them can only other time new some could these two may first then do any like my now over such our man me even most
made after also did many before must through years where much your way well down should because each just those people
how too little state good very make world still see own work men day get here old life both between being under three
never know same last another while us might great go come since against right came take used himself few house use
during without again place around however home small found thought went say part once high general upon school every
don't I'll we've it's he'd they're I'm tokenizer quantize kernel matrix""".split()
CODE = """for (int i = 0; i < n; ++i) {
    sum += a[i] * b[i];  // dot product
}
def forward(self, x: Tensor) -> Tensor:
\treturn self.w2(F.silu(self.w1(x)) * self.w3(x))
SELECT name, COUNT(*) FROM t WHERE id >= 10 GROUP BY name;
#include <vector>
{"key": [1, 2.5e-3, null], "s": "\\u00e9\\n"}
<div class="row"><a href="https://example.org/?q=1&r=2#top">link</a></div>
x = 0xDEADBEEF ^ 1_000_000; y != x && z == ~y""".split("\n")
PHRASES = """The quick brown fox jumps over the lazy dog.
Voix ambiguë d’un cœur qui, au zéphyr, préfère les jattes de kiwis.
Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.
El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia.
Съешь же ещё этих мягких французских булок, да выпей чаю.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.
いろはにほへと ちりぬるを わかよたれそ つねならむ
天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。
키스의 고유조건은 입술끼리 만나야 하고
ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण
นายสังฆภัณฑ์ เฮงพิทักษ์ฝั่ง ผู้เฒ่าซึ่งมีอาชีพ
صِف خَلقَ خَودِ كَمِثلِ الشَمسِ إِذ بَزَغَت
דג סקרן שט בים מאוכזב ולפתע מצא חברה
Tôi có thể ăn thủy tinh mà không hại gì.
Pchnąć w tę łódź jeża lub ośm skrzyń fig.
👩‍👩‍👧‍👦 family 🇩🇪🇯🇵 flags 👍🏽 thumbs ❤️‍🔥 heart 🧑🏿‍🚀
e\u0301 vs \u00e9, A\u030a vs \u00c5, \u1100\u1161\u11a8 vs \uac01, q\u0307\u0323 vs q\u0323\u0307
I'M HERE, DON'T YOU'LL WE'VE it\u2019s 'S 'T 'RE \u017f'\u017f x'\u017f
½ ² ³ Ⅷ ٣٤٥ १२३ 1234567890 12,345.678 1e-9 0x1F""".split("\n")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>", "<|start|>", "<|message|>",
           "<tool>", "[MASK]", "<|end", "<|im_start|", "caf\u00e9", "cafe\u0301", "word", "words"]


def corpus(rng):
    for _ in range(3000):
        yield " ".join(rng.choice(WORDS) for _ in range(rng.randint(5, 20))).capitalize() + rng.choice([".", "!", "?\n", "..."])
    for _ in range(60):
        yield from PHRASES
        yield "\n".join(CODE)
        yield str(rng.randint(0, 10**12))


def added(content, **options):
    return AddedToken(content, **{"special": True, "normalized": False, **options})


def tokenizer(pre_tokenizer, special, normalizer=None, **model):
    result = Tokenizer(models.BPE(**model))
    if normalizer:
        result.normalizer = normalizer
    result.pre_tokenizer = pre_tokenizer
    result.decoder = decoders.ByteLevel()
    result.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=pre.ByteLevel.alphabet(), show_progress=False)
    result.train_from_iterator(corpus(random.Random(1)), trainer)
    result.add_tokens(special)
    return result


def split_then_bytes(pattern):
    return pre.Sequence([pre.Split(Regex(pattern), "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2():
    return tokenizer(pre.ByteLevel(add_prefix_space=False), [added("<|endoftext|>")])


def llama3():
    result = tokenizer(split_then_bytes(LLAMA3), [added(t) for t in ("<|begin_of_text|>", "<|eot_id|>")], ignore_merges=True)
    bos = result.token_to_id("<|begin_of_text|>")
    template = processors.TemplateProcessing("<|begin_of_text|> $A", "<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                                             [("<|begin_of_text|>", bos)])
    result.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return result


def qwen():
    special = [added(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] + [added("<tool>", special=False)]
    return tokenizer(split_then_bytes(QWEN2), special, normalizers.NFC())


def gpt_oss():
    return tokenizer(split_then_bytes(O200K), [added("<|start|>"), added("<|message|>")], ignore_merges=True)


def mixed():
    """What the others do not use: more kinds of splits, a prefix space, and every option of added tokens."""
    parts = [pre.Split(Regex(r"\d{1,2}(?=\D)"), "merged_with_previous"), pre.Split("e ", "merged_with_next"),
             pre.Split(Regex(r"[A-Z]\w*"), "contiguous", invert=True), pre.Punctuation("isolated"), pre.Digits(True),
             pre.Split(Regex("x+|y*"), "removed"), pre.ByteLevel(add_prefix_space=True)]
    special = [added("[MASK]", lstrip=True), added("<tool>", rstrip=True), added("word", single_word=True),
               added("words", normalized=True, special=False), added("caf\u00e9", normalized=True),
               added("<|im_start|>", lstrip=True, rstrip=True, normalized=True), added("<|end", normalized=True)]
    result = tokenizer(pre.Sequence(parts), special, normalizers.Sequence([normalizers.NFC()]))
    end = result.token_to_id("[MASK]")
    result.post_processor = processors.TemplateProcessing("$A [MASK]", "$A $B", [("[MASK]", end)])
    return result


def sentencepiece(special, normalizer, decoder, pre_tokenizer=None):
    """A BPE of characters with bytes to fall back on; the special tokens come first, then the bytes."""
    result = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    result.normalizer, result.pre_tokenizer = normalizer, pre.Metaspace(prepend_scheme="never")
    reserved = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False, limit_alphabet=120, special_tokens=reserved)
    result.train_from_iterator(corpus(random.Random(1)), trainer)
    value = json.loads(result.to_str())
    value["added_tokens"] = value["added_tokens"][:3]
    value["pre_tokenizer"] = None
    result = Tokenizer.from_str(json.dumps(value))
    if pre_tokenizer:
        result.pre_tokenizer = pre_tokenizer
    result.decoder = decoder
    result.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    result.add_tokens(special)
    return result


MARK = "\u2581"


def mark_decoder(*more):
    return decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), *more])


def llama2():
    marks = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    return sentencepiece([], marks, mark_decoder(decoders.Strip(" ", 1, 0)))


def mistral():
    metaspace = pre.Metaspace(prepend_scheme="first", split=False)
    return sentencepiece([added("[INST]")], None, mark_decoder(decoders.Strip(" ", 1, 0)), metaspace)


def gemma():
    special = [added("<|start|>"), added("\n\n", special=False)]
    return sentencepiece(special, normalizers.Replace(" ", MARK), mark_decoder(), pre.Split(" ", "merged_with_previous"))


def unigram():
    result = Tokenizer(models.Unigram())
    result.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip(True, True), normalizers.Lowercase()])
    result.pre_tokenizer = pre.Metaspace(prepend_scheme="always")
    result.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=VOCABULARY, show_progress=False, unk_token="<unk>",
                                      special_tokens=["<pad>", "</s>", "<unk>"])
    result.train_from_iterator(corpus(random.Random(1)), trainer)
    result.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return result


def random_text(rng):
    pools = [
        lambda: rng.choice(WORDS),
        lambda: " " * rng.randint(1, 5),
        lambda: rng.choice([" ", "\n", "\t", "\r\n", "\n\n", " \n ", "\u00a0", "\u2003", "\u3000", "\u180e", "\u200b", "\x85"]),
        lambda: rng.choice(PHRASES)[:rng.randint(1, 40)],
        lambda: rng.choice(CODE)[:rng.randint(1, 40)],
        lambda: rng.choice(SPECIAL),
        lambda: str(rng.randint(0, 10 ** rng.randint(1, 9))),
        lambda: rng.choice("!?.,;:'\"()[]{}<>/\\|@#$%^&*-_=+`~\u2026\u2014\u00ab\u00bb"),
        lambda: "".join(chr(rng.randint(0, 0x7F)) for _ in range(rng.randint(1, 6))),
        lambda: "".join(assigned(rng, 0x3000) for _ in range(rng.randint(1, 6))),
        lambda: "".join(assigned(rng, 0x20000) for _ in range(rng.randint(1, 4))),
        lambda: rng.choice("aeoun") + "".join(chr(rng.randint(0x300, 0x34E)) for _ in range(rng.randint(1, 4))),
        lambda: rng.choice(["'s", "'S", "'ll", "'LL", "'Ve", "'d", "n't", "'\u017f"]),
    ]
    return "".join(rng.choice(pools)() for _ in range(rng.randint(1, 9)))


def assigned(rng, below):
    while True:
        code = rng.randrange(below)
        if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co"):
            return chr(code)


def cases():
    yield from ((t, 1) for t in ["", " ", "a", "\0", "\x7f", *PHRASES, *CODE, *SPECIAL, "\n".join(CODE)])
    for text in ["a", "aB", " ", "\n", " \n", "\t", "!", "1", "é", "中", "👍", "e\u0301\u0323", "the ", "<|endoftext|>", "'s", "word", "x"]:
        yield from ((text, n) for n in (2, 3, 7, 31, 33, 100, 3000))
    rng = random.Random(2)
    yield from ((random_text(rng), 1) for _ in range(2000))


def fnv(ids):
    return fnv_bytes(b"".join(i.to_bytes(4, "little") for i in ids))


def fnv_bytes(data):
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{value:08x}"


def main():
    out = pathlib.Path(sys.argv[1])
    made = {"gpt2": gpt2(), "llama3": llama3(), "qwen": qwen(), "gpt_oss": gpt_oss(), "mixed": mixed(),
            "llama2": llama2(), "mistral": mistral(), "gemma": gemma(), "unigram": unigram()}
    of_characters = ["llama2", "mistral", "gemma", "unigram"]
    for name, one in made.items():
        compact = json.dumps(json.loads(one.to_str()), ensure_ascii=False, separators=(",", ":"))
        if name == "gpt2":  # the older spelling of merges
            value = json.loads(compact)
            value["model"]["merges"] = [" ".join(pair) for pair in value["model"]["merges"]]
            compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        (out / f"tokenizer_{name}.json").write_text(compact + "\n")
        made[name] = Tokenizer.from_str(compact)
    every = {"bookworm": Tokenizer.from_file(str(ROOT / "models/bookworm-8m/tokenizer.json")), **made}
    lines = [{"tokenizers": list(every)}]
    for number, (text, repeat) in enumerate(cases()):
        ids = [one.encode(text * repeat).ids for one in every.values()]
        case = {"text": text, **({"repeat": repeat} if repeat != 1 else {})}
        case |= {"counts": [len(i) for i in ids], "hashes": [fnv(i) for i in ids]}
        case["texts"] = [fnv_bytes(every[name].decode(i, skip_special_tokens=False).encode())
                         for name, i in zip(every, ids) if name in of_characters]
        lines.append(case | ({"ids": ids[0]} if number < 60 else {}))
    text = "".join(json.dumps(line, ensure_ascii=True, separators=(",", ":")) + "\n" for line in lines)
    (out / "tokenizer_cases.jsonl").write_text(text)
    print(len(lines) - 1, "cases")


if __name__ == "__main__":
    main()
