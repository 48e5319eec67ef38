#!/bin/sh
# Joins the month of this datum: /pfs/orders/orders/YYYY-MM.tsv with the four other inputs.
set -eu
pfs=${PFS:-/pfs}
here=$(dirname "$0")
tab=$(printf '\t')
mkdir -p "$pfs/out/lines" "$pfs/out/rejected" "$pfs/out/free-shipping"

# header FILE COLUMN...
header() {
  file=$1
  shift
  echo "$@" | tr ' ' '\t' >"$file"
}

for orders in "$pfs"/orders/orders/*.tsv; do
  month=$(basename "$orders" .tsv)
  lines=$pfs/out/lines/$month.tsv
  rejected=$pfs/out/rejected/$month.tsv
  charged=$pfs/out/free-shipping/$month.tsv
  header "$lines" order_line order_id month ordered_utc customer_id vip age_range segment zip \
    state big_city big_city_km product_id product_name product_group category colour size_cm \
    quantity sales discount profit ship_mode shipping_fee weight_g
  header "$rejected" order_line order_id reason
  header "$charged" order_line order_id customer_id shipping_fee
  awk -v OFS="$tab" -v month="$month" -v lines="$lines.rows" -v rejected="$rejected.rows" \
    -v charged="$charged.rows" -f "$here/join.awk" \
    part=wanted FS="$tab" "$orders" \
    part=customers "$pfs"/customers/customers/customers.tsv \
    part=products "$pfs"/products/products/products.tsv \
    part=segments FS=, "$pfs"/segments/segments.csv \
    part=demographics "$pfs"/demographics/zip.csv \
    part=orders FS="$tab" "$orders"
  for file in "$lines" "$rejected" "$charged"; do
    if [ -e "$file.rows" ]; then
      cat "$file.rows" >>"$file"
      rm "$file.rows"
    fi
  done
done
