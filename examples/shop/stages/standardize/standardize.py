#!/usr/bin/env python3
"""Brings the raw exports to one form: tab-separated, UTC, five-digit zip codes, metric units.

Reads one file of /pfs/orders, /pfs/customers or /pfs/products (whichever this datum has) and
writes /pfs/out/<kind>/<same name>.tsv. A file that is not whole makes the program fail with the
line that is wrong: nothing is dropped here in silence.
"""

import csv
import datetime
import os
import re
import sys

PFS = os.environ.get("PFS", "/pfs")

COLOURS = {
    "black": "black", "white": "white", "blue": "blue", "navy": "blue", "red": "red",
    "burgundy": "red", "crimson": "red", "green": "green", "gray": "grey", "grey": "grey",
    "graphite": "grey", "silver": "grey", "brown": "brown", "walnut": "brown", "cherry": "brown",
    "mahogany": "brown", "maple": "brown", "oak": "brown", "clear": "clear", "yellow": "yellow",
    "pink": "pink", "purple": "purple", "assorted": "assorted", "asst.": "assorted",
}  # fmt: skip
WORD = re.compile(r"[a-z]+\.?")
# Inches as product names give them: 8 1/2" x 11", 13-3/4", 12 x 8 1/2", 36"
NUMBER = r"(\d+(?:\.\d+)?)(?:[ -](\d+)/(\d+))?"
SIZE = re.compile(rf'{NUMBER} ?["”]? ?[xX] ?{NUMBER} ?["”]|{NUMBER} ?["”]')


class BadFile(Exception):
    pass


def read_rows(path):
    """Yields (line number, row as a dict); a row with too few or too many fields is an error."""
    with open(path, encoding="utf-8", newline="") as f:
        reader = csv.reader(f, strict=True)
        header = next(reader, None)
        if not header:
            raise BadFile("the file is empty")
        try:
            for fields in reader:
                if len(fields) != len(header):
                    raise BadFile(
                        f"line {reader.line_num}: {len(fields)} fields of {len(header)}; "
                        "was the upload cut short?"
                    )
                yield reader.line_num, dict(zip(header, fields))
        except csv.Error as error:
            raise BadFile(f"line {reader.line_num}: {error}; was the upload cut short?") from error


def to_utc(text):
    """2016-11-08T19:45:00-06:00 or 11/08/2014 7:45 PM -0600: the new and the old shop system."""
    form = "%m/%d/%Y %I:%M %p %z" if "/" in text else "%Y-%m-%dT%H:%M:%S%z"
    moment = datetime.datetime.strptime(text, form)
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def split_address(text):
    """'12 Oak Lane, Belleville, New Jersey 7109' -> ('12 Oak Lane', '07109')."""
    street = text.split(",", 1)[0]
    found = re.search(r"(\d{3,5})$", text)
    return street, found.group(1).zfill(5) if found else ""


def to_grams(text):
    number, unit = text.split()
    return round(float(number) * {"g": 1, "kg": 1000, "lb": 453.59237, "oz": 28.349523}[unit])


def age_range(text):
    age = int(text)
    low = 18 if age < 25 else min(65, (age - 5) // 10 * 10 + 5)
    return "65+" if low >= 65 else f"{low}-{24 if low == 18 else low + 9}"


def colour_of(name):
    found = [COLOURS[word] for word in WORD.findall(name.lower()) if word in COLOURS]
    return found[-1] if found else "unknown"


def size_of(name):
    """The first measure in a product's name, in centimetres: 8 1/2" x 11" -> 21.6x27.9."""
    found = SIZE.search(name)
    if not found:
        return "unknown"
    parts = found.groups()
    sides = [side for side in (parts[0:3], parts[3:6], parts[6:9]) if side[0]]
    inches = [float(n) + (int(a) / int(b) if a and int(b) else 0) for n, a, b in sides]
    return "x".join(f"{side * 2.54:.1f}" for side in inches)


def order(row):
    street, zip_code = split_address(row["synthetic_ship_to"])
    ordered = row["synthetic_ordered_at"]
    return {
        "order_line": row["order_line"],
        "order_id": row["order_id"],
        "ordered_utc": to_utc(ordered),
        "ship_mode": row["ship_mode"],
        "customer_id": row["customer_id"],
        "customer_name": row["customer_name"],
        "street": street,
        "zip": zip_code,
        "card": row["synthetic_card"],
        "product_id": row["product_id"],
        "quantity": int(row["quantity"]),
        "sales": f"{float(row['sales']):.2f}",
        "discount": f"{float(row['discount']):.2f}",
        "profit": f"{float(row['profit']):.2f}",
        "shipping_fee": f"{float(row['synthetic_shipping_fee']):.2f}",
        "weight_g": to_grams(row["synthetic_weight"]),
    }


def customer(row):
    return {
        "customer_id": row["customer_id"],
        "customer_name": row["customer_name"],
        "street": row["synthetic_street"],
        "card": row["synthetic_card"],
        "age_range": age_range(row["synthetic_age"]),
        "vip": row["synthetic_vip"],
    }


def product(row):
    name = " ".join(row["product_name"].split())  # the catalogue has tabs and hard spaces in names
    return {
        "product_id": row["product_id"],
        "product_name": name,
        "product_group": row["product_group"],
        "category": row["category"],
        "colour": colour_of(name),
        "size_cm": size_of(name),
        "stock": int(row["synthetic_stock"]),
    }


def standardize(kind, convert, source, target):
    rows = []
    for line, row in read_rows(source):
        try:
            rows.append(convert(row))
        except (ValueError, KeyError) as error:
            raise BadFile(f"line {line}: {error!r}") from error
    if not rows:
        raise BadFile("the file has no rows")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "w", encoding="utf-8", newline="") as f:
        f.write("\t".join(rows[0]) + "\n")
        f.writelines("\t".join(map(str, row.values())) + "\n" for row in rows)
    # No value of a row is ever logged: logs are read by more people than the data is.
    print(f"{kind}: {len(rows)} rows of {os.path.basename(source)}")


def main():
    for kind, convert in (("orders", order), ("customers", customer), ("products", product)):
        folder = f"{PFS}/{kind}"
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            try:
                target = f"{PFS}/out/{kind}/{os.path.splitext(name)[0]}.tsv"
                standardize(kind, convert, f"{folder}/{name}", target)
            except BadFile as error:
                sys.exit(f"{kind}/{name}: {error}")


if __name__ == "__main__":
    main()
