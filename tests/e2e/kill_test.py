"""A real server is killed with SIGKILL, again and again, during puts, commits and jobs.

After every restart: what was acknowledged is there, whole; a commit of several files is there with all of them or none. At the
end every job ends well, each wave has one job of each pipeline, the outputs have the root of the input, of the newest wave and
of those before: nothing lost, nothing twice, no mix of versions; and there are as many workers as were asked for, and none once
they are not wanted.
QANAT_KILLS sets the number of kills (default 200), QANAT_SEED repeats a run.
"""

import http.client
import json
import os
import random
import threading
import time
import unittest

from harness import Server, stop_leftovers, wait_until

KILLS = int(os.environ.get("QANAT_KILLS", "200"))
API = "/api/v1/projects/default"
WORKERS = 2
REQUESTS = 12  # at most so many in a life of the server, so that a slow machine does as much as a fast one


class Connection:
    """Requests to one life of the server, over one connection."""

    def __init__(self, server):
        self.headers = {"Authorization": f"Bearer {server.token}"}
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def request(self, method, path, body=None):
        self.connection.request(method, path if path.startswith("/") else f"{API}/{path}", body=body, headers=self.headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode()

    def json(self, path):
        status, text = self.request("GET", path)
        if status != 200:
            raise AssertionError(f"GET {path}: {status} {text}")
        return json.loads(text)

    def items(self, path):
        """All items of a list, page by page."""
        found, separator = [], "&" if "?" in path else "?"
        page = self.json(path)
        while True:
            found += page["items"]
            if not page.get("next"):
                return found
            page = self.json(f"{path}{separator}page={page['next']}")

    def close(self):
        self.connection.close()


class Writer(threading.Thread):
    """Puts files and commits groups of files until the server dies; remembers what was acknowledged, and what was tried."""

    def __init__(self, server, seed, name, round_number):
        super().__init__()
        self.server = server
        self.random = random.Random(seed)
        self.round = round_number
        self.writer_name = name  # no other writes the same files
        self.acknowledged = {}
        self.attempted = {}
        self.groups = []  # each the paths that came in one commit, and whether it was acknowledged
        self.open_commit = None
        self.answers = 0
        self.unexpected = []

    def request(self, method, path, body=None):
        status, text = self.connection.request(method, path, body)
        if status >= 400:
            self.unexpected.append(f"{method} {path}: {status} {text}")
            raise ConnectionError(text)
        self.answers += 1
        return json.loads(text) if text else None

    def run(self):
        self.connection = Connection(self.server)
        try:
            for number in range(1000000):
                if self.random.random() < 0.7:
                    self.one_put(number)
                else:
                    self.one_commit(number)
        except (OSError, http.client.HTTPException, ValueError):
            pass  # the server was killed
        finally:
            self.connection.close()

    def one_put(self, number):
        path = f"{self.writer_name}-{self.random.randrange(20)}"
        content = f"{self.round}.{number}." + "x" * self.random.randrange(3000)
        self.attempted.setdefault(path, []).append(content)
        self.request("PUT", f"repos/in/files/{path}?ref=master", content)
        self.acknowledged[path] = content
        self.attempted[path] = []  # what came before cannot come back

    def one_commit(self, number):
        branch = f"b-{self.writer_name}"
        self.open_commit = "unknown"
        self.open_commit = self.request("POST", "repos/groups/commits", json.dumps({"branch": branch}))["id"]
        paths = [f"{self.round}/{number}/{i}" for i in range(3)]
        self.groups.append((branch, paths, False))
        for path in paths:
            self.request("PUT", f"repos/groups/files/{path}?ref={self.open_commit}", path)
        self.request("POST", f"repos/groups/commits/{self.open_commit}/finish", "{}")
        self.groups[-1] = (branch, paths, True)
        self.open_commit = None


def processes_of(data, word):
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as f:
                arguments = f.read().split(b"\0")
        except OSError:
            continue
        if word in arguments and any(data.encode() in argument for argument in arguments):
            found.append(int(entry))
    return found


class Kill(unittest.TestCase):
    maxDiff = 2000

    def test_nothing_acknowledged_is_lost(self):
        seed = int(os.environ.get("QANAT_SEED", str(random.randrange(1 << 30))))
        print(f"kill test: QANAT_SEED={seed}", flush=True)
        rng = random.Random(seed)
        self.known = {}  # what is there
        self.maybe = {}  # what may have come in its place
        self.down = 0.0
        with Server(runner="process") as server:
            server.qanat("create", "repo", "in")
            server.qanat("create", "repo", "groups")
            server.put("in", "/first", "1")
            for name, source, glob in (("copy", "in", "/*"), ("again", "copy", "/")):
                server.create_pipeline({
                    "pipeline": {"name": name},
                    "parallelism_spec": {"constant": WORKERS},
                    "transform": {"image": "local", "cmd": ["sh"], "stdin": [f"cp /pfs/{source}/* /pfs/out/"]},
                    "input": {"pfs": {"repo": source, "glob": glob}},
                })
            for number in range(KILLS):
                self.one_life(server, rng, number)
            started = time.monotonic()
            self.check_end(server)
            print(f"kill test: restarts took {self.down:.1f} s, the end {time.monotonic() - started:.1f} s", flush=True)
            wait_until(lambda: len(processes_of(server.data, b"sandbox")) == 2 * WORKERS, "as many workers as asked for", 60)
            server.qanat("delete", "pipeline", "again")
            server.qanat("delete", "pipeline", "copy")
            wait_until(lambda: not processes_of(server.data, b"sandbox"), "no worker left", 60)
            server.stop()
            stop_leftovers(server.data)
            self.assertEqual(processes_of(server.data, b"serve"), [])

    def one_life(self, server, rng, number):
        writers = [Writer(server, rng.randrange(1 << 30), f"w{i}", number) for i in range(3)]
        for writer in writers:
            writer.start()
        # Killed at any moment of a write: after so many answers, and a little.
        wanted = rng.randrange(REQUESTS)
        deadline = time.monotonic() + 5
        while sum(writer.answers for writer in writers) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        server.stop(kill=True)
        for writer in writers:
            writer.join()
        started = time.monotonic()
        server.start()
        self.down += time.monotonic() - started
        connection = Connection(server)
        for writer in writers:
            self.assertEqual(writer.unexpected, [], f"round {number}")
            for path, content in writer.acknowledged.items():
                self.known[path] = content
                self.maybe.pop(path, None)
            for path, contents in writer.attempted.items():
                self.maybe.setdefault(path, []).extend(contents)
            self.check_groups(connection, writer.groups, number)
            for path in {**writer.acknowledged, **writer.attempted}:
                self.check_file(connection, path, number)
        if any(writer.open_commit for writer in writers):
            self.drop_open_commits(connection)
        connection.close()

    def check_file(self, connection, path, number):
        status, body = connection.request("GET", f"repos/in/files/{path}?ref=master")
        self.assertIn(status, (200, 404), f"round {number}: {path}: {body}")
        found = body if status == 200 else None
        allowed = [self.known.get(path)] + self.maybe.get(path, [])
        self.assertTrue(found in allowed, f"round {number}: {path} is {str(found)[:20]}, not one of {[str(a)[:20] for a in allowed]}")
        if found is not None:
            self.known[path] = found  # what is there now stays
        self.maybe.pop(path, None)

    def check_groups(self, connection, groups, number):
        for branch, paths, acknowledged in groups:
            found = [connection.request("GET", f"repos/groups/files/{p}?ref={branch}") for p in paths]
            there = [status == 200 for status, _ in found]
            self.assertEqual(len(set(there)), 1, f"round {number}: half a commit {paths} {found}")
            if acknowledged:
                self.assertTrue(there[0], f"round {number}: lost {paths}")
            if there[0]:
                self.assertEqual([body for _, body in found], paths)

    def drop_open_commits(self, connection):
        """A killed client leaves its commit open, which would hold up the next one on the branch."""
        for commit in connection.json("repos/groups/commits?limit=20")["items"]:
            if commit["state"] == "open":
                status, text = connection.request("DELETE", f"repos/groups/commits/{commit['id']}")
                self.assertLess(status, 300, text)

    def check_end(self, server):
        server.qanat("wait", "commit", "again@master", timeout=600)
        connection = Connection(server)
        roots = {c["id"]: c.get("root") for c in connection.items("repos/in/commits?limit=500")}
        for pipeline in ("copy", "again"):
            jobs = connection.items(f"jobs?pipeline={pipeline}&limit=500")
            self.assertEqual({job["state"] for job in jobs}, {"SUCCESS"}, [j for j in jobs if j["state"] != "SUCCESS"][:3])
            self.assertEqual(len({job["id"] for job in jobs}), len(jobs), "a wave has one job")
            outputs = {c["id"]: c.get("root") for c in connection.items(f"repos/{pipeline}/commits?limit=500")}
            self.assertEqual(set(outputs), {job["id"] for job in jobs})
            if pipeline == "copy":
                self.assertLessEqual(set(roots) - set(outputs), {min(connection.items("repos/in/commits?limit=500"),
                                                                    key=lambda c: c["started"])["id"]})
            mixed = {i: (root, roots[i]) for i, root in outputs.items() if i in roots and root != roots[i]}
            self.assertEqual(mixed, {}, f"{pipeline}: outputs that are not their wave's input")
        self.assertEqual(server.root("in"), server.root("copy"))
        self.assertEqual(server.root("in"), server.root("again"))
        tree = server.tree("in")
        self.assertEqual({p: tree.get("/" + p) for p in self.known}, self.known)
        print(f"kill test: {len(outputs)} waves", flush=True)
        connection.close()


if __name__ == "__main__":
    unittest.main()
