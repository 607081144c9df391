"""lowp cast: names, types and shapes of what it writes for every format, axes, scale layouts, and the way back."""
import array
import re
import struct
import unittest

import lowp_cli
from lowp_cli import Case, Tensor, normal, pack, read_file, transposed, unpack, write_file

N, K, EXPERTS = 160, 256, 3
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
ONE_BYTE = {"F8_E4M3", "F8_E5M2", "F8_E8M0", "U8"}


def rounded_up(x, unit):
    return -(-x // unit) * unit


def tiled(scales, h, w):
    """The 128 x 4 tiles of block-scaled matrix instructions (torchao's to_blocked)."""
    out = bytearray(rounded_up(h, 128) * rounded_up(w, 4))
    for r in range(h):
        for c in range(w):
            tile = r // 128 * (rounded_up(w, 4) // 4) + c // 4
            out[tile * 512 + r % 32 * 16 + r % 128 // 32 * 4 + c % 4] = scales[r * w + c]
    return bytes(out)


def tiled_m_groups(scales, h, w, ends):
    """Each group of rows tiled by itself, one after the other, then zeros up to [h + 128 groups, w up to 4]."""
    out = b"".join(tiled(scales[begin * w:end * w], end - begin, w) for begin, end in zip([0, *ends], ends))
    return out.ljust((h + 128 * len(ends)) * rounded_up(w, 4), b"\0")


def tiled_k_groups(scales, h, w, ends):
    """Each group of columns tiled by itself, then zeros up to [h up to 128, w + 4 groups]."""
    out = b""
    for begin, end in zip([0, *ends], ends):
        out += tiled(b"".join(scales[r * w + begin:r * w + end] for r in range(h)), h, end - begin)
    return out.ljust(rounded_up(h, 128) * (w + 4 * len(ends)), b"\0")


class Cast(Case):
    def setUp(self):
        super().setUp()
        self.input = self.folder / "in.safetensors"
        self.output = self.folder / "out.safetensors"

    def cast(self, tensors, form, *options):
        write_file(self.input, tensors)
        self.report = self.json("cast", self.input, "--format", form, "-o", self.output, *options)
        return read_file(self.output)[0]

    def decode(self, *options):
        self.lowp("cast", self.output, "--decode", "-o", self.folder / "back.safetensors", *options)
        return read_file(self.folder / "back.safetensors")[0]

    def formats(self):
        """Every format of the table, families with usual parameters: (name, row)."""
        found = []
        for row in self.json("recipes", "--formats"):
            for bits in range(1, 9) if "<B>" in row["format"] else [8]:
                name = row["format"].replace("<B>", str(bits)).replace("<G>", "64")
                element = re.fullmatch(r"u?int(\d)", row["element"])
                if element and "<B>" not in row["format"]:
                    bits = int(element[1])
                found.append((name, row | {"bits": bits, "group": row["group"].replace("G", "64")}))
        self.assertGreater(len(found), 40)
        return found

    def expected(self, row, n, k):
        """{field: (types, shape)} of a matrix, from the row and the issue's rules alone."""
        codes = {"e4m3": {"F8_E4M3", "U8"}, "e5m2": {"F8_E5M2", "U8"}, "e2m1": {"U8"}, "e2m3": {"U8"}, "e3m2": {"U8"}}
        element = row["element"]
        if element.startswith("uint"):
            codes[element] = {"U8"}
        rows, columns = ((size if part == "all" else int(part)) for size, part in zip((n, k), row["group"].split(" x ")))
        groups = (-(-n // rows), -(-k // columns))
        kind, *more = row["scale"].split(" + ")
        fields = {"data": (codes.get(element, {"I8"}), (n, k // 2 if element == "e2m1" else k)),
                  "scale": ({"e8m0": {"F8_E8M0", "U8"}, "e4m3": {"F8_E4M3", "U8"}}.get(kind, {"F32"}), groups)}
        if row["zero_point"]:
            fields["zero_point"] = ({"I8"} if row["zero_point"] == "integer" else {"F32"}, groups)
        if more:
            fields["tensor_scale"] = ({"F32"}, (1,))
        if row["format"].startswith("codebook"):
            fields["codebook"] = ({"F32"}, (16,))
        return fields

    def check_fields(self, found, base, fields, name, experts=None):
        self.assertEqual({n for n in found if n.startswith(base + ".")}, {f"{base}.{field}" for field in fields})
        for field, (types, shape) in fields.items():
            tensor = found[f"{base}.{field}"]
            if experts is not None:
                shape = (experts,) if field == "tensor_scale" else (experts, *shape)
            self.assertEqual((tensor.dtype in types, tensor.shape), (True, shape), f"{name}: {base}.{field} is {tensor[:2]}")


class Fields(Cast):
    def test_every_format(self):
        matrix, experts = normal(N, K, seed=1), normal(EXPERTS, 32, K, seed=2)
        one = [Tensor("BF16", (32, K), experts.data[e * 32 * K * 2:(e + 1) * 32 * K * 2]) for e in range(EXPERTS)]
        for name, row in self.formats():
            with self.subTest(name):
                found = self.cast({"a": matrix, "b": experts, "one": one[1]}, name)
                self.check_fields(found, "a", self.expected(row, N, K), name)
                self.check_fields(found, "b", self.expected(row, 32, K), name, EXPERTS)
                for field, tensor in found.items():  # an expert is cast as if it were alone
                    if field.startswith("one."):
                        size = len(tensor.data)
                        self.assertEqual(found["b" + field[3:]].data[size:2 * size], tensor.data, field)
                if row["element"] == "int8" and row["bits"] < 8:
                    codes, bits = unpack(found["a.data"]), row["bits"]
                    self.assertTrue(-(1 << bits - 1) <= min(codes) and max(codes) < 1 << bits - 1)
                    if bits > 1:  # the one bit of symmetric int1 is 0 for nearly everything
                        self.assertGreater(len(set(codes)), 1)
                if row["element"] == "uint4":
                    self.assertLessEqual(max(found["a.data"].data), 15)
                self.assertEqual({t["name"] for t in self.report["tensors"]}, {"a", "b", "one"})

    def test_elements(self):
        for name, dtype in [("bf16", "BF16"), ("f16", "F16"), ("f32", "F32"), ("e4m3", "F8_E4M3"), ("e5m2", "F8_E5M2"), ("e2m3", "U8")]:
            found = self.cast({"a": normal(4, 64, dtype="F32")}, name)
            self.assertEqual([(n, t.dtype, t.shape) for n, t in found.items()], [("a.data", dtype, (4, 64))], name)
        values = pack([1.0, 3.14159, -65504.0, 1e-8], "F32")
        self.assertEqual(self.cast({"a": Tensor("F32", (1, 4), values)}, "bf16")["a.data"].data, pack([1.0, 3.14159, -65504.0, 1e-8], "BF16"))

    def test_input_types(self):
        """Powers of two are the same in every input type, and so are their codes."""
        values = [(-1) ** i * 2.0 ** (i % 7 - 3) for i in range(4 * 64)]
        for name in ("mxfp8", "mxfp4", "nvfp4"):  # the other scales are rounded in the input type
            results = [self.cast({"a": Tensor(t, (4, 64), pack(values, t))}, name)["a.data"] for t in ("BF16", "F16", "F32")]
            self.assertTrue(results[0] == results[1] == results[2], name)

    def test_what_is_not_a_matrix_is_listed(self):
        tensors = {"a": normal(4, 64), "norm": normal(64), "ids": Tensor("I64", (2, 2), bytes(32)), "conv": normal(2, 2, 2, 2)}
        found = self.cast(tensors, "mxfp8")
        self.assertEqual({n.split(".")[0] for n in found}, {"a"})
        self.assertEqual(sorted(s.split()[0] for s in self.report["skipped"]), ["conv", "ids", "norm"])
        self.assertIn("not cast: norm", self.lowp("cast", self.input, "--format", "mxfp8", "-o", self.output))

    def test_scaling(self):
        """floor is the default; the scale of a block that ends at 449: rceil and ceil go up, floor and even differ by mode."""
        tensor = {"a": Tensor("F32", (1, 32), pack([449.0] + [0.0] * 31, "F32"))}
        scales = {mode: self.cast(tensor, "mxfp8", "--scaling", mode)["a.scale"].data[0] for mode in ("floor", "ceil", "even", "rceil")}
        self.assertEqual(scales, {"floor": 127, "ceil": 128, "even": 127, "rceil": 128})
        self.assertEqual(self.cast(tensor, "mxfp8")["a.scale"].data[0], 127)

    def test_nan(self):
        values = pack([1.0] * 63 + [float("nan")], "F32")
        found = self.cast({"a": Tensor("F32", (1, 64), values)}, "mxfp8")
        self.assertEqual((found["a.scale"].data[0] != 255, found["a.scale"].data[1]), (True, 255))
        self.assertEqual(found["a.data"].data[32:], b"\x7f" * 32)
        self.assertIsNone(self.report["tensors"][0]["sqnr"])
        for name in ("int8", "fp8", "nvfp4", "int4_g32", "int4_g32_float", "codebook4_g64"):
            self.refused("cast", self.input, "--format", name, "-o", self.folder / "no", words=["'a'", "nan", "[0, 63]"])
        self.assertFalse((self.folder / "no").exists())


class Values(Cast):
    """The published meaning of the fields gives what --decode gives."""

    def check(self, name, value):
        found = self.cast({"a": normal(4, 128, dtype="F32", sigma=1)}, name)
        fields = {n[2:]: list(t.data) if t.dtype in ONE_BYTE else unpack(t) for n, t in found.items()}
        group = 128 * 4 // len(fields["scale"])
        expected = array.array("f", (value(fields, i, i // group) for i in range(4 * 128)))
        self.assertEqual(list(unpack(self.decode("--dtype", "f32")["a"])), list(expected), name)

    def test_integers(self):
        for name in ("int8", "int8_tensor", "int8_g32", "int4_g64", "int3_channel", "int1_g32", "int4_g128_sym8"):
            self.check(name, lambda f, i, g: f["data"][i] * f["scale"][g])
        for name in ("int8_asym", "int4_g64_asym", "int2_channel_asym"):
            self.check(name, lambda f, i, g: (f["data"][i] - f["zero_point"][g]) * f["scale"][g])

    def test_fp4(self):
        def code(f, i):
            return E2M1[f["data"][i // 2] >> 4 * (i % 2) & 15]

        def e4m3(byte):  # of scales: positive and normal
            return (1 + byte % 8 / 8) * 2.0 ** (byte // 8 - 7)
        self.check("mxfp4", lambda f, i, g: code(f, i) * 2.0 ** (f["scale"][g] - 127))
        self.check("nvfp4_single", lambda f, i, g: code(f, i) * e4m3(f["scale"][g]))
        self.check("nvfp4", lambda f, i, g: code(f, i) * struct.unpack("f", struct.pack("f", f["tensor_scale"][0] * e4m3(f["scale"][g])))[0])

    def test_codebook(self):
        self.check("codebook4_g64", lambda f, i, g: f["codebook"][f["data"][i]] * f["scale"][g])

    def test_close(self):
        """Coming back loses no more than the format has to."""
        original = normal(32, 256, dtype="F32", sigma=1)
        for name, row in self.formats():
            if row["bits"] < 4:
                continue
            with self.subTest(name):
                self.cast({"a": original}, name)
                sqnr = self.report["tensors"][0]["sqnr"]
                found, expected = unpack(self.decode("--dtype", "f32")["a"]), unpack(original)
                noise = sum((x - y) ** 2 for x, y in zip(found, expected)) / sum(x * x for x in expected)
                self.assertAlmostEqual(10 ** (-sqnr / 10), noise, delta=noise / 1e3)
                self.assertLess(noise, 10 ** -1.6)


class Axes(Cast):
    def test_n_is_the_cast_of_the_transposed(self):
        for shape in [(256, 128), (2, 256, 128)]:
            original = normal(*shape, seed=5)
            for name, row in self.formats():
                if row["bits"] not in (4, 8):
                    continue
                with self.subTest(name=name, shape=shape):
                    along_k = self.cast({"a": transposed(original)}, name)
                    values = self.decode("--dtype", "f32")["a"]
                    along_n = self.cast({"a": original}, name, "--axis", "n")
                    self.assertEqual(set(along_n), set(along_k))
                    for field, tensor in along_k.items():
                        swapped = field in ("a.scale", "a.zero_point")
                        self.assertEqual(along_n[field], transposed(tensor) if swapped else tensor, field)
                    self.assertEqual(self.decode("--dtype", "f32")["a"], transposed(values))

    def test_both(self):
        original = normal(128, 256)
        for name in ("mxfp8", "nvfp4", "int4_g32_asym", "fp8_block128", "codebook4_g64"):
            with self.subTest(name):
                n = self.cast({"a": original}, name, "--axis", "n")
                k = self.cast({"a": original}, name)
                values = self.decode()
                both = self.cast({"a": original}, name, "--axis", "both")
                self.assertEqual(both, k | {field + "_n": tensor for field, tensor in n.items()})
                self.assertEqual(self.decode(), values)


class Layouts(Cast):
    def one_byte_scale(self):
        return [name for name, row in self.formats() if row["scale"].startswith(("e8m0", "e4m3"))]

    def check(self, name, tensors, layout, ends, expected, *axis):
        """expected(name of tensor, its scales as rows, h, w) gives bytes and shape."""
        axis_n = axis == ("--axis", "n")
        rows = self.cast(tensors, name, *axis)
        values = self.decode()
        extra = {"ends": ends} if ends else {}
        found = self.cast(tensors | extra, name, *axis, "--scale-layout", layout, *(["--group-ends", "ends"] if ends else []))
        self.assertEqual(set(found), set(rows))
        for field, tensor in rows.items():
            if not field.endswith(".scale"):
                self.assertEqual(found[field], tensor)
                continue
            tensor = transposed(tensor) if axis_n else tensor
            data, shape = expected(tensor.data, *tensor.shape)
            self.assertEqual(found[field], Tensor("U8", shape, data), f"{name} {layout} {field}")
        self.assertEqual(self.decode(), values)

    def test_tiled(self):
        def matrix(scales, h, w):
            return tiled(scales, h, w), (32 * (rounded_up(h, 128) // 128), 16 * (rounded_up(w, 4) // 4))
        for name in self.one_byte_scale():
            for axis in ((), ("--axis", "n")):
                self.check(name, {"a": normal(N, K)}, "tiled", None, matrix, *axis)

    def test_tiled_3d(self):
        """Of whole tiles of rows: experts one after the other."""
        def experts(scales, e, h, w):
            return tiled(scales, e * h, w), (32 * (e * h // 128), 16 * (rounded_up(w, 4) // 4))
        self.check("mxfp8", {"a": normal(2, 128, 64)}, "tiled", None, experts)

    def test_tiled_per_expert(self):
        def experts(scales, e, h, w):
            return (b"".join(tiled(scales[i * h * w:(i + 1) * h * w], h, w) for i in range(e)),
                    (e, rounded_up(h, 128) * rounded_up(w, 4)))
        for name in ("mxfp8", "mxfp4", "nvfp4"):
            for axis in ((), ("--axis", "n")):
                self.check(name, {"a": normal(EXPERTS, N, 192)}, "tiled_per_expert", None, experts, *axis)

    def test_tiled_m_groups(self):
        for ends in ([100, 100, 160], [160], [0, 1, 160], [128, 160]):
            stored = Tensor("I32", (len(ends),), array.array("i", ends).tobytes())

            def groups(scales, h, w):
                return tiled_m_groups(scales, h, w, ends), (h + 128 * len(ends), rounded_up(w, 4))
            self.check("mxfp8", {"a": normal(N, K)}, "tiled_m_groups", stored, groups)

    def test_tiled_k_groups(self):
        for ends in ([64, 64, 256], [256], [32, 224, 256]):
            stored = Tensor("I64", (len(ends),), array.array("q", ends).tobytes())

            def groups(scales, h, w):
                return tiled_k_groups(scales, h, w, [end // 32 for end in ends]), (rounded_up(h, 128), w + 4 * len(ends))
            self.check("mxfp8", {"a": normal(N, K)}, "tiled_k_groups", stored, groups)
            self.check("mxfp8", {"a": normal(K, N)}, "tiled_k_groups", stored, groups, "--axis", "n")

    def test_refusals(self):
        write_file(self.input, {"a": normal(N, K), "b": normal(2, 32, K), "ends": Tensor("I32", (2,), array.array("i", [64, 160]).tobytes()),
                                "down": Tensor("I32", (2,), array.array("i", [200, 160]).tobytes()), "float": normal(2)})
        for options, words in [(["--scale-layout", "tiled", "--format", "int8"], ["one-byte", "int8"]),
                               (["--scale-layout", "tiled_m_groups"], ["--group-ends"]),
                               (["--scale-layout", "tiled_m_groups", "--group-ends", "no"], ["'no'"]),
                               (["--scale-layout", "tiled_m_groups", "--group-ends", "float"], ["'float'", "I32", "BF16"]),
                               (["--scale-layout", "tiled_m_groups", "--group-ends", "down"], ["160 after 200"]),
                               (["--scale-layout", "tiled_k_groups", "--group-ends", "ends"], ["8"]),
                               (["--scale-layout", "tiled_m_groups", "--group-ends", "ends"], ["'b'", "2-D"]),
                               (["--scale-layout", "tiled"], ["'b'", "tiled_per_expert"]),
                               (["--group-ends", "ends"], ["--scale-layout"]),
                               (["--scale-layout", "zigzag"], ["zigzag"]), (["--axis", "m"], ["m"]), (["--scaling", "up"], ["up"]),
                               (["--device", "cuda"], ["cuda"])]:
            with self.subTest(options):
                options = options if "--format" in options else options + ["--format", "mxfp8"]
                self.refused("cast", self.input, "-o", self.output, *options, code=2, words=words)
                self.assertEqual(self.names(), ["in.safetensors"])


def philox(seed, index):
    """The first word of Philox4x32-10 for a key and a counter."""
    a, b, c, d = index & 0xFFFFFFFF, index >> 32, 0, 0
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (right >> 32) ^ b ^ k0, right & 0xFFFFFFFF, (left >> 32) ^ d ^ k1, left & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return a


class Training(Cast):
    """Rounding by chance and the Hadamard transform."""
    CPU = ("--device", "cpu")

    def test_codes_follow_from_seed_and_place(self):
        x, seed = normal(2, 16, 64), 0x123456789
        found = self.cast({"a": x}, "mxfp4", "--rounding", "stochastic", "--seed", str(seed), *self.CPU)
        nearest = self.cast({"a": x}, "mxfp4", *self.CPU)
        self.assertEqual(found["a.scale"], nearest["a.scale"])
        for i, value in enumerate(unpack(x)):
            scaled = abs(value) / 2.0 ** (found["a.scale"].data[i // 32] - 127)
            low = max(c for c in range(8) if E2M1[c] <= scaled)
            if low < 7 and (philox(seed, i) >> 8) / 2 ** 24 < (scaled - E2M1[low]) / (E2M1[low + 1] - E2M1[low]):
                low += 1
            code = found["a.data"].data[i // 2] >> i % 2 * 4 & 15
            self.assertEqual(code & 7, low, (i, value))

    def test_another_seed_gives_other_codes(self):
        x = {"a": normal(N, K)}
        for name in ("mxfp8", "nvfp4", "fp8", "nvfp4_training", "nvfp4_training_block16"):
            one, same, other = (self.cast(x, name, "--rounding", "stochastic", "--seed", seed, *self.CPU)["a.data"]
                                for seed in ("7", "7", "8"))
            self.assertEqual(one, same, name)
            self.assertNotEqual(one, other, name)

    def test_hadamard(self):
        signs = [1, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, 1, -1, 1, -1, -1]
        x = normal(4, 64)
        self.cast({"a": x}, "mxfp8", "--hadamard", "--scaling", "rceil", *self.CPU)  # floor would saturate some
        found, values = unpack(self.decode("--dtype", "f32")["a"]), unpack(x)
        for i in range(len(values)):
            first, j = i // 16 * 16, i % 16
            expected = sum(values[first + k] * signs[k] * (-1) ** bin(j & k).count("1") for k in range(16)) / 4
            self.assertAlmostEqual(found[i], expected, delta=0.07 * abs(expected) + 0.002, msg=i)

    def test_refusals(self):
        write_file(self.input, {"a": normal(4, 40)})
        for options, code, words in [(["--format", "mxfp8", "--seed", "1"], 2, ["--seed", "--rounding"]),
                                     (["--format", "int8", "--rounding", "stochastic"], 1, ["'a'", "int8", "stochastic"]),
                                     (["--format", "fp8", "--hadamard"], 1, ["'a'", "K = 40", "16"])]:
            with self.subTest(options):
                self.refused("cast", self.input, "-o", self.output, *options, *self.CPU, code=code, words=words)


class Decode(Cast):
    def test_types(self):
        for name, row in self.formats():
            if row["bits"] not in (4, 8) or row["zero_point"] == "float":  # whose parts are rounded to the output's type first
                continue
            self.cast({"a": normal(16, 256), "b": normal(2, 16, 256)}, name)
            exact, short = self.decode("--dtype", "f32"), self.decode("--dtype", "bf16")
            self.assertEqual(short, self.decode())
            for tensor in "a", "b":
                self.assertEqual((exact[tensor].dtype, short[tensor].dtype), ("F32", "BF16"))
                self.assertEqual(short[tensor].data, pack(unpack(exact[tensor]), "BF16"), name)

    def test_file_of_others(self):
        """Without our metadata the format is to be said, and one-byte types may be U8."""
        for name, options in [("mxfp8", []), ("mxfp8", ["--scale-layout", "tiled"]), ("nvfp4", ["--axis", "n"])]:
            found = self.cast({"a": normal(32, 128)}, name, *options)
            values = self.decode()
            write_file(self.output, {n: t._replace(dtype="U8") if t.dtype in ONE_BYTE else t for n, t in found.items()})
            self.refused("cast", self.output, "--decode", "-o", self.folder / "no", code=2, words=["--format"])
            self.assertEqual(self.decode("--format", name, *options), values)

    def test_bad_files(self):
        good = self.cast({"a": normal(4, 64)}, "int4_g64_asym")
        codes = self.cast({"a": normal(4, 64)}, "codebook4_g64")
        f6 = self.cast({"a": normal(4, 64)}, "mxfp6")
        cases = [("int4_g64_asym", {n: t for n, t in good.items() if n != "a.scale"}, ["a.scale", "missing"]),
                 ("int4_g64_asym", good | {"a.scale": normal(4, 2, dtype="F32")}, ["a.scale", "[4, 1]", "[4, 2]"]),
                 ("int4_g64_asym", good | {"a.scale": normal(4, 1)}, ["a.scale", "BF16"]),
                 ("int4_g64_asym", good | {"a.data": Tensor("I8", (4, 64), bytes([8]) * 256)}, ["a.data", "8", "-8 to 7"]),
                 ("int4_g64_asym", good | {"a.data": normal(4, 64)}, ["a.data", "BF16"]),
                 ("int4_g64_asym", good | {"a.data": Tensor("I8", (4, 63), bytes(252))}, ["a", "K = 63"]),
                 ("int4_g64_asym", good | {"a.data": Tensor("I8", (256,), bytes(256))}, ["a.data", "[256]"]),
                 ("codebook4_g64", codes | {"a.data": Tensor("U8", (4, 64), bytes([16]) * 256)}, ["a.data", "16", "0 to 15"]),
                 ("codebook4_g64", codes | {"a.codebook": normal(15, dtype="F32")}, ["a.codebook", "[16]", "[15]"]),
                 ("mxfp6", f6 | {"a.data": Tensor("U8", (4, 64), bytes([64]) * 256)}, ["a.data", "64", "0 to 63"]),
                 ("mxfp8", {"x": normal(4)}, ["*.data"]), ("bf16", {".data": normal(4, 4)}, ["'.data'"])]
        for name, tensors, words in cases:
            with self.subTest(words):
                write_file(self.input, tensors)
                self.refused("cast", self.input, "--decode", "--format", name, "-o", self.folder / "no", words=["in.safetensors", *words])
                self.assertFalse((self.folder / "no").exists())
        for note in ("[]", "{}", "5", "{", '{"format": 1}', '{"format": "mxfp8", "axis": "k", "scale_layout": "rows", "group_ends": "x"}',
                     '{"format": "mxfp8", "axis": "m", "scale_layout": "rows", "group_ends": []}',
                     '{"format": "mxfp8", "axis": "k", "scale_layout": "zigzag", "group_ends": []}'):
            write_file(self.input, good, {"lowp.cast": note})
            self.refused("cast", self.input, "--decode", "-o", self.folder / "no", words=["lowp.cast"])


if __name__ == "__main__":
    lowp_cli.main()
