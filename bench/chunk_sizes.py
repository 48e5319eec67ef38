#!/usr/bin/python3
"""The study of chunk sizes: makes its data sets of real data, then runs bench/chunk_sizes (C++) over them.

  bench/chunk_sizes.py [--folder DIR] [--program build/bench/chunk_sizes]

packages  some Debian packages in each version that the archive offers, unpacked
csv       a table of 400,000 rows in ten versions, each with 20 rows inserted at random places, 20 changed and 20 deleted
csv-sorted  the same table with 2,000 new rows a version, all at the end (what a month adds)
models    a scikit-learn network (pickle, 12 MB): trained, then trained on a little more data, with all weights free; then with the last
          layer alone, as in fine-tuning; then only its settings changed. Left out where python3-sklearn is not installed
Everything made is seeded.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGES = ["postgresql-15", "libc6", "python3.11-minimal", "git", "mariadb-server-core", "samba-libs", "php8.2-cli", "openssl", "libssl3", "bind9-libs"]


def packages(folder):
    """v0, v1, ...: all packages, oldest versions first; the newest stands where a package has no more."""
    versions = {}
    for package in PACKAGES:
        lines = subprocess.run(["apt-cache", "madison", package], capture_output=True, text=True, check=True).stdout.splitlines()
        versions[package] = list(dict.fromkeys(line.split("|")[1].strip() for line in lines))[::-1]
    for i in range(max(map(len, versions.values()))):
        for package, known in versions.items():
            if i >= len(known):
                continue
            place = os.path.join(folder, f"v{i}", package)
            os.makedirs(place)
            with tempfile.TemporaryDirectory() as work:
                subprocess.run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", f"{package}={known[i]}"], cwd=work, check=True)
                subprocess.run(["dpkg-deb", "-x", os.path.join(work, os.listdir(work)[0]), place], check=True)
    with open(os.path.join(folder, "versions.txt"), "w") as f:
        f.writelines(f"{package} {' '.join(known)}\n" for package, known in versions.items())


def row(pick, number):
    return (f"{number},2024-{pick.randrange(1, 13):02}-{pick.randrange(1, 29):02},customer-{pick.randrange(50_000):05},"
            f"{pick.choice(['Chair', 'Phone', 'Binder', 'Paper', 'Table', 'Lamp'])},{pick.randrange(1, 20)},{pick.randrange(100, 99999) / 100:.2f}\n")


def write(folder, version, rows):
    os.makedirs(os.path.join(folder, f"v{version}"))
    with open(os.path.join(folder, f"v{version}", "orders.csv"), "w") as f:
        f.writelines(rows)


def csv(folder):
    pick = random.Random("csv")
    rows = [row(pick, i) for i in range(400_000)]
    write(folder, 0, rows)
    for version in range(1, 10):
        for i in range(20):
            rows.insert(pick.randrange(len(rows)), row(pick, 400_000 + 20 * version + i))
            rows[pick.randrange(len(rows))] = row(pick, pick.randrange(400_000))
            del rows[pick.randrange(len(rows))]
        write(folder, version, rows)


def csv_sorted(folder):
    pick = random.Random("csv-sorted")
    rows = [row(pick, i) for i in range(400_000)]
    for version in range(10):
        write(folder, version, rows)
        rows += [row(pick, len(rows) + i) for i in range(2000)]


def models(folder):
    import copy
    import pickle
    import warnings

    import numpy
    from sklearn.datasets import make_classification
    from sklearn.neural_network import MLPClassifier
    warnings.simplefilter("ignore")
    x, y = make_classification(4000, 256, n_informative=64, random_state=1)
    model = MLPClassifier((1024, 1024), max_iter=2, random_state=1).fit(x[:3000], y[:3000])
    versions = [model]
    more = copy.deepcopy(model)
    more.partial_fit(x[3000:], y[3000:])
    versions.append(more)
    for i in range(3):  # the last layer alone
        tuned = copy.deepcopy(versions[-1])
        tuned.coefs_[-1] = tuned.coefs_[-1] + numpy.random.default_rng(i).normal(0, 1e-3, tuned.coefs_[-1].shape)
        tuned._optimizer = None
        versions.append(tuned)
    named = copy.deepcopy(versions[-1])
    named.set_params(max_iter=500, alpha=1e-5)
    versions.append(named)
    for i, version in enumerate(versions):
        os.makedirs(os.path.join(folder, f"v{i}"))
        with open(os.path.join(folder, f"v{i}", "model.pickle"), "wb") as f:
            pickle.dump(version, f)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="make the data here, or take what is there (default: a temporary one)")
    parser.add_argument("--program", default=os.path.join(ROOT, "build", "bench", "chunk_sizes"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qanat-chunks-") as temporary:
        folder = arguments.folder or temporary
        sets = []
        for name, make in {"packages": packages, "csv": csv, "csv-sorted": csv_sorted, "models": models}.items():
            place = os.path.join(folder, name)
            if not os.path.isdir(place):
                try:
                    os.makedirs(place)
                    make(place)
                except ImportError as error:
                    os.rmdir(place)
                    print(f"{name} left out: {error}", file=sys.stderr)
                    continue
            sets.append(place)
        subprocess.run([arguments.program, *sets], check=True)


if __name__ == "__main__":
    main()
