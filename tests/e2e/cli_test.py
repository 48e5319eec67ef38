"""The command line as a person uses it: every command, its output forms, errors with hints, odd names, broken transfers."""

import contextlib
import json
import os
import pty
import random
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import yaml

from harness import QANAT, Server, free_port, read_folder, wait_until

COPY = {"pipeline": {"name": "copy"}, "transform": {"image": "local", "cmd": ["sh", "-c", "cp /pfs/in/* /pfs/out/; echo out-$(ls /pfs/in); echo err-$(ls /pfs/in) >&2"]},
        "input": {"pfs": {"repo": "in", "glob": "/*"}}}


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
        """The command fails with this exit code, prints nothing else, and says each of these words."""
        result = self.server.run(*arguments, **options)
        self.assertEqual(result.returncode, code, f"{arguments}: {result.stdout}{result.stderr}")
        self.assertTrue(result.stderr.startswith("error: "), result.stderr)
        for word in [says] if isinstance(says, str) else says:
            self.assertIn(word, result.stderr)
        return result.stderr

    def file(self, name, content):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(content)
        return path

    def repo(self, name):
        self.qanat("create", "repo", name)
        return name


class Commands(OneServer):
    """Every command of `qanat --help`; each that is run is noted, and at the end none is missing."""

    def test_every_command(self):
        done = set()

        def run(*words, **options):
            done.add(" ".join(words[:2]) if words[0] not in ("fsck", "pause", "resume", "garbage-collect", "logs", "whoami", "version", "serve") else words[0])
            return self.qanat(*words, **options)

        run("create", "project", "sales")
        self.assertIn("sales", run("list", "project"))
        self.assertIn("sales", run("inspect", "project", "sales"))
        run("create", "repo", "in", "--description", "first")
        run("update", "repo", "in", "--description", "second")
        self.assertIn("second", run("inspect", "repo", "in"))
        commit = run("start", "commit", "in@master", "-m", "with a message").strip()
        self.assertRegex(commit, r"^[0-9a-f]{32}$")
        run("put", "file", f"in@{commit}:/a", "-f", "-", input="one\n")
        run("put", "file", f"in@{commit}:/d/b", "-f", "-", input="two\n")
        self.assertIn("master", run("inspect", "branch", "in@master"))
        run("finish", "commit", f"in@{commit}")
        self.assertIn("with a message", run("inspect", "commit", "in@master"))
        spec = self.file("spec.json", json.dumps(COPY).encode())
        self.assertIn("honoured", run("validate", "pipeline", "-f", spec))
        run("create", "pipeline", "-f", spec)
        self.assertIn("copy", run("wait", "commit", "copy@master"))
        job = self.server.jobs("copy")[0]["id"]
        self.assertIn("SUCCESS", run("wait", "job", f"copy@{job}"))
        self.assertIn("SUCCESS", run("inspect", "job", f"copy@{job}"))
        self.assertIn("/a", run("list", "datum", f"copy@{job}"))
        self.assertIn("/a", run("inspect", "datum", f"copy@{job}", "/a"))
        self.assertIn("ran", run("explain", "datum", f"copy@{job}", "/a"))
        self.assertIn("out-a", run("logs", "-j", f"copy@{job}"))
        self.assertIn("copy@master", run("list", "provenance", "in@master"))
        self.assertEqual(run("get", "file", "copy@master:/a"), "one\n")
        self.assertIn("/a", run("list", "file", "in@master"))
        self.assertIn("/d/b", run("glob", "file", "in@master:/d/*"))
        self.assertIn("4 B", run("inspect", "file", "in@master:/a"))
        run("copy", "file", "in@master:/d", "in@master:/e")
        self.assertIn("/e/b", run("diff", "file", "in@master"))
        run("delete", "file", "in@master:/e")
        self.assertIn("DELETED", run("find", "commit", "in@master:/e").upper())
        run("update", "pipeline", "-f", spec, "--reprocess")
        self.qanat("wait", "commit", "in@master")
        run("stop", "pipeline", "copy")
        self.assertIn("PAUSED", run("list", "pipeline"))
        run("start", "pipeline", "copy")
        self.assertIn("copy", run("inspect", "pipeline", "copy"))
        slow = json.loads(json.dumps(COPY))
        slow["pipeline"]["name"], slow["transform"]["cmd"] = "slow", ["sleep", "600"]
        self.qanat("create", "pipeline", "-f", "-", input=json.dumps(slow))
        running = wait_until(lambda: [j for j in self.server.jobs("slow") if j["state"] == "RUNNING"], "slow runs")[0]["id"]
        run("stop", "job", f"slow@{running}")
        wait_until(lambda: self.server.jobs("slow")[0]["state"] == "KILLED", "slow is killed")
        self.assertIn("KILLED", run("list", "job", "-p", "slow"))
        run("delete", "pipeline", "slow")
        run("create", "branch", "in@side", "--head", "master")
        run("update", "branch", "in@side", "--head", "master^")
        self.assertIn("side", run("list", "branch", "in"))
        run("delete", "branch", "in@side")
        open_commit = self.qanat("start", "commit", "in@master").strip()
        run("delete", "commit", f"in@{open_commit}")
        self.assertIn(commit, run("list", "commit", "in"))
        self.assertIn("in", run("list", "repo"))
        self.assertRegex(run("create", "token", "t", "-s", "reader:in"), r"^qanat_[0-9a-f]+\n$")
        self.assertIn("reader:in", run("list", "token"))
        run("delete", "token", "t")
        self.assertIn("admin", run("whoami"))
        self.assertEqual(run("fsck"), "")
        self.assertEqual(json.loads(run("fsck", "--data", "-o", "json")), [])
        self.assertIn("process", run("version"))
        run("config", "set", "here", "--address", self.server.url, "--secret", self.server.token)
        run("config", "use", "here")
        self.assertIn(self.server.url, run("config", "list"))
        run("config", "delete", "here")
        self.fails("delete", "repo", "in", says=["copy", "--force"])
        run("delete", "pipeline", "copy")
        self.server.put("in", "/g", "three")
        self.server.put("in", "/g", "four")
        last, one_before = (c["id"] for c in json.loads(self.qanat("list", "commit", "in", "-o", "json"))[:2])
        run("squash", "commit", one_before)
        run("drop", "commit", last)
        self.assertIn(last, run("list", "trash"))
        run("undelete", "commit", last)
        self.assertEqual(self.qanat("get", "file", f"in@{last}:/g"), "four")
        self.qanat("create", "branch", "in@side", "--head", last)
        self.qanat("delete", "branch", "in@side")
        run("undelete", "branch", "in@side")
        self.assertIn("side", self.qanat("list", "branch", "in"))
        self.assertEqual(self.qanat("fsck", "--data"), "")
        run("delete", "repo", "in")
        run("undelete", "repo", "in")
        self.assertIn("in", self.qanat("list", "repo"))
        run("pause", "--reason", "for a look")
        self.fails("delete", "repo", "in", says=["for a look"])
        run("resume")
        run("garbage-collect", "--dry-run")

        words = re.findall(r"^  ([\w-]+)\s{2,}(.*)$", self.qanat("--help").split("Subcommands:")[1], re.M)
        every = {f"{verb} {noun}" if " " not in noun.split(",")[0] and noun[0].islower() and verb not in ("serve",) else verb
                 for verb, nouns in words for noun in (nouns.split(", ") if nouns[0].islower() else [nouns])}
        self.assertGreater(len(every), 45)
        self.assertEqual(every - done - {"serve"}, set())
        for command in every:
            self.assertIn("Usage", self.qanat(*command.split(), "--help"))

    def test_forms_of_output(self):
        self.repo("forms")
        self.server.put("forms", "/a", "one")
        lists = [("list", "repo"), ("list", "branch", "forms"), ("list", "commit", "forms"), ("list", "commit"), ("list", "file", "forms@master"),
                 ("glob", "file", "forms@master:/*"), ("diff", "file", "forms@master"), ("find", "commit", "forms@master:/a"), ("list", "token"),
                 ("list", "pipeline"), ("list", "job")]
        items = [("inspect", "repo", "forms"), ("inspect", "branch", "forms@master"), ("inspect", "commit", "forms@master"),
                 ("inspect", "file", "forms@master:/a"), ("whoami",)]
        for command in lists + items:
            said = json.loads(self.qanat(*command, "-o", "json"))
            self.assertIsInstance(said, list if command in lists else dict)
            self.assertEqual(yaml.safe_load(self.qanat(*command, "-o", "yaml")) or [], said, command)
            names = self.qanat(*command, "-o", "name").splitlines()
            self.assertEqual(len(names), len(said) if command in lists else 1)
            table, wide = self.qanat(*command, "-o", "table"), self.qanat(*command, "-o", "wide")
            self.assertLessEqual(len(table.splitlines()[0]), len(wide.splitlines()[0]))
            self.assertNotIn("\x1b", table + wide)
        self.fails("list", "repo", "-o", "xml", says=["xml", "table, wide, json, yaml"])

    def test_errors(self):
        self.repo("errors")
        self.server.put("errors", "/a", "one")
        self.assertIn("did you mean list?", self.fails("lst", "repo", says="lst", code=2))
        self.assertIn("did you mean repo?", self.fails("list", "repos", says="repos", code=2))
        self.fails("create", "repo", code=2, says="NAME")
        self.fails("list", "repo", "--sideways", code=2, says="sideways")
        self.fails("get", "file", "errors@master:/b", says=["/b", "errors"])
        self.fails("get", "file", "errors@nowhere:/a", says="nowhere")
        self.fails("get", "file", "nowhere@master:/a", says="nowhere")
        self.fails("get", "file", "errors@master", says="path")
        self.fails("get", "file", "errors@master^9:/a", says="master")
        self.fails("put", "file", "errors@master:/x", "-f", self.folder, says=["-r"])
        self.fails("put", "file", "errors@master:/x", "-f", self.folder + "/none", says="none")
        self.fails("put", "file", "errors@master:/", "-f", "-", input="x", says="name")
        self.fails("put", "file", "errors@master:/x", says="-f")
        self.fails("create", "branch", "errors@" + "0" * 32, "--head", "master", says="branch")
        self.fails("create", "repo", "errors", says="exists")
        self.fails("finish", "commit", "errors@master", says="open")
        self.fails("wait", "commit", "f" * 32, says="f" * 32)
        self.fails("inspect", "job", "nobody@" + "0" * 32, says="nobody")
        self.fails("logs", says="--job")
        self.fails("whoami", token="wrong", says="token")
        self.fails("list", "repo", "--server", f"http://127.0.0.1:{free_port()}", says=["no Qanat server answers", "--server"])
        self.fails("create", "token", "t", says="--scope")
        self.fails("create", "token", "t", "-s", "reader:errors", "--expires", "tomorrow", says="tomorrow")
        said = self.fails("create", "pipeline", "-f", "-", input='{"pipeline": {"name": "p"}, "transfrom": {}}', says="transfrom")
        self.assertIn("transform", said)
        self.fails("create", "pipeline", "-f", "-", input="{", says="line")
        status, _, body = self.server.http("POST", "/api/v1/projects/default/repos", body=b'{"name": "x", "colour": "red"}')
        self.assertEqual(status, 400)
        self.assertIn("colour", json.loads(body)["error"]["message"])
        self.assertEqual(self.server.http("POST", "/api/v1/projects/default/repos", body=b'{"name": 7}')[0], 400)
        self.assertEqual(self.server.http("PATCH", "/api/v1/projects/default/repos")[0], 405)
        self.assertEqual(self.server.http("GET", "/api/v2/nothing")[0], 404)
        self.assertEqual(self.server.tree("errors"), {"/a": "one"})


