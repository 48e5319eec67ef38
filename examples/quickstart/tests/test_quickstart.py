"""README.md's commands, as they stand, and what they give."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent.parent
BUILD = os.environ.get("QANAT_BUILD", str(HERE.parent.parent / "build"))

# The server is given time to answer, as a person would.
SERVE = r"""\1 >$WORK/log 2>&1 & server=$!
trap 'qanat delete pipeline word-count; kill $server; wait $server || true' EXIT
until qanat version >/dev/null 2>&1; do kill -0 $server; sleep 0.1; done"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Quickstart(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="qanat-quickstart-"))
        self.addCleanup(shutil.rmtree, self.work, ignore_errors=True)
        # The command line finds this server, and no server or context of the user's.
        self.environment = {
            "PATH": f"{BUILD}:{os.environ['PATH']}",
            "HOME": str(self.work),
            "WORK": str(self.work),
        }

    def test_the_commands_of_the_readme(self):
        blocks = re.findall(r"^```\n(.*?)^```", (HERE / "README.md").read_text(), re.M | re.S)
        commands = "".join(blocks).replace("/tmp/quickstart", f"{self.work}/data")
        commands = commands.replace("127.0.0.1:7611", f"127.0.0.1:{free_port()}")
        commands, served = re.subn(r"^(qanat serve .*) &$", SERVE, commands, flags=re.M)
        self.assertEqual(served, 1)
        last = "qanat list job -p word-count -o json >$WORK/jobs\n"
        done = subprocess.run(
            ["bash", "-ec", commands + last],
            cwd=HERE, env=self.environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        log = self.work / "log"
        said = done.stdout + done.stderr + (log.read_text() if log.exists() else "")
        self.assertEqual(done.returncode, 0, said)
        self.assertRegex(done.stdout, r"(?m)^ +6 the$")  # water.txt
        self.assertRegex(done.stdout, r"(?m)^ +3 the$")  # field.txt
        newest, first = (job["datums"] for job in json.loads((self.work / "jobs").read_text()))
        self.assertEqual((first["processed"], first["skipped"]), (1, 0))
        self.assertEqual((newest["processed"], newest["skipped"]), (1, 1))


if __name__ == "__main__":
    unittest.main()
