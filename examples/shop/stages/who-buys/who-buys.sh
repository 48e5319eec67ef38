#!/bin/sh
# Who buys $PRODUCT? A table by segment, age range and VIP, from the joined order lines.
set -eu
pfs=${PFS:-/pfs}
: "${PRODUCT:?set PRODUCT in the transform env of the spec}"
tab=$(printf '\t')
mkdir -p "$pfs/out"
{
  printf 'segment\tage_range\tvip\tcustomers\tquantity\tsales\n'
  awk -F "$tab" -v OFS="$tab" -v product="$PRODUCT" '
    FNR == 1 { split("", column); for (i = 1; i <= NF; ++i) column[$i] = i; next }
    $column["product_name"] == product {
      key = $column["segment"] OFS $column["age_range"] OFS $column["vip"]
      if (!((key, $column["customer_id"]) in seen)) { seen[key, $column["customer_id"]] = 1; ++customers[key] }
      quantity[key] += $column["quantity"]; sales[key] += $column["sales"]
    }
    END { for (key in customers) printf "%s\t%d\t%d\t%.2f\n", key, customers[key], quantity[key], sales[key] }
  ' "$pfs"/joined/lines/*.tsv | sort -t "$tab" -k5,5nr -k1,3
} >"$pfs/out/who-buys.tsv"
echo "who buys $PRODUCT: $(($(wc -l <"$pfs/out/who-buys.tsv") - 1)) groups of customers"
