#!/usr/bin/env python3
"""Judges the chosen model on the newest months, which no choice has seen.

Three errors (mean absolute, in units a month and product group), side by side:
  backtest   asked up to three months ahead, fitted on what came before only: the honest one
  baseline   "as many as in the same month last year", on the same questions
  in_sample  the final model on months that it was fitted on: how far one would fool oneself

/pfs/select, /pfs/features -> /pfs/out/evaluation.json and /pfs/out/by-group.tsv
"""

import forecast


def errors_of(answers, demand):
    model = [(float(a["predicted"]), float(a["sold"])) for a in answers]
    baseline = [
        (demand[a["product_group"]][forecast.next_month(a["month"], -12)], float(a["sold"]))
        for a in answers
    ]
    return forecast.mean_absolute_error(model), forecast.mean_absolute_error(baseline)


def main():
    demand = forecast.read_demand()
    chosen = forecast.read_json(f"{forecast.PFS}/select/selection.json")["chosen"]
    model = forecast.read_json(f"{forecast.PFS}/select/model.json")
    answers = forecast.read_table(f"{forecast.PFS}/select/backtest.tsv")
    rows = forecast.read_table(f"{forecast.PFS}/features/features.tsv")

    months = sorted({a["month"] for a in answers})[-forecast.EVALUATION_MONTHS :]
    answers = [a for a in answers if a["month"] in months]
    backtest, baseline = errors_of(answers, demand)
    in_sample = forecast.mean_absolute_error(
        (
            forecast.predict(model, [float(r[name]) for name in forecast.FEATURES])
            * float(r["level"]),
            float(r["quantity"]),
        )
        for r in rows
        if r["month"] in months
    )
    groups = []
    for group in sorted(demand):
        ours, theirs = errors_of([a for a in answers if a["product_group"] == group], demand)
        groups.append(
            {"product_group": group, "backtest": f"{ours:.2f}", "baseline": f"{theirs:.2f}"}
        )
    forecast.write_table(f"{forecast.PFS}/out/by-group.tsv", groups)
    result = {
        "model": chosen,
        "months": [months[0], months[-1]],
        "error": {
            "backtest": round(backtest, 4),
            "baseline": round(baseline, 4),
            "in_sample": round(in_sample, 4),
        },
    }
    forecast.write_json(f"{forecast.PFS}/out/evaluation.json", result)
    print(f"{chosen}: back-test {backtest:.2f}, baseline {baseline:.2f}, in sample {in_sample:.2f}")


if __name__ == "__main__":
    main()
