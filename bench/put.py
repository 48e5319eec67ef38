#!/usr/bin/python3
"""Putting files beside its peers, on the same data in the same run: medians, each into a fresh repository.

  bench/put.py [small] [big] [again] [insert] [tree] [-n RUNS] [--places N] [--json FILE]

small   10,000 files of 4 KiB of random bytes
big     one file of 1 GiB of random bytes
again   the same file once more: with the client's stat cache, and without; nothing may be stored
insert  100 bytes inserted at a random place of it, N times (default 100): what is stored, and how many chunks
tree    /usr/include: time, and the size on disk

Beside: git (add and commit), git-lfs, restic, borg (without encryption) and casync, with their own settings; `cp` plus `sync`; bench_limit
(bench/limit.cc), which only reads, writes one file and syncs, and for `again` only chunks and hashes with the product's code. Qanat's put is
acknowledged when it is durable; what of the others is not synced when they end is in their favour. `cpu` is user plus system time of all
processes, the server's included: the figure to look at where the machine is shared.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

from harness import QANAT, Server  # noqa: E402

LIMIT = os.path.join(os.path.dirname(QANAT), "bench_limit")
GIB = 1 << 30
TICK = os.sysconf("SC_CLK_TCK")


def children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def process_cpu(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def size_of(folder):
    return sum(os.lstat(os.path.join(path, name)).st_blocks * 512 for path, _, names in os.walk(folder) for name in names)


class Rows:
    def __init__(self, title):
        self.title = title
        self.rows = {}

    def add(self, name, seconds, cpu, stored=None):
        self.rows.setdefault(name, []).append((seconds, cpu, stored))

    def medians(self):
        return {name: {"seconds": statistics.median(v[0] for v in values), "cpu": statistics.median(v[1] for v in values),
                       **({"stored": statistics.median(v[2] for v in values)} if values[0][2] is not None else {})}
                for name, values in self.rows.items()}

    def show(self):
        print(self.title)
        found = self.medians()
        base = found.get("qanat", {}).get("seconds")
        for name, row in sorted(found.items(), key=lambda item: item[1]["seconds"]):
            stored = f"  {row['stored'] / 1e6:9.1f} MB on disk" if "stored" in row else ""
            ratio = "" if name == "qanat" or not base else f"   qanat takes {base / row['seconds']:.2f} times as long"
            print(f"  {name:22} {row['seconds']:8.3f} s  cpu {row['cpu']:7.2f} s{stored}{ratio}")
        sys.stdout.flush()
        return found


def timed(rows, name, commands, stored=None, **options):
    before, begin = children(), time.monotonic()
    for command in commands:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    rows.add(name, time.monotonic() - begin, children() - before, stored and size_of(stored))


def peers(rows, work, source):
    """Each in a fresh repository below `work`. `source`: a folder."""
    environment = {**os.environ, "HOME": work, "GIT_DIR": os.path.join(work, "git"), "GIT_WORK_TREE": source, "RESTIC_REPOSITORY": os.path.join(work, "restic"),
                   "RESTIC_PASSWORD": "b", "RESTIC_CACHE_DIR": os.path.join(work, "restic-cache"), "BORG_REPO": os.path.join(work, "borg"),
                   "BORG_BASE_DIR": work}
    quiet = {"env": environment, "check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    commit = ["git", "-c", "gc.auto=0", "-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "b"]

    def fresh(*names):
        for name in names:
            shutil.rmtree(os.path.join(work, name), ignore_errors=True)
        os.sync()

    subprocess.run(["git", "init", "-q"], **quiet)
    timed(rows, "git", [["git", "add", "-A"], commit], environment["GIT_DIR"], env=environment, cwd=source)
    fresh("git")
    if shutil.which("git-lfs"):
        subprocess.run(["git", "init", "-q"], **quiet)
        subprocess.run(["git", "lfs", "install"], **quiet)
        os.makedirs(os.path.join(work, "git", "info"), exist_ok=True)
        with open(os.path.join(work, "git", "info", "attributes"), "w") as f:
            f.write("* filter=lfs diff=lfs merge=lfs -text\n")
        timed(rows, "git-lfs", [["git", "add", "-A"], commit], environment["GIT_DIR"], env=environment, cwd=source)
        fresh("git")
    subprocess.run(["restic", "init", "-q"], **quiet)
    timed(rows, "restic", [["restic", "backup", "-q", source]], environment["RESTIC_REPOSITORY"], env=environment)
    fresh("restic", "restic-cache")
    subprocess.run(["borg", "init", "-e", "none"], **quiet)
    timed(rows, "borg", [["borg", "create", "::a", source]], environment["BORG_REPO"], env=environment)
    fresh("borg")
    if shutil.which("casync"):
        os.makedirs(os.path.join(work, "casync"))
        timed(rows, "casync", [["casync", "make", f"--store={work}/casync/store", f"{work}/casync/index.caidx", source]], os.path.join(work, "casync"))
        fresh("casync")


def limits(rows, work, source):
    target = os.path.join(work, "one-file")
    timed(rows, "limit", [[LIMIT, "write", source, target]])
    os.remove(target)
    timed(rows, "cp and sync", [["cp", "-r", source, target], ["sync", "-f", work]])
    shutil.rmtree(target) if os.path.isdir(target) else os.remove(target)
    os.sync()


def put(rows, server, source, name="qanat", where="/", stored=False):
    before, server_before, begin = children(), process_cpu(server.process.pid), time.monotonic()
    recursive = ["-r"] if os.path.isdir(source) else []
    server.qanat("put", "file", *recursive, f"r@master:{where}", "-f", source, timeout=600)
    seconds = time.monotonic() - begin
    rows.add(name, seconds, children() - before + process_cpu(server.process.pid) - server_before, size_of(server.data) if stored else None)


def fresh_put(rows, work, source, **options):
    with Server(folder=tempfile.mkdtemp(dir=work)) as server:
        server.qanat("create", "repo", "r")
        os.sync()
        put(rows, server, source, **options)


def small(work, runs, _):
    rows = Rows("10,000 files of 4 KiB")
    for _ in range(runs):
        source = tempfile.mkdtemp(dir=work)
        for i in range(10_000):
            folder = os.path.join(source, f"d{i // 100:03}")
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, f"f{i:05}"), "wb") as f:
                f.write(os.urandom(4096))
        os.sync()
        limits(rows, work, source)
        fresh_put(rows, work, source)
        peers(rows, work, source)
        shutil.rmtree(source)
    return {"put_10k": rows.show()}


def big_file(work):
    folder = os.path.join(work, "big")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "file")
    if not os.path.exists(path):
        with open(path, "wb") as f:
            for _ in range(1024):
                f.write(os.urandom(1 << 20))
        os.sync()
    return path


def big(work, runs, _):
    rows = Rows("1 GiB of random bytes")
    path = big_file(work)
    for _ in range(runs):
        limits(rows, work, path)
        fresh_put(rows, work, path)
        peers(rows, work, os.path.dirname(path))
    return {"put_1g": rows.show()}


def again(work, runs, _):
    rows = Rows("the same 1 GiB again, nothing new")
    path = big_file(work)
    with Server(folder=tempfile.mkdtemp(dir=work)) as server:
        server.qanat("create", "repo", "r")
        put(Rows(""), server, path)
        written = server.counter("qanat_object_written_bytes_total")
        for _ in range(runs):
            timed(rows, "limit: chunk and hash", [[LIMIT, "chunk", path]])
            put(rows, server, path, "qanat, stat cache")
            shutil.rmtree(os.path.join(server.folder, ".cache"))
            put(rows, server, path)
        stored = server.counter("qanat_object_written_bytes_total") - written
        print(f"  stored {stored:.0f} bytes")
    return {"again": rows.show(), "again_stored": stored}


def insert(work, _, places):
    path = big_file(work)
    stored, chunks = [], []
    with Server(folder=tempfile.mkdtemp(dir=work)) as server:
        server.qanat("create", "repo", "r")
        put(Rows(""), server, path)
        rng = random.Random(1)
        command = [QANAT, "put", "file", "r@master:/file", "-f", "-"]
        environment = {**os.environ, "QANAT_SERVER": server.url, "QANAT_TOKEN": server.token, "HOME": server.folder}
        for _ in range(places):
            at = rng.randrange(GIB)
            names = ("qanat_object_written_bytes_total", "qanat_chunks_written_total")
            before = [server.counter(name) for name in names]
            with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process, open(path, "rb") as f:
                while (left := at - f.tell()) > 0:
                    process.stdin.write(f.read(min(left, 1 << 20)))
                process.stdin.write(os.urandom(100))
                shutil.copyfileobj(f, process.stdin, 1 << 20)
                process.stdin.close()
                assert process.wait() == 0
            after = [server.counter(name) for name in names]
            stored.append(after[0] - before[0])
            chunks.append(after[1] - before[1])
    print(f"100 bytes inserted in 1 GiB, {places} places: stored {statistics.median(stored) / 1e6:.2f} MB (worst {max(stored) / 1e6:.2f}), "
          f"chunks {statistics.median(chunks):.0f} (worst {max(chunks):.0f})")
    return {"insert_stored": statistics.median(stored), "insert_chunks": statistics.median(chunks)}


def tree(work, runs, _):
    source = "/usr/include"
    files = sum(len(names) for _, _, names in os.walk(source))
    rows = Rows(f"{source}, {files} files")
    with tempfile.TemporaryDirectory(dir=work) as copy:
        # Links to folders, which a put refuses, as what they name.
        copy = os.path.join(copy, "tree")
        shutil.copytree(source, copy, ignore_dangling_symlinks=True)
        os.sync()
        for _ in range(runs):
            limits(rows, work, copy)
            fresh_put(rows, work, copy, stored=True)
            peers(rows, work, copy)
    return {"tree": rows.show()}


def main():
    benches = {"small": small, "big": big, "again": again, "insert": insert, "tree": tree}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*benches, []], default=[])
    parser.add_argument("-n", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--places", type=int, default=100, help="of insert (default 100)")
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory(prefix="qanat-bench-") as work:
        for name in arguments.what or benches:
            figures.update(benches[name](work, arguments.n, arguments.places))
    if arguments.json:
        with open(arguments.json, "w") as f:
            json.dump(figures, f, indent=1)


if __name__ == "__main__":
    main()
