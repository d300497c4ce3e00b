"""The logic of bench/: verdicts, quartiles, targets, rows of tables, growth, intervals. usage: bench_test.py"""

import importlib.util
import pathlib
import re
import sys
import unittest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH / "peers"))


def load(name):
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


import table

revisions, peers, scaling = load("compare"), load("peers/compare"), load("scaling")
kernels, precision, curve, onednn = load("kernels"), load("precision"), load("peers/curve"), load("peers/onednn")


class Verdict(unittest.TestCase):
    def test_quartiles_apart(self):
        self.assertEqual(revisions.verdict([10, 10.1, 9.9], [5, 5.1, 4.9]), ("faster", 0.5))
        self.assertEqual(revisions.verdict([5, 5.1, 4.9], [10, 10.1, 9.9]), ("slower", 2))

    def test_same_needs_close_medians_and_a_small_spread(self):
        self.assertEqual(revisions.verdict([10, 10.1, 9.9], [10.1, 10.2, 10])[0], "same")
        self.assertEqual(revisions.verdict([5, 10, 15], [5, 10, 15])[0], "unclear")

    def test_a_small_but_clear_gap_is_no_gain(self):
        self.assertEqual(revisions.verdict([100, 100.1, 100.2], [98, 98.1, 98.2])[0], "same")

    def test_overlapping_quartiles_decide_nothing(self):
        self.assertEqual(revisions.verdict([8, 10, 12], [7, 9, 11])[0], "unclear")

    def test_case_of_one_side_only(self):
        self.assertIn("only in b", revisions.report({"new": ([], [1, 2])}, ("a", "b")))


class Peers(unittest.TestCase):
    @staticmethod
    def entry(seconds, ratio=None):
        e = {"seconds": peers.summary(seconds), "peak_anonymous_bytes": 2**30, "difference": 1e-6,
             "implementation": "it"}
        return e | {"ratio": {"of_medians": ratio, "paired": peers.summary([ratio])}} if ratio else e

    def record(self):
        found = {
            "voxlab": self.entry([1, 2, 3, 4, 5]),
            "eager": self.entry([12, 12, 12], 4.0),
            "openvino": self.entry([9, 9, 9], 3.0),
            "compile": {"failed": "Error: a|b"},
        }
        return {
            "threads": 2, "warmup": 1, "revision": "r", "peaks": None,
            "machine": {"cpu": "c", "cores": 2, "load_before": 0, "has": ["avx512f"], "lacks": ["amx_tile"]},
            "networks": {"levit_unet/384": {"multiply_adds": {"infer": 1e9}, "infer": {"f32": found},
                                            "train": {"f32": dict(found)}, "plan": {"infer": {"f32": self.plan()}}}},
        }

    @staticmethod
    def plan():
        kernels = [{"op": "conv", "kernel": f"k{i} fwd", "seconds": 1.6 / 2**i, "bound_seconds": b}
                   for i, b in enumerate((0.8, 0.6, 0.08, 0.02))]
        return {"end_to_end_seconds": 3.2, "bound_seconds": 1.5, "kernels": kernels, "revision": "r"}

    def test_quartiles_by_hand(self):
        s = peers.summary([5, 1, 4, 2, 3])
        self.assertEqual((s["median"], s["quartiles"], s["min"], s["max"], s["n"]), (3, [2, 4], 1, 5, 5))
        self.assertEqual(peers.summary([7])["quartiles"], [7, 7])

    def test_inference_is_held_against_any_peer_and_training_against_eager(self):
        rows = table.target_rows(self.record(), table.load_targets())
        self.assertEqual(rows, [
            "| levit_unet/384 | inference | f32 | openvino | 3.00 | 4 | not met | 2.250 | 1.500 |",
            "| levit_unet/384 | training step | f32 | eager | 4.00 | 4 | met | 3.000 | - |",
        ])

    def test_targets_that_no_plan_can_meet_are_told_apart(self):
        record = self.record()
        record["networks"]["levit_unet/384"]["plan"]["infer"]["f32"]["bound_seconds"] = 2.5  # 9 s / 4 are allowed
        self.assertIn("| 4 | not met, below the bounds | 2.250 | 2.500 |", table.target_rows(record, table.load_targets())[0])

    def test_largest_kernels_of_rows_not_met(self):
        targets = table.load_targets()
        row = "| levit_unet/384 | inference | f32 | 3.200 | 47 | conv, k0 fwd: 50 at 50 | conv, k1 fwd: 25 at 75 |"
        self.assertEqual(table.bound_rows(self.record(), targets, 2), [row])
        targets["infer"]["f32"]["levit_unet/384"] = 3
        self.assertEqual(table.bound_rows(self.record(), targets, 2), [])

    def test_share_of_the_floor(self):
        self.assertEqual(table.share_rows(self.record(), 0.5), ["| levit_unet/384 | 3.200 | 1.500 | 47 | 50 | not met |"])

    def test_a_failure_stands_in_the_table(self):
        text = table.markdown(self.record())
        self.assertIn("| levit_unet/384 | f32 | compile | failed: Error: a\\|b |", text)
        self.assertIn("this one is not", text)
        self.assertIn("floor column is left out", text)

    def test_floor(self):
        record = self.record()
        record["peaks"] = {"f32_gflops": 100, "bf16_gflops": 600, "copy_gbytes_per_s": 10}
        entry = record["networks"]["levit_unet/384"]["infer"]["f32"]["voxlab"]
        self.assertAlmostEqual(table.floor(record, "levit_unet/384", "infer", "f32", entry), 0.02)
        entry["implementation"] = "it, bf16x3"  # three products of 600 Gflop/s
        self.assertAlmostEqual(table.floor(record, "levit_unet/384", "infer", "f32", entry), 0.01)
        columns = {row.replace("\\|", "").count("|") for row in table.engine_table(record, "infer")}
        self.assertEqual(columns, {10})

    def test_every_target_is_there(self):
        targets = table.load_targets()
        for mode in ("infer", "train"):
            for precision in table.PRECISIONS:
                self.assertEqual(set(targets[mode][precision]) - {"against"}, set(table.NETWORKS))


