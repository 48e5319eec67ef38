"""The shop's stages, each run on its own: a folder in the place of /pfs, and what comes out of it.

    python3 -m unittest discover -s examples/shop/tests

Needs busybox and g++, as the images do. The two stages that import pandas and scikit-learn
(features and train) run in their image only; the demo checks what they give.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

SHOP = pathlib.Path(__file__).resolve().parent.parent
STAGES = SHOP / "stages"
sys.path.insert(0, str(STAGES / "modelling"))

import forecast  # noqa: E402
import predict  # noqa: E402

TOOLS = None  # a folder with busybox's applets and the compiled mask


def setUpModule():
    global TOOLS
    TOOLS = pathlib.Path(tempfile.mkdtemp())
    busybox = shutil.which("busybox")
    for name in subprocess.run(
        [busybox, "--list"], capture_output=True, text=True, check=True
    ).stdout.split():
        (TOOLS / name).symlink_to(busybox)
    source, program = str(STAGES / "mask/mask.cc"), str(TOOLS / "mask")
    subprocess.run(
        ["g++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-o", program, source],
        check=True,
    )


def tearDownModule():
    shutil.rmtree(TOOLS)


class StageTest(unittest.TestCase):
    def setUp(self):
        self.pfs = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.pfs)
        (self.pfs / "out").mkdir()

    def put(self, path, *lines):
        file = self.pfs / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def out(self, path):
        return (self.pfs / "out" / path).read_text(encoding="utf-8").splitlines()

    def rows(self, path):
        header, *rows = [line.split("\t") for line in self.out(path)]
        return [dict(zip(header, row)) for row in rows]

    def run_stage(self, *command, ok=True, **env):
        done = subprocess.run(
            command, env={"PATH": str(TOOLS), "PFS": str(self.pfs), **env},
            capture_output=True, text=True,
        )  # fmt: skip
        self.assertEqual(done.returncode == 0, ok, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def run_python(self, path, **options):
        return self.run_stage(sys.executable, str(STAGES / path), **options)

    def run_shell(self, path, **options):
        return self.run_stage(str(TOOLS / "sh"), str(STAGES / path), **options)


ORDERS = (
    "order_line,order_id,synthetic_ordered_at,ship_date,ship_mode,customer_id,customer_name,"
    "synthetic_ship_to,synthetic_card,product_id,quantity,sales,discount,profit,"
    "synthetic_shipping_fee,synthetic_weight"
)
ORDER = (
    '7,CA-1,11/08/2014 7:45 PM -0600,2014-11-09,First Class,AB-1,Ann Bo,"12 Oak Lane, Belleville,'
    ' New Jersey 7109",4111 2222 3333 4444,P-1,2,19.5,0,3.14159,9.99,2.000 lb'
)


class Standardize(StageTest):
    def order(self, line=ORDER):
        self.put("orders/2014-11.csv", ORDERS, line)
        self.run_python("standardize/standardize.py")
        return self.rows("orders/2014-11.tsv")[0]

    def test_an_order_of_the_old_system(self):
        row = self.order()
        self.assertEqual(row["ordered_utc"], "2014-11-09T01:45:00Z")
        self.assertEqual(row["zip"], "07109")  # the leading zero that the export lost
        self.assertEqual(row["street"], "12 Oak Lane")
        self.assertEqual(row["weight_g"], "907")
        self.assertEqual((row["sales"], row["profit"]), ("19.50", "3.14"))

    def test_an_order_of_the_new_system(self):
        row = self.order(
            ORDER.replace("11/08/2014 7:45 PM -0600", "2016-11-08T00:05:00-05:00").replace(
                "2.000 lb", "640 g"
            )
        )
        self.assertEqual(row["ordered_utc"], "2016-11-08T05:05:00Z")
        self.assertEqual(row["weight_g"], "640")

    def test_customers_get_an_age_range(self):
        header = (
            "customer_id,customer_name,synthetic_street,synthetic_card,synthetic_age,synthetic_vip"
        )
        ages = {
            18: "18-24",
            24: "18-24",
            25: "25-34",
            34: "25-34",
            35: "35-44",
            64: "55-64",
            65: "65+",
            89: "65+",
        }
        self.put("customers/customers.csv", header, *(f"C{age},N,S,K,{age},no" for age in ages))
        self.run_python("standardize/standardize.py")
        got = {row["customer_id"]: row["age_range"] for row in self.rows("customers/customers.tsv")}
        self.assertEqual(got, {f"C{age}": text for age, text in ages.items()})

    def test_colours_and_sizes_come_from_the_product_name(self):
        names = {
            'Fax Paper, 8 1/2"" x 11"", Gray': ("grey", "21.6x27.9"),
            'Howard Miller 13-3/4"" Round Wall Clock': ("unknown", "34.9"),
            "Global Task Chair, Black": ("black", "unknown"),
            "Mahogany Blackboard": ("brown", "unknown"),  # a colour is a whole word
        }
        header = "product_id,product_name,product_group,category,synthetic_stock"
        self.put(
            "products/products.csv", header, *(f'P{i},"{n}",G,C,1' for i, n in enumerate(names))
        )
        self.run_python("standardize/standardize.py")
        got = [(row["colour"], row["size_cm"]) for row in self.rows("products/products.tsv")]
        self.assertEqual(got, list(names.values()))

    def test_a_month_that_was_cut_short_fails_with_its_line_and_no_value(self):
        for line in (ORDER[:60], ORDER[:100]):  # after a field; inside a quoted field
            with self.subTest(line=line):
                self.put("orders/2014-11.csv", ORDERS, ORDER, line)
                said = self.run_python("standardize/standardize.py", ok=False)
                self.assertRegex(said, r"orders/2014-11.csv: line \d+: .*cut short")
                self.assertNotIn("Ann", said)

    def test_an_empty_file_fails(self):
        self.put("orders/2014-11.csv")
        self.assertIn("empty", self.run_python("standardize/standardize.py", ok=False))
        self.put("orders/2014-11.csv", ORDERS)
        self.assertIn("no rows", self.run_python("standardize/standardize.py", ok=False))


class Mask(StageTest):
    def test_names_streets_and_cards_are_masked_and_all_else_stays(self):
        self.put(
            "standardize/orders/2014-11.tsv",
            "order_id\tcustomer_name\tstreet\tcard\tzip",
            "1\tAnn\t12 Oak\t4111\t07109",
            "2\t\t\t\t",
        )
        said = self.run_stage(str(TOOLS / "mask"))
        self.assertEqual(
            self.out("orders/2014-11.tsv")[1:], ["1\t***\t***\t***\t07109", "2\t***\t***\t***\t"]
        )
        self.assertNotIn("Ann", said)

    def test_a_row_that_does_not_fit_the_header_fails(self):
        self.put("standardize/orders/2014-11.tsv", "order_id\tcard", "1\t4111\t4222")
        self.assertNotIn("4111", self.run_stage(str(TOOLS / "mask"), ok=False))


class Join(StageTest):
    def setUp(self):
        super().setUp()
        self.put(
            "customers/customers/customers.tsv",
            "customer_id\tage_range\tvip",
            "C1\t25-34\tyes",
            "C2\t65+\tno",
        )
        self.put("segments/segments.csv", "customer_id,segment", "C1,Consumer", "C2,Corporate")
        self.put(
            "demographics/zip.csv",
            "zip,state,city,latitude,longitude,big_city,big_city_km",
            "07109,NJ,Belleville,40.79,-74.16,New York,15",
            "10001,NY,New York,40,-73,New York,0",
        )
        self.put(
            "products/products/products.tsv",
            "product_id\tproduct_name\tproduct_group\tcategory\tcolour\tsize_cm\tstock",
            "P1\tStaples, 5000\tFasteners\tOffice\tunknown\tunknown\t3",
        )

    def join(self, *orders):
        names = (
            "order_line order_id ordered_utc customer_id product_id zip quantity sales discount"
            " profit ship_mode shipping_fee weight_g"
        )
        self.put(
            "orders/orders/2014-11.tsv",
            names.replace(" ", "\t"),
            *("\t".join(o.split()) for o in orders),
        )
        return self.run_shell("join/join.sh")

    def test_a_line_gets_what_the_other_systems_know(self):
        self.join("1 A 2014-11-09T01:45:00Z C2 P1 07109 2 19.50 0.00 3.14 Std 4.99 907")
        row = self.rows("lines/2014-11.tsv")[0]
        self.assertEqual(
            [
                row[k]
                for k in (
                    "month",
                    "vip",
                    "age_range",
                    "segment",
                    "state",
                    "big_city",
                    "big_city_km",
                    "product_group",
                    "product_name",
                    "quantity",
                    "weight_g",
                )
            ],
            [
                "2014-11",
                "no",
                "65+",
                "Corporate",
                "NJ",
                "New York",
                "15",
                "Fasteners",
                "Staples, 5000",
                "2",
                "907",
            ],
        )
        self.assertEqual(self.rows("rejected/2014-11.tsv"), [])
        self.assertEqual(self.rows("free-shipping/2014-11.tsv"), [])

    def test_what_nobody_knows_is_rejected_with_its_reason(self):
        self.join(
            "1 A T C9 P1 07109 1 1 0 0 S 1 1",
            "2 A T C1 P9 07109 1 1 0 0 S 0 1",
            "3 B T C1 P1 99999 1 1 0 0 S 0 1",
            "4 B T C1 P1 10001 1 1 0 0 S 0 1",
        )
        self.assertEqual(
            [r["reason"] for r in self.rows("rejected/2014-11.tsv")],
            ["customer not known", "product not known", "zip code 99999 not known"],
        )
        self.assertEqual([r["order_line"] for r in self.rows("lines/2014-11.tsv")], ["4"])

    def test_a_vip_who_paid_for_shipping_is_found(self):
        self.join(
            "1 A T C1 P1 07109 1 1 0 0 S 4.99 1",
            "2 B T C1 P1 07109 1 1 0 0 S 0.00 1",
            "3 C T C2 P1 07109 1 1 0 0 S 4.99 1",
        )
        self.assertEqual([r["order_line"] for r in self.rows("free-shipping/2014-11.tsv")], ["1"])


class Reconcile(StageTest):
    def setUp(self):
        super().setUp()
        self.put("orders/2014-11.csv", ORDERS, "1,A,x", "2,A,x", "3,B,x")
        self.lines("1 A", "3 B")
        self.put(
            "joined/rejected/2014-11.tsv",
            "order_line\torder_id\treason",
            "2\tA\tzip code not known",
        )
        self.put(
            "features/demand.tsv",
            "month\tproduct_group\tquantity",
            "2014-11\tPaper\t3",
            "2014-11\tArt\t1",
        )

    def lines(self, *ids):
        blank = "\t" * 16
        self.put(
            "joined/lines/2014-11.tsv",
            f"order_line\torder_id\tmonth{blank}",
            *(f"{i.replace(' ', chr(9))}\t{blank}2" for i in ids),
        )

    def test_source_is_modelled_plus_rejected(self):
        said = self.run_shell("reconcile/reconcile.sh")
        self.assertEqual(
            self.rows("reconciled.tsv")[0],
            {"month": "2014-11", "source": "3", "modelled": "2", "rejected": "1", "quantity": "4"},
        )
        self.assertIn("3 order lines = 2 modelled + 1 rejected", said)

    def test_a_lost_line_fails(self):
        self.lines("1 A")
        self.assertIn(
            "2014-11: 3 lines in the export, 1 modelled, 1 rejected",
            self.run_shell("reconcile/reconcile.sh", ok=False),
        )

    def test_a_line_that_comes_twice_in_the_place_of_another_fails(self):
        self.lines("1 A", "1 A")
        self.assertIn("line 1 appears twice", self.run_shell("reconcile/reconcile.sh", ok=False))

    def test_a_line_from_nowhere_fails(self):
        self.lines("1 A", "9 Z")
        self.assertIn("line 9 is in no export", self.run_shell("reconcile/reconcile.sh", ok=False))

    def test_a_quantity_that_the_features_lost_fails(self):
        self.put("features/demand.tsv", "month\tproduct_group\tquantity", "2014-11\tPaper\t3")
        self.assertIn(
            "quantity 4 in the lines, 3 in the features",
            self.run_shell("reconcile/reconcile.sh", ok=False),
        )


class CheckMask(StageTest):
    def setUp(self):
        super().setUp()
        self.put("sources/orders/2014-11.csv", ORDERS, ORDER)
        header = "customer_id,customer_name,synthetic_street,synthetic_card"
        self.put("sources/customers/customers.csv", header, "C1,Zoe Ray,9 Elm Road,4999 1 2 3")

    def search(self, text, ok):
        self.put("searched/deep/file", text)
        program = [sys.executable, str(SHOP / "check-mask")]
        said = self.run_stage(
            *program, str(self.pfs / "sources"), str(self.pfs / "searched"), ok=ok
        )
        self.assertIn("6 raw values looked for in 1 files", said)
        return said

    def test_a_file_without_raw_values(self):
        self.search("*** Ann lives in Belleville, New Jersey 07109; 12 Oak Tree Lane", ok=True)

    def test_each_kind_of_raw_value_is_found_wherever_it_stands_and_not_printed(self):
        values = ("Ann Bo", "Zoe Ray", "12 Oak Lane", "9 Elm Road", "4111 2222 3333 4444")
        forms = ("{}", "x\t{}\ty", '{{"a": "{}"}}', "name={}, other", "({})")
        said = self.search("\n".join(f.format(v) for v in values for f in forms), ok=False)
        self.assertIn(f"{len(values) * len(forms)} found", said)
        for value in values:
            self.assertNotIn(value, said)


class WhoBuys(StageTest):
    def test_groups_of_customers(self):
        names = ["customer_id", "vip", "age_range", "segment", "product_name", "quantity", "sales"]
        self.put(
            "joined/lines/2014-11.tsv",
            "\t".join(names),
            "C1\tno\t65+\tConsumer\tStaples\t3\t5.00",
            "C1\tno\t65+\tConsumer\tStaples\t1\t2.50",
            "C2\tno\t65+\tConsumer\tPaper\t9\t9.00",
        )
        self.put(
            "joined/lines/2014-12.tsv",
            "\t".join(names),
            "C3\tyes\t65+\tCorporate\tStaples\t7\t1.00",
        )
        self.run_shell("who-buys/who-buys.sh", PRODUCT="Staples")
        self.assertEqual(
            self.out("who-buys.tsv")[1:],
            ["Corporate\t65+\tyes\t1\t7\t1.00", "Consumer\t65+\tno\t1\t4\t7.50"],
        )


class Forecast(unittest.TestCase):
    def test_months(self):
        self.assertEqual(forecast.next_month("2016-12"), "2017-01")
        self.assertEqual(forecast.next_month("2016-01", -12), "2015-01")
        self.assertEqual(forecast.next_month("2016-11", 14), "2018-01")

    def test_features_never_look_at_the_month_itself_or_later(self):
        history = {forecast.next_month("2016-01", n): 10 + n for n in range(24)}
        before = forecast.make_features(history, "2017-01")
        for n in range(12, 24):
            history[forecast.next_month("2016-01", n)] = 10**9
        self.assertEqual(forecast.make_features(history, "2017-01"), before)

    def test_features_are_free_of_scale(self):
        small = {forecast.next_month("2016-01", n): 10 + n for n in range(12)}
        large = {month: 7 * quantity for month, quantity in small.items()}
        (level, features), (level7, features7) = (
            forecast.make_features(h, "2017-01") for h in (small, large)
        )
        self.assertAlmostEqual(level7, 7 * level)
        for a, b in zip(features, features7):
            self.assertAlmostEqual(a, b)

    def test_models_as_data(self):
        x = [0.5] * len(forecast.FEATURES)
        weights = [2.0] + [0.0] * (len(forecast.FEATURES) - 1)
        self.assertEqual(
            forecast.predict({"kind": "sum", "constant": 1.0, "weights": weights}, x), 2.0
        )
        self.assertEqual(
            forecast.predict({"kind": "sum", "constant": -9.0, "weights": weights}, x), 0.0
        )
        tree = {
            "left": [1, -1, -1],
            "right": [2, -1, -1],
            "feature": [0, -2, -2],
            "threshold": [0.5, -2, -2],
            "value": [0, 0.25, 4],
        }
        self.assertEqual(
            forecast.predict({"kind": "trees", "constant": 1.0, "trees": [tree, tree]}, x), 1.5
        )

    def test_steps_ahead_build_on_each_other(self):
        history = {forecast.next_month("2016-01", n): 10 for n in range(12)}
        double_last = {
            "kind": "sum",
            "constant": 0.0,
            "weights": [2.0] + [0.0] * (len(forecast.FEATURES) - 1),
        }
        ahead = forecast.forecast_ahead(double_last, history, "2017-01")
        self.assertEqual(
            [(m, q) for m, _, q in ahead], [("2017-01", 20.0), ("2017-02", 40.0), ("2017-03", 80.0)]
        )

    def test_ranges_and_reorder(self):
        self.assertEqual(predict.quantile([4, 1, 3, 2], 0.5), 2.5)
        self.assertEqual(predict.quantile([1], 0.9), 1)
        rows = [
            {"month": "2017-01", "product_group": g, "low": "1.0", "forecast": "5.0", "high": h}
            for g, h in (("Art", "9.2"), ("Paper", "3.0"))
        ]
        got = [r["reorder"] for r in predict.make_reorder(rows, {"Art": 4, "Paper": 8})]
        self.assertEqual(got, [6, 0])


class Modelling(StageTest):
    """validate, select and evaluate on a back-test written by hand."""

    MONTHS = [forecast.next_month("2016-01", n) for n in range(12)]

    def back_test(self, path, *, off_before, off_after):
        header = "origin\tmonth\tstep\tproduct_group\tlevel\tpredicted\tsold"
        off = [off_before] * forecast.VALIDATION_MONTHS + [off_after] * forecast.EVALUATION_MONTHS
        self.put(
            path,
            header,
            *(f"{m}\t{m}\t1\tArt\t10.0\t{10 + o}\t10" for m, o in zip(self.MONTHS, off)),
        )

    def test_validation_does_not_see_the_evaluation_months(self):
        self.back_test("train/one/backtest.tsv", off_before=3, off_after=100)
        self.run_python("modelling/validate.py")
        result = json.loads("\n".join(self.out("one.json")))
        self.assertEqual(
            result, {"candidate": "one", "months": ["2016-01", "2016-06"], "validation_error": 3.0}
        )

    def test_the_smallest_error_is_selected(self):
        for name, error in (("a", 2.0), ("b", 1.5), ("c", 1.5)):
            self.put(
                f"validate/{name}.json", json.dumps({"candidate": name, "validation_error": error})
            )
            self.put(f"train/{name}/model.json", name)
            self.put(f"train/{name}/backtest.tsv", name)
        self.run_python("modelling/select_best.py")
        self.assertEqual(self.out("model.json"), ["b"])
        self.assertEqual(json.loads("\n".join(self.out("selection.json")))["chosen"], "b")

    def test_three_errors_side_by_side(self):
        self.back_test("select/backtest.tsv", off_before=100, off_after=2)
        self.put("select/selection.json", json.dumps({"chosen": "one"}))
        self.put(
            "select/model.json",
            json.dumps({"kind": "sum", "constant": 1.1, "weights": [0.0] * len(forecast.FEATURES)}),
        )
        months = [forecast.next_month("2015-01", n) for n in range(24)]
        self.put(
            "features/demand.tsv",
            "month\tproduct_group\tquantity",
            *(f"{m}\tArt\t{10 if m >= '2016' else 7}" for m in months),
        )
        names = "month\tproduct_group\tquantity\tlevel\t" + "\t".join(forecast.FEATURES)
        zeros = "\t".join(["0"] * len(forecast.FEATURES))
        self.put(
            "features/features.tsv", names, *(f"{m}\tArt\t10\t10.0\t{zeros}" for m in self.MONTHS)
        )
        self.run_python("modelling/evaluate.py")
        result = json.loads("\n".join(self.out("evaluation.json")))
        self.assertEqual(result["months"], ["2016-07", "2016-12"])
        self.assertEqual(result["error"], {"backtest": 2.0, "baseline": 3.0, "in_sample": 1.0})


if __name__ == "__main__":
    unittest.main()
