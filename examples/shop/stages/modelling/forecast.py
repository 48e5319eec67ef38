"""What the modelling stages share: months, features, and models that are plain data.

A model is a JSON file: a weighted sum, or a sum of small decision trees. Any program can evaluate
it, reading one runs no code (unlike a pickle), and two models can be compared with `diff`.

The features are free of scale, so that one model serves product groups of any size: every quantity
is divided by the group's mean of the last twelve months (`level`), and so is the target.
"""

import csv
import json
import os

PFS = os.environ.get("PFS", "/pfs")

# A month's demand is predicted from these; make_features says how.
FEATURES = [
    "last_1", "last_2", "last_3", "mean_3", "mean_6", "last_12", "last_11", "autumn", "winter",
    "christmas",
]  # fmt: skip

HORIZON = 3  # months that are forecast
VALIDATION_MONTHS = 6  # the candidates are compared on these
EVALUATION_MONTHS = 6  # the chosen one is judged on these, the newest: no choice saw them


def next_month(month, steps=1):
    year, number = map(int, month.split("-"))
    index = year * 12 + number - 1 + steps
    return f"{index // 12}-{index % 12 + 1:02}"


def read_table(path):
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))


def write_table(path, rows):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as f:
        f.write("\t".join(rows[0]) + "\n")
        f.writelines("\t".join(map(str, row.values())) + "\n" for row in rows)


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, sort_keys=True)
        f.write("\n")


def read_demand():
    """{group: {month: quantity}} as the features stage counted it."""
    demand = {}
    for row in read_table(f"{PFS}/features/demand.tsv"):
        demand.setdefault(row["product_group"], {})[row["month"]] = int(row["quantity"])
    return demand


def make_features(history, month):
    """(level, features) of `month` from {month: quantity} of the twelve months before it.

    What the group sold in `month` itself or later is never looked at.
    """
    last = [history[next_month(month, -n)] for n in range(1, 13)]
    level = max(sum(last) / 12, 1.0)
    number = int(month[5:])
    values = {
        "last_1": last[0] / level,
        "last_2": last[1] / level,
        "last_3": last[2] / level,
        "mean_3": sum(last[:3]) / 3 / level,
        "mean_6": sum(last[:6]) / 6 / level,
        "last_12": last[11] / level,
        "last_11": last[10] / level,
        "autumn": 1.0 if number in (9, 10) else 0.0,
        "winter": 1.0 if number in (1, 2) else 0.0,
        "christmas": 1.0 if number in (11, 12) else 0.0,
    }
    return level, [values[name] for name in FEATURES]


def predict(model, features):
    """The model's answer for one row of FEATURES, as a share of the level."""
    if model["kind"] == "sum":
        answer = model["constant"] + sum(w * x for w, x in zip(model["weights"], features))
    else:
        answer = model["constant"]
        for tree in model["trees"]:
            node = 0
            while tree["left"][node] >= 0:
                goes_left = features[tree["feature"][node]] <= tree["threshold"][node]
                node = tree["left" if goes_left else "right"][node]
            answer += tree["value"][node]
    return max(answer, 0.0)


def mean_absolute_error(pairs):
    pairs = list(pairs)
    return sum(abs(a - b) for a, b in pairs) / len(pairs)


def forecast_ahead(model, history, month, steps=HORIZON):
    """[(month, level, quantity)] from `month` on; each step takes the ones before it as sold."""
    history, answer = dict(history), []
    for step in range(steps):
        ahead = next_month(month, step)
        level, features = make_features(history, ahead)
        history[ahead] = predict(model, features) * level
        answer.append((ahead, level, history[ahead]))
    return answer
