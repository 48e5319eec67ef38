#!/usr/bin/env python3
"""What would a new model have said a year ago, and who would have been closer?

/pfs/challenger/<name>.json  the new candidate
/pfs/then                    the features as they were
/pfs/champion                the model that was in use then, as it was
/pfs/now                     the features of today, which know what was sold since
-> /pfs/out/challenge.json and /pfs/out/by-month.tsv
"""

import os

import forecast
import train


def read_demand(name):
    demand = {}
    for row in forecast.read_table(f"{forecast.PFS}/{name}/demand.tsv"):
        demand.setdefault(row["product_group"], {})[row["month"]] = int(row["quantity"])
    return demand


def main():
    then, now = read_demand("then"), read_demand("now")
    newest = max(month for history in then.values() for month in history)
    months = [m for m in sorted({m for h in now.values() for m in h}) if m > newest]
    if not months:
        raise SystemExit("nothing was sold since: there is nothing to compare with")
    rows = forecast.read_table(f"{forecast.PFS}/then/features.tsv")
    file = os.listdir(f"{forecast.PFS}/challenger")[0]
    models = {
        "challenger": train.fit(forecast.read_json(f"{forecast.PFS}/challenger/{file}"), rows),
        "champion": forecast.read_json(f"{forecast.PFS}/champion/model.json"),
    }

    errors = {month: {"month": month} for month in months}
    totals = {}
    for name, model in models.items():
        # Month after month, with what was known on its eve.
        pairs = {month: [] for month in months}
        for group, history in sorted(now.items()):
            for month in months:
                level, features = forecast.make_features(history, month)
                pairs[month].append((forecast.predict(model, features) * level, history[month]))
        for month in months:
            errors[month][name] = f"{forecast.mean_absolute_error(pairs[month]):.2f}"
        everything = [pair for month in months for pair in pairs[month]]
        totals[name] = round(forecast.mean_absolute_error(everything), 4)
    result = {
        "fitted_on_data_to": newest,
        "judged_on": [months[0], months[-1]],
        "candidate": os.path.splitext(file)[0],
        "error": totals,
    }
    forecast.write_table(f"{forecast.PFS}/out/by-month.tsv", [errors[m] for m in months])
    forecast.write_json(f"{forecast.PFS}/out/challenge.json", result)
    print(
        f"{result['candidate']}, knowing nothing after {newest}: off by {totals['challenger']:.2f}"
        f" in {months[0]} to {months[-1]}; the model of that time by {totals['champion']:.2f}"
    )


if __name__ == "__main__":
    main()
