"""Uploads that are cut, killed, repeated, shared and forged.

A put that was interrupted at any byte, by the network, by the end of the client or of the server, is finished by the same command, which sends
only what was not durable yet, and gives the root that an undisturbed put gives. QANAT_CUTS (default 12; `./dev test --all` may take 100) is the
number of random places at which it is cut.
"""

import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import tempfile
import threading
import time
import unittest

from harness import QANAT, Server, wait_until

CUTS = int(os.environ.get("QANAT_CUTS", "12"))
SENT = "qanat_upload_bytes_total"


class CuttingProxy:
    """Forwards TCP to a server until so many bytes have gone there; then every connection is cut, new ones at once, until revive()."""

    def __init__(self, target, limit):
        self.target = target
        self.left = limit
        self.dead = False
        self.lock = threading.Lock()
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.dead:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.target))
            with self.lock:
                self.sockets += [client, server]
            threading.Thread(target=self.forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.forward, args=(server, client, False), daemon=True).start()

    def forward(self, source, target, counted):
        try:
            while data := source.recv(65536):
                if counted:
                    with self.lock:
                        allowed = min(len(data), self.left)
                        self.left -= allowed
                    target.sendall(data[:allowed])
                    if self.left == 0:
                        self.cut()
                        return
                else:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def revive(self):
        self.left, self.dead = 1 << 40, False

    def cut(self):
        with self.lock:
            self.dead = True
            sockets, self.sockets = self.sockets, []
        for s in sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"


class Relay:
    """Between client and server: keeps the first lines of requests; holds back what clients send once so many bytes have passed, until `go` is
    set; loses the answers to requests whose line has `lose` in it."""

    def __init__(self, target, hold_after=1 << 40, lose=None):
        self.target = target
        self.left = hold_after
        self.lose = lose
        self.requests = []
        self.held = threading.Event()
        self.go = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # what is held back does not hide in the kernel
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            doomed = threading.Event()
            threading.Thread(target=self.forward, args=(client, server, True, doomed), daemon=True).start()
            threading.Thread(target=self.forward, args=(server, client, False, doomed), daemon=True).start()

    def forward(self, source, target, up, doomed):
        try:
            while data := source.recv(65536):
                if up:
                    line = data.split(b"\r\n", 1)[0]
                    if line.endswith(b" HTTP/1.1"):
                        self.requests.append(line.decode())
                        if self.lose and self.lose in self.requests[-1]:
                            doomed.set()
                    self.left -= len(data)
                    if self.left < 0 and not self.go.is_set():
                        self.held.set()
                        self.go.wait(60)
                elif doomed.is_set():
                    break
                target.sendall(data)
        except OSError:
            pass
        for s in (source, target):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        source.close()

    def close(self):
        self.listener.close()


def make_tree(folder, seed=1):
    """About 26 MB in 400 files of all sizes; returns their bytes."""
    rng = random.Random(seed)
    total = 0
    for i in range(400):
        size = [0, 10, 4096, 70_000][i % 4] + i
        directory = os.path.join(folder, f"d{i % 7}", f"e{i % 3}")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, f"f{i}"), "wb") as f:
            f.write(rng.randbytes(size))
        total += size
    with open(os.path.join(folder, "large"), "wb") as f:
        f.write(rng.randbytes(19_000_000))
    return total + 19_000_000


