#!/usr/bin/env python3
"""Counts what each product group sold in each month, and makes the features of a forecast.

/pfs/joined/lines -> /pfs/out/demand.tsv (month, group, quantity) and /pfs/out/features.tsv
"""

import glob

import forecast
import pandas


def count_demand(lines):
    """A row for each month and product group, months without a sale too."""
    table = lines.pivot_table(
        index="month", columns="product_group", values="quantity", aggfunc="sum", fill_value=0
    )
    return table.sort_index(axis=0).sort_index(axis=1)


def main():
    lines = pandas.concat(
        pandas.read_csv(path, sep="\t", quoting=3, usecols=["month", "product_group", "quantity"])
        for path in sorted(glob.glob(f"{forecast.PFS}/joined/lines/*.tsv"))
    )
    demand = count_demand(lines)
    months = list(demand.index)
    gaps = [a for a, b in zip(months, months[1:]) if forecast.next_month(a) != b]
    if gaps:
        raise SystemExit(f"no order lines in the month after {', '.join(gaps)}")

    features = []
    for group in demand.columns:
        history = {month: int(quantity) for month, quantity in demand[group].items()}
        for month in months[12:]:
            level, values = forecast.make_features(history, month)
            row = {"month": month, "product_group": group, "quantity": history[month]}
            row["level"] = f"{level:.6f}"
            row.update((n, f"{v:.6f}") for n, v in zip(forecast.FEATURES, values))
            features.append(row)
    forecast.write_table(
        f"{forecast.PFS}/out/demand.tsv",
        [
            {"month": month, "product_group": group, "quantity": int(demand.at[month, group])}
            for month in months
            for group in demand.columns
        ],
    )
    forecast.write_table(f"{forecast.PFS}/out/features.tsv", features)
    print(f"{len(lines)} lines, {len(months)} months to {months[-1]}, {len(features)} rows")


if __name__ == "__main__":
    main()