class Files(OneServer):
    def test_folder_of_odd_names_there_and_back(self):
        self.repo("odd")
        names = ["plain", "with space", " lead", "tail ", "ünïcødé-名前-🙂", "n" * 200, "名" * 66, "-dash", "--force", "a*b?c[d]{e}(f)", "back\\slash", "quo\"te'",
                 "a:b@c^d", "%41%2F", "#x?y=z", "~", "...", ".hidden", "/".join("d" * 3 for _ in range(100)) + "/deep", "empty", "dir.with/./dots".replace("/./", "/")]
        content = {}
        for number, name in enumerate(names):
            content["/" + name] = b"" if name == "empty" else f"{number}\n".encode()
            self.file("tree/" + name, content["/" + name])
        self.qanat("put", "file", "-r", "odd@master:/", "-f", os.path.join(self.folder, "tree"))
        back = os.path.join(self.folder, "folders", "that are", "made", "back")
        self.qanat("get", "file", "-r", "odd@master:/", "-o", back)
        self.assertEqual({path: text.encode(errors="surrogateescape") for path, text in read_folder(back).items()}, content)
        for name in names:
            if "^" in name or "@" in name or "/" in name or name.startswith("-"):
                continue
            self.assertEqual(self.qanat("get", "file", f"odd@master:/{name}").encode(), content["/" + name], name)
        # A pattern's characters are escaped.
        self.assertEqual(self.qanat("glob", "file", r"odd@master:/a\*b\?c\[d\]\{e\}\(f\)", "-o", "name"), "/a*b?c[d]{e}(f)\n")
        commits = len(self.server.json("list", "commit", "odd"))
        self.assertEqual(commits, 1, "a folder is one commit")

    def test_wrong_names_change_nothing(self):
        self.repo("wrong")
        self.server.put("wrong", "/a", "1")
        head = self.server.head("wrong")
        for path in ("/a/../b", "/..", "/./a", "/x//y", "/new\nline", "/tab\there", "/\x7f", "/" + "x" * 256, "/" + "/".join(["y" * 200] * 20), "/" + "z" * 4096, "/a/under-a-file"):
            self.fails("put", "file", f"wrong@master:{path}", "-f", "-", input="x", says="")
        # The same names as they come from a client that checks nothing.
        for path in ("%2e%2e/x", "a%00b", "%2e", "x//y", "%ff%fe", "new%0aline", "x" * 256, "/".join(["y" * 200] * 20), "%zz"):
            status, _, body = self.server.http("PUT", f"/api/v1/projects/default/repos/wrong/files/{path}?ref=master", body=b"x")
            self.assertEqual(status, 400, f"{path}: {status} {body}")
            self.assertTrue(json.loads(body)["error"]["message"])
        for name in ("../x", "a/b", "", "x" * 300, "bad name", "naïve", "."):
            status, _, body = self.server.http("POST", "/api/v1/projects/default/repos", body=json.dumps({"name": name}).encode())
            self.assertEqual(status, 400, f"{name!r}: {body}")
        self.assertEqual(self.server.head("wrong"), head)
        bad = os.path.join(self.folder, "bad")
        os.makedirs(bad)
        for name in (b"fine", b"not-utf8-\xff"):
            with open(os.path.join(bad.encode(), name), "wb"):
                pass
        self.fails("put", "file", "-r", "wrong@master:/", "-f", bad, says="UTF-8")
        self.assertEqual(self.server.head("wrong"), head)

    def test_ranges(self):
        self.repo("ranges")
        self.server.put("ranges", "/f", "0123456789")
        self.server.put("ranges", "/empty", "")
        get = lambda path, asked: self.qanat("get", "file", f"ranges@master:{path}", "--range", asked)
        self.assertEqual([get("/f", r) for r in ("2-4", "7-", "-3", "0-0", "5-100")], ["234", "789", "789", "0", "56789"])
        self.assertEqual(self.qanat("get", "file", "ranges@master:/empty"), "")
        for asked in ("10-", "4-2", "x"):
            self.fails("get", "file", "ranges@master:/f", "--range", asked, says="range")
        status, headers, body = self.server.http("GET", "/api/v1/projects/default/repos/ranges/files/f?ref=master", headers={"Range": "bytes=2-4"})
        self.assertEqual((status, headers["Content-Range"], body), (206, "bytes 2-4/10", b"234"))

    def test_large_file_and_append(self):
        self.repo("large")
        block = os.urandom(1 << 20)
        path = self.file("big", b"".join(bytes([i]) + block for i in range(100)))
        self.qanat("put", "file", "large@master:/big", "-f", path)
        self.qanat("put", "file", "-a", "large@master:/big", "-f", "-", input="the end")
        back = os.path.join(self.folder, "back")
        self.qanat("get", "file", "large@master:/big", "-o", back)
        with open(path, "rb") as a, open(back, "rb") as b:
            self.assertTrue(a.read() + b"the end" == b.read())
        self.assertFalse(os.path.exists(back + ".part"))
        self.assertEqual(self.qanat("get", "file", "large@master:/big", "--range", "-7"), "the end")
        # Appending made what a put of the whole makes.
        with open(path, "ab") as f:
            f.write(b"the end")
        self.qanat("put", "file", "large@other:/big", "-f", path)
        self.assertEqual(self.server.root("large", "other"), self.server.root("large"))

    def test_sources(self):
        self.repo("sources")
        a, b = self.file("a", b"A"), self.file("b", b"B")
        self.file("dir/c", b"C")
        head = self.qanat("put", "file", "sources@master:/all/", "-f", a, "-f", b, "-r", "-f", os.path.join(self.folder, "dir"))
        self.assertEqual(self.server.tree("sources")["/all/a"], "A")
        self.assertIn("C", self.server.tree("sources").values())
        self.assertEqual(len(self.server.json("list", "commit", "sources")), 1)
        self.fails("put", "file", "sources@master:/all/", "-f", a, "-f", self.folder + "/missing", says=["missing", "Nothing was put"])
        self.assertEqual(len([c for c in self.server.json("list", "commit", "sources") if c["state"].upper() != "OPEN"]), 1)
        listing = self.file("list", f"{a}\n{b}\n".encode())
        self.qanat("put", "file", "sources@listed:/", "-i", listing)
        self.assertEqual(self.server.tree("sources", "listed"), {"/a": "A", "/b": "B"})
        self.qanat("put", "file", "sources@listed:/named", "-f", a)
        self.qanat("put", "file", "sources@listed:/in/", "-f", a)
        self.assertEqual(self.server.tree("sources", "listed"), {"/a": "A", "/b": "B", "/named": "A", "/in/a": "A"})
        self.assertEqual(head, "")

    def test_history(self):
        self.repo("history")
        for text in ("1", "2", "2", "3"):
            self.server.put("history", "/f", text)
        self.server.put("history", "/g", "other")
        self.qanat("delete", "file", "history@master:/f")
        changes = self.server.json("find", "commit", "history@master:/f")
        self.assertEqual(len(changes), 4, changes)
        self.assertEqual([self.qanat("get", "file", f"history@{c['commit']['id']}:/f") for c in changes[1:]], ["3", "2", "1"])
        self.assertEqual([d["path"] for d in self.server.json("diff", "file", "history@master", "history@master.1")], ["/f", "/g"])
        self.assertEqual(self.qanat("get", "file", "history@master.1:/f"), "1")
        self.assertEqual(self.qanat("get", "file", "history@master^:/f"), "3")
        self.fails("delete", "file", "history@master:/f", says="/f")
        # A head moves back, and the history of what it left stays readable by id.
        newest = self.server.head("history")
        self.qanat("create", "branch", "history@master", "--head", "master^3")
        self.assertEqual(self.server.tree("history"), {"/f": "2"})
        self.qanat("update", "branch", "history@master", "--head", "history@master^")
        self.assertEqual(self.server.tree("history"), {"/f": "2"})
        self.qanat("update", "branch", "history@master", "--head", "history@master^")
        self.assertEqual(self.server.tree("history"), {"/f": "1"})
        self.repo("elsewhere")
        self.fails("update", "branch", "history@master", "--head", "elsewhere@master", says="another repo")
        self.qanat("inspect", "commit", f"history@{newest}")

    def test_copy_between_repos(self):
        self.repo("from")
        self.repo("to")
        self.server.put("from", "/d/f", "text")
        self.qanat("copy", "file", "from@master:/d", "to@master:/e")
        self.assertEqual(self.server.tree("to"), {"/e/f": "text"})
        self.fails("copy", "file", "from@master:/none", "to@master:/x", says="/none")

    def test_a_truncated_upload_changes_nothing(self):
        self.repo("cut")
        self.server.put("cut", "/a", "whole")
        head = self.server.head("cut")
        for target, kind in (("files/a?ref=master", "application/octet-stream"), ("edits?ref=master", "application/x-qanat-file-stream"), ("files/new?ref=master&append=true", "text/plain")):
            for framing, body in (("Content-Length: 1000000", b"half a file" * 1000), ("Transfer-Encoding: chunked", b"10\r\n0123456789abcdef\r\n5\r\nab")):
                with socket.create_connection(("127.0.0.1", self.server.port)) as s:
                    s.sendall(f"PUT /api/v1/projects/default/repos/cut/{target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.server.token}\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n".replace("PUT", "POST" if "edits" in target else "PUT").encode() + body)
                    s.shutdown(socket.SHUT_WR)
                    s.settimeout(20)
                    self.assertNotIn(b" 200 ", s.recv(1000)[:20])
        self.assertEqual(self.server.head("cut"), head)
        self.assertEqual(self.server.tree("cut"), {"/a": "whole"})

    def test_fsck_names_what_is_damaged(self):
        with Server() as server:
            server.qanat("create", "repo", "r")
            for name in ("a", "b"):
                server.qanat("put", "file", f"r@master:/dir/{name}", "-f", "-", input=os.urandom(5000).hex())
            commits = [c["id"] for c in json.loads(server.qanat("list", "commit", "r", "-o", "json"))]
            packs = os.path.join(server.data, "objects", "packs")
            pack = max((os.path.join(folder, f) for folder, _, files in os.walk(packs) for f in files), key=os.path.getsize)
            with open(pack, "r+b") as f:
                f.seek(1000)
                byte = f.read(1)[0]
                f.seek(1000)
                f.write(bytes([byte ^ 0xff]))
            self.assertEqual(server.run("fsck").returncode, 0)
            result = server.run("fsck", "--data", "-o", "json")
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn("1 problem in project default", result.stderr)
            (problem,) = json.loads(result.stdout)
            self.assertIn(os.path.basename(pack), problem["where"])
            self.assertTrue(any(touched.startswith(f"r@{commits[0]}:/dir/") for touched in problem["touches"]), problem)
            table = server.run("fsck", "--data").stdout
            self.assertRegex(table, r"^WHAT +WHERE +TOUCHES\n.*is damaged.*/dir/")
            self.assertEqual(server.run("fsck", "--project", "nothing").returncode, 1)

    def test_a_job_whose_input_is_damaged_fails_and_says_so(self):
        with Server() as server:
            server.qanat("create", "repo", "in")
            server.create_pipeline({**COPY, "transform": {**COPY["transform"], "cmd": ["sh", "-c", "cp /pfs/in/* /pfs/out/"]}})
            server.qanat("stop", "pipeline", "copy")
            for name, size in (("good", 100), ("small", 5000), ("large", 3_000_000)):
                server.put("in", "/" + name, random.Random(name).randbytes(size).hex())
            server.stop()
            packs = [os.path.join(folder, f) for folder, _, files in os.walk(os.path.join(server.data, "objects", "packs")) for f in files]
            for pack in packs:
                if os.path.getsize(pack) > 3000:
                    with open(pack, "r+b") as f:
                        f.seek(1000)
                        byte = f.read(1)[0]
                        f.seek(1000)
                        f.write(bytes([byte ^ 0xff]))
            server.start()
            server.qanat("start", "pipeline", "copy")
            job = wait_until(lambda: [j for j in server.jobs("copy") if j["state"] == "FAILURE"], "the job fails")[0]
            self.assertIn("its input cannot be read", job["reason"])
            self.assertEqual((job["datums"]["processed"], job["datums"]["failed"]), (1, 2), job)

    def test_open_commits(self):
        self.repo("open")
        self.server.put("open", "/a", "1")
        commit = self.qanat("start", "commit", "open@master").strip()
        self.qanat("put", "file", f"open@{commit}:/b", "-f", "-", input="2")
        self.assertEqual(self.qanat("get", "file", f"open@{commit}:/b"), "2")
        self.assertEqual(self.server.tree("open"), {"/a": "1"})
        self.assertEqual(self.server.json("inspect", "commit", f"open@{commit}")["state"].upper(), "OPEN")
        self.server.stop(kill=True)
        self.server.start()
        self.qanat("finish", "commit", f"open@{commit}")
        self.assertEqual(self.server.tree("open"), {"/a": "1", "/b": "2"})
        self.fails("put", "file", f"open@{commit}:/c", "-f", "-", input="3", says="finished")


