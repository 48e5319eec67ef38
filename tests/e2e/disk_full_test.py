"""The disk of the data folder is full.

Writes are refused with an error that says so and what to do; reading and deleting go on, a job that runs ends, the server lives;
nothing is half there; with room on the disk, writes work again. The data folder is a small tmpfs, which takes root to mount.
"""

import json
import os
import subprocess
import tempfile
import unittest

from harness import Server, wait_until

API = "/api/v1/projects/default"
PIECE = 3 << 20


class SmallDisk:
    """A folder that is a disk of its own."""

    def __init__(self, path, size):
        self.path = path
        os.makedirs(path)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)

    def resize(self, size):
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True)

    def free(self):
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_bsize

    def close(self):
        subprocess.run(["umount", "-l", self.path], check=True)


@unittest.skipUnless(os.geteuid() == 0, "mounting takes root")
class DiskFull(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="qanat-test-")
        self.disk = SmallDisk(os.path.join(self.folder, "data"), "160m")
        self.addCleanup(self.disk.close)

    def put(self, server, repo, path, content):
        status, _, body = server.http("PUT", f"{API}/repos/{repo}/files/{path}?ref=master", content)
        return status, json.loads(body or b"{}")

    def assert_refused(self, status, answer):
        self.assertEqual(status, 507, answer)
        error = answer["error"]
        self.assertEqual(error["code"], "resource_exhausted", error)
        self.assertIn("full", error["message"])
        self.assertIn("delete", error["hint"])

    def test_writes_are_refused_and_everything_else_goes_on(self):
        with Server(folder=self.folder, runner="process") as server:
            for repo in ("in", "big", "unwanted"):
                server.qanat("create", "repo", repo)
            server.put("unwanted", "/file", "x")
            server.put("in", "/first", "1")
            server.create_pipeline({
                "pipeline": {"name": "slow"},
                "transform": {"image": "local", "cmd": ["sh"], "stdin": ["sleep 5", "cp /pfs/in/* /pfs/out/"]},
                "input": {"pfs": {"repo": "in", "glob": "/*"}},
            })
            wait_until(lambda: any(j["datums"]["running"] for j in server.jobs("slow")), "a datum runs", 60)
            kept = self.fill(server)
            # Small writes of every kind are refused too.
            self.assert_refused(*self.put(server, "in", "second", b"2"))
            self.assertIn("full", server.fails("create", "repo", "more"))
            self.assertIn("full", server.fails("put", "file", "big@master:/x", "-f", "-", input="x"))
            # What was there is there, and what was refused is not.
            self.assertEqual(server.get("in", "/first"), "1")
            self.assert_holds(server, kept)
            self.assertEqual(set(server.tree("in")), {"/first"})
            # Deleting goes on.
            server.qanat("delete", "file", f"big@master:/{kept[0][0]}")
            kept = kept[1:]
            self.assert_holds(server, kept)
            server.qanat("delete", "repo", "unwanted")
            self.assertNotIn("unwanted", [r["name"] for r in server.json("list", "repo")])
            # The job that ran ends.
            job = wait_until(lambda: [j for j in server.jobs("slow") if j["state"] not in ("CREATED", "STARTING", "RUNNING", "FINISHING")],
                             "the job ends", 90)[0]
            self.assertEqual(job["state"], "SUCCESS", job)
            self.assertEqual(server.get("slow", "/first"), "1")
            # So it is after a restart.
            server.stop(kill=True)
            server.start()
            self.assert_holds(server, kept)
            self.assert_refused(*self.put(server, "in", "second", b"2"))
            # With room on the disk everything goes on.
            self.disk.resize("400m")
            status, answer = self.put(server, "in", "second", b"2")
            self.assertEqual(status, 200, answer)
            server.qanat("wait", "commit", "slow@master")
            self.assertEqual(server.root("slow"), server.root("in"))
            self.assertEqual(server.http("GET", "/healthz", token="")[0], 200)

    def fill(self, server):
        """Puts files until one is refused; returns names and contents of those that were not."""
        kept = []
        for number in range(100):
            content = os.urandom(PIECE)
            status, answer = self.put(server, "big", f"f{number}", content)
            if status != 200:
                self.assert_refused(status, answer)
                break
            kept.append((f"f{number}", content))
        else:
            self.fail("the disk was never full")
        # The last bit of room is used up by something else.
        with open(os.path.join(self.disk.path, "other"), "wb") as other:
            other.write(b"x" * max(0, self.disk.free() - (60 << 20)))
        self.assertGreater(len(kept), 2)
        return kept

    def assert_holds(self, server, kept):
        self.assertEqual({f["path"] for f in server.json("list", "file", "big@master:/")}, {"/" + name for name, _ in kept})
        for name, content in kept:
            status, _, body = server.http("GET", f"{API}/repos/big/files/{name}?ref=master")
            self.assertEqual(status, 200)
            self.assertTrue(body == content, name)


if __name__ == "__main__":
    unittest.main()
