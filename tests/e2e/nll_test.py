"""Every recipe's NLL against torchao's primitives on the same model: tests/golden/nll-*.json, made by tools/golden/make_nll.py."""
import json
import shutil

import lowp_cli
from lowp_cli import MODELS, Case

GOLDEN = MODELS.parent / "tests" / "golden"


def bound(recipe):
    """Nats: 0.006, or 0.02 where 4-bit activations or a scale over the tensor are involved."""
    weight, _, activation = recipe.partition("-")
    return 0.02 if activation.startswith(("mxfp4", "nvfp4")) or "_tensor" in recipe or weight == "nvfp4_single" else 0.006


class Nll(Case):
    def check(self, name):
        golden = json.loads((GOLDEN / f"nll-{name}.json").read_text())
        rows = {}
        for row in golden["results"]:
            rows.setdefault(row["recipe"], []).append(row)
        for recipe, expected in rows.items():
            out = self.folder / "out"
            self.lowp("quantize", MODELS / name, "--recipe", recipe, "--scales", "per-matrix", "-o", out)
            for row in expected:
                with self.subTest(recipe=recipe, compute=row["compute"]):
                    found = self.json("eval", out, "--text", GOLDEN / golden["text"], "--context", golden["context"], "--compute", row["compute"])
                    self.assertEqual(found["scored"], golden["scored"])
                    # int1's NLL is tens of nats: compare it relative to that.
                    self.assertLess(abs(found["nll"] - row["nll"]), bound(recipe) * max(1, row["nll"] / 5))
            shutil.rmtree(out)

    def test_dense(self):
        self.check("bookworm-8m")

    def test_mixture_of_experts(self):
        self.check("bookworm-moe-9m")


if __name__ == "__main__":
    lowp_cli.main()
