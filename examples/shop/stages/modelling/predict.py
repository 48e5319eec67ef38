#!/usr/bin/env python3
"""What will be sold, how sure that is, what to order, and a chart of it.

/pfs/select, /pfs/evaluate, /pfs/features, /pfs/products ->
  /pfs/out/forecast.tsv  three months ahead per product group, with the range that held the truth
                         in eight of ten back-tests
  /pfs/out/reorder.tsv   units to order now: next month's upper end less what is in stock
  /pfs/out/report.txt    the same for a person
  /pfs/out/chart.png
"""

import math
import os

import forecast

LOWER, UPPER = 0.1, 0.9


def quantile(values, q):
    """With linear interpolation between the two nearest."""
    values = sorted(values)
    at = q * (len(values) - 1)
    low = math.floor(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (at - low)


def error_ranges(answers):
    """{step: (low, high)}: the back-test's errors as shares of the level, for each step ahead."""
    errors = {}
    for a in answers:
        share = (float(a["sold"]) - float(a["predicted"])) / float(a["level"])
        errors.setdefault(int(a["step"]), []).append(share)
    return {step: (quantile(e, LOWER), quantile(e, UPPER)) for step, e in errors.items()}


def make_forecast(model, ranges, demand):
    rows = []
    for group, history in sorted(demand.items()):
        first = forecast.next_month(max(history))
        ahead = forecast.forecast_ahead(model, history, first)
        for step, (month, level, quantity) in enumerate(ahead, start=1):
            low, high = ranges[step]
            rows.append(
                {
                    "month": month,
                    "product_group": group,
                    "low": f"{max(quantity + low * level, 0):.1f}",
                    "forecast": f"{quantity:.1f}",
                    "high": f"{max(quantity + high * level, 0):.1f}",
                }
            )
    return sorted(rows, key=lambda r: (r["month"], r["product_group"]))


def stock_by_group():
    stock = {}
    for row in forecast.read_table(f"{forecast.PFS}/products/products/products.tsv"):
        stock[row["product_group"]] = stock.get(row["product_group"], 0) + int(row["stock"])
    return stock


def make_reorder(rows, stock):
    month = rows[0]["month"]
    return [
        {
            "product_group": r["product_group"],
            "for_month": month,
            "expected": r["forecast"],
            "at_most": r["high"],
            "synthetic_stock": stock.get(r["product_group"], 0),
            "reorder": max(0, math.ceil(float(r["high"]) - stock.get(r["product_group"], 0))),
        }
        for r in rows
        if r["month"] == month
    ]


def make_report(rows, reorder, evaluation):
    errors = evaluation["error"]
    lines = [
        f"Demand for {rows[0]['month']}",
        f"model {evaluation['model']}; off by {errors['backtest']:.2f} units a month and group "
        f"in the back-test of {evaluation['months'][0]} to {evaluation['months'][1]}",
        f"(same month last year: {errors['baseline']:.2f}; in sample: {errors['in_sample']:.2f})",
        "",
        f"{'product group':15}{'expected':>10}{'8 of 10 times':>20}{'stock*':>8}{'reorder':>9}",
    ]
    for r, o in zip(rows, reorder):
        span = f"{float(r['low']):.0f} to {float(r['high']):.0f}"
        lines.append(
            f"{r['product_group']:15}{float(r['forecast']):10.1f}{span:>20}"
            f"{o['synthetic_stock']:8}{o['reorder']:9}"
        )
    total = sum(float(o["expected"]) for o in reorder)
    lines.append(f"{'all':15}{total:10.1f}{'':28}{sum(o['reorder'] for o in reorder):9}")
    lines.append("* stock is synthetic")
    return "\n".join(lines) + "\n"


def draw_chart(path, rows, demand):
    os.environ.setdefault("MPLCONFIGDIR", "/opt/matplotlib")  # the font list made with the image
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    largest = sorted(demand, key=lambda g: (-sum(demand[g].values()), g))[:4]
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 6.5), sharex=True)
    for axis, group in zip(axes.flat, largest):
        months = sorted(demand[group])[-24:]
        ahead = [r for r in rows if r["product_group"] == group]
        x = range(len(months), len(months) + len(ahead))
        axis.plot(
            range(len(months)), [demand[group][m] for m in months], color="#1b6ca8", label="sold"
        )
        axis.fill_between(
            x, [float(r["low"]) for r in ahead], [float(r["high"]) for r in ahead],
            color="#f2a65a", alpha=0.35, linewidth=0, label="8 of 10 times",
        )  # fmt: skip
        axis.plot(
            x, [float(r["forecast"]) for r in ahead], "o-", color="#d9661f", ms=4, label="forecast"
        )
        axis.set_title(group, loc="left")
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
        ticks = range(0, len(months) + len(ahead), 6)
        axis.set_xticks(ticks, [forecast.next_month(months[0], t) for t in ticks])
    axes.flat[0].legend(frameon=False, loc="upper left")
    figure.subplots_adjust(0.05, 0.06, 0.98, 0.9, wspace=0.12, hspace=0.18)
    figure.suptitle("Units sold a month, and the forecast")
    # Without the library's name and version in the file: equal data gives equal bytes.
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main():
    out = f"{forecast.PFS}/out"
    demand = forecast.read_demand()
    model = forecast.read_json(f"{forecast.PFS}/select/model.json")
    answers = forecast.read_table(f"{forecast.PFS}/select/backtest.tsv")
    evaluation = forecast.read_json(f"{forecast.PFS}/evaluate/evaluation.json")

    rows = make_forecast(model, error_ranges(answers), demand)
    reorder = make_reorder(rows, stock_by_group())
    forecast.write_table(f"{out}/forecast.tsv", rows)
    forecast.write_table(f"{out}/reorder.tsv", reorder)
    report = make_report(rows, reorder, evaluation)
    with open(f"{out}/report.txt", "w", encoding="utf-8") as f:
        f.write(report)
    draw_chart(f"{out}/chart.png", rows, demand)
    units = sum(o["reorder"] for o in reorder)
    print(f"{len(rows)} forecasts from {rows[0]['month']} on, {units} units to order")


if __name__ == "__main__":
    main()
