#!/usr/bin/env python3
"""Takes the candidate with the smallest validation error (the first by name, if two are equal).

/pfs/validate/<name>.json, /pfs/train/<name>/ -> /pfs/out/{selection.json, model.json, backtest.tsv}
"""

import os
import shutil

import forecast


def main():
    folder = f"{forecast.PFS}/validate"
    scores = [forecast.read_json(f"{folder}/{name}") for name in sorted(os.listdir(folder))]
    chosen = min(scores, key=lambda s: (s["validation_error"], s["candidate"]))["candidate"]
    forecast.write_json(f"{forecast.PFS}/out/selection.json", {"chosen": chosen, "scores": scores})
    for name in ("model.json", "backtest.tsv"):
        shutil.copyfile(f"{forecast.PFS}/train/{chosen}/{name}", f"{forecast.PFS}/out/{name}")
    for s in scores:
        mark = "chosen" if s["candidate"] == chosen else ""
        print(f"{s['candidate']:10} {s['validation_error']:8.2f}  {mark}".rstrip())


if __name__ == "__main__":
    main()