class Logs(OneServer):
    def test_logs(self):
        self.repo("in")
        for name in ("a", "b"):
            self.server.put("in", "/" + name, name)
        self.server.create_pipeline(COPY)
        self.qanat("wait", "commit", "copy@master")
        first = self.server.jobs("copy")[0]["id"]
        by_job = self.qanat("logs", "-j", f"copy@{first}")
        for word in ("out-a", "err-a", "out-b", "err-b"):
            self.assertIn(word, by_job)
        self.assertEqual(self.qanat("logs", "-p", "copy"), by_job)
        by_datum = self.qanat("logs", "-j", f"copy@{first}", "-d", "/a")
        self.assertIn("out-a", by_datum)
        self.assertNotIn("out-b", by_datum)
        lines = [json.loads(line) for line in self.qanat("logs", "-j", f"copy@{first}", "--raw").splitlines()]
        self.assertEqual({(line["pipeline"], line["job"]) for line in lines}, {("copy", first)})
        self.assertEqual({line["stream"] for line in lines if line["text"].startswith(("out-", "err-"))}, {"stdout", "stderr"})
        self.fails("logs", "-j", f"copy@{first}", "-d", "/none", says="/none")
        self.fails("logs", "-p", "nobody", says="nobody")
        self.fails("logs", "-p", "copy", "-d", "/a", says="--job")
        self.assertEqual(self.qanat("logs", "-p", "copy", "-t", "1"), by_job.splitlines(keepends=True)[-1])
        # A later job shows what it ran itself; a datum that it skipped, when asked for by name.
        self.server.put("in", "/c", "c")
        self.qanat("wait", "commit", "in@master")
        second = self.server.jobs("copy")[0]["id"]
        self.assertNotIn("out-a", self.qanat("logs", "-j", f"copy@{second}"))
        self.assertIn("out-a", self.qanat("logs", "-j", f"copy@{second}", "-d", "/a"))

    def test_words_of_user_code_cannot_act_on_a_terminal(self):
        self.repo("words")
        self.server.put("words", "/a", "1")
        said = "\x1b]0;mine\x07\x1b[2J\x1b[31mred"
        spec = {"pipeline": {"name": "rude"}, "transform": {"image": "local", "cmd": ["printf", "%s\\n", said]}, "input": {"pfs": {"repo": "words", "glob": "/*"}}}
        self.server.create_pipeline(spec)
        self.qanat("wait", "commit", "rude@master")
        self.assertIn(said, self.qanat("logs", "-p", "rude"))
        terminal, inside = pty.openpty()
        environment = {**os.environ, "QANAT_SERVER": self.server.url, "QANAT_TOKEN": self.server.token, "HOME": self.folder}
        self.assertEqual(subprocess.run([QANAT, "logs", "-p", "rude"], stdout=inside, env=environment, timeout=30).returncode, 0)
        os.close(inside)
        shown = os.read(terminal, 100000).decode()
        os.close(terminal)
        self.assertIn(r"\x1b]0;mine\x07\x1b[2J" + "\x1b[31mred\x1b[0m", shown)

    def test_following(self):
        self.repo("src")
        gate = os.path.join(self.folder, "gate")
        os.mkfifo(gate)
        spec = {"pipeline": {"name": "talks"}, "transform": {"image": "local", "cmd": ["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo line-$i; sleep 0.5; done"]},
                "input": {"pfs": {"repo": "src", "glob": "/*"}}}
        self.server.create_pipeline(spec)
        self.server.put("src", "/a", "1")
        job = wait_until(lambda: [j for j in self.server.jobs("talks") if j["state"] == "RUNNING"], "talks runs")[0]["id"]
        environment = {**os.environ, "QANAT_SERVER": self.server.url, "QANAT_TOKEN": self.server.token, "HOME": self.folder}
        begin = time.monotonic()
        with subprocess.Popen([QANAT, "logs", "-j", f"talks@{job}", "--follow"], stdout=subprocess.PIPE, text=True, env=environment) as follower:
            first = follower.stdout.readline()
            self.assertIn("line-", first)
            self.assertIn(self.server.jobs("talks")[0]["state"], ("RUNNING",), f"a line came after {time.monotonic() - begin:.1f} s, when the job was over")
            rest = follower.stdout.read()
            self.assertEqual(follower.wait(timeout=30), 0)
        self.assertIn("line-8", rest)

    def test_who_follows_sees_each_line_once(self):
        """Of datums done before, of short ones, and of one that says more than is kept of what comes live."""
        self.repo("many")
        for name in ("a", "b", "c", "loud", "x", "y"):
            self.file("many/" + name, b"1")
        self.qanat("put", "file", "-r", "many@master:/", "-f", os.path.join(self.folder, "many"))
        script = """n=$(ls /pfs/many); for i in 1 2 3; do echo $n-$i; done
case $n in c) sleep 3;; loud) i=0; while [ $i -lt 12000 ]; do echo loud-line-$i; i=$((i+1)); done; sleep 1; echo loud-end;; esac"""
        self.server.create_pipeline({"pipeline": {"name": "speaks"}, "transform": {"image": "local", "cmd": ["sh"], "stdin": [script]},
                                     "input": {"pfs": {"repo": "many", "glob": "/*"}}, "datum_set_spec": {"number": 1}})
        job = wait_until(lambda: [j for j in self.server.jobs("speaks") if j["datums"].get("processed", 0) >= 2], "two datums are done")[0]["id"]
        raw = self.qanat("logs", "-j", f"speaks@{job}", "--follow", "--raw")
        self.assertEqual(self.server.jobs("speaks")[0]["state"], "SUCCESS")
        said = [line["text"] for line in map(json.loads, raw.splitlines()) if line["stream"] == "stdout"]
        names = ("a", "b", "c", "loud", "x", "y")
        expected = [f"{name}-{i}" for name in names for i in (1, 2, 3)] + [f"loud-line-{i}" for i in range(12000)] + ["loud-end"]
        self.assertEqual(sorted(said), sorted(expected))
        self.assertEqual(said[:6], ["a-1", "a-2", "a-3", "b-1", "b-2", "b-3"], "what was done before comes first")


