#!/usr/bin/env python3
"""Scores one candidate on the validation months, from its back-test.

/pfs/train/<name>/backtest.tsv -> /pfs/out/<name>.json
"""

import os

import forecast


def validation_months(answers):
    months = sorted({row["month"] for row in answers})
    first = -forecast.VALIDATION_MONTHS - forecast.EVALUATION_MONTHS
    return months[first : -forecast.EVALUATION_MONTHS]


def score(answers):
    months = set(validation_months(answers))
    return forecast.mean_absolute_error(
        (float(row["predicted"]), float(row["sold"])) for row in answers if row["month"] in months
    )


def main():
    for name in sorted(os.listdir(f"{forecast.PFS}/train")):
        answers = forecast.read_table(f"{forecast.PFS}/train/{name}/backtest.tsv")
        months = validation_months(answers)
        result = {
            "candidate": name,
            "months": [months[0], months[-1]],
            "validation_error": round(score(answers), 6),
        }
        forecast.write_json(f"{forecast.PFS}/out/{name}.json", result)
        print(f"{name}: off by {result['validation_error']:.2f} units a month and group")


if __name__ == "__main__":
    main()
