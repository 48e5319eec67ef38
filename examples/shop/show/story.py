"""The story: what the demo does, shows and checks, a method a stage."""

import csv
import datetime
import io
import json
import os
import pathlib
import time

from show import pictures

PRODUCT = "Staples"
LAST_YEAR = [f"2017-{month:02}" for month in range(2, 13)]


def read_table(text):
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))


def seconds_between(a, b):
    first, second = (datetime.datetime.fromisoformat(t.replace("Z", "+00:00")) for t in (a, b))
    return (second - first).total_seconds()


class Story:
    def __init__(self, terminal, sources, out, listener):
        self.t = terminal
        self.sources = sources  # where the raw files lie
        self.out = out
        self.listener = listener
        self.events = {}  # what happened: {pipeline: its job}
        self.order = []  # pipelines, as they were created

    # --- what the checks look at -------------------------------------------------------------

    def json(self, command):
        return json.loads(self.t.ask(f"qanat {command} -o json"))

    def head(self, repo, branch="master"):
        return self.json(f"inspect commit {repo}@{branch}")

    def jobs_of(self, wave):
        return {job["pipeline"]: job for job in self.json(f"list job {wave}")}

    def file(self, address):
        return self.t.ask(f"qanat get file {address}")

    def created(self, *names):
        """Notes the first job of new pipelines, and checks that it succeeded."""
        for name in names:
            job = self.json(f"list job -p {name}")[0]
            self.t.check(
                job["state"] == "SUCCESS" and job["datums"]["processed"] == job["datums"]["total"],
                f"{name}: {job['datums']['total']} datums ran in {self.took(job):.1f} s",
            )
            self.events.setdefault("first run", {})[name] = job
            self.order.append(name)

    @staticmethod
    def took(job):
        if not job.get("started") or not job.get("finished"):
            return 0.0
        return seconds_between(job["started"], job["finished"])

    def happened(self, event, wave):
        self.events[event] = self.jobs_of(wave)
        return self.events[event]

    def show_jobs(self, jobs):
        rows = [["pipeline", "ran", "skipped", "failed", "seconds", "state"]]
        for name in self.order:
            if name in jobs:
                d, job = jobs[name]["datums"], jobs[name]
                rows.append(
                    [
                        name,
                        d["processed"],
                        d["skipped"],
                        d["failed"],
                        f"{self.took(job):.2f}",
                        job["state"],
                    ]
                )
        self.t.table(rows)

    def check_ran(self, jobs, **expected):
        """expected: pipeline = datums that had to run, with `_` for `-` in its name."""
        for name, count in expected.items():
            job = jobs[name.replace("_", "-")]
            got, total = job["datums"]["processed"], job["datums"]["total"]
            self.t.check(
                job["state"] == "SUCCESS"
                and got == count
                and got + job["datums"]["skipped"] == total,
                f"{job['pipeline']}: {count} of {total} datums ran",
            )

    def forecast(self, ref="master"):
        rows = read_table(self.file(f"predict@{ref}:/forecast.tsv"))
        return {(r["month"], r["product_group"]): float(r["forecast"]) for r in rows}

    def show_change(self, before, after, month, groups=5):
        """The groups whose forecast for a month changed most."""
        names = [g for m, g in after if m == month and (m, g) in before]
        names.sort(key=lambda g: -abs(after[month, g] - before[month, g]))
        rows = [[f"forecast for {month}", "before", "now", "change"]]
        for g in names[:groups]:
            a, b = before[month, g], after[month, g]
            rows.append([g, f"{a:.1f}", f"{b:.1f}", f"{b - a:+.1f}"])
        self.t.table(rows)

    # --- the story ---------------------------------------------------------------------------

    def load_sources(self):
        t = self.t
        t.stage(
            "sources",
            "six systems deliver: orders, customers, products, segments, zip codes, candidates",
        )
        for repo in ("orders", "customers", "products", "segments", "demographics", "candidates"):
            t.run(f"qanat create repo {repo}")
        # The story begins at the end of 2016; what comes after is kept back until it happens.
        t.run(
            "mkdir -p $SOURCES/until-2016 && cp $SOURCES/orders/201[456]-*.csv $SOURCES/until-2016/"
            " && qanat put file -r orders@master:/ -f $SOURCES/until-2016 -m '2014 to 2016'"
        )
        for repo in ("customers", "products", "segments", "demographics"):
            t.run(f"qanat put file -r {repo}@master:/ -f $SOURCES/{repo}")
        t.run("qanat put file -r candidates@master:/ -f candidates")
        t.run("qanat list repo")
        head = self.head("orders")
        t.check(
            head["files"] == 36, f"36 months of orders are in one commit, root {head['root'][:12]}"
        )
        t.run("qanat get file orders@master:/2014-01.csv", lines=2)
        t.say(
            "Columns called synthetic_... are made up, by a seeded generator; all others are real."
        )

    def standardize(self):
        t = self.t
        t.stage(
            "standardize",
            "Python: dates to UTC, zip codes padded, ages to ranges, colours, sizes, units",
        )
        t.run("qanat validate pipeline -f stages/standardize/pipeline.json", lines=4)
        t.run("qanat create pipeline -f stages/standardize/pipeline.json")
        t.run("qanat wait commit standardize@master", lines=3)
        self.created("standardize")
        rows = read_table(self.file("standardize@master:/orders/2014-01.tsv"))
        t.check(all(r["ordered_utc"].endswith("Z") for r in rows), "all times are UTC")
        t.check(all(len(r["zip"]) == 5 for r in rows), "all zip codes have five digits")
        ranges = {
            r["age_range"]
            for r in read_table(self.file("standardize@master:/customers/customers.tsv"))
        }
        t.check(
            ranges <= {"18-24", "25-34", "35-44", "45-54", "55-64", "65+"},
            f"ages are ranges: {', '.join(sorted(ranges))}",
        )
        products = read_table(self.file("standardize@master:/products/products.tsv"))
        coloured = sum(r["colour"] != "unknown" for r in products)
        sized = sum(r["size_cm"] != "unknown" for r in products)
        t.check(
            coloured > 150 and sized > 100,
            f"of {len(products)} products {coloured} have a colour and {sized} a size, in cm",
        )

    def mask(self):
        t = self.t
        t.stage(
            "mask", "C++, one static program in an empty image: names, streets and cards end here"
        )
        t.run("qanat create pipeline -f stages/mask/pipeline.yaml")
        t.run("qanat wait commit mask@master", lines=3)
        self.created("mask")
        t.run("qanat get file mask@master:/customers/customers.tsv", lines=3)
        for path in ("/customers/customers.tsv", "/orders/2014-01.tsv"):
            rows = read_table(self.file(f"mask@master:{path}"))
            t.check(
                all({r["customer_name"], r["street"], r["card"]} == {"***"} for r in rows),
                f"{path}: {len(rows)} rows, no name, street or card",
            )

    def join(self):
        t = self.t
        t.stage(
            "join",
            "shell and awk in busybox: a cross of orders, customers, products, segments, zip codes",
        )
        t.run("qanat create pipeline -f stages/join/pipeline.json")
        t.run("qanat wait commit joined@master", lines=3)
        self.created("joined")
        t.run("qanat get file joined@master:/lines/2016-12.tsv | cut -f 2,3,6-12,15,19", lines=3)
        t.run("qanat get file joined@master:/rejected/2016-12.tsv", lines=3)
        t.run(
            "qanat get file -r joined@master:/free-shipping -o $WORK/free-shipping"
            " && cat $(find $WORK/free-shipping -name '*.tsv' | sort) | grep -v order_line",
            lines=3,
        )
        charged = self.t.ask("cat $(find $WORK/free-shipping -name '*.tsv') | grep -vc order_line")
        t.check(
            int(charged) > 0,
            f"VIPs ship free: {charged.strip()} order lines break that rule, and are listed",
        )

    def model(self):
        t = self.t
        names = ("features", "train", "validate", "select", "evaluate", "predict")
        t.stage("modelling and inference", "pandas and scikit-learn: six pipelines from one file")
        t.run("qanat create pipeline -f stages/modelling/pipelines.yaml")
        t.run("qanat wait commit predict@master", lines=0)
        self.created(*names)
        t.run("qanat get file select@master:/selection.json | grep -E 'chosen|candidate|error'")
        evaluation = json.loads(self.file("evaluate@master:/evaluation.json"))
        error = evaluation["error"]
        t.check(
            error["backtest"] < error["baseline"],
            f"the {evaluation['model']} model's back-test is off by {error['backtest']:.2f} units a"
            f" month and group, the baseline (same month last year) by {error['baseline']:.2f}",
        )
        t.run("qanat get file predict@master:/report.txt", lines=30)
        rows = read_table(self.file("predict@master:/forecast.tsv"))
        t.check(
            len(rows) == 51
            and all(float(r["low"]) <= float(r["forecast"]) <= float(r["high"]) for r in rows),
            "51 forecasts (17 groups, 3 months), each within its range",
        )
        self.keep_chart("1-end-of-2016")

    def keep_chart(self, name):
        self.t.run(f"qanat get file predict@master:/chart.png -o {self.out}/forecast-{name}.png")
        data = (self.out / f"forecast-{name}.png").read_bytes()
        self.t.check(
            data.startswith(b"\x89PNG") and len(data) > 20_000, f"a chart: forecast-{name}.png"
        )

    def who_buys(self):
        t = self.t
        t.stage("one question", f"who buys {PRODUCT}? shell and awk, kept answered")
        t.run("qanat create pipeline -f stages/who-buys/pipeline.yaml")
        t.run("qanat wait commit who-buys@master", lines=0)
        self.created("who-buys")
        t.run("qanat get file who-buys@master:/who-buys.tsv", lines=5)
        rows = read_table(self.file("who-buys@master:/who-buys.tsv"))
        t.check(
            sum(int(r["quantity"]) for r in rows) > 100,
            f"{len(rows)} groups of customers buy {PRODUCT}",
        )

    def reconcile(self):
        t = self.t
        t.stage(
            "reconcile", "every order line of the source is modelled or rejected, or the job fails"
        )
        t.run("qanat create pipeline -f stages/reconcile/pipeline.json")
        t.run("qanat wait commit reconcile@master", lines=0)
        self.created("reconcile")
        t.run("qanat get file reconcile@master:/reconciled.tsv | tail -n 3")
        self.check_reconciled()

    def check_reconciled(self):
        months = read_table(self.file("reconcile@master:/reconciled.tsv"))
        everything = months[-1]
        self.t.check(
            all(int(m["source"]) == int(m["modelled"]) + int(m["rejected"]) for m in months),
            f"{everything['source']} order lines = {everything['modelled']} modelled"
            f" + {everything['rejected']} rejected, in {len(months) - 1} months",
        )

    def deliver(self):
        t = self.t
        t.stage(
            "deliver and tell",
            "into PostgreSQL over the host's network, which the spec asks for; a listener is told",
        )
        t.run(
            'sed "s/5432/$PGPORT/; s/8089/$LISTENER_PORT/" stages/deliver/pipeline.json'
            " | qanat create pipeline -f -"
        )
        t.run("qanat wait commit deliver@master", lines=0)
        self.created("deliver")
        self.check_delivered()

    def check_delivered(self):
        t = self.t
        commit = self.head("deliver")["id"]
        t.run(
            "psql -c 'select product_group, expected, at_most, reorder, left(commit_id, 8) "
            " from reorder order by reorder desc, product_group limit 4'",
            lines=6,
        )
        loaded = t.ask(
            "psql -Atc 'select count(*), min(commit_id), max(commit_id) from forecast'"
        ).strip()
        t.check(
            loaded == f"51|{commit}|{commit}",
            f"the warehouse has the forecast of commit {commit[:8]}",
        )
        told = self.listener.heard[-1]
        t.check(
            told["outcome"] == "success" and told["commit"] == commit,
            f"the listener heard of {told['outcome']} and commit {told['commit'][:8]}",
        )

    def prove_privacy(self):
        t = self.t
        t.stage(
            "nothing leaks",
            "no raw value downstream of the mask, and a token that stops at the door",
        )
        downstream = [name for name in self.order if name != "standardize"]
        t.run(
            f"mkdir -p $WORK/downstream/logs $WORK/raw; for repo in {' '.join(downstream)}; do"
            " qanat get file -r $repo@master:/ -o $WORK/downstream/$repo || exit; done"
        )
        t.run(
            f"for pipeline in {' '.join(self.order)}; do"
            " qanat logs --pipeline $pipeline > $WORK/downstream/logs/$pipeline || exit; done"
        )
        t.run("./check-mask $SOURCES $WORK/downstream")
        logs = list(pathlib.Path(os.environ["WORK"], "downstream/logs").iterdir())
        t.check(
            len(logs) == len(self.order) and all(log.stat().st_size > 0 for log in logs),
            f"{len(downstream)} repos and the logs of {len(logs)} pipelines have no raw value",
        )
        t.ask(
            "qanat get file standardize@master:/customers/customers.tsv -o $WORK/raw/customers.tsv"
        )
        t.run("./check-mask $SOURCES $WORK/raw", fails=True, lines=3)
        t.check(True, "the same search finds them in front of the mask")
        secret = t.run(
            "(umask 077; qanat create token sales -s reader:predict -s reader:who-buys"
            " > $WORK/sales-token) && wc -l < $WORK/sales-token"
        )
        t.check(secret.strip() == "1", "a token for the sales team, which may read two repos")
        said = t.run(
            "QANAT_TOKEN=$(cat $WORK/sales-token) qanat get file orders@master:/2016-12.csv",
            fails=True,
        )
        t.check(
            "2016" not in said.replace("2016-12.csv", ""),
            "raw orders are refused to the sales team",
        )
        seen = t.run("QANAT_TOKEN=$(cat $WORK/sales-token) qanat list repo -o name").split()
        t.check(sorted(seen) == ["predict", "who-buys"], "and it sees no other repo's name")
        t.run(
            "QANAT_TOKEN=$(cat $WORK/sales-token) qanat get file predict@master:/report.txt",
            lines=1,
        )

    def new_month(self):
        t = self.t
        t.stage("time passes: a new month", "January 2017 arrives; only that month runs")
        self.first_wave = {r: self.head(r)["id"] for r in ("features", "select", "predict")}
        before = self.forecast()
        t.run("qanat put file orders@master:/2017-01.csv -f $SOURCES/orders/2017-01.csv")
        began = time.monotonic()
        t.run("qanat wait commit orders@master", lines=0)
        took = time.monotonic() - began
        wave = self.head("orders")["id"]
        jobs = self.happened("new month", wave)
        self.show_jobs(jobs)
        t.check(
            len(jobs) == len(self.order),
            f"one id, {wave[:8]}…, for {len(jobs)} jobs, all done after {took:.1f} s",
        )
        self.check_ran(jobs, standardize=1, mask=1, joined=1, train=3, deliver=1)
        t.run(f"qanat explain datum standardize@{wave} /2017-01.csv")
        t.run(f"qanat explain datum standardize@{wave} /2016-12.csv")
        explained = self.json(f"explain datum standardize@{wave} /2016-12.csv")
        t.check(
            explained["decision"] == "skipped",
            "explain says from records why December 2016 was skipped",
        )
        self.show_change(before, self.forecast(), "2017-02")
        self.check_reconciled()
        self.keep_chart("2-january-2017")

    def corrected_month(self):
        t = self.t
        t.stage(
            "time passes: a correction",
            "November 2016 comes again: a bulk order had been booked too small",
        )
        before = self.forecast()
        t.run(
            "qanat put file orders@master:/2016-11.csv -f $SOURCES/incidents/corrected/2016-11.csv"
        )
        t.run("qanat wait commit orders@master", lines=0)
        wave = self.head("orders")["id"]
        jobs = self.happened("correction", wave)
        self.show_jobs(jobs)
        self.check_ran(jobs, standardize=1, mask=1, joined=1, train=3, deliver=1)
        t.run(f"qanat explain datum standardize@{wave} /2016-11.csv")
        t.run("qanat find commit orders@master:/2016-11.csv")
        t.run("qanat diff file joined@master")
        changed = {d["path"] for d in self.json("diff file joined@master")}
        t.check(changed == {"/lines/2016-11.tsv"}, "one file of the join changed")
        after = self.forecast()
        self.show_change(before, after, "2017-02")
        t.check(before.keys() == after.keys() and before != after, "the forecast took notice")
        self.keep_chart("3-corrected")

    def cut_short(self):
        t = self.t
        t.stage(
            "time passes: a bad upload",
            "February breaks off in the middle of a line: the job fails, the good head stays",
        )
        good = {repo: self.head(repo) for repo in ("standardize", "predict", "deliver")}
        t.run(
            "qanat put file orders@master:/2017-02.csv -f $SOURCES/incidents/cut-short/2017-02.csv"
        )
        t.run("qanat wait commit orders@master", fails=True, lines=3)
        wave = self.head("orders")["id"]
        jobs = self.happened("bad upload", wave)
        self.show_jobs(jobs)
        t.run(f"qanat logs --job standardize@{wave}", lines=3)
        t.check(
            jobs["standardize"]["state"] == "FAILURE"
            and jobs["standardize"]["datums"]["failed"] == 1,
            "standardize failed, with one datum",
        )
        blocked = [j for j in jobs.values() if j["state"] == "UNRUNNABLE"]
        t.check(
            len(blocked) == len(jobs) - 1
            and all("standardize" in j.get("reason", "") for j in blocked),
            f"the {len(blocked)} pipelines downstream are UNRUNNABLE, and name the cause",
        )
        t.check(
            all(self.head(repo)["id"] == commit["id"] for repo, commit in good.items()),
            "the heads are where they were: the last good report stays",
        )
        t.say("The shop takes the bad commit back, by moving the branch to its parent:")
        t.run("qanat update branch orders@master --head master^")
        t.run("qanat wait commit predict@master", lines=0)
        t.run("qanat wait commit deliver@master", lines=0)
        job = self.json("list job -p deliver")[0]
        jobs = self.happened("taken back", job["id"])
        self.show_jobs(jobs)
        self.check_ran(jobs, standardize=0, mask=0, joined=0, train=0, predict=0, deliver=1)
        t.check(
            self.head("predict")["root"] == good["predict"]["root"],
            f"the report has its old root again, {good['predict']['root'][:12]}",
        )

    def gather(self):
        t = self.t
        t.stage(
            "time passes: eleven months at once",
            "staging gathers commits, master moves once: one training run",
        )
        jobs_before = len(self.json("list job -p train"))
        t.run("qanat create branch orders@staging --head master")
        t.run(
            f"for month in {' '.join(LAST_YEAR)}; do"
            " qanat put file orders@staging:/$month.csv -f $SOURCES/orders/$month.csv || exit; done"
        )
        t.check(
            len(self.json("list job -p train")) == jobs_before,
            "eleven commits on staging started nothing",
        )
        t.run("qanat update branch orders@master --head staging")
        t.run("qanat wait commit deliver@master", lines=0)
        job = self.json("list job -p deliver")[0]
        jobs = self.happened("eleven months", job["id"])
        self.show_jobs(jobs)
        self.check_ran(jobs, standardize=11, mask=11, joined=11, train=3, deliver=1)
        t.check(len(self.json("list job -p train")) == jobs_before + 1, "one training run")
        self.check_reconciled()
        t.run("qanat get file predict@master:/report.txt", lines=30)
        self.keep_chart("4-end-of-2017")
        self.check_delivered()

    def trace(self):
        t = self.t
        t.stage(
            "where does this number come from?", "one number, back to its model, data and image"
        )
        rows = read_table(self.file("predict@master:/reorder.tsv"))
        top = max(rows, key=lambda r: int(r["reorder"]))
        t.say(
            f"To order for {top['for_month']}: {top['reorder']} {top['product_group']}. Why so many?"
        )
        t.run("qanat list provenance predict@master", lines=24)
        upstream = {c["repo"]: c for c in self.json("list provenance predict@master")["upstream"]}
        selection = json.loads(self.file(f"select@{upstream['select']['id']}:/selection.json"))
        t.check(
            True,
            f"the model: {selection['chosen']}, of commit select@{upstream['select']['id'][:8]}",
        )
        months = self.json(f"inspect commit orders@{upstream['orders']['id']}")["files"]
        t.check(
            months == 48,
            f"its training data: {months} months, of commit orders@{upstream['orders']['id'][:8]}",
        )
        made = self.head("predict")
        engine = t.run("docker image inspect -f '{{.Id}}' shop/modelling:1").strip()
        t.check(
            made["image_digest"].removeprefix("sha256:") == engine.removeprefix("sha256:"),
            f"its image: {engine[:19]}, by version {made['pipeline_version']} of the spec",
        )
        t.check(
            upstream["candidates"]["id"] == self.head("candidates")["id"],
            f"its candidates: commit candidates@{upstream['candidates']['id'][:8]}",
        )

    def as_it_was(self):
        t = self.t
        t.stage("the report as it was", "a year later, what was said at the end of 2016")
        first = t.run("qanat get file predict@master.1:/report.txt", lines=6)
        by_id = self.file(f"predict@{self.first_wave['predict']}:/report.txt")
        t.check(
            first == by_id and first.startswith("Demand for 2017-01"),
            "read by its place in history, and by its id: the same",
        )
        t.run("qanat get file predict@master^3:/report.txt", lines=2)

    def challenge(self):
        t = self.t
        t.stage(
            "a new model on last year's data",
            "a branch at that commit: what it would have said, knowing nothing of 2017",
        )
        t.run("qanat put file -r candidates@challenger:/ -f challengers")
        for repo in ("features", "select"):
            t.run(f"qanat create branch {repo}@last-year --head {self.first_wave[repo]}")
        t.run("qanat create pipeline -f stages/modelling/challenge.yaml")
        t.run("qanat wait commit challenge@master", lines=0)
        t.run("qanat logs --pipeline challenge", lines=3)
        t.run("qanat get file challenge@master:/by-month.tsv", lines=14)
        result = json.loads(self.file("challenge@master:/challenge.json"))
        error = result["error"]
        t.check(
            result["fitted_on_data_to"] == "2016-12"
            and result["judged_on"] == ["2017-01", "2017-12"],
            f"{result['candidate']} would have been off by {error['challenger']:.2f} units,"
            f" the model of that time was by {error['champion']:.2f}",
        )
        untouched = self.json("list job -p train")[0]["id"]
        t.check(
            untouched == self.events["eleven months"]["train"]["id"],
            "and production did not run again",
        )

    def summary(self):
        t = self.t
        t.stage("summary", "datums run/skipped, and seconds, of each stage in each event")
        events = list(self.events)
        rows = [["stage", *events]]
        for name in self.order:
            cells = []
            for event in events:
                job = self.events[event].get(name)
                if job is None:
                    cells.append("")
                elif job["state"] != "SUCCESS":
                    cells.append(job["state"].lower())
                else:
                    d = job["datums"]
                    cells.append(f"{d['processed']}/{d['skipped']} {self.took(job):6.2f}")
            rows.append([name, *cells])
        lines = t.table(rows)
        (self.out / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self.out / "report.txt").write_text(
            self.file("predict@master:/report.txt"), encoding="utf-8"
        )
        inputs = {
            repo: []
            for repo in (
                "orders",
                "customers",
                "products",
                "segments",
                "demographics",
                "candidates",
            )
        }
        for pipeline in self.json("list pipeline"):
            if pipeline["name"] in self.order:
                inputs[pipeline["name"]] = pipeline["input_repos"]
        last = self.events["eleven months"]
        notes = {
            n: f"{last[n]['datums']['processed']} ran, {last[n]['datums']['skipped']} skipped"
            for n in self.order
        }
        (self.out / "pipelines.svg").write_text(
            pictures.draw_pipelines(inputs, notes), encoding="utf-8"
        )
        for file in sorted(self.out.iterdir()):
            t.say(str(file))

    def tell(self):
        self.load_sources()
        self.standardize()
        self.mask()
        self.join()
        self.model()
        self.who_buys()
        self.reconcile()
        self.deliver()
        self.prove_privacy()
        self.new_month()
        self.corrected_month()
        self.cut_short()
        self.gather()
        self.trace()
        self.as_it_was()
        self.challenge()
        self.summary()
