#!/usr/bin/python3
"""Trees at scale: what commits, diffs, globs, copies and histories cost as a repo grows, and what the load itself costs.

  bench/trees.py [--files N,N,...] [--shape nested|flat|both] [--large] [--tar] [--memory MB] [--json FILE] [--keep DIR]

For each size (default 1,000 and 1,000,000; --large adds 10,000,000) and each shape (1,000 files a folder; all in one folder): one
request brings N files of 64 random bytes (a stream of edits; --tar: a tar, as `put file --untar` sends it), the server in a memory
cgroup (512 MB), page cache included. Then, each over one kept connection, with what it read and wrote by the server's own counters:
one-file commits at random paths; a diff of one change, warm and after a restart; a glob, a list, a stat, a copy of a folder, the history
of a path, a branch. The times are those that a client on this machine sees, this program's own work included; beside them the
server's, as its answers tell (`Server-Timing`).
Nothing is deduplicated: the bytes are random (seeded), and the counters of written chunks are checked.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
sys.path.insert(0, os.path.join(ROOT, "bench"))

from bench import MemoryCgroup  # noqa: E402
from harness import Server  # noqa: E402

SIZE = 64
BATCH = 1000  # files made at once; also the files of a folder in the nested shape
API = "/api/v1/projects/default/repos"
STREAM, TAR = "application/vnd.qanat.file-stream", "application/x-tar"


def path_of(shape, i):
    return f"f{i:08}" if shape == "flat" else f"d{i // BATCH:05}/f{i % BATCH:03}"


def contents(seed, begin, count):
    data = random.Random(f"{seed}:{begin}").randbytes(SIZE * count)
    return [data[i:i + SIZE] for i in range(0, len(data), SIZE)]


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def edits_stream(shape, files, seed):
    """Pieces of a FileStream (src/qanat/api/file_stream.h) of puts."""
    yield b"QNFS1\n"
    for begin in range(0, files, BATCH):
        count = min(BATCH, files - begin)
        parts = []
        for i, content in enumerate(contents(seed, begin, count), begin):
            path = path_of(shape, i).encode()
            parts += [b"\x03", bytes((len(path),)), path, b"\x00", bytes((SIZE,)), content, b"\x00"]
        yield b"".join(parts)
    yield b"\x08" + varint(files)


def tar_stream(shape, files, seed):
    """Pieces of a tar (POSIX ustar) of regular files."""
    rest = bytearray(412)  # a header after its name
    rest[0:8], rest[8:16], rest[16:24] = b"0000644\0", b"0000000\0", b"0000000\0"
    rest[24:36], rest[36:48] = b"%011o\0" % SIZE, b"%011o\0" % 0
    rest[48:56], rest[56:57], rest[157:165] = b" " * 8, b"0", b"ustar\x0000"
    before, after, base = bytes(rest[:48]), bytes(rest[56:]), sum(rest)
    padding = bytes(-SIZE % 512)
    for begin in range(0, files, BATCH):
        count = min(BATCH, files - begin)
        parts = []
        for i, content in enumerate(contents(seed, begin, count), begin):
            path = path_of(shape, i).encode()
            parts += [path.ljust(100, b"\0"), before, b"%06o\0 " % (base + sum(path)), after, content, padding]
        yield b"".join(parts)
    yield bytes(1024)


class Client:
    """Calls of the API over one connection that is kept."""

    def __init__(self, server):
        self.server = server
        self.token = server.token
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=7200)
        self.server_ms = 0.0  # of all calls, as the server tells

    def call(self, method, path, body=None, type=None, chunked=False):
        headers = {"Authorization": f"Bearer {self.token}"}
        if type:
            headers["Content-Type"] = type
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        self.connection.request(method, path, body=body, headers=headers, encode_chunked=chunked)
        answer = self.connection.getresponse()
        data = answer.read()
        self.server_ms += float(answer.headers["Server-Timing"].partition("dur=")[2])
        if answer.status // 100 != 2:
            raise AssertionError(f"{method} {path}: {answer.status} {data.decode(errors='replace')}")
        return data

    def json(self, method, path, body=None):
        return json.loads(self.call(method, path, json.dumps(body) if body is not None else None, "application/json"))

    def metrics(self):
        values = {}
        for line in self.call("GET", "/metrics").decode().splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = int(float(value))
        return values


class Cost:
    """Time and counters of operations, of which several may be made."""

    COUNTERS = {"read": ["qanat_nodes_read_total"], "written": ["qanat_nodes_written_total"],
                "fetched": ["qanat_nodes_fetched_total"], "transactions": ["qanat_meta_transactions_total"],
                "object_reads": ["qanat_object_reads_total"]}

    def __init__(self, client):
        self.client = client
        self.ms = []
        self.server_ms = []
        self.counts = {}

    @contextlib.contextmanager
    def measure(self):
        before = self.client.metrics()
        server_ms, begin = self.client.server_ms, time.perf_counter()
        yield
        self.ms.append((time.perf_counter() - begin) * 1000)
        self.server_ms.append(self.client.server_ms - server_ms)
        after = self.client.metrics()
        change = {name: value - before.get(name, 0) for name, value in after.items()}
        found = {name: sum(change.get(c, 0) for c in counters) for name, counters in self.COUNTERS.items()}
        found["fsyncs"] = (change.get("qanat_file_syncs_total", 0) + change.get("qanat_directory_syncs_total", 0)
                           - change.get("qanat_meta_checkpoint_syncs_total", 0))
        for name, value in found.items():
            self.counts.setdefault(name, []).append(value)

    def row(self):
        # Nodes: the most. The rest: the median, since leases are renewed and indexes compacted in between.
        counts = {name: max(values) if name in ("read", "written") else int(statistics.median(values)) for name, values in self.counts.items()}
        return {"p50_ms": statistics.median(self.ms), "worst_ms": max(self.ms), "server_p50_ms": statistics.median(self.server_ms), **counts}


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def anonymous_peak(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(next(line for line in f if line.startswith("VmHWM")).split()[1]) * 1024


def disk_use(folder):
    objects, used = 0, 0
    for directory, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                used += os.stat(os.path.join(directory, name)).st_blocks * 512
                objects += os.sep + "objects" + os.sep in directory + os.sep
    return objects, used


def load(server, shape, files, tar):
    client = Client(server)
    client.json("POST", API, {"name": "r"})
    before, cpu = client.metrics(), cpu_seconds(server.process.pid)
    begin = time.monotonic()
    if tar:
        client.call("POST", f"{API}/r/edits?ref=master", tar_stream(shape, files, "load"), TAR, chunked=True)
    else:
        client.call("POST", f"{API}/r/edits?ref=master", edits_stream(shape, files, "load"), STREAM, chunked=True)
    seconds = time.monotonic() - begin
    written = client.metrics()["qanat_chunks_written_total"] - before.get("qanat_chunks_written_total", 0)
    commit = client.json("GET", f"{API}/r/commits/master")
    assert commit["files"] == files, commit
    assert written == files, f"{written} chunks written for {files} files"
    return {"seconds": seconds, "files_per_second": files / seconds, "server_cpu_seconds": cpu_seconds(server.process.pid) - cpu}


def settle(client):
    """Waits until no compaction has come for a while."""
    last, since = None, time.monotonic()
    while time.monotonic() - since < 3:
        now = client.metrics().get("qanat_index_compactions_total", 0), client.metrics().get("qanat_object_written_bytes_total", 0)
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.25)


def measure(server, shape, files, rounds, restart):
    rows = {}
    client = Client(server)
    pick = random.Random(files)

    def cost(name, operation, times=1, prepare=None):
        found = Cost(client)
        for i in range(times):
            if prepare:
                prepare()
            with found.measure():
                operation(i)
        rows[name] = found.row()

    def some_path():
        return path_of(shape, pick.randrange(files))

    def commit(i):
        client.call("PUT", f"{API}/r/files/{some_path()}?ref=master", os.urandom(SIZE), "application/octet-stream")

    def diff(_):
        changes = client.json("GET", f"{API}/r/diff?ref=master&base=master^1")["items"]
        assert len(changes) == 1, changes

    folder = path_of(shape, files // 2).split("/")[0]
    first = path_of(shape, files // 2)
    cost("one-file commit", commit, rounds)
    cost("diff of one change", diff, 20, prepare=lambda: commit(0))
    cost("stat", lambda i: client.json("GET", f"{API}/r/stat?ref=master&path=/{some_path()}"), 20)
    cost("list of 100", lambda i: client.json("GET", f"{API}/r/list?ref=master&path=/{'' if shape == 'flat' else folder}&limit=100"), 5)
    pattern = first[:-2] + "*"
    expected = sum(path_of(shape, i).startswith(first[:-2]) for i in range(max(0, files // 2 - 1000), min(files, files // 2 + 1000)))
    found = client.json("GET", f"{API}/r/glob?ref=master&pattern=/{pattern}&limit=1000")["items"]
    assert len(found) == expected, (pattern, len(found), expected)
    cost(f"glob of {expected}", lambda i: client.json("GET", f"{API}/r/glob?ref=master&pattern=/{pattern}&limit=1000"), 5)
    cost("history of a path, 50 commits", lambda i: client.json("GET", f"{API}/r/history?ref=master&path=/{first}&limit=1"), 3)
    copy = json.dumps({"repo": "r", "ref": "master", "path": "/" + (folder if shape == "nested" else "")}).encode()
    if shape == "nested":
        def copy_folder(i):
            path = f"copy{i}".encode()
            body = b"QNFS1\n\x05" + varint(len(copy)) + copy + varint(len(path)) + path + b"\x08\x01"
            client.call("POST", f"{API}/r/edits?ref=master", body, STREAM)
        cost("copy of a folder of 1,000", copy_folder, 3)
        cost("delete of a folder of 1,000", lambda i: client.call("DELETE", f"{API}/r/files/copy{i}?ref=master"), 3)
    cost("branch", lambda i: client.json("PUT", f"{API}/r/branches/b{i}", {"head": "master"}), 5)
    if restart:
        commit(0)
        server.stop()
        server.start()
        client = Client(server)
        client.json("GET", f"{API}/r/commits/master")
        cost("diff of one change, cold", diff)
        cost("one-file commit, cold", commit)
    return rows


def run(shape, files, arguments):
    folder = os.path.join(arguments.keep, f"{shape}-{files}") if arguments.keep else None
    server = Server(folder=folder, runner="process")
    figures = {"shape": shape, "files": files}
    try:
        server.start()
        group = MemoryCgroup(arguments.memory << 20)
        group.add(server.process.pid)
        figures["load"] = load(server, shape, files, arguments.tar)
        figures["load"]["cgroup_peak_mb"] = group.peak() / 1e6
        figures["load"]["resident_peak_mb"] = anonymous_peak(server.process.pid) / 1e6
        begin = time.monotonic()
        settle(Client(server))
        figures["load"]["settled_after_seconds"] = time.monotonic() - begin - 3
        figures["load"]["objects"], used = disk_use(server.data)
        figures["load"]["disk_mb"] = used / 1e6
        show(figures, "load")
        figures["operations"] = measure(server, shape, files, arguments.commits, restart=True)
        show(figures, "operations")
        server.stop()
        group.close()
    finally:
        if arguments.keep:
            server.stop()
        else:
            server.close()
    return figures


def show(figures, part):
    if part == "load":
        load_figures = figures["load"]
        print(f"{figures['files']:,} files of {SIZE} bytes, {figures['shape']}:")
        print(f"  load {load_figures['seconds']:.2f} s ({load_figures['files_per_second']:,.0f} files a second), server's processor {load_figures['server_cpu_seconds']:.1f} s; "
              f"peak {load_figures['cgroup_peak_mb']:.0f} MB in the cgroup, {load_figures['resident_peak_mb']:.0f} MB resident; "
              f"{load_figures['objects']} objects, {load_figures['disk_mb']:.0f} MB on disk")
    else:
        for name, row in figures["operations"].items():
            print(f"  {name:32} p50 {row['p50_ms']:8.2f} ms, worst {row['worst_ms']:8.2f} ms, server p50 {row['server_p50_ms']:8.2f} ms   " +
                  ", ".join(f"{key} {value}" for key, value in row.items() if not key.endswith("_ms")))
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", help="sizes, with commas between them (default 1000,1000000)")
    parser.add_argument("--shape", choices=["nested", "flat", "both"], default="both")
    parser.add_argument("--large", action="store_true", help="10 million files too")
    parser.add_argument("--tar", action="store_true", help="load from a tar instead of a stream of edits")
    parser.add_argument("--memory", type=int, default=512, help="of the server's cgroup, in MiB (default 512)")
    parser.add_argument("--commits", type=int, default=50, help="one-file commits (default 50)")
    parser.add_argument("--keep", help="leave the data folders here")
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    sizes = [int(n) for n in arguments.files.split(",")] if arguments.files else [1000, 1_000_000] + [10_000_000] * arguments.large
    shapes = ["nested", "flat"] if arguments.shape == "both" else [arguments.shape]
    figures = [run(shape, files, arguments) for files in sizes for shape in shapes]
    if arguments.json:
        with open(arguments.json, "w") as f:
            json.dump(figures, f, indent=1)


if __name__ == "__main__":
    main()
