#!/usr/bin/python3
"""Garbage collection: how many objects stay, how long a collection takes, and what writers feel of it.

  bench/gc.py [objects] [commits] [collect] [beside] [--files N] [--memory MB] [--commits N] [--writes N] [--json FILE]

objects  a million files of 4 KiB (--files), brought by one tar: how many objects the data folder then holds
commits  10,000 commits of one new file each (--commits), then collections until nothing more is joined: how many objects are left
collect  10 million files of 64 bytes (--files), half of them deleted: `garbage-collect --now` with the server in a memory cgroup of
         256 MB (--memory), page cache included: seconds, the server's peak
beside   5,000 one-file commits (--writes) one after the other, alone and then while collections run without a break: p50 and p99 of both

The data is random bytes, so nothing is deduplicated. Times are those that a client on this machine sees.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
sys.path.insert(0, os.path.join(ROOT, "bench"))

import trees  # noqa: E402
from bench import MemoryCgroup  # noqa: E402
from harness import Server  # noqa: E402
from trees import API, Client, anonymous_peak, cpu_seconds, disk_use, load, path_of, settle  # noqa: E402


def collect(server, *flags):
    return json.loads(server.qanat("garbage-collect", "-o", "json", *flags, timeout=7200))


def bench_objects(arguments):
    files = arguments.files or 1_000_000
    trees.SIZE = 4096
    with Server(runner="process") as server:
        figures = load(server, "nested", files, True)
        settle(Client(server))
        count, used = disk_use(server.data)
        peak = anonymous_peak(server.process.pid)
    trees.SIZE = 64
    print(f"{files:,} files of 4 KiB: {count} objects, {used / 1e6:.0f} MB on disk; put in {figures['seconds']:.1f} s, server's peak {peak / 1e6:.0f} MB resident")
    return {"files": files, "objects": count, **figures}


def commit_one(client, i):
    client.call("PUT", f"{API}/r/files/d{i % 100}/f{i}?ref=master", os.urandom(100), "application/octet-stream")


def bench_commits(arguments):
    with Server(runner="process") as server:
        client = Client(server)
        client.json("POST", API, {"name": "r"})
        begin = time.monotonic()
        for i in range(arguments.commits):
            commit_one(client, i)
        seconds = time.monotonic() - begin
        before, _ = disk_use(server.data)
        count, rounds, collecting = before, 0, time.monotonic()
        while True:
            collect(server, "--now")
            rounds += 1
            settle(Client(server))
            now, _ = disk_use(server.data)
            if now >= count or rounds == 10:
                break
            count = now
        collecting = time.monotonic() - collecting
        assert Client(server).json("GET", f"{API}/r/commits/master")["files"] == arguments.commits
        server.qanat("fsck", timeout=7200)
    print(f"{arguments.commits:,} one-file commits in {seconds:.1f} s: {before} objects, {now} after {rounds} collections ({collecting:.1f} s)")
    return {"commits": arguments.commits, "objects_before": before, "objects": now, "collections": rounds}


def bench_collect(arguments):
    files = arguments.files or 10_000_000
    with Server(runner="process") as server:
        load(server, "nested", files, False)
        settle(Client(server))
        client = Client(server)
        loaded = client.json("GET", f"{API}/r/commits/master")["id"]
        # Every second folder goes, and the commit that had it.
        server.qanat("start", "commit", "r@master")
        for i in range(0, files, 2000):
            client.call("DELETE", f"{API}/r/files/{path_of('nested', i).split('/')[0]}?ref=master")
        server.qanat("finish", "commit", "r@master", timeout=600)
        server.qanat("squash", "commit", loaded, "--now")
        settle(client)
        server.stop()
        server.start()
        group = MemoryCgroup(arguments.memory << 20)
        group.add(server.process.pid)
        begin, cpu = time.monotonic(), cpu_seconds(server.process.pid)
        report = collect(server, "--now")
        seconds = time.monotonic() - begin
        cpu = cpu_seconds(server.process.pid) - cpu
        peak, resident = group.peak(), anonymous_peak(server.process.pid)
        server.stop()
        group.close()
    assert report["freed_bytes"] > files // 2 * 64, report
    print(f"a collection of {files:,} files, half of them dead: {seconds:.1f} s, {report['freed_bytes'] / 1e6:.0f} MB freed, server's processor {cpu:.1f} s, peak {peak / 1e6:.0f} MB in a cgroup of "
          f"{arguments.memory} MB, {resident / 1e6:.0f} MB resident")
    return {"files": files, "seconds": seconds, "peak": peak, "report": report}


def bench_beside(arguments):
    def writes(server, begin):
        client, ms = Client(server), []
        for i in range(begin, begin + arguments.writes):
            start = time.perf_counter()
            commit_one(client, i)
            ms.append((time.perf_counter() - start) * 1000)
        ms.sort()
        return statistics.median(ms), ms[len(ms) * 99 // 100]

    with Server(runner="process") as server:
        client = Client(server)
        client.json("POST", API, {"name": "r"})
        writes(server, 0)  # so that both find the same repo
        alone = writes(server, arguments.writes)
        collections, stop = [0], threading.Event()

        def collector():
            while not stop.is_set():
                collect(server, "--now")
                collections[0] += 1

        thread = threading.Thread(target=collector)
        thread.start()
        beside = writes(server, 2 * arguments.writes)
        stop.set()
        thread.join()
    print(f"{arguments.writes:,} writes: p50 {alone[0]:.2f} ms, p99 {alone[1]:.2f} ms; beside {collections[0]} collections: p50 {beside[0]:.2f} ms "
          f"({beside[0] / alone[0]:.2f} times), p99 {beside[1]:.2f} ms ({beside[1] / alone[1]:.2f} times)")
    return {"alone": alone, "beside": beside, "collections": collections[0]}


def main():
    benches = {"objects": bench_objects, "commits": bench_commits, "collect": bench_collect, "beside": bench_beside}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*benches, []], default=[])
    parser.add_argument("--files", type=int, help="of objects and collect")
    parser.add_argument("--memory", type=int, default=256, help="of the server's cgroup, in MiB (default 256)")
    parser.add_argument("--commits", type=int, default=10_000)
    parser.add_argument("--writes", type=int, default=5_000)
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    figures = {}
    for name in arguments.what or benches:
        figures[name] = benches[name](arguments)
        sys.stdout.flush()
    if arguments.json:
        with open(arguments.json, "w") as f:
            json.dump(figures, f, indent=1)


if __name__ == "__main__":
    main()
