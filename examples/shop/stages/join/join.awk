# Joins one month's order lines with customers, segments, demographics and products.
#
# The variable `part` names the file that is being read; the orders come twice, the first time (as
# `wanted`) to learn which of 42,000 zip codes matter. A line whose customer, product or zip code
# nobody knows is not lost: it goes to `rejected` with the reason. Free shipping for VIPs is checked:
# a VIP's line that was charged goes to `charged`.

FNR == 1 { split("", column); for (i = 1; i <= NF; ++i) column[$i] = i; next }

part == "wanted" { wanted[$column["zip"]] = 1; next }
part == "customers" {
  id = $column["customer_id"]
  vip[id] = $column["vip"]; age[id] = $column["age_range"]
  next
}
part == "segments" { segment[$column["customer_id"]] = $column["segment"]; next }
part == "demographics" {
  zip = substr($0, 1, 5)  # the first column; looked at before the line is split, for speed
  if (zip in wanted) {
    state[zip] = $column["state"]; city[zip] = $column["big_city"]; km[zip] = $column["big_city_km"]
  }
  next
}
part == "products" {
  id = $column["product_id"]
  name[id] = $column["product_name"]; group[id] = $column["product_group"]
  category[id] = $column["category"]; colour[id] = $column["colour"]; size[id] = $column["size_cm"]
  next
}

{
  line = $column["order_line"]; order = $column["order_id"]
  customer = $column["customer_id"]; product = $column["product_id"]; zip = $column["zip"]
  reason = ""
  if (!(customer in vip)) reason = "customer not known"
  else if (!(customer in segment)) reason = "customer has no segment"
  else if (!(product in name)) reason = "product not known"
  else if (!(zip in state)) reason = "zip code " zip " not known"
  if (reason != "") { print line, order, reason > rejected; ++bad; next }

  fee = $column["shipping_fee"]
  if (vip[customer] == "yes" && fee > 0) print line, order, customer, fee > charged
  print line, order, month, $column["ordered_utc"], customer, vip[customer], age[customer],
    segment[customer], zip, state[zip], city[zip], km[zip], product, name[product], group[product],
    category[product], colour[product], size[product], $column["quantity"], $column["sales"],
    $column["discount"], $column["profit"], $column["ship_mode"], fee, $column["weight_g"] > lines
  ++good
}

END { printf "%s: %d lines joined, %d rejected\n", month, good, bad }
