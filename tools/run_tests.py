#!/usr/bin/python3
"""Runs test programs, shows what failed, and adds one row for each to a tally.

  run_tests.py units BUILD_DIR [PROGRAM...]   gtest programs BUILD_DIR/test_* (or those named), two at a time
  run_tests.py e2e [FILE...]                  tests/e2e/*_test.py and the examples' tests (or those named), one after the other

Options: --tally FILE   append `name passed failed skipped seconds` for each program
         --filter TEXT  gtest filter
         --timeout S    for each program (default 1500 for units, 1800 for e2e)

Exits with 1 if anything failed. A program that crashes, hangs or runs no test counts as one failure beside what it reported.
"""

import argparse
import concurrent.futures
import glob
import json
import os
import re
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Outcome:
    def __init__(self, name, passed, failed, skipped, seconds, output):
        self.name, self.passed, self.failed, self.skipped = name, passed, failed, skipped
        self.seconds, self.output = seconds, output


def run(command, timeout, cwd=ROOT):
    """Returns (exit code or None after a timeout, output, seconds)."""
    start = time.monotonic()
    try:
        result = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, timeout=timeout, check=False)
        code, output = result.returncode, result.stdout
    except subprocess.TimeoutExpired as expired:
        code, output = None, (expired.stdout or b"") + f"\nstopped after {timeout} s\n".encode()
    return code, output.decode(errors="replace"), time.monotonic() - start


def run_unit(program, test_filter, timeout):
    name = os.path.basename(program)
    with tempfile.TemporaryDirectory(prefix="qanat-units-") as folder:
        report = os.path.join(folder, "report.json")
        command = [program, f"--gtest_output=json:{report}", "--gtest_brief=1"]
        if test_filter:
            command.append(f"--gtest_filter={test_filter}")
        code, output, seconds = run(command, timeout)
        passed = failed = skipped = 0
        try:
            with open(report, encoding="utf-8") as file:
                suites = json.load(file).get("testsuites", [])
        except (OSError, ValueError):
            suites = []
        for test in (test for suite in suites for test in suite["testsuite"]):
            if test.get("result") == "SKIPPED":
                skipped += 1
            elif test.get("status") != "RUN":
                continue
            elif test.get("failures"):
                failed += 1
            else:
                passed += 1
    nothing = not test_filter and passed + skipped == 0
    if failed == 0 and (code != 0 or nothing):
        failed = 1
        output += f"\n{name}: exit {code}, {passed} tests passed\n"
    return Outcome(name, passed, failed, skipped, seconds, output)


def run_e2e(path, timeout):
    name = os.path.basename(path)
    folder = os.path.dirname(path)
    module = name.removesuffix(".py")
    code, output, seconds = run([sys.executable, "-B", "-m", "unittest", "-v", module], timeout, cwd=folder)
    ran = re.search(r"^Ran (\d+) tests? in", output, re.MULTILINE)
    counts = dict(re.findall(r"\b(failures|errors|skipped|unexpected successes)=(\d+)",
                             output[ran.end():] if ran else ""))
    count = {key: int(value) for key, value in counts.items()}
    failed = count.get("failures", 0) + count.get("errors", 0) + count.get("unexpected successes", 0)
    skipped = count.get("skipped", 0)
    total = int(ran.group(1)) if ran else 0
    if code != 0 and failed == 0:
        failed = 1
        output += f"\n{name}: exit {code}\n"
    return Outcome(name, max(0, total - failed - skipped), failed, skipped, seconds, output)


def show(outcome, tally):
    verdict = "FAIL" if outcome.failed else "ok"
    print(f"  {verdict:4} {outcome.name:28} {outcome.passed:5} passed {outcome.failed:3} failed "
          f"{outcome.skipped:3} skipped {outcome.seconds:7.1f} s", flush=True)
    if outcome.failed:
        lines = outcome.output.splitlines()
        if len(lines) > 400:
            lines = lines[:200] + [f"... {len(lines) - 400} lines ..."] + lines[-200:]
        print("\n".join("    | " + line for line in lines), flush=True)
    if tally:
        with open(tally, "a", encoding="utf-8") as file:
            file.write(f"{outcome.name} {outcome.passed} {outcome.failed} {outcome.skipped} {outcome.seconds:.1f}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("units", "e2e"))
    parser.add_argument("what", nargs="*")
    parser.add_argument("--tally")
    parser.add_argument("--filter")
    parser.add_argument("--timeout", type=float)
    arguments = parser.parse_args()

    if arguments.kind == "units":
        if not arguments.what:
            parser.error("units needs BUILD_DIR")
        build = os.path.abspath(arguments.what[0])
        programs = [os.path.join(build, name) for name in arguments.what[1:]] or sorted(
            path for path in glob.glob(os.path.join(build, "test_*")) if os.access(path, os.X_OK) and os.path.isfile(path))
        workers = min(4, os.cpu_count() or 1)
        timeout = arguments.timeout or 1500
        job = lambda program: run_unit(program, arguments.filter, timeout)  # noqa: E731
    else:
        programs = [os.path.abspath(path) for path in arguments.what] or sorted(
            glob.glob(os.path.join(ROOT, "tests", "e2e", "*_test.py")) +
            glob.glob(os.path.join(ROOT, "examples", "*", "tests", "test_*.py")))
        workers = 1  # they measure, start engines, and count on the machine
        timeout = arguments.timeout or 1800
        job = lambda path: run_e2e(path, timeout)  # noqa: E731

    failed = False
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for outcome in pool.map(job, programs):
            show(outcome, arguments.tally)
            failed = failed or outcome.failed > 0
    if not programs:
        print("  there are none")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
