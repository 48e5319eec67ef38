"""Reading: whole trees through several threads, ranges by their chunks, transfers that are cut.

A `get file` that fails leaves files that are whole, and no others. The cuts are made by a relay between client and server, at random
(seeded) bytes of the answer.
"""

import contextlib
import os
import random
import socket
import stat
import subprocess
import tempfile
import threading
import unittest

from cost_test import Cost
from harness import QANAT, Server, wait_until

CUTS = int(os.environ.get("QANAT_CUTS", "12"))


class Relay:
    """Passes connections on to a server; cuts each after so many bytes of the answer."""

    def __init__(self, port, limit):
        self.port, self.limit = port, limit
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            threading.Thread(target=self.copy, args=(client, server, None), daemon=True).start()
            self.copy(server, client, self.limit)

    @staticmethod
    def copy(source, target, limit):
        with contextlib.suppress(OSError):
            while limit is None or limit > 0:
                data = source.recv(65536 if limit is None else min(limit, 65536))
                if not data:
                    break
                target.sendall(data)
                if limit is not None:
                    limit -= len(data)
        for side in (source, target):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
                side.close()

    def close(self):
        self.listener.close()


def make_tree(folder, pick):
    """Small files in several folders, empty ones, and some of many chunks; {path: bytes}."""
    files = {}
    for i in range(600):
        files[f"d{i % 7}/e{i % 3}/f{i}"] = pick.randbytes(pick.choice([0, 1, 64, 4096, 40_000]))
    for i in range(3):
        files[f"large{i}"] = pick.randbytes(3_000_000 + i)
    files["repeated"] = b"x" * 5_000_000
    for path, content in files.items():
        os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
        with open(os.path.join(folder, path), "wb") as f:
            f.write(content)
    return files


def read_tree(folder):
    files = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(directory, name), "rb") as f:
                files[os.path.relpath(os.path.join(directory, name), folder)] = f.read()
    return files


