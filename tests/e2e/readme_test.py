"""Runs the commands of README.md, docs/*.md and examples/quickstart/README.md as they are written, in order, against a fresh server.

A block is run if it is marked as sh or begins with a command of qanat (one marked as bash needs a service of
the reader's: object_stores_test.py runs what docs/object-stores.md shows, against stores of its own). `./dev ...` is left out: the programs are built already. A
`qanat serve ... &` of the text becomes a server on a folder and port of the test's own, with workers in containers if the text's are.
"""

import glob
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import containers
from harness import BUILD, ROOT, free_port, stop_leftovers

COMMAND = re.compile(r"^(qanat|\./dev|export|printf|cat|cd) ")


def blocks(text):
    """(language, code) of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)


def commands_of(path):
    with open(path) as f:
        text = f.read()
    found = [code for language, code in blocks(text) if language == "sh" or (not language and COMMAND.match(code))]
    return "\n".join(line for code in found for line in code.splitlines() if not line.startswith("./dev "))


# Waits for the server as a person would.
SERVE = """{ %s & } >server.log 2>&1
server=$!
until qanat version >/dev/null 2>&1; do kill -0 $server; sleep 0.1; done"""


class ReadmeTest(unittest.TestCase):
    def run_commands(self, path):
        script = commands_of(path)
        self.assertIn("qanat ", script, path)
        work = tempfile.mkdtemp(prefix="qanat-readme-")
        self.addCleanup(shutil.rmtree, work, ignore_errors=True)
        data = os.path.join(work, "data")
        self.addCleanup(stop_leftovers, data)
        script = re.sub(r"(qanat serve .*?--data )\S+( --listen )\S+(.*?) *&$", lambda m: SERVE % f"{m[1]}{data}{m[2]}127.0.0.1:{free_port()}{m[3]}", script, flags=re.M)
        # What the text leaves to the reader: JOB stands for the newest job.
        script = re.sub(r"(\w[\w-]*)@JOB\b", r"\1@$(qanat list job -p \1 -n 1 -o name | sed s/.*@//)", script)
        shutil.copytree(os.path.dirname(path), os.path.join(work, "here"), ignore=lambda folder, names: [n for n in names if n.startswith("build") or n in (".git", "node_modules")] if folder == ROOT else [])
        environment = {"PATH": f"{BUILD}:{os.environ['PATH']}", "HOME": work}
        if "qanat serve" in script and "--runner process" not in script:
            engine = containers.engine()
            engine.docker("tag", engine.busybox(), "busybox")
            environment.update(engine.environment())
        result = subprocess.run(["bash", "-euo", "pipefail", "-c", script + "\nkill $server; wait $server"], cwd=os.path.join(work, "here"), env=environment,
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False)
        self.assertEqual(result.returncode, 0, f"{path}:\n{script}\n{result.stdout}\n{result.stderr}")
        return result.stdout

    def test_readme(self):
        said = self.run_commands(os.path.join(ROOT, "README.md"))
        self.assertIn("2\n", said)
        self.assertRegex(said, r"1 \+ 1 / 2")

    def test_quickstart(self):
        said = self.run_commands(os.path.join(ROOT, "examples", "quickstart", "README.md"))
        self.assertRegex(said, r"1 \+ 1 / 2")

    def test_docs(self):
        for path in sorted(glob.glob(os.path.join(ROOT, "docs", "*.md"))):
            with self.subTest(path=os.path.basename(path)):
                if "qanat " in commands_of(path):
                    self.run_commands(path)

    def test_links(self):
        """Every relative link of a page leads to something."""
        pages = [p for pattern in ("*.md", "docs/*.md", "examples/*/*.md", "src/qanat/*/*.md", "bench/*.md") for p in glob.glob(os.path.join(ROOT, pattern))]
        self.assertGreater(len(pages), 8)
        for page in pages:
            with open(page) as f:
                text = re.sub(r"^```.*?^```", "", f.read(), flags=re.M | re.S)
            for target in re.findall(r"\]\(([^)#\s]+)", re.sub(r"`[^`\n]*`", "", text)):
                if "://" not in target and not target.startswith("mailto:"):
                    self.assertTrue(os.path.exists(os.path.join(os.path.dirname(page), target)), f"{page}: {target}")


if __name__ == "__main__":
    unittest.main()
