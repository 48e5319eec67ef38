"""Runs tests/behaviour/*.yaml: behaviour as data (commits, specs, expected trees and counters) against a real server.

Each file is run on the process runner and, where QANAT_TEST_ENGINE or a Docker engine is to be had, again in containers. A file is a list of
steps; each step has one key:

  repo: NAME                       create a repo
  put: {repo, branch?, files: {path: text}}       one commit with these files
  append: {repo, path, text}
  delete: {repo, paths: [..]}      one delete per path
  commit: {repo, branch?, files?, delete?}        start, put/delete, finish: one commit
  branch: {repo, name, head}       create or move a branch
  pipeline: {spec...}              create     update: {spec..., flags: [..]}
  stop | start | delete_pipeline: NAME
  wait: REPO@REF                   wait commit (fails the test if it does not end)
  tree: {repo, ref?, files: {path: text}}          exactly these files
  job: {pipeline, state?, total?, processed?, skipped?, failed?, recovered?, reason?}   about the newest job
  jobs: {pipeline, count}
  roots_equal: [REPO@REF, REPO@REF]
  fails: {command: [..], says: TEXT, input?}       a command that must fail and say TEXT
  explain: {pipeline, path, says}  explain of the datum with that input path in the newest job
"""

import glob
import json
import os
import unittest

import yaml

import containers
from harness import ROOT, Server, wait_until

FOLDER = os.path.join(ROOT, "tests", "behaviour")


ENDED = ("SUCCESS", "FAILURE", "KILLED", "UNRUNNABLE")


class Interpreter:
    def __init__(self, server, image):
        self.server = server
        self.image = image

    def run(self, steps):
        for number, step in enumerate(steps, 1):
            (verb, argument), = step.items()
            try:
                getattr(self, "do_" + verb)(argument)
            except AssertionError as error:
                raise AssertionError(f"step {number} ({verb}: {argument}): {error}\n{self.server.log()[-3000:]}") from error

    def spec(self, argument):
        spec = json.loads(json.dumps(argument))
        spec["transform"].setdefault("image", self.image)
        spec.pop("flags", None)
        return json.dumps(spec)

    def do_repo(self, name):
        self.server.qanat("create", "repo", name)

    def do_put(self, a):
        self.do_commit(a)

    def do_append(self, a):
        self.server.qanat("put", "file", "-a", f"{a['repo']}@master:{a['path']}", "-f", "-", input=a["text"])

    def do_delete(self, a):
        for path in a["paths"]:
            self.server.qanat("delete", "file", f"{a['repo']}@master:{path}")

    def do_commit(self, a):
        branch = a.get("branch", "master")
        commit = self.server.qanat("start", "commit", f"{a['repo']}@{branch}").strip()
        for path in a.get("delete", []):
            self.server.qanat("delete", "file", f"{a['repo']}@{commit}:{path}")
        for path, text in a.get("files", {}).items():
            self.server.qanat("put", "file", f"{a['repo']}@{commit}:{path}", "-f", "-", input=text)
        self.server.qanat("finish", "commit", f"{a['repo']}@{commit}")

    def do_branch(self, a):
        self.server.qanat("create", "branch", f"{a['repo']}@{a['name']}", "--head", a["head"])

    def do_pipeline(self, a):
        self.server.qanat("create", "pipeline", "-f", "-", input=self.spec(a))

    def do_update(self, a):
        self.server.qanat("update", "pipeline", "-f", "-", *a.get("flags", []), input=self.spec(a))

    def do_stop(self, name):
        self.server.qanat("stop", "pipeline", name)

    def do_start(self, name):
        self.server.qanat("start", "pipeline", name)

    def do_delete_pipeline(self, name):
        self.server.qanat("delete", "pipeline", name)

    def do_wait(self, address):
        self.server.run("wait", "commit", address, timeout=120)

    def do_tree(self, a):
        found = self.server.tree(a["repo"], a.get("ref", "master"))
        if found != a["files"]:
            raise AssertionError(f"expected {a['files']}\n   found {found}")

    def do_job(self, a):
        def newest():
            jobs = self.server.jobs(a["pipeline"])
            return jobs and (a.get("state") not in ENDED or jobs[0]["state"] in ENDED) and jobs[0]

        # An update's wave is none of its inputs' commits, so that `wait` knows nothing of it.
        job = wait_until(newest, f"a job of {a['pipeline']} ends")
        for key in ("state", "total", "processed", "skipped", "failed", "recovered"):
            if key in a:
                found = job["state"] if key == "state" else job["datums"].get(key, 0)
                if found != a[key]:
                    raise AssertionError(f"{key}: expected {a[key]}, found {found} in {json.dumps(job, indent=1)}")
        if "reason" in a and a["reason"] not in job.get("reason", ""):
            raise AssertionError(f"reason {job.get('reason')!r} does not say {a['reason']!r}")

    def do_jobs(self, a):
        jobs = self.server.jobs(a["pipeline"])
        if len(jobs) != a["count"]:
            raise AssertionError(f"expected {a['count']} jobs, found {len(jobs)}: {[j['state'] for j in jobs]}")

    def do_roots_equal(self, addresses):
        roots = [self.server.root(*address.split("@")) for address in addresses]
        if len(set(roots)) != 1:
            raise AssertionError(f"roots differ: {roots}")

    def do_fails(self, a):
        text = a.get("input")
        said = self.server.fails(*a["command"], input=text and text.replace("IMAGE", self.image))
        if a["says"].lower() not in said.lower():
            raise AssertionError(f"said {said!r}")

    def do_explain(self, a):
        job = self.server.jobs(a["pipeline"])[0]["id"]
        datums = self.server.json("list", "datum", f"{a['pipeline']}@{job}")
        for datum in datums:
            if any(i["path"] == a["path"] for i in datum["inputs"]):
                said = self.server.qanat("explain", "datum", f"{a['pipeline']}@{job}", datum["id"])
                if a["says"] not in said:
                    raise AssertionError(f"explain said {said!r}")
                return
        raise AssertionError(f"no datum with input {a['path']}")


class BehaviourOnProcesses(unittest.TestCase):
    runner = "process"
    image = "local"

    @classmethod
    def setUpClass(cls):
        if cls.runner == "docker":
            cls.engine = containers.engine()
            cls.image = cls.engine.busybox()


class BehaviourInContainers(BehaviourOnProcesses):
    runner = "docker"


def add_cases(case):
    for path in sorted(glob.glob(os.path.join(FOLDER, "*.yaml"))):
        with open(path) as f:
            scenario = yaml.safe_load(f)

        def test(self, steps=scenario["steps"]):
            environment = self.engine.environment() if self.runner == "docker" else {}
            with Server(runner=self.runner, environment=environment) as server:
                Interpreter(server, self.image).run(steps)

        test.__doc__ = scenario["name"]
        setattr(case, "test_" + os.path.basename(path)[:-5].replace("-", "_"), test)


add_cases(BehaviourOnProcesses)
add_cases(BehaviourInContainers)

if __name__ == "__main__":
    unittest.main()
