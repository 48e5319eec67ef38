#!/usr/bin/python3
"""Checks every #include against tools/layers.txt: the one rule of docs/architecture.md.

Prints `file:line: what is wrong` for each include that the table does not allow, and exits with 1 if there was any.
 - src/qanat/F includes only qanat/F and the folders that the table gives F;
 - tests/F includes what F may include, F itself and tests/support; apps/ and bench/ wire things together and may include all;
 - a third-party header appears only in the folders that wrap it, and in their tests;
 - no header includes nlohmann/json.hpp outside api/: others use nlohmann/json_fwd.hpp.
"""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')
WIRING = ("apps", "bench", "tests/fuzz", "tests/support")


def read_table(path):
    allowed, third_party = {}, {}
    with open(path, encoding="utf-8") as table:
        for line in table:
            line = line.split("#")[0].strip()
            if not line:
                continue
            name, _, folders = line.partition(":")
            if name.startswith("third-party "):
                third_party[name.split()[1]] = set(folders.split())
            else:
                unknown = set(folders.split()) - set(allowed)
                if unknown:
                    sys.exit(f"{path}: {name} may not include the later or unknown {', '.join(sorted(unknown))}")
                allowed[name] = set(folders.split())
    return allowed, third_party


def sources():
    for top in ("src", "apps", "tests", "bench"):
        for folder, _, names in os.walk(os.path.join(ROOT, top)):
            for name in sorted(names):
                if name.endswith((".h", ".cc")):
                    yield os.path.relpath(os.path.join(folder, name), ROOT)


def problems_of(path, allowed, third_party):
    parts = path.split("/")
    wiring = path.startswith(WIRING)
    # precompiled.h and the like stand in src/qanat itself and see the standard library only.
    folder = parts[2] if parts[:2] == ["src", "qanat"] and len(parts) > 3 else None
    if parts[0] == "tests" and not wiring:
        folder = parts[1]
    if folder is not None and folder not in allowed:
        yield 1, f"the folder {folder} is not in tools/layers.txt"
        return
    with open(os.path.join(ROOT, path), encoding="utf-8") as source:
        for number, line in enumerate(source, 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            header = match.group(2)
            if header.startswith("qanat/"):
                target = header.split("/")[1]
                if not wiring and target != folder and target not in allowed.get(folder, ()):
                    yield number, f"{folder or 'src/qanat'} may not include {header}"
                continue
            if match.group(1) == '"' and parts[0] == "src":
                yield number, f'include {header} by its path from src: "qanat/..."'
            for prefix, wrappers in third_party.items():
                if header.startswith(prefix) and not wiring and folder not in wrappers:
                    yield number, f"{header} belongs behind {', '.join(sorted(wrappers))}"
            if header == "nlohmann/json.hpp" and path.endswith(".h") and parts[0] == "src" and folder != "api":
                yield number, "headers outside api/ take nlohmann/json_fwd.hpp"


def main():
    allowed, third_party = read_table(os.path.join(ROOT, "tools", "layers.txt"))
    count = 0
    for path in sources():
        for number, problem in problems_of(path, allowed, third_party):
            print(f"{path}:{number}: {problem}")
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