class Uploads(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server().start()
        cls.tree = tempfile.mkdtemp(prefix="qanat-test-")
        cls.bytes = make_tree(cls.tree)
        cls.projects = 0
        cls.new_project()
        cls.put()
        cls.root = cls.root_of()

    @classmethod
    def tearDownClass(cls):
        cls.server.close()
        shutil.rmtree(cls.tree)

    @classmethod
    def new_project(cls):
        """Nothing is shared between projects: each begins with an empty index."""
        cls.projects += 1
        cls.project = f"p{cls.projects}"
        cls.server.api("POST", "/projects", {"name": cls.project})
        cls.server.qanat("--project", cls.project, "create", "repo", "r")

    @classmethod
    def arguments(cls, retry=0):
        return ["--project", cls.project, "put", "file", "-r", "r@master:/t", "-f", cls.tree, "--retry", str(retry)]

    @classmethod
    def put(cls):
        return cls.server.qanat(*cls.arguments())

    @classmethod
    def root_of(cls):
        return cls.server.json("--project", cls.project, "inspect", "commit", "r@master")["root"]

    def sent(self):
        return int(self.server.counter(SENT))

    def settled(self):
        """What the server took in, once the requests that were cut have ended there."""
        wait_until(lambda: self.server.counter("qanat_api_requests_running") == 1, "nothing but this request is running")
        return self.sent()

    def popen(self, url=None, retry=0):
        environment = {**os.environ, "QANAT_SERVER": url or self.server.url, "QANAT_TOKEN": self.server.token, "HOME": self.server.folder}
        return subprocess.Popen([QANAT, *self.arguments(retry)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def through(self, proxy):
        process = self.popen(proxy.url)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def test_cut_at_random_bytes(self):
        rng = random.Random(7)
        for number in range(CUTS):
            at = rng.randrange(1, self.bytes + 200_000)
            with self.subTest(cut=number, at=at):
                self.new_project()
                before = self.settled()
                proxy = CuttingProxy(self.server.port, at)
                code, output = self.through(proxy)
                proxy.cut()
                if code != 0:
                    self.assertIn("error:", output)
                durable = self.settled() - before
                # The address of the server is part of what is put where: the same one, without a cut.
                proxy.revive()
                code, output = self.through(proxy)
                proxy.cut()
                self.assertEqual(code, 0, output)
                self.assertEqual(self.root_of(), self.root)
                # Each byte once: what was durable before was not sent again.
                self.assertEqual(durable + (self.settled() - before - durable), self.bytes)

    def test_goes_on_by_itself_when_the_network_is_back(self):
        rng = random.Random(9)
        for number in range(5):
            # Not before the upload has begun, nor after its last chunk: then there is nothing to wait for.
            at = rng.randrange(self.bytes // 10, self.bytes)
            with self.subTest(cut=number, at=at):
                self.new_project()
                before = self.settled()
                proxy = CuttingProxy(self.server.port, at)
                process = self.popen(proxy.url, retry=30)
                wait_until(lambda: proxy.dead, "the network is gone")
                self.assertIn(process.poll(), (None,))
                proxy.revive()
                output, _ = process.communicate(timeout=60)
                proxy.cut()
                self.assertEqual(process.returncode, 0, output)
                self.assertIn("waiting up to 30 s for the server", output)
                self.assertEqual(self.root_of(), self.root)
                self.assertEqual(self.settled() - before, self.bytes)

    def test_gives_up_when_the_network_stays_away(self):
        self.new_project()
        proxy = CuttingProxy(self.server.port, self.bytes // 2)
        process = self.popen(proxy.url, retry=1)
        output, _ = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 1)
        self.assertIn("waiting up to 1 s for the server", output)
        self.assertIn("Run the same command again", output)

    def test_killed_client(self):
        rng = random.Random(8)
        for number in range(5):
            with self.subTest(kill=number):
                self.new_project()
                before = self.settled()
                process = self.popen()
                goal = rng.randrange(1, self.bytes)
                wait_until(lambda: process.poll() is not None or self.sent() - before >= goal - 12_000_000, "some bytes sent")
                process.kill()
                process.communicate()
                self.settled()  # what was on its way is durable, and is not sent again
                self.put()
                self.assertEqual(self.root_of(), self.root)
                self.assertEqual(self.settled() - before, self.bytes)

    def test_interrupted_says_how_to_go_on(self):
        self.new_project()
        relay = Relay(self.server.port, hold_after=self.bytes // 2)
        try:
            process = self.popen(relay.url)
            self.assertTrue(relay.held.wait(60))
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
        finally:
            relay.go.set()
            relay.close()
        self.assertEqual(process.returncode, 130)
        self.assertIn("the same command goes on", output)
        self.put()
        self.assertEqual(self.root_of(), self.root)

    def test_again_sends_nothing_and_stores_nothing(self):
        self.new_project()
        self.put()
        for trust in (True, False):
            with self.subTest(stat_cache=trust):
                if not trust:
                    shutil.rmtree(os.path.join(self.server.folder, ".cache"))
                before, stored = self.sent(), self.server.counter("qanat_object_written_bytes_total")
                self.put()
                self.assertEqual(self.sent(), before)
                self.assertEqual(self.server.counter("qanat_object_written_bytes_total"), stored)
                self.assertEqual(self.root_of(), self.root)

    def test_stat_cache_sees_changes(self):
        self.new_project()
        with tempfile.TemporaryDirectory() as folder:
            make_tree(folder, 2)
            put = ["--project", self.project, "put", "file", "-r", "r@master:/t", "-f", folder]
            self.server.qanat(*put)
            time.sleep(0.05)  # older than the resolution of the clock of files
            self.server.qanat(*put)
            file = os.path.join(folder, "d1", "e1", "f1")
            times = os.stat(file)
            with open(file, "r+b") as f:
                f.write(b"X")
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same mtime: ctime tells
            self.server.qanat(*put)
            got = self.server.run("--project", self.project, "get", "file", "r@master:/t/d1/e1/f1", text=False).stdout
            self.assertEqual(got[:1], b"X")
            # The branch lost a file that the cache knows: it is sent after all.
            self.server.qanat("--project", self.project, "delete", "file", "r@master:/t/large")
            self.server.qanat(*put)
            self.assertEqual(self.server.json("--project", self.project, "inspect", "commit", "r@master")["files"], 401)

    def test_several_clients_at_once(self):
        self.new_project()
        clients = [self.popen() for _ in range(3)]
        for client in clients:
            output, _ = client.communicate(timeout=120)
            self.assertEqual(client.returncode, 0, output)
        self.assertEqual(self.root_of(), self.root)

    def test_append_and_standard_input(self):
        self.new_project()
        data = random.Random(5).randbytes(9_000_000)
        for part in (data[:5_000_000], data[5_000_000:5_000_001], data[5_000_001:]):
            result = self.server.run("--project", self.project, "put", "file", "-a", "r@master:/x", "-f", "-", input=part, text=False)
            self.assertEqual(result.returncode, 0, result.stderr)
        whole = self.server.run("--project", self.project, "put", "file", "r@master:/y", "-f", "-", input=data, text=False)
        self.assertEqual(whole.returncode, 0, whole.stderr)
        hashes = [self.server.json("--project", self.project, "inspect", "file", f"r@master:/{name}")["hash"] for name in "xy"]
        self.assertEqual(hashes[0], hashes[1])
        got = self.server.run("--project", self.project, "get", "file", "r@master:/x", text=False).stdout
        self.assertEqual(hashlib.sha256(got).digest(), hashlib.sha256(data).digest())

    def test_a_folder_that_is_not_there(self):
        self.assertIn("/nonexistent-folder", self.server.fails("--project", self.project, "put", "file", "-r", "r@master:/", "-f", "/nonexistent-folder"))

    def test_files_that_come_in_pieces(self):
        """Reading a file of /proc gives less than was asked for, long before its end; and its size is 0."""
        self.new_project()
        whole = "/proc/crypto" if os.path.exists("/proc/crypto") else "/proc/self/smaps"
        with open(whole, "rb") as f:
            expected = f.read()
        self.server.qanat("--project", self.project, "put", "file", "r@master:/x", "-f", whole)
        got = self.server.run("--project", self.project, "get", "file", "r@master:/x", text=False).stdout
        if whole == "/proc/crypto":
            self.assertEqual(got, expected)
        self.assertGreater(len(got), 4096)

    def test_a_conflict_costs_what_others_changed(self):
        """Who put a folder before and finds that others changed the branch reads only those files again."""
        self.new_project()
        relay = Relay(self.server.port)
        code, output = self.through_relay(relay)
        self.assertEqual(code, 0, output)
        for path in ("/t/d1/e1/f1", "/t/d2/e2/f2"):
            self.server.qanat("--project", self.project, "delete", "file", f"r@master:{path}")
        self.server.qanat("--project", self.project, "put", "file", "r@master:/t/d3/e0/f3", "-f", "-", input="theirs")
        self.server.qanat("--project", self.project, "put", "file", "r@master:/elsewhere", "-f", "-", input="theirs")
        self.server.qanat("--project", self.project, "delete", "file", "r@master:/elsewhere")
        relay.requests.clear()
        code, output = self.through_relay(relay)
        self.assertEqual(code, 0, output)
        self.assertEqual(self.root_of(), self.root)
        self.assertEqual(sum("/edits" in line for line in relay.requests), 2, relay.requests)
        self.assertTrue(any("/diff?" in line for line in relay.requests), relay.requests)
        self.assertFalse(any("/uploads" in line for line in relay.requests), relay.requests)  # all that was read fits into one request
        relay.close()

    def through_relay(self, relay):
        process = self.popen(relay.url)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def test_an_append_is_not_repeated_silently(self):
        self.new_project()
        relay = Relay(self.server.port, lose="/edits")
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "f")
            with open(file, "wb") as f:
                f.write(random.Random(4).randbytes(5_000_000))
            append = ["--server", relay.url, "--project", self.project, "put", "file", "-a", "r@master:/log", "-f", file]

            def size():
                return self.server.json("--project", self.project, "inspect", "file", "r@master:/log")["size_bytes"]

            self.server.fails(*append, "--retry", "0")  # it was appended, and the answer lost
            self.assertEqual(size(), 5_000_000)
            relay.lose = None
            self.assertIn("may have been appended already", self.server.fails(*append))
            self.assertEqual(size(), 5_000_000)
            relay.lose = "/edits"
            self.assertIn("may have been appended already", self.server.fails(*append))
            self.assertEqual(size(), 10_000_000)
            relay.lose = None
            self.server.qanat(*append)
            self.assertEqual(size(), 15_000_000)
        relay.close()


class ChangingFiles(unittest.TestCase):
    """Files that change while they are put. The client is held back when it has sent little: it reads on until its memory is full, which is long
    before the end of a file of this size, and goes on when the file has been changed."""

    SIZE = 120 << 20

    @classmethod
    def setUpClass(cls):
        cls.server = Server().start()
        cls.server.qanat("create", "repo", "r")

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="qanat-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.large = os.path.join(self.folder, "large")
        with open(self.large, "wb") as f:
            for _ in range(self.SIZE >> 20):
                f.write(os.urandom(1 << 20))
        self.last = os.path.join(self.folder, "z-last")
        with open(self.last, "w") as f:
            f.write("last")

    def put_and_meanwhile(self, branch, change):
        relay = Relay(self.server.port, hold_after=200_000)
        environment = {**os.environ, "QANAT_SERVER": relay.url, "QANAT_TOKEN": self.server.token, "HOME": self.server.folder}
        process = subprocess.Popen([QANAT, "put", "file", "-r", f"r@{branch}:/", "-f", self.folder], env=environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            self.assertTrue(relay.held.wait(60), "the client sent nothing")
            change()
        finally:
            relay.go.set()
            output, _ = process.communicate(timeout=120)
            relay.close()
        return process.returncode, output

    def check(self, branch):
        """The commit holds the folder as it is now, and the next put of it gives the same."""
        root = self.server.root("r", branch)
        self.server.qanat("put", "file", "-r", f"r@{branch}-anew:/", "-f", self.folder)
        self.assertEqual(root, self.server.root("r", f"{branch}-anew"))

    def test_a_file_that_grows(self):
        def grow():
            with open(self.large, "ab") as f:
                f.write(os.urandom(3 << 20))

        code, output = self.put_and_meanwhile("grows", grow)
        self.assertEqual(code, 0, output)
        self.assertIn(f"{self.large} changed while it was read", output)
        self.check("grows")

    def test_a_file_that_shrinks(self):
        code, output = self.put_and_meanwhile("shrinks", lambda: os.truncate(self.large, self.SIZE - (5 << 20)))
        self.assertEqual(code, 0, output)
        self.assertIn(f"{self.large} changed while it was read", output)
        self.check("shrinks")

    def test_a_file_that_is_replaced_is_read_again_the_next_time(self):
        """What was read is put: the old file, to its end. Its stamp is not taken for that of the new one."""
        def replace():
            other = os.path.join(self.folder, "other")
            with open(other, "wb") as f:
                f.write(b"new" * 1000)
            os.rename(other, self.large)

        code, output = self.put_and_meanwhile("replaced", replace)
        self.assertEqual(code, 0, output)
        self.assertNotIn("changed while", output)
        self.assertEqual(self.server.json("inspect", "file", "r@replaced:/large")["size_bytes"], self.SIZE)
        self.server.qanat("put", "file", "-r", "r@replaced:/", "-f", self.folder)
        self.check("replaced")

    def test_a_file_that_vanishes(self):
        code, output = self.put_and_meanwhile("vanishes", lambda: os.remove(self.last))
        self.assertEqual(code, 1, output)
        self.assertIn(f"{self.last} vanished while its folder was put", output)
        self.assertIn("Nothing was put", output)
        self.assertNotIn("vanishes", self.server.qanat("list", "branch", "r"))
        self.server.qanat("put", "file", "-r", "r@vanishes:/", "-f", self.folder)
        self.check("vanishes")

    def test_a_file_that_becomes_a_link_to_a_folder(self):
        def replace():
            os.remove(self.last)
            os.symlink("/", self.last)

        code, output = self.put_and_meanwhile("link", replace)
        self.assertEqual(code, 1, output)
        self.assertIn("is a symbolic link to a folder", output)


class KilledServer(unittest.TestCase):
    def test_server_killed_while_an_upload_runs(self):
        rng = random.Random(9)
        with tempfile.TemporaryDirectory() as tree, Server() as server:
            make_tree(tree, 3)
            server.qanat("create", "repo", "whole")
            server.qanat("put", "file", "-r", "whole@master:/", "-f", tree)
            for number in range(4):
                project = f"k{number}"
                server.api("POST", "/projects", {"name": project})
                server.qanat("--project", project, "create", "repo", "r")
                patient = number % 2 == 1
                arguments = ["--project", project, "put", "file", "-r", "r@master:/", "-f", tree, "--retry", "60" if patient else "0"]
                environment = {**os.environ, "QANAT_SERVER": server.url, "QANAT_TOKEN": server.token, "HOME": server.folder}
                client = subprocess.Popen([QANAT, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                time.sleep(rng.uniform(0.02, 0.3))
                server.stop(kill=True)
                if patient:
                    server.start()
                output, _ = client.communicate(timeout=120)
                if client.returncode != 0:
                    self.assertIn("error:", output)
                if not patient:
                    server.start()
                server.qanat(*arguments)
                self.assertEqual(server.json("--project", project, "inspect", "commit", "r@master")["root"], server.root("whole"))


def frame(chunk, checksum):
    return struct.pack("<IQ", len(chunk), checksum) + chunk


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def named_file(path, *chunks, append=False):
    """A FileStream with one file of chunks, by their size and hash."""
    parts = [b"QNFS1\n\x09", varint(len(path)), path.encode(), b"\x01" if append else b"\x00"]
    for size, name in chunks:
        parts += [varint(size), name]
    return b"".join(parts) + b"\x00\x08\x01"




class Rights(unittest.TestCase):
    """What a token that may write to one repo learns about the others: nothing."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server().start()
        for repo in ("public", "private"):
            cls.server.qanat("create", "repo", repo)
        cls.secret = b"secret of another repo" * 1000
        cls.server.run("put", "file", "private@master:/s", "-f", "-", input=cls.secret, text=False)
        cls.limited = cls.server.api("POST", "/tokens", {"name": "limited", "scopes": ["writer:public"]})["token"]

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    def post(self, path, body=b"", token=None, expect=200, type="application/octet-stream"):
        status, _, answer = self.server.http("POST", f"/api/v1/projects/default/{path}", body, token=token or self.limited,
                                             headers={"Content-Type": type})
        self.assertEqual(status, expect, answer)
        return answer

    def begin(self, token=None, repo="public", expect=201):
        return json.loads(self.post("uploads", json.dumps({"repo": repo}).encode(), token, expect, "application/json")).get("id")

    def edit(self, upload, body, expect):
        return self.post(f"repos/public/edits?ref=master&upload={upload}", body, expect=expect, type="application/vnd.qanat.file-stream")

    def test_asking_tells_nothing(self):
        name = hashlib.sha256(self.secret).digest()
        upload = self.begin()
        self.assertEqual(self.post(f"uploads/{upload}/have", name), b"\x00")
        admin = self.begin(self.server.token)
        self.assertEqual(self.post(f"uploads/{admin}/have", name, self.server.token), b"\x01")

    def test_naming_gets_nothing(self):
        upload = self.begin()
        there = self.edit(upload, named_file("stolen", (len(self.secret), hashlib.sha256(self.secret).digest())), 409)
        absent = self.edit(upload, named_file("stolen", (len(self.secret), hashlib.sha256(b"never seen").digest())), 409)
        self.assertEqual(there, absent)
        self.assertNotIn(hashlib.sha256(self.secret).hexdigest().encode(), there)

    def test_an_upload_is_for_one_edit(self):
        """However often, and however close together, it is asked for: an append happens once."""
        upload = self.begin(self.server.token)
        body = named_file("once", (len(self.secret), hashlib.sha256(self.secret).digest()), append=True)
        statuses = []

        def edit():
            status, _, _ = self.server.http("POST", f"/api/v1/projects/default/repos/public/edits?ref=master&upload={upload}", body,
                                            headers={"Content-Type": "application/vnd.qanat.file-stream"})
            statuses.append(status)

        threads = [threading.Thread(target=edit) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(statuses), [200] + [404] * 5)
        self.assertEqual(self.server.json("inspect", "file", "public@master:/once")["size_bytes"], len(self.secret))

    def test_others_uploads_do_not_exist(self):
        admin = self.begin(self.server.token)
        self.post(f"uploads/{admin}/have", expect=404)
        self.post("uploads/" + "0" * 32 + "/have", expect=404)
        self.begin(repo="private", expect=403)

    def test_edits_need_an_upload_to_name_chunks(self):
        self.post("repos/public/edits?ref=master", named_file("x", (4, hashlib.sha256(b"mine").digest())), expect=400,
                  type="application/vnd.qanat.file-stream")

    def test_what_is_wrong_is_refused(self):
        upload = self.begin()
        for body in (frame(b"damaged", 1), struct.pack("<IQ", 2 << 20, 0), struct.pack("<IQ", 0, 0), frame(b"cut off", 0)[:-1], b"\x01\x02"):
            with self.subTest(body=body[:20]):
                self.post(f"uploads/{upload}/chunks", body, expect=400)
        self.post(f"uploads/{upload}/have", b"x" * 31, expect=400)
        self.post(f"uploads/{upload}/have", b"x" * (32 * 65537), expect=413)

    def test_a_limited_token_puts_large_files_too(self):
        data = random.Random(6).randbytes(12_000_000)
        result = self.server.run("put", "file", "public@master:/big", "-f", "-", input=data, token=self.limited, text=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        # Equal content that another repo holds is sent and stored all the same: the time it takes tells nothing either.
        self.server.run("put", "file", "private@master:/big2", "-f", "-", input=data + b"!", text=False)
        result = self.server.run("put", "file", "public@master:/big2", "-f", "-", input=data + b"!", token=self.limited, text=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        got = self.server.run("get", "file", "public@master:/big2", text=False).stdout
        self.assertEqual(hashlib.sha256(got).digest(), hashlib.sha256(data + b"!").digest())


class Tars(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server().start()
        cls.server.qanat("create", "repo", "r")
        cls.count = 0

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    def put(self, data, *options, where="/"):
        type(self).count += 1
        branch = f"b{self.count}"
        result = self.server.run("put", "file", "--untar", f"r@{branch}:{where}", "-f", "-", *options, input=data, text=False)
        return branch, result

    def tar(self, format, add):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=format) as tar:
            add(tar)
        return out.getvalue()

    def test_formats(self):
        files = {"a/b": b"one", "a/" + "long-name-" * 9 + "x": b"two", "/".join(["deep" * 10] * 12) + "/leaf": b"three", "empty": b"",
                 "big": random.Random(1).randbytes(3_000_000), "umläut/ñ": "ü".encode()}

        def add(tar):
            for name, content in files.items():
                info = tarfile.TarInfo("./" + name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            folder = tarfile.TarInfo("folder/")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)

        roots = set()
        for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            branch, result = self.put(self.tar(format, add))
            self.assertEqual(result.returncode, 0, result.stderr)
            roots.add(self.server.root("r", branch))
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = os.path.join(folder, name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as f:
                    f.write(content)
            self.server.qanat("put", "file", "-r", "r@folder:/", "-f", folder)
            out = os.path.join(self.server.folder, "gnu.tar")
            subprocess.run(["tar", "-C", folder, "-cf", out, "."], check=True)
            self.server.qanat("put", "file", "--untar", "r@gnu:/", "-f", out)
        roots |= {self.server.root("r", "folder"), self.server.root("r", "gnu")}
        self.assertEqual(len(roots), 1)

    def test_hard_links(self):
        def add(tar):
            info = tarfile.TarInfo("first")
            info.size = 5
            tar.addfile(info, io.BytesIO(b"bytes"))
            link = tarfile.TarInfo("second")
            link.type, link.linkname = tarfile.LNKTYPE, "first"
            tar.addfile(link)

        branch, result = self.put(self.tar(tarfile.GNU_FORMAT, add), where="/below")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(self.server.tree("r", branch), {"/below/first": "bytes", "/below/second": "bytes"})

    def test_what_is_refused(self):
        def entry(name, **fields):
            def add(tar):
                info = tarfile.TarInfo(name)
                for key, value in fields.items():
                    setattr(info, key, value)
                tar.addfile(info)
            return self.tar(tarfile.GNU_FORMAT, add)

        whole = entry("fine")
        cases = {
            "symbolic link": entry("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            "..": entry("../../etc/passwd"),
            "/etc/passwd": entry("/etc/passwd"),
            "hard link": entry("link", type=tarfile.LNKTYPE, linkname="missing"),
            "named pipe": entry("pipe", type=tarfile.FIFOTYPE),
            "device": entry("null", type=tarfile.CHRTYPE),
            "gzip": subprocess.run(["gzip", "-c"], input=whole, stdout=subprocess.PIPE, check=True).stdout,
            "no tar": b"x" * 2000,
            "cut off": whole[:512],
            "empty": b"",
            "after its end": whole + whole,
            "checksum": b"Y" + whole,
        }
        for word, data in cases.items():
            with self.subTest(word):
                _, result = self.put(data)
                self.assertEqual(result.returncode, 1, result.stdout)
                self.assertIn(word if word != "checksum" else "no tar", result.stderr.decode())


if __name__ == "__main__":
    unittest.main()
