#!/usr/bin/python3
"""Qanat beside its peers on the same data in the same run: medians of five, each in a fresh data folder.

  bench/bench.py [put] [datums] [latency] [-n RUNS] [--json FILE]

put      `put file -r` of 10,000 files of 4 KiB of random bytes, beside `git add` + `git commit` (with git's own settings, which do not sync
         loose objects) and `restic backup`; the server runs in a memory cgroup of 200 MB, page cache included, and its peak is shown.
datums   1,000 datums of 4 KiB through `cp`, two workers in containers, from the commit being finished to the output commit being finished,
         beside `xargs -P2 -n1` with one `cp` process a file, then sync.
latency  from the answer to `put file` to the moment at which the user's command starts on a warm worker (its own clock), 50 times.

Nothing is skipped or deduplicated: the contents are random and new in every run, and the job's counters are checked.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

import containers  # noqa: E402
from harness import Server  # noqa: E402

FILES, SIZE = 10000, 4096
MEMORY = 200 * 1000 * 1000


def make_tree(folder, files=FILES, per_folder=100):
    for i in range(files):
        directory = os.path.join(folder, f"d{i // per_folder:03}")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, f"f{i:05}"), "wb") as f:
            f.write(os.urandom(SIZE))
    os.sync()


def timed(command, **options):
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    return time.monotonic() - begin


class MemoryCgroup:
    """A memory cgroup (v1 or v2) for one process; tells the peak of its use."""

    def __init__(self, limit):
        v1 = os.path.isdir("/sys/fs/cgroup/memory")
        base = "/sys/fs/cgroup/memory" if v1 else "/sys/fs/cgroup"
        self.path = os.path.join(base, f"qanat-bench-{os.getpid()}")
        os.makedirs(self.path, exist_ok=True)
        self.write("memory.limit_in_bytes" if v1 else "memory.max", limit)
        self.peak_file = "memory.max_usage_in_bytes" if v1 else "memory.peak"

    def write(self, name, value):
        with open(os.path.join(self.path, name), "w") as f:
            f.write(str(value))

    def add(self, pid):
        self.write("cgroup.procs", pid)

    def peak(self):
        with open(os.path.join(self.path, self.peak_file)) as f:
            return int(f.read())

    def close(self):
        os.rmdir(self.path)


def bench_put(runs):
    rows = {"qanat": [], "git": [], "restic": []}
    peaks = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="qanat-bench-") as work:
            tree = os.path.join(work, "tree")
            make_tree(tree)
            rows["git"].append(put_git(work, tree))
            rows["restic"].append(put_restic(work, tree))
            with Server(runner="process") as server:
                group = MemoryCgroup(MEMORY)
                group.add(server.process.pid)
                server.qanat("create", "repo", "r")
                begin = time.monotonic()
                server.qanat("put", "file", "-r", "r@master:/", "-f", tree)
                rows["qanat"].append(time.monotonic() - begin)
                commit = server.json("inspect", "commit", "r@master")
                assert commit["files"] == FILES, commit
                peaks.append(group.peak())
                server.stop()
                group.close()
    show("put file -r of 10,000 files of 4 KiB", rows, "qanat")
    print(f"  server's peak, page cache included, {max(peaks) / 1e6:.0f} MB in a cgroup of {MEMORY / 1e6:.0f} MB")
    return {"put_10k": medians(rows), "put_10k_server_peak_mb": max(peaks) / 1e6}


def put_git(work, tree):
    repository = os.path.join(work, "git")
    environment = {**os.environ, "GIT_DIR": repository, "GIT_WORK_TREE": tree, "HOME": work}
    subprocess.run(["git", "init", "-q"], env=environment, check=True)
    begin = time.monotonic()
    subprocess.run(["git", "add", "-A"], cwd=tree, env=environment, check=True)
    subprocess.run(["git", "-c", "gc.auto=0", "-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "b"], cwd=tree, env=environment, check=True)
    return time.monotonic() - begin


def put_restic(work, tree):
    environment = {**os.environ, "RESTIC_REPOSITORY": os.path.join(work, "restic"), "RESTIC_PASSWORD": "b", "HOME": work}
    subprocess.run(["restic", "init", "-q"], env=environment, check=True, stdout=subprocess.DEVNULL)
    return timed(["restic", "backup", "-q", tree], env=environment)


def bench_datums(runs):
    rows = {"qanat": [], "xargs": []}
    engine = containers.engine()
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="qanat-bench-") as work:
            tree, out = os.path.join(work, "tree"), os.path.join(work, "out")
            make_tree(tree, 1000, 1000)
            os.makedirs(out)
            begin = time.monotonic()
            subprocess.run(f"find {tree} -type f -print0 | xargs -0 -P2 -n1 cp -t {out} && sync", shell=True, check=True)
            rows["xargs"].append(time.monotonic() - begin)
            with Server(runner="docker", environment=engine.environment()) as server:
                server.qanat("create", "repo", "r")
                server.put("r", "/warm/up", "warm")
                server.create_pipeline({
                    "pipeline": {"name": "copy"}, "parallelism_spec": {"constant": 2},
                    "transform": {"image": engine.busybox(), "cmd": ["cp", "-r", "/pfs/r/.", "/pfs/out/"]},
                    "input": {"pfs": {"repo": "r", "glob": "/*/*"}},
                })
                server.qanat("wait", "commit", "copy@master")
                commit = server.qanat("start", "commit", "r@master").strip()
                server.qanat("put", "file", "-r", f"r@{commit}:/", "-f", tree)
                begin = time.monotonic()
                server.qanat("finish", "commit", f"r@{commit}")
                server.qanat("wait", "commit", "copy@master")
                rows["qanat"].append(time.monotonic() - begin)
                job = server.jobs("copy")[0]
                assert job["datums"]["processed"] == 1000, job  # and the warm one skipped
    show("1,000 datums of 4 KiB, cp, two workers in containers", rows, "qanat")
    return {"datums_1000": medians(rows)}


def bench_latency(_):
    engine = containers.engine()
    waits = []
    with Server(runner="docker", environment=engine.environment()) as server:
        server.qanat("create", "repo", "r")
        server.create_pipeline({
            "pipeline": {"name": "stamp"},
            "transform": {"image": engine.busybox(), "cmd": ["/bin/sh", "-c", "cut -d' ' -f1 /proc/uptime > /pfs/out/$(basename $r)"]},
            "input": {"pfs": {"repo": "r", "glob": "/*"}},
        })
        for i in range(50):
            server.put("r", f"/{i}", os.urandom(4).hex())
            with open("/proc/uptime") as f:
                committed = float(f.read().split()[0])
            server.qanat("wait", "commit", "stamp@master")
            waits.append((float(server.get("stamp", f"/{i}")) - committed) * 1000)
            time.sleep(0.05)  # the worker is idle again: a warm one, not a busy one
    waits = waits[5:]
    print(f"commit to first datum on a warm worker: median {statistics.median(waits):.0f} ms, worst {max(waits):.0f} ms (clock of 10 ms steps)")
    return {"latency_ms": statistics.median(waits)}


def medians(rows):
    return {name: statistics.median(values) for name, values in rows.items()}


def show(title, rows, base):
    found = medians(rows)
    print(title)
    for name, value in sorted(found.items(), key=lambda item: item[1]):
        ratio = "" if name == base else f"   {base} takes {found[base] / value:.2f} times as long"
        print(f"  {name:10} {value:8.3f} s{ratio}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["put", "datums", "latency", []], default=[])
    parser.add_argument("-n", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    benches = {"put": bench_put, "datums": bench_datums, "latency": bench_latency}
    figures = {}
    for name in arguments.what or benches:
        figures.update(benches[name](arguments.n))
    if arguments.json:
        with open(arguments.json, "w") as f:
            json.dump(figures, f, indent=1)


if __name__ == "__main__":
    main()