class Scaling(unittest.TestCase):
    def test_exponent(self):
        self.assertAlmostEqual(scaling.slope([(10, 1), (100, 100), (1000, 10000)]), 2)

    def test_figure_names_axes_and_series(self):
        record = {"sizes": {"unetr_pp": {"32": {"median": 0.01}, "64": {"median": 0.1}, "96": {"failed": "x"}}}}
        svg = scaling.figure(record)
        for text in ("input (voxels)", "inference (s)", ">unetr_pp<", ">0.01<", ">0.1<"):
            self.assertIn(text, svg)
        self.assertEqual(svg.count("<circle"), 2)


class Kernels(unittest.TestCase):
    @staticmethod
    def found():
        def kernel(op, name, seconds, backward=False):
            return {"op": op, "kernel": name, "backward": backward, "seconds": seconds, "calls": 1, "macs": 10**9,
                    "bytes": 10**6, "bound_seconds": seconds / 2}

        def layer(name, *kernels):
            total = {key: sum(k[key] for k in kernels) for key in ("seconds", "macs", "bytes", "bound_seconds")}
            return {"layer": name, "kernels": list(kernels), **total}

        return {"title": "inference of it", "runs": 3, "end_to_end_seconds": 1.0, "unattributed_seconds": 0.04,
                "peaks": {"f32_gflops": 1, "bf16_gflops": 1, "copy_gbytes_per_s": 1},
                "layers": [layer("a", kernel("conv", "cpu.conv", 0.5), kernel("resize", "ref.resize", 0.02)),
                           layer("b", kernel("conv", "cpu.conv", 0.4), kernel("conv", "cpu.conv", 0.04, True))]}

    def test_a_kernel_of_two_layers_is_one_row(self):
        rows = kernels.by_kernel(self.found())
        self.assertEqual(rows[0][0], ("fwd", "conv", "cpu.conv"))
        self.assertAlmostEqual(rows[0][1]["seconds"], 0.9)
        self.assertEqual(rows[0][1]["calls"], 2)
        self.assertEqual([key[0] for key, _ in rows], ["fwd", "bwd", "fwd"])

    def test_reference_kernels_are_found(self):
        self.assertAlmostEqual(kernels.fallback_share(self.found()), 0.02)

    def test_rows_of_the_table(self):
        text = "\n".join(kernels.section("it", self.found(), 1, 1))
        self.assertIn("| a | 520.0 | 52.0 | 8 | 0.0 | 50 |", text)
        self.assertIn("| conv: cpu.conv | fwd | 2 | 900.0 | 90.0 | 4 | 0.0 | 50 |", text)
        self.assertIn("unattributed 4.0 %", text)
        self.assertNotIn("| b |", text)


