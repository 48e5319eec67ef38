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

    def test_copies_keep_their_name_in_a_directory(self):
        self.repo("k")
        self.server.put("k", "/d/a", "1")
        for source, destination in (("/d/a", "k@master:/e/"), ("/d", "k@master:/e/"), ("/d/a", "k@dev"), ("/d/", "k@dev:/"), ("/d/a", "k@dev:/named"), ("/d/", "k@dev:/again")):
            self.qanat("copy", "file", f"k@master:{source}", destination)
        self.assertEqual(self.server.tree("k"), {"/d/a": "1", "/e/a": "1", "/e/d/a": "1"})
        self.assertEqual(self.server.tree("k", "dev"), {"/a": "1", "/d/a": "1", "/named": "1", "/again/a": "1"})

    def test_delete_by_pattern(self):
        self.repo("del")
        self.qanat("put", "file", "-r", "del@master:/", "-f", os.path.dirname(self.file("t/a", "1")), "-f", os.path.dirname(self.file("u/dir/b", "2")) + "/..")
        for path in ("/dir/c", "/dir/sub/d", "/a*", "/ab", "/b[1"):
            self.server.put("del", path, "x")
        commits = len(self.server.json("list", "commit", "del"))
        self.qanat("delete", "file", "del@master:/a*")  # a file of that name
        self.assertEqual(set(self.server.tree("del")), {"/a", "/ab", "/b[1", "/dir/b", "/dir/c", "/dir/sub/d"})
        self.qanat("delete", "file", "del@master:/a*", "-m", "both")
        self.qanat("delete", "file", "del@master:/b[1")  # no pattern
        self.qanat("delete", "file", "del@master:/dir/**b")
        self.assertEqual(set(self.server.tree("del")), {"/dir/c"})
        self.assertEqual(len(self.server.json("list", "commit", "del")), commits + 4)
        self.fails("delete", "file", "del@master:/none*", says=["nothing", "/none*"])
        self.fails("delete", "file", "del@master:/none", says="/none")
        self.fails("delete", "file", "del@master", says="path")
        self.server.put("del", "/e", "x")
        self.qanat("delete", "file", "del@master:/")
        self.assertEqual(self.server.tree("del"), {})
        self.fails("delete", "file", "del@master:/", says="nothing")

    def test_nothing_to_put_or_get(self):
        self.repo("empty")
        self.server.put("empty", "/a", "1")
        os.makedirs(os.path.join(self.folder, "hollow", "sub"))
        hollow = os.path.join(self.folder, "hollow")
        self.fails("put", "file", "-r", "empty@master:/", "-f", hollow, says=["nothing to put", hollow])
        tar = os.path.join(self.folder, "hollow.tar")
        subprocess.run(["tar", "-cf", tar, "-C", self.folder, "hollow"], check=True)
        self.fails("put", "file", "--untar", "empty@master:/", "-f", tar, says=["nothing to put", "tar"])
        self.fails("put", "file", "--untar", "empty@master:/", "-f", hollow, says=[hollow, "--untar"])
        self.fails("put", "file", "empty@master:/x", "-f", "-", "-f", tar, input="x", says=["standard input", "one of several", "-f -"])
        self.fails("get", "file", "-r", "empty@master:/none*", "-o", self.folder + "/out", says=["/none*"])
        self.assertFalse(os.path.exists(self.folder + "/out"))
        self.qanat("get", "file", "-r", "empty@master:/a*", "-o", self.folder + "/out")
        self.fails("find", "commit", "empty@master:/none", says=["/none", "empty@master"])
        self.assertEqual(len(self.server.json("list", "commit", "empty")), 1)

    def test_a_description_is_short(self):
        self.repo("words")
        long, fits = "x" * 10_001, "x" * 10_000
        self.qanat("put", "file", "words@master:/a", "-f", "-", "-m", fits, input="1")
        for command in (("put", "file", "words@master:/a", "-f", "-"), ("put", "file", "words@master:/a", "-f", "-", "-a"), ("copy", "file", "words@master:/a", "words@master:/b"),
                        ("delete", "file", "words@master:/a"), ("delete", "file", "words@master:/"), ("start", "commit", "words@master")):
            self.fails(*command, "-m", long, input="2", says=["10001", "10000"])
        self.fails("put", "file", "words@master:/a", "-f", "-", "-m", "x" * 100_000, input="2", says=["100000", "10000"])
        self.fails("create", "repo", "wordy", "--description", long, says="10000")
        self.assertEqual(self.server.http("PUT", f"/api/v1/projects/default/repos/words/files/a?ref=master&description={long}", b"3")[0], 400)
        self.assertEqual(len(self.server.json("list", "commit", "words")), 1)

    def test_who_stops_reading_hears_nothing(self):
        self.repo("pipe")
        self.server.put("pipe", "/big", "x" * (8 << 20))
        environment = {**os.environ, "QANAT_SERVER": self.server.url, "QANAT_TOKEN": self.server.token, "HOME": self.server.folder}
        with subprocess.Popen([QANAT, "get", "file", "pipe@master:/big"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
            self.assertEqual(process.stdout.read(10), b"x" * 10)
            process.stdout.close()
            said = process.stderr.read()
        self.assertEqual((process.returncode, said), (-signal.SIGPIPE, b""))
        read, write = os.pipe()
        os.close(read)
        listing = subprocess.run([QANAT, "list", "repo"], stdout=write, stderr=subprocess.PIPE, env=environment, check=False)
        os.close(write)
        self.assertEqual((listing.returncode, listing.stderr), (-signal.SIGPIPE, b""))
        with open("/dev/full", "w") as full:
            listing = subprocess.run([QANAT, "list", "repo"], stdout=full, stderr=subprocess.PIPE, env=environment, check=False)
        self.assertEqual(listing.returncode, 1)
        self.assertIn(b"No space left", listing.stderr)


class Names(OneServer):
    def test_ids(self):
        self.repo("ids")
        self.server.put("ids", "/a", "1")
        head = self.server.head("ids")
        for said in (f"ids@{head.upper()}", head.upper()):
            self.assertIn(head, self.qanat("inspect", "commit", said))
            self.assertIn(head, self.qanat("list", "commit", said))
            self.assertIn(head, self.qanat("wait", "commit", said))
        self.assertEqual(self.qanat("get", "file", f"ids@{head.upper()}:/a"), "1")
        self.qanat("create", "branch", "ids@side", "--head", head.upper())
        # An open commit starts no wave, and is found by its id all the same.
        opened = self.qanat("start", "commit", "ids@master").strip()
        for verb in ("list", "inspect"):
            said = self.qanat(verb, "commit", opened)
            self.assertIn(opened, said)
            self.assertIn("OPEN", said.upper())
        self.assertEqual(self.server.json("inspect", "commit", opened)["commits"][0]["id"], opened)
        self.fails("inspect", "commit", "f" * 32, says=["f" * 32, "project default"])
        for name in ("0123456789abcdef" * 2, "0123456789ABCDEF" * 2):
            self.fails("create", "repo", name, says=[name, "commit id"])

    def test_numbers(self):
        self.repo("numbers")
        for command in (("list", "commit", "numbers", "-n", "-5"), ("serve", "--gc-interval", "-5"), ("serve", "--trash-grace", "-1"), ("find", "commit", "numbers:/a", "-n", "x"), ("serve", "--gc-interval", "9" * 18)):
            self.fails(*command, code=2, says=[command[-1], "number"])

    def test_projects(self):
        self.qanat("create", "project", "sales", "--description", "what is sold")
        self.assertIn("what is sold", self.qanat("inspect", "project", "sales"))
        self.assertEqual(self.qanat("list", "project", "-o", "name").split(), ["default", "sales"])
        self.assertEqual(self.server.json("inspect", "project", "sales")["name"], "sales")
        self.fails("create", "project", "sales", says="exists")
        self.fails("create", "project", "a b", says="project")
        self.fails("inspect", "project", "sails", says=["sails", "list project"])
        lists = (("list", "repo"), ("list", "commit"), ("list", "job"), ("list", "pipeline"), ("list", "trash"), ("garbage-collect", "--dry-run"), ("fsck",), ("create", "repo", "r"),
                 ("logs", "-p", "x"))
        for command in lists:
            self.fails("--project", "sails", *command, says=["project sails does not exist", "qanat create project sails"])
        for command in lists[:5]:
            self.assertEqual(json.loads(self.qanat("--project", "sales", *command, "-o", "json")), [])
        # Whether there is one is not for all to know.
        token = self.qanat("create", "token", "outsider", "-s", "reader:r").strip()
        said = [self.fails("--project", name, "list", "repo", token=token, says="does not exist, or").replace(name, "") for name in ("sales", "sails")]
        self.assertEqual(said[0], said[1])
        self.assertEqual(self.qanat("list", "project", "-o", "name", token=token), "default\n")
        insider = self.qanat("create", "token", "insider", "-s", "reader:sales/r").strip()
        self.assertEqual(self.qanat("--project", "sales", "list", "repo", "-o", "name", token=insider), "")


class Http(OneServer):
    def error(self, method, path, status, **options):
        got, _, body = self.server.http(method, "/api/v1" + path, **options)
        self.assertEqual(got, status, body)
        return body.decode()

    def test_what_is_not_known_is_not_ignored(self):
        self.repo("http")
        self.server.put("http", "/a", "1")
        repo = "/projects/default/repos/http"
        said = self.error("GET", f"{repo}/files/a?reff=master", 400)
        self.assertIn('reff', said)
        self.assertIn("did you mean ref?", said)
        self.assertIn("this path takes none", self.error("GET", f"{repo}?verbose=1", 400))
        self.assertIn("ref, append, description", self.error("PUT", f"{repo}/files/a?overwrite=1", 400, body=b"2"))
        self.error("PUT", f"{repo}/files/a?ref=master", 400, body=b"2", headers={"Content-Range": "bytes 0-0/2"})
        self.error("PUT", f"{repo}/files/a?ref=master", 415, body=b"2", headers={"Content-Encoding": "gzip"})
        self.error("POST", "/projects/default/repos", 415, body=b"{}", headers={"Content-Encoding": "zstd"})
        self.assertEqual(self.server.get("http", "/a"), "1")
        self.error("PUT", f"{repo}/files/a?ref=master", 200, body=b"2", headers={"Content-Encoding": "identity"})
        self.assertEqual(self.server.http("GET", "/healthz?now=1")[0], 200)
        # Without a token nothing is said of parameters.
        self.error("GET", f"{repo}?verbose=1", 401, token="")

    def test_archive_by_pattern(self):
        self.repo("archive")
        self.server.put("archive", "/a1", "one")
        self.server.put("archive", "/b1", "two")
        status, _, body = self.server.http("GET", "/api/v1/projects/default/repos/archive/archive?ref=master&pattern=/a*")
        self.assertEqual(status, 200)
        self.assertIn(b"one", body)
        self.assertNotIn(b"two", body)
        self.error("GET", "/projects/default/repos/archive/archive?ref=master&pattern=/c*", 404)


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
