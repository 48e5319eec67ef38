#!/usr/bin/env python3
"""Fits one candidate on all months, and again as if it had lived in the past.

/pfs/candidates/<name>.json   what to fit: {"kind": "ridge", "forest", "extra-trees" or "boosting", ...}
/pfs/features                 the features stage's output
-> /pfs/out/<name>/model.json     the model, fitted on every month
-> /pfs/out/<name>/backtest.tsv   rolling origin: for each of the last months a model that was
                                  fitted on the months before it alone, asked three months ahead
"""

import os

import forecast
import numpy

SEED = 20140103  # the day of the shop's first order


def shorten(x):
    """Nine digits: what a float's last bits are may differ between processors, a model must not."""
    return float(f"{float(x):.9g}")


def tree_as_data(tree, scale):
    return {
        "left": tree.children_left.tolist(),
        "right": tree.children_right.tolist(),
        "feature": tree.feature.tolist(),
        "threshold": [shorten(t) for t in tree.threshold],
        "value": [shorten(v * scale) for v in tree.value.ravel()],
    }


def fit(candidate, rows):
    """Returns the fitted model as plain data (see forecast.py)."""
    options = {k: v for k, v in candidate.items() if k != "kind"}
    x = numpy.array([[float(row[name]) for name in forecast.FEATURES] for row in rows])
    y = numpy.array([float(row["quantity"]) / float(row["level"]) for row in rows])
    # Imported when needed: importing takes longer than fitting.
    if candidate["kind"] == "ridge":
        from sklearn.linear_model import Ridge

        fitted = Ridge(**options).fit(x, y)
        weights = [shorten(w) for w in fitted.coef_]
        return {"kind": "sum", "constant": shorten(fitted.intercept_), "weights": weights}

    from sklearn import ensemble

    forests = {
        "forest": ensemble.RandomForestRegressor,
        "extra-trees": ensemble.ExtraTreesRegressor,
    }
    if candidate["kind"] in forests:
        fitted = forests[candidate["kind"]](random_state=SEED, **options).fit(x, y)
        scale, constant, trees = 1 / len(fitted.estimators_), 0.0, fitted.estimators_
    elif candidate["kind"] == "boosting":
        fitted = ensemble.GradientBoostingRegressor(random_state=SEED, **options).fit(x, y)
        scale, constant = fitted.learning_rate, shorten(fitted.init_.constant_.item())
        trees = fitted.estimators_[:, 0]
    else:
        raise SystemExit(f"no such kind of model: {candidate['kind']!r}")
    return {
        "kind": "trees",
        "constant": constant,
        "trees": [tree_as_data(t.tree_, scale) for t in trees],
    }


def back_test(candidate, rows, demand):
    months = sorted({row["month"] for row in rows})
    newest = months[-1]
    answers = []
    for origin in months[-forecast.VALIDATION_MONTHS - forecast.EVALUATION_MONTHS :]:
        model = fit(candidate, [row for row in rows if row["month"] < origin])
        for group, history in sorted(demand.items()):
            known = {m: q for m, q in history.items() if m < origin}
            ahead = forecast.forecast_ahead(model, known, origin)
            for step, (month, level, quantity) in enumerate(ahead, start=1):
                if month <= newest:
                    answers.append(
                        {
                            "origin": origin,
                            "month": month,
                            "step": step,
                            "product_group": group,
                            "level": f"{level:.6f}",
                            "predicted": f"{quantity:.6f}",
                            "sold": history[month],
                        }
                    )
    return answers


def main():
    demand = forecast.read_demand()
    rows = forecast.read_table(f"{forecast.PFS}/features/features.tsv")
    for file in sorted(os.listdir(f"{forecast.PFS}/candidates")):
        name = os.path.splitext(file)[0]
        candidate = forecast.read_json(f"{forecast.PFS}/candidates/{file}")
        out = f"{forecast.PFS}/out/{name}"
        forecast.write_table(f"{out}/backtest.tsv", back_test(candidate, rows, demand))
        forecast.write_json(f"{out}/model.json", fit(candidate, rows))
        print(f"{name}: fitted on {len(rows)} rows")


if __name__ == "__main__":
    main()
