"""A real server is killed with SIGKILL, again and again, during puts, commits and jobs.

After every restart: what was acknowledged is there, whole; a commit of several files is there with all of them or none. At the
end every job ends, and the pipeline's output has the root of its input: nothing lost, nothing twice.
QANAT_KILLS sets the number of kills (default 200).
"""

import http.client
import json
import os
import random
import threading
import time
import unittest

from harness import Server, wait_until

KILLS = int(os.environ.get("QANAT_KILLS", "200"))
API = "/api/v1/projects/default"


class Writer(threading.Thread):
    """Puts files and commits groups of files until the server dies; remembers what was acknowledged, and what was tried."""

    def __init__(self, server, seed, round_number):
        super().__init__()
        self.server = server
        self.random = random.Random(seed)
        self.round = round_number
        self.name_prefix = f"w{seed % 3}"
        self.acknowledged = {}
        self.attempted = {}
        self.groups = []  # each a list of paths that came in one commit, acknowledged or not
        self.unexpected = []

    def request(self, method, path, body=None):
        self.connection.request(method, API + path, body=body, headers={"Authorization": f"Bearer {self.server.token}"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            self.unexpected.append(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
            raise ConnectionError(text)
        return json.loads(text) if text else None

    def run(self):
        self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
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
        path = f"{self.name_prefix}-{self.random.randrange(40)}"
        content = f"{self.round}.{number}." + "x" * self.random.randrange(3000)
        self.attempted.setdefault(path, []).append(content)
        self.request("PUT", f"/repos/in/files/{path}?ref=master", content)
        self.acknowledged[path] = content
        self.attempted[path] = []  # what came before cannot come back

    def one_commit(self, number):
        commit = self.request("POST", "/repos/groups/commits", json.dumps({"branch": f"b{self.name_prefix}"}))["id"]
        paths = [f"{self.round}/{number}/{i}" for i in range(3)]
        self.groups.append((f"b{self.name_prefix}", paths, False))
        for path in paths:
            self.request("PUT", f"/repos/groups/files/{path}?ref={commit}", path)
        self.request("POST", f"/repos/groups/commits/{commit}/finish", "{}")
        self.groups[-1] = (f"b{self.name_prefix}", paths, True)


class Kill(unittest.TestCase):
    def test_nothing_acknowledged_is_lost(self):
        seed = int(os.environ.get("QANAT_SEED", str(random.randrange(1 << 30))))
        print(f"kill test: QANAT_SEED={seed}", flush=True)
        rng = random.Random(seed)
        known = {}
        maybe = {}
        with Server(runner="process") as server:
            server.qanat("create", "repo", "in")
            server.qanat("create", "repo", "groups")
            server.put("in", "/first", "1")
            server.create_pipeline({
                "pipeline": {"name": "copy"},
                "parallelism_spec": {"constant": 2},
                "transform": {"image": "local", "cmd": ["sh"], "stdin": ["cp /pfs/in/* /pfs/out/"]},
                "input": {"pfs": {"repo": "in", "glob": "/*"}},
            })
            for number in range(KILLS):
                writers = [Writer(server, number * 3 + i, number) for i in range(3)]
                for writer in writers:
                    writer.start()
                time.sleep(rng.uniform(0.01, 0.25))
                server.stop(kill=True)
                for writer in writers:
                    writer.join()
                server.start()
                for writer in writers:
                    self.assertEqual(writer.unexpected, [], f"round {number}")
                    for path, content in writer.acknowledged.items():
                        known[path] = content
                        maybe.pop(path, None)
                    for path, contents in writer.attempted.items():
                        if contents:
                            maybe.setdefault(path, []).extend(contents)
                    self.check_groups(server, writer.groups, number)
                    self.check_files(server, {p: known.get(p) for p in {**writer.acknowledged, **writer.attempted}},
                                     maybe, known, number)
                self.drop_open_commits(server)
            self.check_end(server, known)

    def check_files(self, server, expected, maybe, known, number):
        for path, content in expected.items():
            status, _, body = server.http("GET", f"{API}/repos/in/files/{path}?ref=master")
            found = body.decode() if status == 200 else None
            allowed = [content] + maybe.get(path, [])
            self.assertIn(found, allowed, f"round {number}: {path} ({status})")
            if found is not None:
                known[path] = found  # what is there now stays
                maybe.pop(path, None)

    def check_groups(self, server, groups, number):
        for branch, paths, acknowledged in groups:
            found = [server.http("GET", f"{API}/repos/groups/files/{p}?ref={branch}")[0] == 200 for p in paths]
            self.assertEqual(len(set(found)), 1, f"round {number}: half a commit {paths} {found}")
            if acknowledged:
                self.assertTrue(found[0], f"round {number}: lost {paths}")

    def drop_open_commits(self, server):
        """A killed client leaves its commit open, which would hold up the next one on the branch."""
        for commit in server.json("list", "commit", "groups"):
            if commit["state"] == "open":
                server.qanat("delete", "commit", f"groups@{commit['id']}")

    def check_end(self, server, known):
        def ended():
            jobs = server.jobs("copy")
            return all(job["state"] in ("SUCCESS", "FAILURE", "KILLED", "UNRUNNABLE") for job in jobs) and jobs

        jobs = wait_until(ended, "all jobs ended", 180)
        self.assertEqual({job["state"] for job in jobs}, {"SUCCESS"})
        self.assertEqual(len({job["id"] for job in jobs}), len(jobs), "a wave has one job")
        server.qanat("wait", "commit", "in@master")
        self.assertEqual(server.root("in"), server.root("copy"))
        tree = server.tree("in")
        for path, content in known.items():
            self.assertEqual(tree.get("/" + path), content)


if __name__ == "__main__":
    unittest.main()
