#!/bin/sh
# A lab host's smartctl: lists and reads the disks in the folder `smart` beside it.
folder=$(dirname "$(readlink -f "$0")")/smart
for argument in "$@"; do
  case $argument in
    --scan|--scan-open)
      printf '{"json_format_version":[1,0],"smartctl":{"exit_status":0},"devices":['
      separator=
      for disk in "$folder"/*.json; do
        name=$(basename "$disk" .json)
        printf '%s{"name":"/dev/%s","info_name":"/dev/%s","type":"sat","protocol":"ATA"}' "$separator" "$name" "$name"
        separator=,
      done
      printf ']}\n'
      exit 0 ;;
    /dev/*) disk=$folder/${argument#/dev/}.json ;;
  esac
done
[ -f "$disk" ] || { printf '{"smartctl":{"exit_status":2,"messages":[{"string":"no such device","severity":"error"}]}}\n'; exit 2; }
cat "$disk"
