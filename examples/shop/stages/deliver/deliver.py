#!/usr/bin/env python3
"""Loads the results into the warehouse and tells a listener about it.

/pfs/predict, /pfs/who-buys, /pfs/reconcile -> tables of a PostgreSQL database, in one transaction:
whoever reads them sees the old results or the new ones, never a mix. The rows carry the id of the
commit that they come from. /pfs/out/delivery.json says what was loaded.

PGHOST, PGPORT, PGUSER, PGDATABASE   where the warehouse is (no password: loopback only)
LISTENER                             http://HOST:PORT/ that is told the outcome and the commit id
"""

import csv
import json
import os
import urllib.request

import psycopg2
from psycopg2.extras import execute_values

PFS = os.environ.get("PFS", "/pfs")

# table: (file, columns as they are in the file, with their types)
TABLES = {
    "forecast": (
        "predict/forecast.tsv",
        "month text, product_group text, low numeric, forecast numeric, high numeric",
    ),
    "reorder": (
        "predict/reorder.tsv",
        "product_group text, for_month text, expected numeric, at_most numeric,"
        " synthetic_stock integer, reorder integer",
    ),
    "who_buys": (
        "who-buys/who-buys.tsv",
        "segment text, age_range text, vip text, customers integer, quantity integer,"
        " sales numeric",
    ),
    "reconciled": (
        "reconcile/reconciled.tsv",
        "month text, source integer, modelled integer, rejected integer, quantity integer",
    ),
}


def load(cursor, table, file, columns, commit):
    with open(f"{PFS}/{file}", encoding="utf-8", newline="") as f:
        header, *rows = csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE)
    names = [column.split()[0] for column in columns.split(", ")]
    if header != names:
        raise SystemExit(f"{file}: columns {header}, expected {names}")
    cursor.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns}, commit_id text)")
    cursor.execute(f"DELETE FROM {table}")
    execute_values(cursor, f"INSERT INTO {table} VALUES %s", [[*row, commit] for row in rows])
    return len(rows)


def tell(outcome):
    request = urllib.request.Request(
        os.environ["LISTENER"],
        data=json.dumps(outcome).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10).close()


def main():
    commit = os.environ["PACH_OUTPUT_COMMIT_ID"]
    outcome = {"pipeline": os.environ.get("PPS_PIPELINE_NAME", "deliver"), "commit": commit}
    try:
        with psycopg2.connect("") as connection, connection.cursor() as cursor:
            rows = {
                table: load(cursor, table, file, columns, commit)
                for table, (file, columns) in TABLES.items()
            }
    except (psycopg2.Error, OSError) as error:
        tell({**outcome, "outcome": "failure", "message": str(error).strip()})
        raise SystemExit(f"the load failed, nothing was changed: {error}") from error
    with open(f"{PFS}/out/delivery.json", "w", encoding="utf-8") as f:
        json.dump({"rows": rows}, f, indent=1, sort_keys=True)
        f.write("\n")
    tell({**outcome, "outcome": "success", "rows": rows})
    print("loaded " + ", ".join(f"{n} rows of {table}" for table, n in rows.items()))


if __name__ == "__main__":
    main()
