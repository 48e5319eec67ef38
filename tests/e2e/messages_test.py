"""What the command line refuses, what it says then, and what it does with what people type in a hurry."""

import json
import os
import signal
import subprocess
import tempfile
import unittest

from harness import QANAT, Server


class OneServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server().start()
        cls.addClassCleanup(cls.server.close)

    def setUp(self):
        self.folder = tempfile.mkdtemp(dir=self.server.folder)

    def qanat(self, *arguments, **options):
        return self.server.qanat(*arguments, **options)

    def fails(self, *arguments, says, code=1, **options):
        """The command fails with this exit code and says each of these words."""
        result = self.server.run(*arguments, **options)
        self.assertEqual(result.returncode, code, f"{arguments}: {result.stdout}{result.stderr}")
        self.assertTrue(result.stderr.startswith("error: "), result.stderr)
        for word in [says] if isinstance(says, str) else says:
            self.assertIn(word, result.stderr)
        return result.stderr

    def file(self, name, content):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(content)
        return path

    def repo(self, name):
        self.qanat("create", "repo", name)
        return name


class Files(OneServer):
    def test_diff_compares_what_was_asked_for(self):
        self.repo("diff")
        self.repo("diff-2")
        self.server.put("diff", "/a", "1")
        self.server.put("diff", "/a", "2")
        self.server.put("diff-2", "/a", "3")
        names = lambda *addresses: self.qanat("diff", "file", *addresses, "-o", "name").split()
        self.assertEqual(names("diff@master:/a", "diff@master^"), ["/a"])
        self.assertEqual(names("diff@master:/a", "diff@master^:/a"), ["/a"])
        self.assertEqual(names("diff@master:/a", "diff-2@master:/a"), ["/a"])
        self.assertEqual(names("diff@master", "diff@master"), [])
        self.fails("diff", "file", "diff@master:/a", "diff@master^:/b", says=["/a", "/b"])
        self.fails("diff", "file", "diff@master", "diff@master^:/a", says=["different paths"])
        self.fails("diff", "file", "diff@master:/a", "p/diff@master:/a", says=["projects", "default and p"])
        self.fails("diff", "file", "diff@master:/none", says=["/none", "neither"])
        self.fails("diff", "file", "diff@master:/none", "diff@master^", says=["/none", "neither"])

    def test_a_range_is_of_one_file(self):
        self.repo("range")
        self.server.put("range", "/a", "1")
        self.fails("get", "file", "-r", "range@master:/", "--range", "0-1", "-o", self.folder + "/out", says=["--range", "-r"])
        self.assertFalse(os.path.exists(self.folder + "/out"))

    def test_sources_that_are_one_file(self):
        self.repo("same")
        one, two, other = self.file("s1/same", "1"), self.file("s2/same", "2"), self.file("s2/other", "3")
        self.fails("put", "file", "same@master:/d/", "-f", one, "-f", two, says=[one, two, "Nothing was put"])
        s1, s2 = os.path.dirname(one), os.path.dirname(two)
        self.fails("put", "file", "-r", "same@master:/d/", "-f", s1, "-f", s2, says=[one, two])
        self.fails("put", "file", "-r", "same@master:/d/", "-f", s2, "-f", one, says=[one, two])
        self.assertEqual(self.server.json("list", "commit", "same"), [])
        self.file("s3/sub/same", "4")
        self.qanat("put", "file", "-r", "same@master:/d/", "-f", s2, "-f", os.path.join(self.folder, "s3"))
        self.assertEqual(self.server.tree("same"), {"/d/same": "2", "/d/other": "3", "/d/sub/same": "4"})
        # Appended, they are one file on purpose.
        self.qanat("put", "file", "-a", "same@appended:/", "-f", one, "-f", two)
        self.assertEqual(self.server.tree("same", "appended"), {"/same": "12"})
        self.assertTrue(other)


class Tokens(OneServer):
    def test_scopes_are_of_the_project(self):
        self.server.api("POST", "/projects", {"name": "p2"})
        self.repo("r")
        self.qanat("--project", "p2", "create", "repo", "r")
        scopes = lambda name: next(t["scopes"] for t in self.server.json("list", "token") if t["name"] == name)
        token = self.qanat("--project", "p2", "create", "token", "t", "-s", "reader:r", "-s", "writer:p3/x", "-s", "network-host").strip()
        self.assertEqual(scopes("t"), ["reader:p2/r", "writer:p3/x", "network-host"])
        self.qanat("inspect", "repo", "p2/r", token=token)
        self.assertIn("lacks reader:r\n", self.fails("inspect", "repo", "r", token=token, says="lacks"))
        self.fails("--project", "p2", "put", "file", "r@master:/a", "-f", "-", input="x", token=token, says="lacks writer:p2/r")
        self.fails("--project", "p2", "create", "repo", "new", token=token, says="lacks writer:p2/new")
        # The default project may be named or not.
        token = self.qanat("--project", "p2", "create", "token", "d", "-s", "reader:default/r").strip()
        self.assertEqual(scopes("d"), ["reader:r"])
        self.qanat("inspect", "repo", "r", token=token)
        self.assertEqual(self.server.api("POST", "/tokens", {"name": "api", "scopes": ["reader:default/r"]})["info"]["scopes"], ["reader:r"])
        # All names are those of all projects: said, not granted, where one was named.
        self.fails("--project", "p2", "create", "token", "all", "-s", "reader:*", says=["all projects", "p2"])
        self.qanat("create", "token", "all", "-s", "reader:*")
        self.fails("create", "token", "x", "-s", "owner:r", says=["owner:r", "PROJECT/NAME"])


if __name__ == "__main__":
    unittest.main()