class OneDnn(unittest.TestCase):
    def test_shapes_are_those_of_the_benchmarks(self):
        source = (BENCH / "dense_bench.cpp").read_text()
        for shape in onednn.SHAPES:
            if not re.fullmatch(r"k3_\d+-\d+_\d+x\d+", shape):  # those names are put together there
                self.assertIn(f'"{shape}"', source)

    def test_geometry_of_a_name(self):
        self.assertEqual(onednn.geometry("k3s2_32-64_128x96x64"), {
            "kernel": 3, "stride": 2, "channels": 32, "out": 64, "groups": 1, "size": [128, 96, 64]})
        self.assertEqual(onednn.geometry("dw3_128_56x56"), {
            "kernel": 3, "stride": 1, "channels": 128, "out": 128, "groups": 128, "size": [56, 56]})
        self.assertEqual(onednn.passes("k3_4-32_128x128x128"), ["forward", "wgrad"])

    def test_rows_and_means(self):
        case = {"level": "avx2", "pass": "dgrad", "shape": "s", "kernel": "k"}
        record = {"threads": 2, "machine": {"cpu": "c"}, "revision": "r", "version": "v",
                  "cases": [case | {"voxlab": [1, 2, 3], "onednn": [8, 8, 9]}, case | {"voxlab": [12], "onednn": [9]}]}
        text = onednn.markdown(record)
        self.assertIn("| avx2 | dgrad | s | 3 | 2.00 | k | 8.00 | 4.00 | met |", text)
        self.assertIn("| avx2 | dgrad | s | 1 | 12.00 | k | 9.00 | 0.75 | not met |", text)
        self.assertIn("- avx2: geometric mean of the ratios 1.73, least 0.75", text)


class Precision(unittest.TestCase):
    def test_quantiles_of_t(self):  # from printed tables
        for freedom, expected in ((10, 2.2281), (30, 2.0423), (51, 2.0076), (120, 1.9799)):
            self.assertAlmostEqual(precision.quantile_of_t(freedom), expected, places=3)

    def test_seeds_of_a_case_are_averaged_before_the_interval(self):
        reference = {0: {"a": 0.8, "b": 0.6}, 1: {"a": 0.8, "b": 0.6}}
        other = {0: {"a": 0.82, "b": 0.6}, 1: {"a": 0.8, "b": 0.62}}
        found = precision.paired(reference, other)  # both cases: 0.01 on average
        self.assertAlmostEqual(found["mean"], 0.01)
        self.assertAlmostEqual(found["interval"][0], 0.01)
        self.assertEqual((found["cases"], found["seeds"]), (2, 2))


class Curve(unittest.TestCase):
    record = {
        "config": "c.toml", "set": [], "seed": 0, "machine": {"cpu": "p"}, "threads": 2, "revision": "r", "every": 5, "cases": 3,
        "points": {
            "voxlab, strict": [{"step": 5, "seconds": 60.4, "dice": 0.7}, {"step": 10, "seconds": 120, "dice": 0.8}],
            "PyTorch eager, f32": [{"step": 10, "seconds": 300, "dice": 0.81}],
        },
    }

    def test_a_step_that_one_side_lacks_stays_empty(self):
        rows = curve.markdown(self.record, "curve").splitlines()
        self.assertIn("| 5 | 60 | 0.7000 |  |  |", rows)
        self.assertIn("| 10 | 120 | 0.8000 | 300 | 0.8100 |", rows)

    def test_every_point_is_drawn_in_proportion(self):
        drawn = curve.figure(self.record)
        self.assertEqual(drawn.count("<circle"), 3)
        # 64 + 552 x / (1.05 x 5 min); 360 - 336 (y - 0.5) / 0.45
        self.assertIn(f'cx="{64 + 552 * 5 / 5.25:.1f}" cy="{360 - 336 * 0.31 / 0.45:.1f}"', drawn)


if __name__ == "__main__":
    unittest.main()
