"""Jobs as those who wait for them, read their logs and write their specs see them: what is waited for is what was named, what keeps a job
from going on is said, and what cannot work is refused with a word."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

from harness import BUILD, QANAT, Server, wait_until


def spec(name, script, repo="in", glob="/*", **fields):
    return {"pipeline": {"name": name}, "transform": {"image": "local", "cmd": ["sh", "-c", script]},
            "input": {"pfs": {"repo": repo, "glob": glob}}, **fields}


class Jobs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server().start()
        cls.addClassCleanup(cls.server.close)
        # User code has a /tmp of its own.
        cls.signals = tempfile.mkdtemp(prefix="jobs-test-", dir=BUILD)
        os.chmod(cls.signals, 0o755)
        cls.addClassCleanup(shutil.rmtree, cls.signals, True)
        cls.count = 0

    def setUp(self):
        type(self).count += 1
        self.number = self.count
        self.repo = self.name("in")
        self.go = os.path.join(self.signals, f"go-{self.number}")
        self.qanat("create", "repo", self.repo)

    def tearDown(self):
        open(self.go, "w").close()  # whoever waits for it may end

    def name(self, text):
        return f"{text}{self.number}"

    def qanat(self, *arguments, **options):
        return self.server.qanat(*arguments, **options)

    def fails(self, *arguments, says, code=1, **options):
        result = self.server.run(*arguments, **options)
        self.assertEqual(result.returncode, code, f"{arguments}: {result.stdout}{result.stderr}")
        for word in [says] if isinstance(says, str) else says:
            self.assertIn(word, result.stderr)
        return result.stderr

    def create(self, name, script, repo=None, **fields):
        self.server.create_pipeline(spec(self.name(name), script, repo or self.repo, **fields))
        return self.name(name)

    def until_go(self):
        return f"while [ ! -e {self.go} ]; do sleep 0.05; done"

    def put(self, path="/a", content="1"):
        self.server.put(self.repo, path, content)
        return self.server.head(self.repo)

    def state(self, pipeline, job):
        return self.server.json("inspect", "job", f"{pipeline}@{job}")["state"]

    def running(self, pipeline, job):
        """Until the job has a datum with a worker."""
        wait_until(lambda: self.server.json("inspect", "job", f"{pipeline}@{job}")["datums"]["running"], f"{pipeline}@{job} running")

    def in_background(self, *arguments):
        """A command under way: call the result to have its CompletedProcess."""
        done = []
        thread = threading.Thread(target=lambda: done.append(self.server.run(*arguments)))
        thread.start()

        def result():
            thread.join(60)
            self.assertTrue(done, f"{arguments} does not end")
            return done[0]
        return result

    # -- waiting ------------------------------------------------------------
    def test_a_job_is_waited_for_with_what_is_downstream_of_it(self):
        good = self.create("good", "cp /pfs/*/* /pfs/out/")
        bad = self.create("bad", "exit 3", datum_tries=1)
        slow = self.create("slow", self.until_go())
        below = self.create("below", "cp /pfs/*/* /pfs/out/", repo=good)
        under = self.create("under", "cp /pfs/*/* /pfs/out/", repo=bad)
        job = self.put()
        # Neither the sibling that fails nor the one that still runs is waited for.
        out = self.qanat("wait", "job", f"{good}@{job}")
        self.assertIn(below, out)
        self.assertNotIn(bad, out)
        self.assertNotIn(slow, out)
        out = self.qanat("wait", "commit", f"{good}@master")
        self.assertIn(below, out)
        self.assertNotIn(bad, out)
        self.qanat("wait", "commit", f"{below}@{job}")
        # What fails, or fails because of it, is told; of a job by itself, too.
        self.fails("wait", "job", f"{bad}@{job}", says=[f"{bad}@{job} FAILURE", f"{under}@{job} UNRUNNABLE"])
        self.assertNotIn(bad + "@", self.fails("wait", "job", f"{under}@{job}", says="UNRUNNABLE").split("UNRUNNABLE")[0])
        self.assertEqual(self.state(slow, job), "RUNNING")
        open(self.go, "w").close()
        # Of a user's commit and of an id: everything.
        for wave in (("commit", f"{self.repo}@master"), ("commit", job), ("job", job)):
            self.fails("wait", *wave, says=f"{bad}@{job} FAILURE")
        self.assertEqual(self.state(slow, job), "SUCCESS")

    def test_what_is_no_job_is_not_waited_for(self):
        copy = self.create("copy", "cp /pfs/*/* /pfs/out/")
        job = self.put()
        self.qanat("wait", "job", f"{copy}@{job}")
        self.fails("wait", "job", f"nosuch@{job}", says=f"there is no job nosuch@{job}")
        self.fails("wait", "job", f"{copy}@{'0' * 32}", says="there is no job")
        self.fails("wait", "job", f"{self.repo}@{job}", says="there is no job")

    def test_a_job_that_goes_without_an_end_is_no_success(self):
        slow = self.create("slow", self.until_go())
        below = self.create("below", "cp /pfs/*/* /pfs/out/", repo=slow)
        job = self.put()
        self.running(slow, job)
        waits = [self.in_background("wait", *what) for what in
                 (("job", f"{slow}@{job}"), ("job", f"{below}@{job}"), ("commit", f"{slow}@master"), ("commit", job))]
        time.sleep(0.3)  # they have begun; one that has not says that there is no such job
        self.qanat("delete", "pipeline", below)
        self.qanat("delete", "pipeline", slow)
        for wait in waits:
            result = wait()
            self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
            self.assertRegex(result.stderr, "was deleted before it ended|there is no job|does not exist")

    def test_a_commit_that_a_job_is_making(self):
        slow = self.create("slow", f"{self.until_go()}; cp /pfs/*/* /pfs/out/")
        job = self.put()
        self.running(slow, job)
        self.fails("inspect", "commit", f"{slow}@{job}",
                   says=[f"is being made by job {slow}@{job}, which is RUNNING", f"`qanat wait commit {slow}@{job}`"])
        wait = self.in_background("wait", "commit", f"{slow}@{job}")
        time.sleep(0.2)
        open(self.go, "w").close()
        result = wait()
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(job, result.stdout)
        self.assertEqual(self.server.head(slow), job)
        self.fails("inspect", "commit", f"{slow}@{'0' * 32}", says="does not exist")

    # -- logs ---------------------------------------------------------------
    def test_logs_of_what_is_under_way(self):
        talks = self.create("talks", f"echo begun $(ls /pfs/{self.repo}); if [ -e /pfs/{self.repo}/b ]; then {self.until_go()}; fi; echo over $(ls /pfs/{self.repo})")
        self.server.qanat("put", "file", f"{self.repo}@master:/", "-r", "-f", self.folder({"a": "1", "b": "2"}))
        job = self.server.head(self.repo)
        self.running(talks, job)
        logs = wait_until(lambda: (text := self.qanat("logs", "--job", f"{talks}@{job}")) and "begun b" in text and "over a" in text and text, "the lines")
        self.assertEqual(sum("begun b" in line for line in logs.splitlines()), 1)
        self.assertIn("begun b", self.qanat("logs", "-p", talks, "-t", "1"))
        self.assertIn("begun b", self.qanat("logs", "--job", f"{talks}@{job}", "-d", "/b"))
        self.assertNotIn("begun b", self.qanat("logs", "--job", f"{talks}@{job}", "-d", "/a"))
        open(self.go, "w").close()
        self.qanat("wait", "job", f"{talks}@{job}")
        logs = self.qanat("logs", "--job", f"{talks}@{job}")
        for line in ("begun a", "begun b", "over a", "over b"):
            self.assertEqual(logs.count(line), 1, logs)

    def folder(self, files):
        folder = tempfile.mkdtemp(dir=self.server.folder)
        for name, content in files.items():
            with open(os.path.join(folder, name), "w") as f:
                f.write(content)
        return folder

    def test_a_killed_job_keeps_what_was_printed_and_says_what_was_not_run(self):
        talks = self.create("talks", f"echo begun $(ls /pfs/{self.repo}); {self.until_go()}")
        self.server.qanat("put", "file", f"{self.repo}@master:/", "-r", "-f", self.folder({"a": "1", "b": "2"}))
        job = self.server.head(self.repo)
        wait_until(lambda: "begun a" in self.qanat("logs", "--job", f"{talks}@{job}"), "the line")
        self.qanat("stop", "job", f"{talks}@{job}")
        self.fails("wait", "job", f"{talks}@{job}", says="KILLED: stopped by a user")
        self.assertEqual(self.qanat("logs", "--job", f"{talks}@{job}").count("begun a"), 1)
        datums = self.server.json("list", "datum", f"{talks}@{job}")
        self.assertEqual([d["state"] for d in datums], ["UNRUN", "UNRUN"])
        self.assertIn("not run: the job ended as KILLED (stopped by a user)", datums[1]["reason"])
        self.assertEqual(len(self.server.json("list", "datum", f"{talks}@{job}", "--state", "UNRUN")), 2)
        explained = self.server.json("explain", "datum", f"{talks}@{job}", "/b")
        self.assertEqual(explained["decision"], "not run")
        self.assertIn("stopped by a user", explained["reasons"][0]["text"])
        # The next one runs them all.
        open(self.go, "w").close()
        self.put("/a", "3")
        self.qanat("wait", "commit", f"{talks}@master")
        self.qanat("fsck")

    def test_who_has_enough_of_a_log_is_done(self):
        talks = self.create("talks", f"i=0; while [ ! -e {self.go} ]; do echo line-$i; i=$((i+1)); sleep 0.05; done")
        job = self.put()
        follow = subprocess.Popen([QANAT, "--server", self.server.url, "--token", self.server.token, "logs", "-f", "--job", f"{talks}@{job}"],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(follow.kill)
        self.assertIn(b"line-0", follow.stdout.readline())
        follow.stdout.close()
        self.assertIn(follow.wait(30), (0, -signal.SIGPIPE))
        self.assertEqual(follow.stderr.read(), b"")
        follow.stderr.close()

    def test_which_logs(self):
        copy = self.create("copy", "echo one; echo two")
        job = self.put()
        self.qanat("wait", "commit", f"{copy}@master")
        self.assertEqual(self.qanat("logs", "-p", copy, "-t", "0"), "")
        self.assertEqual(len(self.qanat("logs", "-p", copy, "-t", "1").splitlines()), 1)
        self.assertEqual(len(self.qanat("logs", "-p", copy).splitlines()), 2)
        self.fails("logs", "-p", copy, "-j", f"{copy}@{job}", says="--job names its pipeline itself")
        self.fails("logs", "-p", copy, "-f", "-t", "3", says="--tail does not go with --follow")

    # -- what is in the way -------------------------------------------------
    def test_why_a_running_job_does_not_go_on(self):
        program = os.path.join(self.server.folder, "broken-worker")
        with open(program, "w") as f:
            f.write("#!/bin/sh\necho this worker is broken >&2\nexit 3\n")
        os.chmod(program, 0o755)
        with Server(arguments=["--worker-program", program]) as server:
            server.qanat("create", "repo", "in")
            server.create_pipeline(spec("stuck", "true"))
            server.put("in", "/a", "1")
            job = server.head("in")
            wait_until(lambda: server.json("inspect", "job", f"stuck@{job}").get("reason"), "a reason", 60)
            self.assertEqual(server.json("list", "job")[0]["state"], "RUNNING")
            self.assertIn("reason", server.json("list", "job")[0])
            stopper = threading.Timer(3, lambda: server.qanat("stop", "job", f"stuck@{job}"))
            stopper.start()
            result = server.run("wait", "job", f"stuck@{job}")
            stopper.join()
            self.assertEqual(result.returncode, 1)
            self.assertEqual(result.stderr.count(f"note: job stuck@{job} waits: "), 1, result.stderr)

    def test_reasons_name_the_field(self):
        one = self.create("one", "echo x >/pfs/out/same")
        self.server.qanat("put", "file", f"{self.repo}@master:/", "-r", "-f", self.folder({"a": "1", "b": "2"}))
        self.fails("wait", "commit", f"{one}@master", says=["two datums wrote /same", "output_merge"])
        handler = spec(self.name("handled"), "exit 3", self.repo, datum_tries=1)
        handler["transform"]["err_cmd"] = ["no-such-program"]
        self.server.create_pipeline(handler)
        self.server.run("wait", "commit", f"{self.name('handled')}@master")
        self.assertIn("transform.err_cmd: ", self.qanat("logs", "-p", self.name("handled")))

    def test_a_job_killed_because_rights_were_withdrawn_says_so(self):
        name = self.name("slow")
        token = self.qanat("create", "token", self.name("team"), "-s", f"operator:{name}", "-s", f"reader:{self.repo}").strip()
        self.qanat("create", "pipeline", "-f", "-", input=json.dumps(spec(name, self.until_go(), self.repo)), token=token)
        job = self.put()
        self.running(name, job)
        self.qanat("delete", "token", self.name("team"))
        self.fails("wait", "job", f"{name}@{job}", says=["KILLED", "its rights were withdrawn", self.name("team")])

    def test_a_change_that_may_not_be_seen_is_not_told(self):
        copy = self.create("copy", "cp /pfs/*/* /pfs/out/")
        job = self.put()
        self.qanat("wait", "commit", job)
        other = self.name("other")
        self.qanat("create", "repo", other)
        token = self.qanat("create", "token", other, "-s", f"writer:{other}").strip()
        for id in (job, "0" * 32):
            for verb in ("squash", "drop"):
                message = self.fails(verb, "commit", id, says=f"there is no commit {id}", token=token)
                self.assertNotIn(copy, message)
            self.fails("inspect", "commit", id, says=f"has the id {id}", token=token)

    # -- specs and words ----------------------------------------------------
    def test_specs_of_a_file_in_any_order(self):
        first, second, third = self.name("a"), self.name("b"), self.name("c")
        text = "\n".join(json.dumps(s) for s in (
            spec(third, "cp /pfs/*/* /pfs/out/", second), spec(second, "cp /pfs/*/* /pfs/out/", first), spec(first, "cp /pfs/*/* /pfs/out/", self.repo)))
        self.server.create_pipeline(text)
        self.put()
        self.qanat("wait", "commit", f"{third}@master")
        self.assertEqual(self.server.get(third, "/a"), "1")
        x, y = self.name("x"), self.name("y")
        cycle = "\n".join(json.dumps(s) for s in (spec(x, "true", y), spec(y, "true", x)))
        self.fails("create", "pipeline", "-f", "-", input=cycle, says=[x, y, "reads the output of another"])

    def test_words(self):
        for flags in ((), ("-q",), ("--project", "default"), ("--project=default", "-q")):
            self.fails(*flags, "restart", "datum", "x", says="there is no command \"restart\"", code=2)
        self.fails("list", "job", "copy", says="`qanat list job -p copy`")
        self.fails("list", "job", f"copy@{'0' * 32}", says="`qanat inspect job copy@")
        self.fails("create", "pipeline", "-f", "https://example.com/spec.json", says="not read from URLs")


if __name__ == "__main__":
    unittest.main()
