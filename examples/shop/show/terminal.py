"""What is printed: stages, the commands a person would type, their output, checks."""

import os
import subprocess
import sys
import time


class CheckFailed(Exception):
    pass


class Terminal:
    """Prints to standard output and runs commands in a shell, exactly as printed."""

    def __init__(self, folder):
        self.folder = folder  # where commands run
        self.started = time.monotonic()
        self.checks = 0
        self.stages = 0
        colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.style = (
            (lambda code, text: f"\x1b[{code}m{text}\x1b[0m") if colours else (lambda _, t: t)
        )

    def line(self, text=""):
        print(text, flush=True)

    def stage(self, name, what):
        self.stages += 1
        seconds = f"{time.monotonic() - self.started:.0f} s"
        self.line()
        self.line(
            self.style("1;36", f"── {self.stages}. {name} ")
            + self.style("36", f"· {what}")
            + f"  [{seconds}]"
        )

    def say(self, text):
        for line in text.splitlines():
            self.line("  " + line)

    def run(self, command, lines=12, fails=False, width=150):
        """Prints and runs a command; shows at most `lines` lines; returns its standard output.

        With `fails` the command has to fail, and what it says on standard error is returned.
        """
        self.line(self.style("1", "$ " + command))
        done = subprocess.run(
            ["bash", "-c", "set -o pipefail; " + command],
            cwd=self.folder, capture_output=True, text=True,
        )  # fmt: skip
        shown = (done.stdout + done.stderr).rstrip("\n").split("\n")
        for line in shown[:lines] if shown != [""] else []:
            self.line("    " + (line if len(line) <= width else line[: width - 1] + "…"))
        if len(shown) > lines and lines > 0:
            self.line(f"    … {len(shown) - lines} more lines")
        if (done.returncode != 0) != fails:
            how = "succeeded, which it must not" if fails else f"failed with {done.returncode}"
            raise CheckFailed(f"`{command}` {how}\n{done.stdout}{done.stderr}")
        return done.stderr + done.stdout if fails else done.stdout

    def ask(self, command):
        """Runs a command without showing it: for what the checks look at."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise CheckFailed(f"`{command}` failed\n{done.stderr}")
        return done.stdout

    def check(self, fine, text):
        if not fine:
            raise CheckFailed(text)
        self.checks += 1
        self.line(self.style("32", "  ✓ ") + text)

    def table(self, rows, align=None):
        """Rows of texts, the first one the heading; columns after the first are right-aligned."""
        widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
        lines = []
        for row in rows:
            cells = [
                str(c).ljust(w) if i == 0 or align == "left" else str(c).rjust(w)
                for i, (c, w) in enumerate(zip(row, widths))
            ]
            lines.append("  ".join(cells).rstrip())
        self.line("    " + self.style("1", lines[0]))
        for line in lines[1:]:
            self.line("    " + line)
        return lines