class Reading(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server().start()
        cls.work = tempfile.TemporaryDirectory(prefix="qanat-read-")
        cls.pick = random.Random(1)
        tree = os.path.join(cls.work.name, "tree")
        cls.files = make_tree(tree, cls.pick)
        cls.server.qanat("create", "repo", "r")
        cls.server.qanat("put", "file", "-r", "r@master:/", "-f", tree)

    @classmethod
    def tearDownClass(cls):
        cls.server.close()
        cls.work.cleanup()

    def test_a_tree_comes_back_as_it_was(self):
        out = os.path.join(self.work.name, "whole")
        self.server.qanat("get", "file", "-r", "r@master:/", "-o", out)
        self.assertEqual(read_tree(out), self.files)
        # Over what is there: files are replaced.
        with open(os.path.join(out, "large0"), "w") as f:
            f.write("old")
        os.remove(os.path.join(out, "repeated"))
        os.symlink("large0", os.path.join(out, "repeated"))
        self.server.qanat("get", "file", "-r", "r@master:/", "-o", out)
        self.assertEqual(read_tree(out), self.files)
        self.assertFalse(os.path.islink(os.path.join(out, "repeated")))

    def test_directories_patterns_and_single_files(self):
        for address, below in {"/d3": "d3/", "/d3/e1": "d3/e1/"}.items():
            with tempfile.TemporaryDirectory(dir=self.work.name) as out:
                self.server.qanat("get", "file", "-r", f"r@master:{address}", "-o", out)
                self.assertEqual(read_tree(out), {path[len(below):]: content for path, content in self.files.items() if path.startswith(below)})
        with tempfile.TemporaryDirectory(dir=self.work.name) as out:
            self.server.qanat("get", "file", "-r", "r@master:/large*", "-o", out)
            self.assertEqual(read_tree(out), {path: content for path, content in self.files.items() if path.startswith("large")})
            one = os.path.join(out, "one")
            self.server.qanat("get", "file", "r@master:/large1", "-o", one)
            with open(one, "rb") as f:
                self.assertEqual(f.read(), self.files["large1"])

    def test_what_is_no_file_is_written_to_as_it_is(self):
        with tempfile.TemporaryDirectory(dir=self.work.name) as out:
            pipe = os.path.join(out, "pipe")
            os.mkfifo(pipe)
            with open(os.path.join(out, "got"), "w+b") as got:
                reader = subprocess.Popen(["cat", pipe], stdout=got)
                self.server.qanat("get", "file", "r@master:/large1", "-o", pipe)
                reader.wait(timeout=60)
                got.seek(0)
                self.assertEqual(got.read(), self.files["large1"])
            self.assertTrue(stat.S_ISFIFO(os.stat(pipe).st_mode))
            self.assertIn("is a folder", self.server.fails("get", "file", "r@master:/large1", "-o", out))

    def test_who_may_read_a_replaced_file_stays(self):
        with tempfile.TemporaryDirectory(dir=self.work.name) as out:
            one = os.path.join(out, "one")
            with open(one, "w") as f:
                f.write("what was there")
            for mode in (0o600, 0o640, 0o444):
                os.chmod(one, mode)
                self.server.qanat("get", "file", "r@master:/large1", "-o", one)
                self.assertEqual(stat.S_IMODE(os.stat(one).st_mode), mode)
                with open(one, "rb") as f:
                    self.assertEqual(f.read(), self.files["large1"])

    def test_ranges_touch_only_their_chunks(self):
        content = self.files["large2"]
        for begin, length in [(0, 1), (1_500_000, 100), (len(content) - 1, 1), (700_000, 500_000)]:
            with Cost(self.server) as cost:
                got = self.server.run("get", "file", "r@master:/large2", "--range", f"{begin}-{begin + length - 1}", text=False).stdout
            self.assertEqual(got, content[begin:begin + length])
            self.assertLessEqual(cost.of("qanat_chunks_read_total"), 2 + length // 65536)
            self.assertLessEqual(cost.nodes_read, 6, cost)

    def test_a_cut_transfer_leaves_no_half_file(self):
        total = sum(map(len, self.files.values()))
        cut = 0
        for _ in range(CUTS):
            relay = Relay(self.server.port, self.pick.randrange(300, total))
            with tempfile.TemporaryDirectory(dir=self.work.name) as out:
                whole = os.path.join(out, "t")
                result = self.server.run("--server", relay.address, "get", "file", "-r", "r@master:/", "-o", whole)
                cut += result.returncode != 0
                for path, content in read_tree(whole).items():
                    self.assertIn(path, self.files, result.stderr)  # no temporary file is left either
                    self.assertEqual(content, self.files[path], path)
                one = os.path.join(out, "one")
                with open(one, "w") as f:
                    f.write("what was there")
                relay.limit = self.pick.randrange(300, len(self.files["large0"]))
                result = self.server.run("--server", relay.address, "get", "file", "r@master:/large0", "-o", one)
                self.assertNotEqual(result.returncode, 0)
                with open(one) as f:
                    self.assertEqual(f.read(), "what was there")
                self.assertEqual(sorted(os.listdir(out)), ["one"] + ["t"] * os.path.isdir(whole))
            relay.close()
        self.assertGreater(cut, CUTS // 2)


    @staticmethod
    def has_open(pid, folder):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith(folder):
                    return True
        return False

    def test_who_is_killed_leaves_nothing(self):
        """A transfer that stands still, and then a kill -9, twice: of a new file, and of one that is there."""
        with tempfile.TemporaryDirectory(dir=self.work.name) as out, socket.create_server(("127.0.0.1", 0)) as listener:
            one = os.path.join(out, "one")
            for before in ([], ["one"]):
                if before:
                    with open(one, "w") as f:
                        f.write("what was there")
                environment = {**os.environ, "QANAT_SERVER": f"http://127.0.0.1:{listener.getsockname()[1]}", "QANAT_TOKEN": self.server.token,
                               "HOME": self.server.folder}
                process = subprocess.Popen([QANAT, "get", "file", "r@master:/large0", "-o", one], env=environment, stdout=subprocess.DEVNULL,
                                           stderr=subprocess.DEVNULL)
                client, _ = listener.accept()
                with client, socket.create_connection(("127.0.0.1", self.server.port)) as upstream:
                    upstream.sendall(client.recv(65536))
                    for _ in range(8):
                        client.sendall(upstream.recv(65536))
                    wait_until(lambda: self.has_open(process.pid, out), "the client has begun a file")
                    process.kill()
                    process.wait()
                self.assertEqual(os.listdir(out), before)
            with open(one) as f:
                self.assertEqual(f.read(), "what was there")


class Cached(unittest.TestCase):
    def test_a_cache_serves_repeats_and_survives(self):
        with tempfile.TemporaryDirectory(prefix="qanat-cache-") as work:
            tree = os.path.join(work, "tree")
            files = make_tree(tree, random.Random(2))
            with Server(arguments=["--cache", f"{work}/cache,64M"]) as server:
                server.qanat("create", "repo", "r")
                server.qanat("put", "file", "-r", "r@master:/", "-f", tree)
                for i in range(2):
                    with Cost(server) as cost:
                        server.qanat("get", "file", "-r", "r@master:/", "-o", f"{work}/out{i}")
                    self.assertEqual(read_tree(f"{work}/out{i}"), files)
                    self.assertEqual(cost.of("qanat_object_reads_total"), 0)  # the store itself: what was written is there
                    self.assertGreater(cost.of("qanat_cache_hits_total"), 0)
                    server.stop(kill=True)
                    server.start()
                server.stop()
                server.arguments = ["--cache", "64M"]
                with self.assertRaisesRegex(AssertionError, "is not FOLDER,SIZE"):
                    server.start()


if __name__ == "__main__":
    unittest.main()
