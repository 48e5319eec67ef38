#!/bin/sh
# Finance: for every month, source = modelled + rejected, line by line.
#
# source    order lines in the shop's own export (/pfs/orders)
# modelled  order lines that the join passed on, whose quantities the features add up to
# rejected  order lines that the join refused, with a reason
# A line that is missing, appears twice or came from nowhere makes this job fail.
set -eu
pfs=${PFS:-/pfs}
tab=$(printf '\t')
mkdir -p "$pfs/out"

awk -v OFS="$tab" '
  function month_of(path) { sub(/.*\//, "", path); sub(/\..*/, "", path); return path }
  function complain(text) { print text > "/dev/stderr"; ++problems }
  FNR == 1 { month = month_of(FILENAME); if (part == "source") months[month] = 1; next }
  part == "source" { source[month, $1, $2] = 1; ++sources[month]; next }
  part == "demand" { demand[$1] += $3; next }
  {
    if (!((month, $1, $2) in source)) complain(month ": line " $1 " is in no export")
    if ((month, $1, $2) in found) complain(month ": line " $1 " appears twice")
    found[month, $1, $2] = 1
  }
  part == "lines" { ++modelled[month]; quantity[month] += $19; next }
  part == "rejected" { ++rejected[month]; next }
  END {
    print "month", "source", "modelled", "rejected", "quantity" > table
    for (month in months) {
      if (sources[month] != modelled[month] + rejected[month])
        complain(month ": " sources[month] " lines in the export, " modelled[month] + 0 " modelled, " rejected[month] + 0 " rejected")
      if (quantity[month] != demand[month])
        complain(month ": quantity " quantity[month] + 0 " in the lines, " demand[month] + 0 " in the features")
      print month, sources[month], modelled[month] + 0, rejected[month] + 0, quantity[month] + 0 > table
    }
    exit problems > 0
  }
' table="$pfs/out/table" \
  part=source FS=, "$pfs"/orders/*.csv \
  part=lines FS="$tab" "$pfs"/joined/lines/*.tsv \
  part=rejected "$pfs"/joined/rejected/*.tsv \
  part=demand "$pfs"/features/demand.tsv

{
  head -n 1 "$pfs/out/table"
  tail -n +2 "$pfs/out/table" | sort
  tail -n +2 "$pfs/out/table" | awk -v OFS="$tab" '
    { for (i = 2; i <= 5; ++i) sum[i] += $i }
    END { print "all", sum[2], sum[3], sum[4], sum[5] }'
} >"$pfs/out/reconciled.tsv"
rm "$pfs/out/table"
tail -n 1 "$pfs/out/reconciled.tsv" |
  awk '{ print $2 " order lines = " $3 " modelled + " $4 " rejected" }'
