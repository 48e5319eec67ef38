"""Servers whose content is in a real object store: Ceph's gateway as S3 and as Google's XML API, and Azurite.

The whole way (put, commit, a pipeline's job, get, restart) over each; what a start with a wrong key, bucket or prefix says; that keys
go nowhere; and, where the unit tests are built, the stores' contract test against them.
"""

import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from harness import QANAT, ROOT, Server, wait_until
from object_stores import Azurite, Ceph, installed

SPEC = {
    "pipeline": {"name": "upper"},
    "transform": {
        "image": "local",
        "cmd": ["sh"],
        # Also looks for what the server knows and user code must not.
        "stdin": [
            "for f in /pfs/in/*; do tr a-z A-Z < $f > /pfs/out/$(basename $f); done",
            "{ env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'; } > /pfs/out/seen",
        ],
    },
    "input": {"pfs": {"repo": "in", "glob": "/"}},
}


class WithStore:
    """What holds over any store; `store` is a running one."""

    store = None
    secrets = ()

    def server(self, url, folder=None, environment=None):
        server = Server(folder=folder, runner="process", arguments=["--object", url] if url else [],
                        environment={**self.store.environment, "HOME": "/nonexistent", **(environment or {})})
        return server

    def refused(self, url, environment=None, folder=None):
        """Starts a server that must not start; what it said."""
        server = self.server(url, folder, environment)
        server.start(wait=False)
        self.assertNotEqual(server.process.wait(timeout=90), 0)
        log = server.log()
        server.process = None
        if folder is None:
            shutil.rmtree(server.folder, ignore_errors=True)
        for secret in self.secrets:
            self.assertNotIn(secret, log)
        return log

    def everything(self, url):
        folder = tempfile.mkdtemp(prefix="qanat-test-")
        big = os.urandom(1 << 20).hex() * 10  # 20 MiB: more than one pack, in parts
        with self.server(url, folder) as server:
            server.qanat("create", "repo", "in")
            server.put("in", "/a", "hello")
            server.create_pipeline(SPEC)
            server.qanat("wait", "commit", "upper@master")
            self.assertEqual(server.get("upper", "/a"), "HELLO")
            server.put("in", "/big", big)
            server.qanat("wait", "commit", "upper@master")
            self.assertEqual(server.get("upper", "/big"), big.upper())
            seen = server.get("upper", "/seen")
            with open(f"/proc/{server.process.pid}/cmdline") as f:
                seen += f.read()
            self.assertFalse(os.path.exists(os.path.join(server.data, "objects")))
            root = server.root("in")
            # Killed, and started again without being told where its content is.
            server.stop(kill=True)
            server.arguments = []
            server.start()
            self.assertEqual(server.root("in"), root)
            self.assertEqual(server.get("in", "/big"), big)
            server.put("in", "/b", "more")
            server.qanat("wait", "commit", "upper@master")
            self.assertEqual(server.get("upper", "/b"), "MORE")
            log = server.log()
        for secret in self.secrets:
            self.assertNotIn(secret, seen)
            self.assertNotIn(secret, log)

    def contract(self, name, url):
        """The contract test of tests/object, where it is built."""
        built = sorted(glob.glob(os.path.join(ROOT, "build*", "test_object")), key=os.path.getmtime)
        if not built:
            self.skipTest("test_object is not built")
        result = subprocess.run(
            [built[-1], f"--gtest_filter=Stores/*/{name}", "--gtest_brief=1"],
            env={**os.environ, **self.store.environment, "QANAT_TEST_STORES": f"{name}={url}"},
            capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual(result.returncode, 0, result.stdout[-4000:] + result.stderr[-4000:])
        self.assertNotIn("[  PASSED  ] 0 tests", result.stdout)


@unittest.skipUnless(installed(*Ceph.PROGRAMS), "Ceph is not installed (tools/packages.txt, group test)")
class CephTest(WithStore, unittest.TestCase):
    secrets = (Ceph.SECRET_KEY,)

    @classmethod
    def setUpClass(cls):
        cls.store = Ceph()
        cls.enterClassContext(cls.store)

    def test_everything_over_s3(self):
        self.everything(self.store.url("qanat/one"))

    def test_everything_over_googles_xml_api(self):
        self.everything(self.store.url("qanat/two", scheme="gs"))

    def test_contract_of_s3(self):
        self.contract("Ceph", self.store.url())

    def test_contract_of_googles_xml_api(self):
        self.contract("Google", self.store.url(scheme="gs"))

    def test_what_a_wrong_start_says(self):
        url = self.store.url("qanat/three")
        log = self.refused(self.store.url(bucket="no-such-bucket"))
        self.assertIn("create the bucket no-such-bucket", log)
        log = self.refused(url, {"AWS_SECRET_ACCESS_KEY": "another/secret"})
        self.assertIn("SignatureDoesNotMatch", log)
        self.assertIn("AWS_SECRET_ACCESS_KEY", log)
        self.assertNotIn("another/secret", log)
        log = self.refused(url, {"AWS_ACCESS_KEY_ID": "NOBODY"})
        self.assertIn("InvalidAccessKeyId", log)
        log = self.refused(url, {"AWS_ACCESS_KEY_ID": ""})
        self.assertIn("there is no access key", log)
        log = self.refused("s3://bucket?endpoint=http://127.0.0.1:1")
        self.assertIn("127.0.0.1:1", log)
        log = self.refused("s3://KEY:secretword@bucket")
        self.assertNotIn("secretword", log)

    def test_each_installation_has_its_own_place(self):
        url = self.store.url("qanat/four")
        folder = tempfile.mkdtemp(prefix="qanat-test-")
        with self.server(url, folder) as server:
            server.qanat("create", "repo", "in")
            server.put("in", "/a", "x")
            self.assertIn("another installation", self.refused(url))
            server.stop()
            # And content is not looked for where it is not.
            self.assertIn("not in", self.refused(self.store.url("qanat/five"), folder=folder))


    def test_a_server_stops_while_its_store_does_not_answer(self):
        with self.server(self.store.url("qanat/six")) as server:
            server.qanat("create", "repo", "in")
            asked = server.counter("qanat_object_requests_total")
            gateway = self.store.processes[-1].child
            gateway.send_signal(signal.SIGSTOP)
            self.addCleanup(gateway.send_signal, signal.SIGCONT)
            waiting = subprocess.Popen(
                [QANAT, "put", "file", "in@master:/a", "-f", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "QANAT_SERVER": server.url, "QANAT_TOKEN": server.token, "HOME": server.folder})
            self.addCleanup(waiting.wait)
            self.addCleanup(waiting.kill)
            waiting.stdin.write(b"x")
            waiting.stdin.close()
            wait_until(lambda: server.counter("qanat_object_requests_total") > asked, "it asks the store")
            started = time.monotonic()
            server.stop()
            self.assertLess(time.monotonic() - started, 20)


@unittest.skipUnless(Azurite.program(), "Azurite is not there, and no npm to fetch it")
class AzuriteTest(WithStore, unittest.TestCase):
    secrets = (Azurite.KEY,)

    @classmethod
    def setUpClass(cls):
        cls.store = Azurite()
        cls.enterClassContext(cls.store)

    def test_everything(self):
        self.everything(self.store.url("qanat/one"))

    def test_contract(self):
        self.contract("Azurite", self.store.url())

    def test_what_a_wrong_start_says(self):
        log = self.refused(self.store.url(container="no-such-container"))
        self.assertIn("create the container no-such-container", log)
        log = self.refused(self.store.url(), {"AZURE_STORAGE_KEY": "d3Jvbmc="})
        self.assertIn("check the key of the storage account", log)
        log = self.refused(self.store.url(), {"AZURE_STORAGE_KEY": ""})
        self.assertIn("set AZURE_STORAGE_KEY", log)


if __name__ == "__main__":
    unittest.main()
