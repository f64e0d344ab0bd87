#!/usr/bin/env bash
# Runs every test, also after one has failed, with the output of `cargo test` as it is; tells at the
# end how many there were and which failed, and fails when a lab of this run left something behind.
# Arguments go to `cargo test`. `scripts/test.sh summary FILE` sums up an output that was kept.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

# What of labs is on this machine: cgroups, network namespaces, mounts, folders; one a line.
traces() {
  local folder=${ZYLAB_DIR:-/var/lib/zylab} groups
  groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
  {
    [ -z "$groups" ] || find "$groups" -mindepth 1 -maxdepth 1 -type d -name 'zylab-*' -printf 'cgroup %p\n'
    [ ! -d /run/netns ] || find /run/netns -mindepth 1 -maxdepth 1 -name 'zy*-*' -printf 'network namespace %f\n'
    [ ! -d "$folder" ] || find "$folder" -mindepth 1 -maxdepth 1 -type d -printf 'folder %p\n'
    awk -v folder="$folder/" 'index($2, folder) == 1 || $2 ~ "^/run/netns/zy.*-" { print "mount " $2 }' /proc/mounts
  } | LC_ALL=C sort -u
}

# Sums up what `cargo test` printed.
summary() {
  awk '
    # A program that ends in the middle of a test tells no result.
    function no_result() { if (running != "") { broken[++breaks] = running; running = "" } }
    # Such a test leaves its line unfinished, so these may stand at the end of it.
    / +Running .* \([^ ]+\)$/ || / +Doc-tests [^ ]+$/ {
      no_result(); running = $0
      sub(/.* +Doc-tests /, "Doc-tests ", running)
      # Named by program and source: many crates have a src/lib.rs.
      program = $NF; sub(/^.*\//, "", program); sub(/-[^-]*\)$/, "", program)
      if (sub(/.* +Running (unittests )?/, "", running)) { sub(/ \([^ ]+\)$/, "", running); running = program " (" running ")" }
      listing = 0; count = 0
    }
    # The first list has what the tests printed, the second one their names.
    /^failures:$/ { listing = 1; count = 0; next }
    listing && /^    [^ ]+( - should panic)?$/ { names[++count] = $1 }
    /not run: captures are absent/ { absent++ }
    /^test result: / {
      binaries++
      for (field = 1; field < NF; field++) {
        if ($(field + 1) == "passed;") passed += $field
        if ($(field + 1) == "failed;") failed += $field
        if ($(field + 1) == "ignored;") ignored += $field
      }
      for (number = 1; listing && number <= count; number++) print "failed: " running ": " names[number]
      listing = 0; count = 0; running = ""
    }
    END {
      no_result()
      for (number = 1; number <= breaks; number++) print "ended without a result: " broken[number]
      if (absent > 0) printf "not run: captures are absent (%d tests looked for them; ../shared/data/captures or $ZHENGYUN_CAPTURES)\n", absent
      printf "%d passed, %d failed, %d ignored in %d test programs\n", passed, failed, ignored, binaries
      # Ends in failure when something in the output did.
      exit failed + breaks > 0
    }' "$1"
}

if [ "${1:-}" = summary ]; then
  summary "${2:?FILE}"
  exit
fi

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
traces >"$work/before"
# shellcheck disable=SC2086 # CARGO may hold arguments
${CARGO:-cargo} test "$@" --no-fail-fast -- --test-threads=1 2>&1 | tee "$work/output"
status=${PIPESTATUS[0]}
echo
echo "== sum"
summary "$work/output" || [ "$status" != 0 ] || status=1
traces >"$work/after"
left=$(LC_ALL=C comm -13 "$work/before" "$work/after")
if [ -n "$left" ]; then
  echo "left behind by labs of this run (zylab down --name NAME removes a lab):"
  printf '%s\n' "$left" | sed 's/^/  /'
  [ "$status" != 0 ] || status=1
fi
exit "$status"
