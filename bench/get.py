#!/usr/bin/python3
"""Getting data back, beside `cp -r`: medians of five, one after the other in the same run, each into a fresh folder.

  bench/get.py [-n RUNS] [--tree FOLDER] [--size MIB] [--json FILE]

tree   `get file -r` of a real tree (default /usr/include: about 25,000 files) and `cp -r` of it
file   `get file` of one file of random bytes (default 1,024 MiB) and `cp` of it
range  100 bytes in the middle of that file, over the command line and over a connection that is kept

Both sides find their data in the page cache. The server's and the client's processor seconds are shown, which other work on the machine
blurs less than it does times.
"""

import argparse
import http.client
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
sys.path.insert(0, os.path.join(ROOT, "bench"))

from harness import Server  # noqa: E402
from trees import cpu_seconds  # noqa: E402


class Row:
    def __init__(self, server):
        self.server = server
        self.seconds, self.processor, self.at_server = [], [], []

    def run(self, work):
        before, server = resource.getrusage(resource.RUSAGE_CHILDREN), cpu_seconds(self.server.process.pid)
        begin = time.monotonic()
        work()
        self.seconds.append(time.monotonic() - begin)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        self.at_server.append(cpu_seconds(self.server.process.pid) - server)

    def median(self):
        return statistics.median(self.seconds)


def compare(title, runs, server, ours, theirs, clean):
    rows = {"qanat": Row(server), "cp": Row(server)}
    for _ in range(runs):
        for name, work in (("cp", theirs), ("qanat", ours)):
            rows[name].run(work)
            clean(name)
    print(title)
    for name, row in rows.items():
        print(f"  {name:6} {row.median():7.3f} s; processor {statistics.median(row.processor):6.3f} s, server's {statistics.median(row.at_server):6.3f} s"
              + (f"; {rows['qanat'].median() / rows['cp'].median():.2f} times cp" if name == "qanat" else ""))
    sys.stdout.flush()
    return {name: row.median() for name, row in rows.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--tree", default="/usr/include")
    parser.add_argument("--size", type=int, default=1024, help="MiB of the one file (default 1024)")
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory(prefix="qanat-bench-") as work, Server() as server:
        # A copy without links and empty folders, which a repo does not have; it is also what gets compared.
        tree, out = os.path.join(work, "tree"), os.path.join(work, "out")
        subprocess.run(["cp", "-rL", arguments.tree, tree], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["find", tree, "-type", "d", "-empty", "-delete"], check=True)
        server.qanat("create", "repo", "tree")
        server.qanat("put", "file", "-r", "tree@master:/", "-f", tree, timeout=600)
        count = sum(len(names) for _, _, names in os.walk(tree))
        size = sum(os.path.getsize(os.path.join(d, n)) for d, _, names in os.walk(tree) for n in names)

        def check(name):
            if name == "qanat" and not figures:
                subprocess.run(["diff", "-r", tree, out], check=True)
                figures["checked"] = 1
            shutil.rmtree(out)

        figures["tree"] = compare(f"get of {count:,} files, {size / 1e6:.0f} MB", arguments.n, server,
                                  lambda: server.qanat("get", "file", "-r", "tree@master:/", "-o", out, timeout=600),
                                  lambda: subprocess.run(["cp", "-r", tree, out], check=True), check)
        large = os.path.join(work, "large")
        pick = random.Random(1)
        with open(large, "wb") as f:
            for _ in range(arguments.size):
                f.write(pick.randbytes(1 << 20))
        server.qanat("create", "repo", "large")
        server.qanat("put", "file", "large@master:/f", "-f", large, timeout=600)
        figures["file"] = compare(f"get of one file of {arguments.size} MiB", arguments.n, server,
                                  lambda: server.qanat("get", "file", "large@master:/f", "-o", out, timeout=600),
                                  lambda: subprocess.run(["cp", large, out], check=True), lambda name: os.remove(out))
        at = arguments.size << 19
        row = Row(server)
        for _ in range(arguments.n):
            row.run(lambda: server.qanat("get", "file", "large@master:/f", "--range", f"{at}-{at + 99}", "-o", out))
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        kept = []
        for _ in range(50):
            begin = time.perf_counter()
            connection.request("GET", "/api/v1/projects/default/repos/large/files/f?ref=master",
                               headers={"Authorization": f"Bearer {server.token}", "Range": f"bytes={at}-{at + 99}"})
            answer = connection.getresponse()
            assert len(answer.read()) == 100
            kept.append((time.perf_counter() - begin) * 1000)
        print(f"100 bytes in its middle: {row.median() * 1000:.0f} ms over the command line, {statistics.median(kept):.2f} ms over a kept connection")
        figures["range_ms"] = statistics.median(kept)
    if arguments.json:
        with open(arguments.json, "w") as f:
            json.dump(figures, f, indent=1)


if __name__ == "__main__":
    main()
