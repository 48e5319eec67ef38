"""Closed by default: which calls need a token, what each scope allows, and what those without it see.

One server on the process runner: repos `open` and `closed`, pipelines `shown` (of `open`) and `hidden` (of `closed`).
"""

import datetime
import http.client
import json
import os
import socket
import stat
import tempfile
import time
import unittest

from harness import Server, wait_until

PROJECT = "/projects/default"
PUBLIC = {"/healthz", "/api/v1/openapi.json"}


def spec(name, repo, command="cp /pfs/*/* /pfs/out/ && echo log-of-" + "$PPS_PIPELINE_NAME", **more):
    return {"pipeline": {"name": name}, "transform": {"image": "local", "cmd": ["sh", "-c", command], **more.pop("transform", {})},
            "input": {"pfs": {"repo": repo, "glob": more.pop("glob", "/*")}}, **more}


class SecurityTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server().start()
        cls.addClassCleanup(cls.server.close)
        for repo, pipeline in (("open", "shown"), ("closed", "hidden")):
            cls.server.api("POST", PROJECT + "/repos", {"name": repo})
            cls.put(repo, "/a", f"text of {repo}\n")
            cls.server.api("POST", PROJECT + "/pipelines", spec(pipeline, repo))
        for pipeline in ("shown", "hidden"):
            cls.server.qanat("wait", "commit", f"{pipeline}@master")
        cls.job = {p: cls.server.api("GET", f"{PROJECT}/jobs?pipeline={p}")["items"][0]["id"] for p in ("shown", "hidden")}

    @classmethod
    def put(cls, repo, path, text, token=None, expect=None):
        status, _, body = cls.server.http("PUT", f"/api/v1{PROJECT}/repos/{repo}/files{path}?ref=master", body=text.encode(), token=token)
        if status != (expect or 200):
            raise AssertionError(f"put {repo}:{path}: {status} {body}")

    def token(self, name, *scopes, **more):
        secret = self.server.api("POST", "/tokens", {"name": name, "scopes": list(scopes), **more})["token"]
        self.addCleanup(self.server.http, "DELETE", f"/api/v1/tokens/{name}")
        return secret

    def status(self, token, method, path, body=None):
        data = None if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        return self.server.http(method, "/api/v1" + path, body=data, token=token)[0]

    def body(self, token, path):
        status, _, body = self.server.http("GET", "/api/v1" + path, token=token)
        self.assertEqual(status, 200, body)
        return body.decode()

    # -- without a token -----------------------------------------------------
    def test_every_route_but_the_public_ones_needs_a_token(self):
        status, _, text = self.server.http("GET", "/api/v1/openapi.json", token="")
        self.assertEqual(status, 200)
        document = json.loads(text)
        public, seen = set(), 0
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if method not in ("get", "put", "post", "delete"):
                    continue
                seen += 1
                real = path
                for name in ("project", "repo", "branch", "ref", "path", "wave", "pipeline", "job", "datum", "token", "upload", "commit"):
                    real = real.replace("{%s}" % name, {"project": "default", "repo": "open", "branch": "master", "ref": "master"}.get(name, "shown"))
                self.assertNotIn("{", real)
                body = b"{}" if method in ("post", "put") else None
                for token in ("", "qanat_" + "0" * 64, "nonsense"):
                    status, headers, answer = self.server.http(method.upper(), real, body=body, token=token)
                    if operation.get("security") == []:
                        public.add(path)
                        self.assertNotEqual(status, 401, path)
                    else:
                        self.assertEqual(status, 401, f"{method} {real} with token {token!r}: {answer}")
                        self.assertEqual(headers.get("WWW-Authenticate"), "Bearer")
                        self.assertEqual(set(json.loads(answer)["error"]) - {"hint"}, {"code", "message"})
        self.assertEqual(public, PUBLIC)
        self.assertGreater(seen, 45)
        self.assertEqual(self.server.http("GET", "/healthz", token="")[0], 200)

    def test_workers_calls_are_not_served_to_others(self):
        for token in ("", None):
            for method, path in (("POST", "hello"), ("POST", "lease"), ("GET", "inputs?job=x&datum=y"), ("POST", "results?job=x"), ("POST", "renew"), ("POST", "logs")):
                status, _, body = self.server.http(method, f"/worker/v1/{path}", body=b"{}" if method == "POST" else None, token=token)
                self.assertIn(status, (401, 403, 404), f"{path}: {body}")

    def test_worker_sockets_are_for_their_owner(self):
        for folder, _, names in os.walk(os.path.join(self.server.data, "run")):
            for name in names:
                path = os.path.join(folder, name)
                if not stat.S_ISSOCK(os.lstat(path).st_mode):
                    continue
                self.assertEqual(stat.S_IMODE(os.lstat(path).st_mode), 0o600)
                for token in ("", self.server.token):
                    with socket.socket(socket.AF_UNIX) as s:
                        # The path may be longer than an address holds.
                        fd = os.open(folder, os.O_PATH)
                        try:
                            s.connect(f"/proc/self/fd/{fd}/{name}")
                        finally:
                            os.close(fd)
                        s.sendall(f"POST /worker/v1/lease HTTP/1.1\r\nHost: w\r\nAuthorization: Bearer {token}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
                        self.assertRegex(s.recv(200).decode(), r"^HTTP/1.1 40[13]")

    def test_files_of_the_data_folder(self):
        self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.server.data, "token")).st_mode), 0o600)
        for folder, folders, names in os.walk(self.server.data):
            if folder.startswith(os.path.join(self.server.data, "run")):
                continue  # user code passes through to the worker's program
            for name in names:
                mode = stat.S_IMODE(os.lstat(os.path.join(folder, name)).st_mode)
                self.assertEqual(mode & 0o077, 0, f"{os.path.join(folder, name)} {mode:o}")
        self.assertEqual(stat.S_IMODE(os.stat(self.server.data).st_mode) & 0o077, 0)

    # -- with one ------------------------------------------------------------
    def calls(self):
        """What each call needs: {name: (call, the tokens that may)}; answers that are not 403 count as allowed."""
        readers, writers = {"reader", "writer", "all-writer", "admin"}, {"writer", "all-writer", "admin"}
        observers, operators = {"shown-reader", "all-writer", "operator", "admin"}, {"operator", "admin"}
        insiders = {"all-writer", "operator", "admin"}  # datums and logs show what the inputs hold
        repo, pipeline = PROJECT + "/repos/open", PROJECT + "/pipelines/shown"
        job = f"{pipeline}/jobs/{self.job['shown']}"
        everyone = readers | observers | {"network"}
        return {
            "inspect_repo": (("GET", repo), readers),
            "list_branches": (("GET", repo + "/branches"), readers),
            "inspect_branch": (("GET", repo + "/branches/master"), readers),
            "list_commits": (("GET", repo + "/commits"), readers),
            "inspect_commit": (("GET", repo + "/commits/master"), readers),
            "get_file": (("GET", repo + "/files/a?ref=master"), readers),
            "list_files": (("GET", repo + "/list?ref=master"), readers),
            "glob_files": (("GET", repo + "/glob?ref=master&pattern=/*"), readers),
            "stat_file": (("GET", repo + "/stat?ref=master&path=/a"), readers),
            "archive": (("GET", repo + "/archive?ref=master"), readers),
            "diff_files": (("GET", repo + "/diff?ref=master"), readers),
            "file_history": (("GET", repo + "/history?ref=master&path=/a"), readers),
            "provenance": (("GET", PROJECT + "/provenance?repo=open&ref=master"), readers),
            "update_repo": (("PUT", repo, {"description": "d"}), writers),
            "put_branch": (("PUT", repo + "/branches/side", {"head": "master"}), writers),
            "delete_branch": (("DELETE", repo + "/branches/side"), writers),
            "put_file": (("PUT", repo + "/files/w?ref=side", "x"), writers),
            "delete_file": (("DELETE", repo + "/files/w?ref=side"), writers),
            "put_url": (("POST", repo + "/put-url?ref=side", {"url": "ftp://host/u", "path": "/u"}), writers),
            "edit_files": (("POST", repo + "/edits?ref=side", ""), writers),
            "start_commit": (("POST", repo + "/commits", {"branch": "none", "parent": "nowhere"}), writers),
            "create_repo": (("POST", PROJECT + "/repos", {"name": "open"}), writers),
            "delete_repo": (("DELETE", PROJECT + "/repos/shown"), {"all-writer", "admin"}),  # refused: it belongs to a pipeline
            "inspect_pipeline": (("GET", pipeline), observers),
            "start_pipeline": (("POST", pipeline + "/start"), operators),
            "inspect_job": (("GET", job), observers),
            "stop_job": (("POST", job + "/stop"), operators),
            "list_datums": (("GET", job + "/datums"), insiders),
            "logs": (("GET", PROJECT + f"/logs?pipeline=shown&job={self.job['shown']}"), insiders),
            "follow_logs": (("GET", PROJECT + f"/logs?pipeline=shown&job={self.job['shown']}&follow=true"), insiders),
            "create_token": (("POST", "/tokens", {"name": "t", "scopes": []}), {"admin"}),
            "list_tokens": (("GET", "/tokens"), {"admin"}),
            "delete_token": (("DELETE", "/tokens/none"), {"admin"}),
            "fsck": (("GET", PROJECT + "/fsck"), {"admin"}),
            "create_project": (("POST", "/projects", {"name": "default"}), {"admin"}),
            "whoami": (("GET", "/whoami"), everyone),
            "version": (("GET", "/version"), everyone),
            "list_projects": (("GET", "/projects"), everyone),
            "list_repos": (("GET", PROJECT + "/repos"), everyone),
            "list_jobs": (("GET", PROJECT + "/jobs"), everyone),
            "list_waves": (("GET", PROJECT + "/waves"), everyone),
            "list_pipelines": (("GET", PROJECT + "/pipelines"), everyone),
        }

    def test_matrix_of_scopes(self):
        tokens = {
            "reader": self.token("m-reader", "reader:open"),
            "writer": self.token("m-writer", "writer:open"),
            "all-writer": self.token("m-all-writer", "writer:*"),
            "shown-reader": self.token("m-shown-reader", "reader:shown"),
            "operator": self.token("m-operator", "operator:shown"),
            "network": self.token("m-network", "network-host"),
            "admin": self.token("m-admin", "admin"),
        }
        self.assertEqual(self.status(tokens["network"], "GET", "/../metrics"), self.status("", "GET", "/../metrics"))
        for name, token in tokens.items():
            self.assertEqual(self.server.http("GET", "/metrics", token=token)[0], 200 if name == "admin" else 403)
        wrong = []
        for call, (request, allowed) in self.calls().items():
            for name, token in tokens.items():
                status = self.status(token, *request)
                if (status != 403) != (name in allowed) or status in (401, 500):
                    wrong.append(f"{call} as {name}: {status}")
        self.assertEqual(wrong, [])

    def test_names_of_others_are_not_reached_through_ones_own(self):
        writer = self.token("n-writer", "writer:open", "operator:mine")
        # A copy, a diff and a branch's provenance read another repo.
        said = self.server.fails("copy", "file", "closed@master:/a", "open@master:/stolen", token=writer)
        self.assertIn("reader:closed", said)
        self.assertEqual(self.status(writer, "GET", f"{PROJECT}/repos/open/diff?ref=master&base=master&base_repo=closed"), 403)
        self.assertEqual(self.status(writer, "PUT", f"{PROJECT}/repos/open/branches/derived", {"provenance": [{"repo": "closed", "branch": "master"}]}), 403)
        # A pipeline reads its inputs with its creator's rights, and only operators of its name make it.
        self.assertIn("closed", self.server.fails("create", "pipeline", "-f", "-", input=json.dumps(spec("mine", "closed")), token=writer))
        self.assertIn("operator:theirs", self.server.fails("create", "pipeline", "-f", "-", input=json.dumps(spec("theirs", "open")), token=writer))
        self.assertEqual(self.status(writer, "PUT", PROJECT + "/pipelines", spec("hidden", "open")), 403)
        for path in (f"/pipelines/hidden/jobs/{self.job['hidden']}", f"/logs?pipeline=hidden&job={self.job['hidden']}", "/repos/closed", "/pipelines/hidden"):
            self.assertEqual(self.status(writer, "GET", PROJECT + path), 403)
        # One's job id does not open another's pipeline, nor an encoded slash another repo.
        self.assertIn(self.status(writer, "GET", PROJECT + "/repos/open%2F..%2Fclosed/files/a?ref=master"), (400, 403, 404))
        self.assertIn(self.status(writer, "GET", PROJECT + "/repos/open/../closed/files/a?ref=master"), (400, 403, 404))

    def test_lists_waves_and_logs_are_filtered(self):
        reader = self.token("f-reader", "reader:open", "reader:shown")
        for path in ("/repos", "/pipelines", "/jobs", "/waves?limit=1000"):
            text = self.body(reader, PROJECT + path)
            self.assertTrue("open" in text or "shown" in text, text)
            self.assertNotIn("closed", text)
            self.assertNotIn("hidden", text)
        # Lists of one who may see nothing are empty, not errors.
        nobody = self.token("f-nobody", "network-host")
        for path in ("/repos", "/pipelines", "/jobs", "/waves"):
            self.assertEqual(json.loads(self.body(nobody, PROJECT + path))["items"], [])
        # A wave that touches both shows one's own part; one that touches none of one's own is not there.
        hidden = self.server.api("GET", f"{PROJECT}/waves/{self.job['hidden']}")["id"]
        self.assertEqual(self.status(reader, "GET", f"{PROJECT}/waves/{hidden}"), 404)
        self.assertEqual(self.status(reader, "GET", f"{PROJECT}/waves/{hidden}/wait"), 404)
        both = self.token("f-both", "reader:open")
        text = self.server.qanat("wait", "commit", "open@master", "-o", "json", token=both)
        self.assertNotIn("shown", json.dumps(json.loads(text)["jobs"] if "jobs" in json.loads(text) else []))
        self.assertIn("log-of-shown", self.server.qanat("logs", "-p", "shown", token=reader))
        self.assertIn("hidden", self.server.fails("logs", "-p", "hidden", token=reader))
        # Provenance leaves out what may not be read.
        only_output = self.token("f-output", "reader:hidden")
        self.assertNotIn("text of closed", self.body(only_output, PROJECT + "/provenance?repo=hidden&ref=master"))
        self.assertEqual(json.loads(self.body(only_output, PROJECT + "/provenance?repo=hidden&ref=master")).get("upstream", []), [])
        # Who may read an output but not what it was made from sees how jobs went, and nothing of their content.
        self.assertIn("SUCCESS", self.server.qanat("list", "job", "-p", "hidden", token=only_output))
        for said in (self.server.fails("logs", "-p", "hidden", token=only_output), self.server.fails("list", "datum", f"hidden@{self.job['hidden']}", token=only_output)):
            self.assertIn("reader:closed", said)
        self.assertEqual(self.status(only_output, "GET", PROJECT + "/logs?pipeline=hidden&follow=true"), 403)
        # An error is one before an answer begins.
        self.assertEqual(self.status(None, "GET", PROJECT + f"/logs?pipeline=shown&job={'f' * 32}"), 404)
        self.assertEqual(self.status(None, "GET", PROJECT + f"/logs?pipeline=shown&job={self.job['shown']}&datum={'f' * 64}"), 404)

    def test_tokens_end(self):
        past = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        short = self.token("short", "reader:open", expires=past)
        self.assertEqual(self.status(short, "GET", "/whoami"), 200)
        wait_until(lambda: self.status(short, "GET", "/whoami") == 401, "the token expires", 10)
        self.assertIn("expired", self.server.fails("whoami", token=short))
        gone = self.token("gone", "reader:open")
        self.assertEqual(self.status(gone, "GET", "/whoami"), 200)
        self.server.qanat("delete", "token", "gone")
        self.assertEqual(self.status(gone, "GET", "/whoami"), 401)
        self.assertEqual(self.status(None, "DELETE", "/tokens/gone"), 404)
        listed = self.server.qanat("list", "token")
        self.assertIn("short", listed)
        self.assertNotIn(short, self.server.qanat("list", "token", "-o", "json"))
        self.assertIn("last token", self.server.fails("delete", "token", "root"))
        for scopes in ([], ["readers:open"], ["reader:"], ["reader:a b"], ["god"]):
            self.assertEqual(self.status(None, "POST", "/tokens", {"name": "bad", "scopes": scopes}), 400, scopes)

    def test_a_running_stream_ends_with_its_token(self):
        gone = self.token("streams", "reader:open")
        stays = self.token("streams-on", "reader:open")
        streams = []
        for token in (gone, stays):
            connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
            connection.request("GET", "/api/v1" + PROJECT + "/events", headers={"Authorization": f"Bearer {token}"})
            streams.append(connection.getresponse())
            self.assertEqual(streams[-1].status, 200)
        self.server.qanat("delete", "token", "streams")
        self.assertIn(b"deleted", streams[0].read(), "it ends, and says why")
        self.server.put("open", "/seen", "by the other")
        self.assertIn(b"event:", streams[1].readline())
        streams[1].close()

    def test_a_running_stream_ends_when_its_token_expires(self):
        soon = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
        brief = self.token("streams-brief", "reader:open", expires=soon)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        connection.request("GET", "/api/v1" + PROJECT + "/events", headers={"Authorization": f"Bearer {brief}"})
        stream = connection.getresponse()
        self.assertEqual(stream.status, 200)
        self.assertIn(b"expired", stream.read(), "it ends, and says why")

    def test_a_deleted_first_token_stays_deleted(self):
        with Server() as server:
            first = server.token
            other = server.api("POST", "/tokens", {"name": "other", "scopes": ["admin"]})["token"]
            server.qanat("delete", "token", "root", token=other)
            for _ in range(2):
                self.assertEqual(server.http("GET", "/api/v1/whoami", token=first)[0], 401)
                self.assertEqual(server.http("GET", "/api/v1/whoami", token=other)[0], 200)
                server.stop()
                server.start()

    def test_a_pipeline_ends_with_the_rights_that_it_was_given(self):
        maker = self.token("maker", "operator:granted", "writer:open")
        self.server.api("POST", PROJECT + "/pipelines", spec("granted", "open"), token=maker)
        self.server.qanat("wait", "commit", "granted@master")
        before = self.server.api("GET", f"{PROJECT}/jobs?pipeline=granted")["items"]
        self.server.qanat("delete", "token", "maker")
        info = self.server.api("GET", PROJECT + "/pipelines/granted")
        self.assertEqual(info["state"], "PAUSED")
        self.assertIn("maker", info["reason"])
        self.assertIn("withdrawn", self.server.qanat("inspect", "pipeline", "granted"))
        self.put("open", "/b", "while it is stopped\n")
        self.server.qanat("wait", "commit", "open@master")
        self.assertEqual(self.server.api("GET", f"{PROJECT}/jobs?pipeline=granted")["items"], before)
        # Starting does not bring the rights back; an update with a token that has them does.
        said = self.server.fails("start", "pipeline", "granted")
        self.assertIn("rights", said)
        other = self.token("other", "operator:granted", "reader:open", "writer:granted")
        self.server.api("PUT", PROJECT + "/pipelines", spec("granted", "open"), token=other)
        self.assertNotEqual(self.server.api("GET", PROJECT + "/pipelines/granted")["state"], "PAUSED")
        wait_until(lambda: "/b" in self.server.qanat("list", "file", "granted@master"), "the update brings what was missed", 60)
        self.server.stop()
        self.server.start()
        self.assertNotEqual(self.server.api("GET", PROJECT + "/pipelines/granted")["state"], "PAUSED")

    def test_a_store_outside_the_data_folder_is_hidden_too(self):
        with tempfile.TemporaryDirectory(dir="/srv") as folder:
            store, cache = os.path.join(folder, "store"), os.path.join(folder, "cache")
            with Server(arguments=["--object", store, "--cache", cache + ",32M"]) as server:
                server.qanat("create", "repo", "in")
                server.put("in", "/a", "1")
                script = f"ls -A {store} >/pfs/out/store; ls -A {cache} >/pfs/out/cache; ls -d {store} {cache} >/pfs/out/there"
                server.create_pipeline({"pipeline": {"name": "looks"}, "transform": {"image": "local", "cmd": ["sh", "-c", script + "; true"]}, "input": {"pfs": {"repo": "in", "glob": "/"}}})
                server.qanat("wait", "commit", "looks@master")
                found = server.tree("looks")
                self.assertEqual((found["/store"], found["/cache"]), ("", ""))
                self.assertIn(store, found["/there"])
                server.stop()
                server.arguments = []  # remembered
                server.start()
                server.qanat("update", "pipeline", "--reprocess", "-f", "-", input=json.dumps({"pipeline": {"name": "looks"}, "transform": {"image": "local", "cmd": ["sh", "-c", script + "; true"]}, "input": {"pfs": {"repo": "in", "glob": "/"}}}))
                server.qanat("wait", "commit", "looks@master")
                self.assertEqual(server.tree("looks")["/store"], "")

    def test_a_worker_socket_reads_nothing_from_who_is_not_expected(self):
        """User code that runs as root reaches its worker's socket: calls of it take no thread of the API, and none for long."""
        command = "python3 - <<'END'\nimport socket\ns = []\nfor i in range(80):\n c = socket.socket(socket.AF_UNIX); c.connect('/qanat/run/worker.sock'); c.sendall(b'POST /worker/v1/hello HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 1000000\\r\\n\\r\\n{'); s.append(c)\nprint({c.recv(12) for c in s})\nEND"
        self.server.api("POST", PROJECT + "/pipelines", spec("dribbles", "open", command, glob="/"))
        try:
            self.server.qanat("wait", "commit", "dribbles@master")
            self.assertIn("401", self.server.qanat("logs", "-p", "dribbles"))
        finally:
            self.server.qanat("delete", "pipeline", "dribbles")

    def test_user_code_acts_with_no_token(self):
        command = f"(curl -s -m 3 -o /dev/null -w %{{http_code}} http://127.0.0.1:{self.server.port}/api/v1/whoami || echo none) >/pfs/out/a; cat '{self.server.data}/token' >/pfs/out/t 2>/dev/null; env >/pfs/out/env; cat /proc/1/environ >/pfs/out/e 2>/dev/null; true"
        self.server.api("POST", PROJECT + "/pipelines", spec("curious", "open", command, glob="/"))
        try:
            self.server.qanat("wait", "commit", "curious@master")
            found = self.server.tree("curious")
            self.assertNotEqual(found["/a"][:3], "200")
            self.assertNotIn(self.server.token, "".join(found.values()))
            self.assertNotIn("QANAT_WORKER_CREDENTIAL=", "".join(found.values()))
        finally:
            self.server.qanat("delete", "pipeline", "curious")


if __name__ == "__main__":
    unittest.main()
