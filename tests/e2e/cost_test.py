"""What operations cost, by the server's own counters, which no load of the machine can blur.

At 100,000 files (one flat folder; 100 folders of 1,000) a one-file commit reads at most 40 nodes, writes at most 15 and makes at most 3
fsyncs; the checkpoints of the embedded database, which one commit in a thousand pays for all, are counted apart. A job after a one-file
commit costs what the change costs, not what the pipeline has: QANAT_COST_DATUMS (default 1,000; `./dev test --all` may take 10,000) datums.
"""

import os
import time
import unittest

from harness import Server

FILES = 100_000
READS, WRITES, SYNCS = 40, 15, 3
DATUMS = int(os.environ.get("QANAT_COST_DATUMS", "1000"))
MEMORY = 200 << 20


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def file_stream(files):
    """A FileStream (src/qanat/api/file_stream.h) of puts, from pairs of path and bytes."""
    parts = [b"QNFS1\n"]
    count = 0
    for path, content in files:
        path = path.encode()
        parts += [b"\x03", varint(len(path)), path, b"\x00", varint(len(content)), content, b"\x00"]
        count += 1
    parts += [b"\x08", varint(count)]
    return b"".join(parts)


def put_many(server, repo, files):
    status, _, body = server.http("POST", f"/api/v1/projects/default/repos/{repo}/edits?ref=master", file_stream(files),
                                  headers={"Content-Type": "application/vnd.qanat.file-stream"}, timeout=600)
    assert status // 100 == 2, body


def metrics(server):
    values = {}
    for line in server.http("GET", "/metrics")[2].decode().splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            values[name] = int(float(value))
    return values


class Cost:
    """Counters over a `with` block."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        self.before = metrics(self.server)
        return self

    def __exit__(self, *unused):
        # A compaction that an operation has set off may still be running: it is counted whole.
        self.after = metrics(self.server)
        for _ in range(20):
            time.sleep(0.1)
            before, self.after = self.after, metrics(self.server)
            if all(before.get(name) == self.after.get(name) for name in ("qanat_file_syncs_total", "qanat_index_compactions_total")):
                break

    def of(self, name):
        return self.after.get(name, 0) - self.before.get(name, 0)

    @property
    def nodes_read(self):
        return self.of("qanat_nodes_read_total")

    @property
    def nodes_written(self):
        return self.of("qanat_nodes_written_total")

    @property
    def syncs(self):
        return self.of("qanat_file_syncs_total") + self.of("qanat_directory_syncs_total") - self.of("qanat_meta_checkpoint_syncs_total")

    def __str__(self):
        return f"{self.nodes_read} nodes read, {self.nodes_written} written, {self.syncs} fsyncs"


def peak_memory(server):
    with open(f"/proc/{server.process.pid}/status") as f:
        return int(next(line for line in f if line.startswith("VmHWM")).split()[1]) * 1024


class LargeTree(unittest.TestCase):
    def check_commits(self, path_of):
        with Server() as server:
            server.qanat("create", "repo", "r")
            put_many(server, "r", ((path_of(i), b"%d" % i) for i in range(FILES)))
            self.assertEqual(server.json("inspect", "commit", "r@master")["files"], FILES)
            middle = path_of(FILES // 2)
            commits = {
                "a file replaced": lambda: server.put("r", "/" + middle, "another"),
                "a file appended to": lambda: server.qanat("put", "file", "-a", f"r@master:/{middle}", "-f", "-", input="more"),
                "a new file": lambda: server.put("r", f"/{middle}-new", "new"),
                "the first file replaced": lambda: server.put("r", "/" + path_of(0), "another"),
                "a file after the last": lambda: server.put("r", "/zzz", "new"),
                "a file deleted": lambda: server.qanat("delete", "file", f"r@master:/{path_of(FILES // 3)}"),
            }
            for what, commit in commits.items():
                with self.subTest(what):
                    with Cost(server) as cost:
                        commit()
                    self.assertLessEqual(cost.nodes_read, READS, cost)
                    self.assertLessEqual(cost.nodes_written, WRITES, cost)
                    self.assertGreater(cost.nodes_written, 0, "a commit that writes no node is not counted at all")
                    self.assertLessEqual(cost.syncs, SYNCS, cost)
            for what, arguments in {"get": ("get", "file", f"r@master:/{middle}"), "inspect": ("inspect", "file", f"r@master:/{middle}"),
                                    "diff": ("diff", "file", "r@master", "r@master^")}.items():
                with self.subTest(what):
                    with Cost(server) as cost:
                        server.qanat(*arguments)
                    self.assertLessEqual(cost.nodes_read, READS, cost)
                    self.assertEqual(cost.syncs, 0, cost)
            self.assertLess(peak_memory(server), MEMORY)

    def test_flat(self):
        self.check_commits(lambda i: f"f{i:06}")

    def test_nested(self):
        self.check_commits(lambda i: f"d{i // 1000:03}/f{i % 1000:03}")


class Jobs(unittest.TestCase):
    def test_a_job_costs_what_changed(self):
        with Server() as server:
            server.qanat("create", "repo", "r")
            put_many(server, "r", ((f"f{i:05}", b"%d" % i) for i in range(DATUMS)))
            server.create_pipeline({
                "pipeline": {"name": "copy"}, "parallelism_spec": {"constant": 2},
                "transform": {"image": "none", "cmd": ["/bin/sh", "-c", "cp /pfs/r/* /pfs/out/"]},
                "input": {"pfs": {"repo": "r", "glob": "/*"}},
            })
            server.qanat("wait", "commit", "copy@master", timeout=60 + DATUMS)
            costs = []
            for i in range(3):
                with Cost(server) as cost:
                    server.put("r", f"/f{DATUMS // 2 + i:05}", f"another {i}")
                    server.qanat("wait", "commit", "copy@master")
                datums = server.jobs("copy")[0]["datums"]
                self.assertEqual((datums["total"], datums["processed"], datums["skipped"]), (DATUMS, 1, DATUMS - 1))
                costs.append(cost)
            # The commit, the plan (a row of the datum table), the result, and the fold (table, owners, content), each with its way from the root
            # down and back up. All nodes of the three trees are about DATUMS / 8.
            for cost in costs:
                self.assertLessEqual(cost.nodes_read, 120, cost)
                self.assertLessEqual(cost.nodes_written, 40, cost)
                # Commit 3; plan 3; the datum's result 3; the end 3, and 2 for its segment of the index of results. A compaction of an index, which
                # comes once in 32 segments, is one segment and two transactions; the first of an index makes a folder.
                self.assertLessEqual(cost.syncs - 5 * cost.of("qanat_index_compactions_total"), 14, cost)
            self.assertLess(peak_memory(server), MEMORY)


if __name__ == "__main__":
    unittest.main()