class Servers(unittest.TestCase):
    """What needs servers of its own."""

    def run_alone(self, server, *arguments, **environment):
        """The command line with no server or token named."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("QANAT_", "XDG_"))}
        return subprocess.run([QANAT, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
                              env={**clean, "HOME": server.folder, **environment})

    def test_the_local_server_is_found(self):
        folder = tempfile.mkdtemp(prefix="qanat-test-")
        environment = {"HOME": folder, "XDG_STATE_HOME": "", "XDG_CONFIG_HOME": ""}
        with Server(folder=folder, environment=environment) as server:
            found = self.run_alone(server, "whoami")
            self.assertEqual(found.returncode, 0, found.stderr)
            self.assertIn(server.url, found.stdout)
            self.assertIn("--server", self.run_alone(server, "whoami", HOME="/nonexistent").stderr)
            # A second server on the folder is refused, and the first goes on; so is a bad or taken address.
            for arguments, says in (
                ((server.data, f"127.0.0.1:{free_port()}"), "another server uses"),
                ((os.path.join(folder, "other"), f"127.0.0.1:{server.port}"), "in use"),
                ((os.path.join(folder, "other"), "nonsense"), "HOST:PORT"),
                ((os.path.join(folder, "other"), "127.0.0.1:99999"), "HOST:PORT"),
                ((os.path.join(folder, "other"), "no.such.host.invalid:80"), "no.such.host.invalid"),
            ):
                result = self.run_alone(server, "serve", "--data", arguments[0], "--listen", arguments[1], "--runner", "process")
                self.assertEqual(result.returncode, 1, result.stdout)
                self.assertIn(says, result.stderr)
            result = self.run_alone(server, "serve", "--data", os.path.join(folder, "other"), "--listen", "127.0.0.1:0", "--runner", "magic")
            self.assertIn("magic", result.stderr)
            self.assertEqual(self.run_alone(server, "whoami").returncode, 0)
            server.stop()
            self.assertIn("qanat serve", self.run_alone(server, "whoami").stderr)

    def test_several_local_servers(self):
        folder = tempfile.mkdtemp(prefix="qanat-test-")
        environment = {"HOME": folder, "XDG_STATE_HOME": "", "XDG_CONFIG_HOME": ""}
        state = os.path.join(folder, ".local/state/qanat/servers")
        with Server(folder=folder, environment=environment) as first:
            second = Server(folder=folder, environment=environment)
            second.data = os.path.join(folder, "second")
            with contextlib.ExitStack() as stack:
                stack.callback(second.stop)
                second.start()
                said = self.run_alone(first, "whoami")
                self.assertEqual(said.returncode, 1, said.stdout)
                for words in ("2 Qanat servers", first.url, first.data, second.url, second.data, "--server"):
                    self.assertIn(words, said.stderr)
                for server in (first, second):
                    # Named, its token is found; with or without http://.
                    for address in (server.url, server.url[len("http://"):]):
                        self.assertEqual(self.run_alone(first, "--server", address, "create", "repo", f"r{len(address)}").returncode, 0)
                # What stops or dies hides no other.
                second.stop(kill=True)
                self.assertEqual(len(os.listdir(state)), 2)
                self.assertIn(first.url, self.run_alone(first, "whoami").stdout)
                self.assertEqual(len(os.listdir(state)), 1, "what died is removed")
                second.start()
                self.assertEqual(len(os.listdir(state)), 2)
                second.stop()
                self.assertIn(first.url, self.run_alone(first, "whoami").stdout)
                # A process that got the number of one that died is not that server.
                (entry,) = os.listdir(state)
                with open(os.path.join(state, entry)) as f:
                    record = json.load(f)
                with open(os.path.join(state, "0" * 16 + ".json"), "w") as f:
                    json.dump({**record, "pid": os.getpid(), "address": "http://127.0.0.1:1", "data": "/gone"}, f)
                with open(os.path.join(state, "1" * 16 + ".json"), "w") as f:
                    json.dump({**record, "machine": "another", "address": "http://127.0.0.1:1", "data": "/elsewhere"}, f)
                self.assertIn(first.url, self.run_alone(first, "whoami").stdout)
                self.assertEqual(sorted(os.listdir(state)), sorted([entry, "1" * 16 + ".json"]))
                # Where the token was found is said of the token.
                bad = self.run_alone(first, "--server", first.url, "whoami", QANAT_TOKEN="wrong")
                self.assertIn("The token comes from QANAT_TOKEN", bad.stderr)
                bad = self.run_alone(first, "whoami", "--token", "wrong", QANAT_SERVER=first.url)
                self.assertIn("The token comes from --token", bad.stderr)

    def test_waiting_survives_a_restart(self):
        with Server() as server:
            server.qanat("create", "repo", "in")
            server.create_pipeline({**COPY, "pipeline": {"name": "slow"}, "transform": {"image": "local", "cmd": ["sh", "-c", "sleep 4; cp /pfs/in/* /pfs/out/"]}})
            server.put("in", "/a", "1")
            environment = {**os.environ, "QANAT_SERVER": server.url, "QANAT_TOKEN": server.token, "HOME": server.folder}
            with subprocess.Popen([QANAT, "wait", "commit", "in@master"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as waiter:
                wait_until(lambda: [j for j in server.jobs("slow") if j["state"] == "RUNNING"], "slow runs")
                server.stop(kill=True)
                server.start()
                said = waiter.communicate(timeout=60)[0]
            self.assertEqual(waiter.returncode, 0, said)
            self.assertEqual(server.tree("slow"), {"/a": "1"})

    def test_full_disk_of_output_is_an_error(self):
        with Server() as server:
            server.qanat("create", "repo", "in")
            server.put("in", "/a", "x" * 100000)
            result = subprocess.run(f"'{QANAT}' get file in@master:/a >/dev/full", shell=True, capture_output=True, text=True, check=False,
                                    env={**os.environ, "QANAT_SERVER": server.url, "QANAT_TOKEN": server.token, "HOME": server.folder})
            self.assertEqual(result.returncode, 1)
            self.assertIn("No space left", result.stderr)


if __name__ == "__main__":
    unittest.main()
