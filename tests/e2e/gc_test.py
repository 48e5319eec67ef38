"""Garbage collection, the trash, squash and drop, pause and resume: by the command line, against a real server."""

import json
import os
import unittest

from harness import CommandFailed, Server, wait_until


SPEC = json.dumps({
    "pipeline": {"name": "copy"},
    "transform": {"image": "busybox", "cmd": ["sh"], "stdin": ["cp /pfs/a/* /pfs/out/"]},
    "input": {"pfs": {"repo": "a", "glob": "/*"}},
})


def objects(server, what="packs"):
    return [
        os.path.join(folder, name)
        for folder, _, names in os.walk(os.path.join(server.data, "objects", what))
        for name in names
    ]


def object_bytes(server):
    return sum(os.path.getsize(path) for path in objects(server))


class GcTest(unittest.TestCase):
    def setUp(self):
        self.server = Server().start()
        self.addCleanup(self.server.close)

    def put(self, address, data):
        path = os.path.join(self.server.folder, "file")
        with open(path, "wb") as f:
            f.write(data)
        self.server.qanat("put", "file", address, "-f", path)

    def collect(self, *flags):
        return json.loads(self.server.qanat("garbage-collect", "-o", "json", *flags))

    def refused(self, *arguments):
        with self.assertRaises(CommandFailed) as caught:
            self.server.qanat(*arguments)
        return caught.exception.result.stderr

    def test_what_was_deleted_comes_back_or_goes(self):
        s = self.server
        kept, gone = os.urandom(3_000_000), os.urandom(5_000_000)
        for repo in ("a", "b"):
            s.qanat("create", "repo", repo)
        self.put("a@master:/kept", kept)
        self.put("b@master:/gone", gone)
        before = object_bytes(s)
        s.qanat("delete", "repo", "b")
        self.assertIn("b", s.qanat("list", "trash"))
        report = self.collect()
        self.assertEqual(report.get("freed_bytes", 0), 0)
        self.assertTrue(any(h["kind"] == "trash" for h in report["holders"]), report["holders"])
        named = {(h["kind"], h["name"]): h["bytes"] for h in report["holders"]}
        self.assertGreaterEqual(named[("branch", "a@master")], 3_000_000)
        self.assertGreaterEqual(named[("trash", "repo b")], 5_000_000)
        s.qanat("undelete", "repo", "b")
        self.assertEqual(s.qanat("get", "file", "b@master:/gone", text=False), gone)
        self.assertIn("exists", self.refused("undelete", "repo", "b"))

        s.qanat("delete", "repo", "b", "--now")
        dry = self.collect("--dry-run")
        self.assertGreater(dry["dead_bytes"], 4_900_000)
        self.assertEqual(object_bytes(s), before)
        report = self.collect("--now")
        self.assertGreater(report["freed_bytes"], 4_900_000)
        self.assertLess(object_bytes(s), before - 4_900_000)
        self.assertEqual(s.qanat("get", "file", "a@master:/kept", text=False), kept)
        self.assertIn("not in the trash", self.refused("undelete", "repo", "b"))
        # The same bytes again are stored again.
        s.qanat("create", "repo", "b")
        self.put("b@master:/gone", gone)
        self.assertEqual(s.qanat("get", "file", "b@master:/gone", text=False), gone)
        # Also over a restart.
        s.stop()
        s.start()
        self.assertEqual(s.qanat("get", "file", "a@master:/kept", text=False), kept)
        self.assertEqual(s.qanat("get", "file", "b@master:/gone", text=False), gone)

    def test_branch_comes_back(self):
        s = self.server
        s.qanat("create", "repo", "a")
        self.put("a@master:/f", b"one")
        s.qanat("delete", "branch", "a@master")
        self.refused("get", "file", "a@master:/f")
        s.qanat("undelete", "branch", "a@master")
        self.assertEqual(s.qanat("get", "file", "a@master:/f", text=False), b"one")

    def test_small_packs_are_joined(self):
        s = self.server
        s.qanat("create", "repo", "a")
        for n in range(60):
            self.put(f"a@master:/f{n}", f"content {n}".encode())
        self.assertGreaterEqual(len(objects(s)), 60)
        # Twice: packs that were written just now may be too young the first time.
        self.collect("--now")
        self.collect("--now")
        self.assertLess(len(objects(s)), 10)
        for n in range(60):
            self.assertEqual(s.qanat("get", "file", f"a@master:/f{n}", text=False), f"content {n}".encode())

    def test_a_change_whose_jobs_run_stays(self):
        """Else what was dropped would live on in what they make."""
        s = self.server
        s.qanat("create", "repo", "secret")
        copy = "if [ -e /pfs/secret/hold ]; then sleep 1000; fi; cp /pfs/secret/* /pfs/out/"
        s.create_pipeline({"pipeline": {"name": "slow"}, "transform": {"image": "local", "cmd": ["sh", "-c", copy]}, "input": {"pfs": {"repo": "secret", "glob": "/*"}}})
        s.create_pipeline({"pipeline": {"name": "after"}, "transform": {"image": "local", "cmd": ["sh", "-c", "cp /pfs/slow/* /pfs/out/"]}, "input": {"pfs": {"repo": "slow", "glob": "/*"}}})
        s.put("secret", "/a", "raw")
        s.qanat("wait", "commit", "secret@master")
        self.assertEqual(s.tree("after"), {"/a": "raw"})
        s.put("secret", "/hold", "raw")
        first, second = (c["id"] for c in reversed(json.loads(s.qanat("list", "commit", "secret", "-o", "json"))))
        for verb in ("drop", "squash"):
            self.assertIn(f"has still to end its job {second}", self.refused(verb, "commit", second))
        wait_until(lambda: [j for j in s.jobs("slow") if j["id"] == second], "the job is known")
        s.qanat("stop", "job", f"slow@{second}")
        wait_until(lambda: [j for j in s.jobs("after") if j["id"] == second and j["state"] == "UNRUNNABLE"], "the wave has ended")
        s.qanat("drop", "commit", second)
        self.assertEqual(s.tree("secret"), {"/a": "raw"})
        s.qanat("drop", "commit", first)
        for repo in ("secret", "slow", "after"):
            self.refused("get", "file", f"{repo}@master:/a")

    def test_squash_and_drop(self):
        s = self.server
        s.qanat("create", "repo", "a")
        ids = []
        for n in range(4):
            self.put(f"a@master:/f{n}", str(n).encode())
            ids.append(json.loads(s.qanat("inspect", "commit", "a@master", "-o", "json"))["id"])
        self.assertIn("head", self.refused("squash", "commit", ids[3]))
        self.assertIn("child", self.refused("drop", "commit", ids[1]))
        s.qanat("squash", "commit", ids[1])
        self.refused("inspect", "commit", f"a@{ids[1]}")
        back = json.loads(s.qanat("inspect", "commit", "a@master^2", "-o", "json"))
        self.assertEqual(back["id"], ids[0])
        self.assertEqual(s.qanat("get", "file", "a@master:/f1", text=False), b"1")
        s.qanat("drop", "commit", ids[3])
        head = json.loads(s.qanat("inspect", "commit", "a@master", "-o", "json"))
        self.assertEqual(head["id"], ids[2])
        self.refused("get", "file", "a@master:/f3")
        self.assertIn(f"--head {ids[3]}", s.run("undelete", "commit", ids[3]).stderr)
        self.assertEqual(s.qanat("get", "file", f"a@{ids[3]}:/f3", text=False), b"3")
        self.put("a@master:/after", b"after")
        self.collect("--now")
        self.assertEqual(s.qanat("get", "file", "a@master:/after", text=False), b"after")
        self.assertEqual(s.qanat("get", "file", f"a@{ids[0]}:/f0", text=False), b"0")

    def test_commits_with_pipelines(self):
        s = self.server
        s.qanat("create", "repo", "a")
        s.qanat("create", "pipeline", "-f", "-", input=SPEC)
        ids = []
        for n in range(3):
            self.put(f"a@master:/f{n}", str(n).encode())
            s.qanat("wait", "commit", "copy@master")
            ids.append(json.loads(s.qanat("inspect", "commit", "a@master", "-o", "json"))["id"])
        s.qanat("drop", "commit", ids[2])
        self.assertNotIn("f2", s.qanat("list", "file", "copy@master"))
        # The change is over, although its jobs are gone: nobody waits for them.
        for address in (ids[2], "a@master", "copy@master"):
            s.qanat("wait", "commit", address)
        s.qanat("undelete", "commit", ids[2])
        self.assertEqual(s.qanat("get", "file", f"copy@{ids[2]}:/f2"), "2")
        s.qanat("squash", "commit", ids[0])
        s.qanat("wait", "commit", ids[0])
        self.collect("--now")
        self.put("a@master:/f3", b"3")
        s.qanat("wait", "commit", "copy@master")
        self.assertEqual({path: s.qanat("get", "file", f"copy@master:{path}") for path in ("/f0", "/f1", "/f3")}, {"/f0": "0", "/f1": "1", "/f3": "3"})
        self.assertNotIn("f2", s.qanat("list", "file", "copy@master"))
        self.assertEqual(s.qanat("get", "file", f"copy@{ids[2]}:/f2"), "2")

    def test_a_deleted_pipelines_output(self):
        s = self.server
        s.qanat("create", "repo", "a")
        self.put("a@master:/f", b"one")
        s.qanat("create", "pipeline", "-f", "-", input=SPEC)
        s.qanat("wait", "commit", "copy@master")
        change = json.loads(s.qanat("inspect", "commit", "copy@master", "-o", "json"))["id"]
        s.qanat("delete", "pipeline", "copy")
        self.assertIn("copy", s.qanat("list", "trash"))
        s.qanat("undelete", "repo", "copy")
        self.assertEqual(s.qanat("get", "file", "copy@master:/f"), "one")
        # It is a user's now: to be written to, and deleted; the name is free for a pipeline then.
        self.put("copy@master:/g", b"two")
        self.assertIn("not the output", self.refused_spec())
        s.qanat("delete", "repo", "copy")
        s.qanat("create", "pipeline", "-f", "-", input=SPEC)
        s.qanat("wait", "commit", "copy@master")
        # What the deleted pipeline had to do with a change of then is not the new one's.
        s.qanat("wait", "commit", change)

    def refused_spec(self):
        result = self.server.run("create", "pipeline", "-f", "-", input=SPEC)
        self.assertNotEqual(result.returncode, 0)
        return result.stderr

    def test_pause(self):
        s = self.server
        s.qanat("create", "repo", "a")
        self.put("a@master:/f", b"one")
        s.qanat("pause", "--reason", "backup at noon")
        for _ in range(2):
            self.assertIn("backup at noon", self.refused("create", "repo", "b"))
            self.assertIn("paused", self.refused("garbage-collect"))
            self.assertEqual(s.qanat("get", "file", "a@master:/f", text=False), b"one")
            s.stop()
            s.start()
        s.qanat("resume")
        s.qanat("create", "repo", "b")


if __name__ == "__main__":
    unittest.main()
