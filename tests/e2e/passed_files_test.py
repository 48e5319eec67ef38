"""A large file is passed open to a server on the same machine, which reads it itself: it is the file that sending its bytes gives, whatever happens
to it or to the way there meanwhile; and nobody gets at what he may not read.
"""

import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import unittest

from harness import QANAT, Server
from upload_test import Relay


class PassedFiles(unittest.TestCase):
    SIZE = 80 << 20

    @classmethod
    def setUpClass(cls):
        cls.server = Server().start()
        cls.server.qanat("create", "repo", "r")
        cls.folder = tempfile.mkdtemp(prefix="qanat-test-")
        cls.file = os.path.join(cls.folder, "large")
        with open(cls.file, "wb") as f:
            # Random, and a tail whose cuts are forced.
            f.write(random.Random(7).randbytes(cls.SIZE - (5 << 20) + 12345))
            f.write(bytes(5 << 20))

    @classmethod
    def tearDownClass(cls):
        cls.server.close()
        shutil.rmtree(cls.folder)

    def passed(self):
        """There is no such counter before the first file."""
        found = re.search(rb"^qanat_upload_local_bytes_total (\d+)", self.server.http("GET", "/metrics")[2], re.M)
        return int(found[1]) if found else 0

    def sent(self):
        return self.server.counter("qanat_upload_bytes_total")

    def ask(self, path, descriptor, token):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(os.path.join(self.server.data, "api.sock"))
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            socket.send_fds(connection, [head.encode()], [descriptor])
            answer = b""
            while piece := connection.recv(1 << 16):
                answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def test_it_is_the_same_file(self):
        """As one whose bytes were sent: the content id is a function of the bytes."""
        before, sent = self.passed(), self.sent()
        self.server.qanat("put", "file", "r@passed:/f", "-f", self.file)
        self.assertEqual(self.passed() - before, os.path.getsize(self.file))
        self.assertEqual(self.sent(), sent)
        with open(self.file, "rb") as f:
            self.server.run("put", "file", "r@sent:/f", "-f", "-", input=f.read(), text=False)
        self.assertEqual(self.server.root("r", "passed"), self.server.root("r", "sent"))
        got = self.server.run("get", "file", "r@passed:/f", text=False).stdout
        with open(self.file, "rb") as f:
            self.assertEqual(hashlib.sha256(got).digest(), hashlib.sha256(f.read()).digest())

    def test_again_nothing_is_stored(self):
        self.server.qanat("put", "file", "r@again:/f", "-f", self.file)
        written = self.server.counter("qanat_object_written_bytes_total")
        self.server.qanat("put", "file", "r@again2:/g", "-f", self.file)
        self.assertLess(self.server.counter("qanat_object_written_bytes_total") - written, 10_000)

    def test_in_a_folder_and_appended(self):
        folder = os.path.join(self.folder, "folder")
        os.makedirs(folder)
        for name in ("a-small", "b-large", "c-small"):
            if "small" in name:
                with open(os.path.join(folder, name), "wb") as f:
                    f.write(random.Random(name).randbytes(3_000_000))
            else:
                os.link(self.file, os.path.join(folder, name))
        before = self.passed()
        self.server.qanat("put", "file", "-r", "r@folder:/", "-f", folder)
        self.assertEqual(self.passed() - before, os.path.getsize(self.file))
        out = os.path.join(self.folder, "out")
        self.server.qanat("get", "file", "-r", "r@folder:/", "-o", out)
        subprocess.run(["diff", "-r", folder, out], check=True)
        self.server.qanat("put", "file", "-a", "r@folder:/a-small", "-f", self.file)
        size = self.server.json("inspect", "file", "r@folder:/a-small")["size_bytes"]
        self.assertEqual(size, 3_000_000 + os.path.getsize(self.file))

    def test_a_limited_token(self):
        """What others have is read and stored all the same, and only its own packs are its to name."""
        self.server.qanat("create", "repo", "limited")
        token = self.server.api("POST", "/tokens", {"name": "limited", "scopes": ["writer:limited"]})["token"]
        self.server.qanat("put", "file", "r@limited:/f", "-f", self.file)
        written = self.server.counter("qanat_object_written_bytes_total")
        result = self.server.run("put", "file", "limited@master:/f", "-f", self.file, token=token)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertGreater(self.server.counter("qanat_object_written_bytes_total") - written, self.SIZE * 0.9)
        self.assertEqual(self.server.json("inspect", "file", "limited@master:/f")["hash"], self.server.json("inspect", "file", "r@limited:/f")["hash"])

    def test_a_limited_token_goes_on_where_it_was(self):
        """What the same upload has sent already is not stored again."""
        self.server.qanat("create", "repo", "going-on")
        token = self.server.api("POST", "/tokens", {"name": "going-on", "scopes": ["writer:going-on"]})["token"]
        _, _, body = self.server.http("POST", "/api/v1/projects/default/uploads", json.dumps({"repo": "going-on"}).encode(), token=token)
        upload = json.loads(body)["id"]
        written, told = [], []
        for _ in range(2):
            before = self.server.counter("qanat_object_written_bytes_total")
            with open(self.file, "rb") as f:
                status, body = self.ask(f"/api/v1/projects/default/uploads/{upload}/file", f.fileno(), token)
            self.assertEqual((status, body[0]), (200, 1))
            written.append(self.server.counter("qanat_object_written_bytes_total") - before)
            told.append(struct.unpack("<Q", body[1:9])[0])
        self.assertGreater(told[0], self.SIZE * 0.9)  # the zeros are one chunk, several times
        self.assertEqual(told[1], 0)
        self.assertGreater(written[0], self.SIZE * 0.9)
        self.assertLess(written[1], 10_000)

    def test_through_something_between(self):
        """The server is not asked under its own address: bytes are sent."""
        relay = Relay(self.server.port)
        before = self.passed()
        result = subprocess.run([QANAT, "put", "file", "r@between:/f", "-f", self.file], capture_output=True, text=True, timeout=120,
                                env={**os.environ, "QANAT_SERVER": relay.url, "QANAT_TOKEN": self.server.token, "HOME": self.server.folder})
        relay.close()
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(self.passed(), before)

    def test_without_the_socket(self):
        path = os.path.join(self.server.data, "api.sock")
        os.rename(path, path + ".away")
        self.addCleanup(os.rename, path + ".away", path)
        before = self.passed()
        self.server.qanat("put", "file", "r@no-socket:/f", "-f", self.file)
        self.assertEqual(self.passed(), before)

    def behind(self, hook):
        """Puts something between the client and the socket; `hook` is called before each file that is passed, with how many were before,
        and may refuse."""
        path = os.path.join(self.server.data, "api.sock")
        os.rename(path, path + ".away")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        count = itertools.count()

        def serve(client):
            with client, socket.socket(socket.AF_UNIX) as server:
                server.connect(path + ".away")
                while True:
                    head, descriptors, _, _ = socket.recv_fds(client, 1 << 16, 4)
                    if not head or (descriptors and not hook(next(count))):
                        return
                    socket.send_fds(server, [head], descriptors)
                    for descriptor in descriptors:
                        os.close(descriptor)
                    answer = server.recv(1 << 16)
                    length = int(re.search(rb"Content-Length: (\d+)", answer)[1])
                    while len(answer) < answer.index(b"\r\n\r\n") + 4 + length:
                        answer += server.recv(1 << 16)
                    client.sendall(answer)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

        def undo():
            listener.close()
            os.rename(path + ".away", path)

        self.addCleanup(undo)

    def very_large(self):
        """Takes two requests."""
        name = os.path.join(self.folder, "very-large")
        with open(name, "wb") as f:
            for i in range(27):
                f.write(random.Random(f"{self.id()} {i}").randbytes(10 << 20))
        self.addCleanup(os.remove, name)
        return name

    def check(self, branch, name):
        with open(name, "rb") as f:
            data = f.read()
        got = self.server.run("get", "file", f"r@{branch}:/f", text=False).stdout
        self.assertEqual(hashlib.sha256(got).digest(), hashlib.sha256(data).digest())
        self.server.run("put", "file", f"r@{branch}-sent:/f", "-f", "-", input=data, text=False)
        self.assertEqual(self.server.root("r", branch), self.server.root("r", branch + "-sent"))

    def test_in_several_requests(self):
        name = self.very_large()
        before = self.passed()
        self.server.qanat("put", "file", "r@several:/f", "-f", name)
        self.assertEqual(self.passed() - before, os.path.getsize(name))
        self.check("several", name)

    def test_the_rest_is_sent_when_passing_fails(self):
        name = self.very_large()
        before, sent = self.passed(), self.sent()
        self.behind(lambda count: count == 0)
        self.server.qanat("put", "file", "r@rest:/f", "-f", name)
        passed = self.passed() - before
        self.assertGreater(passed, 250 << 20)
        self.assertEqual(passed + self.sent() - sent, os.path.getsize(name))
        self.check("rest", name)

    def test_a_file_that_changes_between_requests(self):
        for branch, change in [("grows", lambda f: f.seek(0, os.SEEK_END) and f.write(random.Random(99).randbytes(3 << 20))),
                               ("shrinks", lambda f: f.truncate(265 << 20)), ("shrinks-more", lambda f: f.truncate(100 << 20))]:
            with self.subTest(branch):
                name = self.very_large()

                def hook(count, name=name, change=change):
                    if count == 1:
                        with open(name, "r+b") as f:
                            change(f)
                    return True

                self.behind(hook)
                self.server.qanat("put", "file", f"r@{branch}:/f", "-f", name)
                if branch == "shrinks-more":  # what was read is put
                    self.assertGreater(self.server.json("inspect", "file", f"r@{branch}:/f")["size_bytes"], 250 << 20)
                else:
                    self.check(branch, name)
                # What was seen to change is read again the next time.
                self.server.qanat("put", "file", f"r@{branch}:/f", "-f", name)
                self.assertEqual(self.server.json("inspect", "file", f"r@{branch}:/f")["size_bytes"], os.path.getsize(name))
                self.doCleanups()

    def test_another_server_gets_no_file(self):
        """Behind a tunnel the path may be another server's."""
        with Server() as other:
            path = os.path.join(self.server.data, "api.sock")
            os.rename(path, path + ".away")
            os.symlink(os.path.join(other.data, "api.sock"), path)
            try:
                before = self.passed()
                self.server.qanat("put", "file", "r@another:/f", "-f", self.file)  # a link is not followed
                os.remove(path)
                os.rename(os.path.join(other.data, "api.sock"), path)
                self.server.qanat("put", "file", "r@another:/g", "-f", self.file)
                self.assertEqual(self.passed(), before)
                self.assertNotIn(b"qanat_upload_local_bytes_total", other.http("GET", "/metrics")[2])
            finally:
                os.rename(path, os.path.join(other.data, "api.sock"))
                os.rename(path + ".away", path)

    def test_forwarded_requests_are_told_of_no_socket(self):
        def told(**headers):
            _, _, body = self.server.http("GET", "/api/v1/version", headers=headers)
            return json.loads(body).get("socket", "")

        self.assertEqual(told(), os.path.join(self.server.data, "api.sock"))
        for headers in ({"Host": "qanat.example.org"}, {"X-Forwarded-For": "10.0.0.1"}, {"Via": "1.1 proxy"}):
            self.assertEqual(told(**headers), "", headers)

    def test_only_open_regular_files(self):
        upload = self.server.api("POST", "/projects/default/uploads", {"repo": "r"})["id"]
        path = f"/api/v1/projects/default/uploads/{upload}/file"
        status, _, body = self.server.http("POST", path)
        self.assertEqual(status, 400, body)
        self.assertIn(b"no open file", body)

        def ask(descriptor, query=""):
            return self.ask(path + query, descriptor, self.server.token)

        reading, writing = os.pipe()
        self.assertEqual(ask(reading)[0], 400)  # a pipe could keep the server waiting
        os.close(reading)
        os.close(writing)
        folder = os.open(self.folder, os.O_RDONLY)
        self.assertEqual(ask(folder)[0], 400)
        os.close(folder)
        # What the client itself may not read the server does not read for it.
        for flags in (os.O_WRONLY, os.O_PATH):
            unreadable = os.open(self.file, flags)
            self.assertEqual(ask(unreadable)[0], 400)
            os.close(unreadable)
        with open(self.file, "rb") as f:
            for query in ("?offset=-1", "?length=x", "?offset=99999999999999999999"):
                self.assertEqual(ask(f.fileno(), query)[0], 400)
            self.assertEqual(ask(f.fileno(), f"?offset={self.SIZE * 2}"), (200, b"\x01" + bytes(8)))
            status, body = ask(f.fileno(), "?length=1")
            self.assertEqual(status, 200)
            self.assertEqual(body[0], 0)
            self.assertEqual(len(body), 1 + 8 + 36)
            length = struct.unpack("<I", body[9:13])[0]
            f.seek(0)
            self.assertEqual(body[13:], hashlib.sha256(f.read(length)).digest())


if __name__ == "__main__":
    unittest.main()
