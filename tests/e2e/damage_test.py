"""Metadata and content that do not belong together, and content that rots: nothing is deleted for it, and everything says so."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

from harness import QANAT, Server


def packs(server):
    return sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(os.path.join(server.data, "objects", "packs"))
        for name in names
    )


class DamageTest(unittest.TestCase):
    def setUp(self):
        self.server = Server().start()
        self.addCleanup(self.server.close)

    def put(self, address, data):
        path = os.path.join(self.server.folder, "file")
        with open(path, "wb") as f:
            f.write(data)
        self.server.qanat("put", "file", address, "-f", path)

    def get(self, address):
        return self.server.qanat("get", "file", address, text=False)

    def refuses_to_start(self, data, *arguments):
        """What a server that must not start says."""
        result = subprocess.run(
            [QANAT, "serve", "--data", data, "--listen", "127.0.0.1:0", "--runner", "process", *arguments],
            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
        self.assertNotEqual(result.returncode, 0, result.stdout)
        return result.stdout + result.stderr


class BelongingTest(DamageTest):
    def setUp(self):
        super().setUp()
        self.server.qanat("create", "repo", "a")
        self.put("a@master:/f", b"kept" * 100_000)

    def still_there(self):
        self.server.start()
        self.assertEqual(self.get("a@master:/f"), b"kept" * 100_000)

    def test_anothers_content_is_not_claimed(self):
        s = self.server
        objects = os.path.join(s.data, "objects")
        other = tempfile.mkdtemp(dir=s.folder)
        self.assertIn("another installation", self.refuses_to_start(other, "--object", objects))
        s.stop()
        # Also if it says of no one whose it is, and asked twice.
        os.remove(os.path.join(objects, "installation"))
        for _ in range(2):
            said = self.refuses_to_start(other, "--object", objects)
            self.assertIn("holds content", said)
            self.assertIn("start with the data folder that it belongs to", said)
        # Its own server knows what it holds, and marks it.
        self.still_there()
        self.assertIn("another installation", self.refuses_to_start(other, "--object", objects))

    def test_metadata_that_is_gone_is_not_begun_anew(self):
        s = self.server
        s.stop()
        meta = os.path.join(s.data, "meta")
        backup = os.path.join(s.folder, "backup")
        shutil.copytree(meta, backup)
        self.assertEqual(sorted(os.listdir(meta)), ["lock", "meta.db"])  # one file is all of it
        os.remove(os.path.join(meta, "meta.db"))
        said = self.refuses_to_start(s.data)
        self.assertIn("is gone", said)
        self.assertIn("backup", said)
        self.assertFalse(os.path.exists(os.path.join(meta, "meta.db")), "nothing is in the way of a backup")
        # Emptied, and that of another installation.
        with open(os.path.join(meta, "meta.db"), "wb"):
            pass
        self.assertIn("is gone", self.refuses_to_start(s.data))
        # Without the file that says whose the folder is, the content tells.
        os.remove(os.path.join(s.data, "installation"))
        self.assertIn("is gone", self.refuses_to_start(s.data))
        with Server() as other:
            other.stop()
            shutil.rmtree(meta)
            shutil.copytree(os.path.join(other.data, "meta"), meta)
        self.assertIn("another installation", self.refuses_to_start(s.data))
        shutil.rmtree(meta)
        shutil.copytree(backup, meta)
        self.still_there()

    def test_content_that_is_elsewhere(self):
        s = self.server
        s.stop()
        objects = os.path.join(s.data, "objects")
        os.rename(objects, objects + ".not-mounted")
        self.assertIn("not mounted", self.refuses_to_start(s.data))
        shutil.rmtree(objects, ignore_errors=True)
        os.rename(objects + ".not-mounted", objects)
        self.still_there()

    def test_a_log_that_rots_is_not_shortened_in_silence(self):
        s = self.server
        for n in range(5):
            self.put(f"a@master:/{n}", b"x")
        s.stop(kill=True)
        log = os.path.join(s.data, "meta", "meta.db-wal")
        with open(log, "r+b") as f:
            f.seek(32 + 3 * (4096 + 24) + 1000)
            byte = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte[0] ^ 4]))
        said = self.refuses_to_start(s.data)
        self.assertIn("damaged", said)
        self.assertIn("--accept-lost-changes", said)

    def test_packs_that_the_metadata_never_knew_stay(self):
        with Server() as fresh:
            fresh.qanat("create", "repo", "a")
            folder = os.path.join(fresh.data, "objects", "packs", "default", "0" * 16)
            os.makedirs(folder)
            stray = os.path.join(folder, "ab" * 16)
            shutil.copy(packs(self.server)[0], stray)
            self.assertIn("never known any", fresh.fails("garbage-collect", "--now"))
            checked = fresh.run("fsck")
            self.assertIn("never known any", checked.stdout + checked.stderr)
            self.assertNotEqual(checked.returncode, 0)
            self.assertTrue(os.path.exists(stray))


class RotTest(DamageTest):
    def flip(self, what):
        """Flips a bit in the middle of the bytes that `what` says are stored, wherever they lie, and gives in how many packs."""
        found = 0
        for path in packs(self.server):
            with open(path, "r+b") as f:
                at = f.read().find(what)
                if at < 0:
                    continue
                found += 1
                f.seek(at + len(what) // 2)
                byte = f.read(1)
                f.seek(-1, os.SEEK_CUR)
                f.write(bytes([byte[0] ^ 1]))
        return found

    def heals(self, data, put):
        s = self.server
        s.qanat("create", "repo", "a")
        put()
        self.assertEqual(self.flip(data[:64]), 1)
        s.stop()
        s.start()
        status, _, body = s.http("GET", "/api/v1/projects/default/repos/a/files/f?ref=master")
        self.assertEqual(status, 500)
        self.assertEqual(json.loads(body)["error"]["code"], "data_loss")
        self.assertIn("/f", json.loads(body)["error"]["message"])
        self.assertNotIn("no Qanat server", s.fails("get", "file", "a@master:/f"))
        put()
        self.assertEqual(self.get("a@master:/f"), data)
        # fsck finds it as well, and a put after that heals too.
        self.assertEqual(self.flip(data[:64]), 1)  # the fresh copy
        s.stop()
        s.start()
        self.assertNotEqual(s.run("fsck", "--data").returncode, 0)
        put()
        self.assertEqual(self.get("a@master:/f"), data)

    def test_a_put_heals(self):
        data = os.urandom(200_000)
        self.heals(data, lambda: self.put("a@master:/f", data))

    def test_an_upload_heals(self):
        data = os.urandom(200_000)

        def put():
            status, _, body = self.server.http(
                "PUT", "/api/v1/projects/default/repos/a/files/f?ref=master", data)
            self.assertEqual(status, 200, body)

        self.heals(data, put)

    def test_a_lost_pack_takes_only_its_own(self):
        s = self.server
        for repo in ("a", "b"):
            s.qanat("create", "repo", repo)
        self.put("a@master:/f", b"of a")
        before = packs(s)
        self.put("b@master:/f", b"of b")
        (lost,) = [p for p in packs(s) if p not in before]
        s.stop()
        os.remove(lost)
        s.start()
        self.assertEqual(self.get("a@master:/f"), b"of a")
        self.put("a@master:/g", b"more")
        self.put("a@master:/h", os.urandom(1_000_000))
        self.assertEqual(self.get("a@master:/g"), b"more")
        self.assertIn("data", s.fails("get", "file", "b@master:/f"))
        self.assertIn("missing", s.run("fsck").stdout)
        # The same content again is stored again.
        s.qanat("delete", "repo", "b", "--now")
        s.qanat("create", "repo", "b")
        self.put("b@master:/f", b"of b")
        self.assertEqual(self.get("b@master:/f"), b"of b")


class UploadsTest(DamageTest):
    def upload(self, repo):
        begun = self.server.api("POST", "/projects/default/uploads", {"repo": repo})
        return begun["id"]

    def test_they_end_with_their_repo(self):
        s = self.server
        for repo in ("a", "b"):
            s.qanat("create", "repo", repo)
        kept, gone = self.upload("a"), self.upload("b")
        s.qanat("delete", "repo", "b", "--now")
        self.assertEqual(s.http("DELETE", f"/api/v1/projects/default/uploads/{gone}")[0], 404)
        # One that was just used outlives a collection.
        s.qanat("garbage-collect", "--now")
        self.assertEqual(s.http("DELETE", f"/api/v1/projects/default/uploads/{kept}")[0], 204)


if __name__ == "__main__":
    unittest.main()
