#!/usr/bin/env bash
# Runs the files of PostgreSQL's regression suite that are about queries over tables
# that are declared sharded, and compares each statement's answer with that of one
# PostgreSQL. The score is kept in testdata/regress/shards.txt: fewer equal answers,
# or a wrong one, fail the run.
#
#   scripts/regress-shards.sh           all files
#   scripts/regress-shards.sh FILE...   these alone
#
# Variables: UPDATE=1 writes the score as the expected one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${here%/*}
. "$here/regress/source.sh"
. "$here/regress/servers.sh"

expected=$root/testdata/regress/shards.txt
cache=${XDG_CACHE_HOME:-$HOME/.cache}/shardproxy/regress
find_server
suite=$cache/$installed
bring_suite
# Servers read its files, as another user.
run=$(mktemp -d /tmp/shardproxy-regress.XXXXXX)
trap 'rm -rf "$run"' EXIT
cp -r "$suite" "$run/suite"
chmod -R a+rX "$run"

cd "$root"
SHARDPROXY_TEST_REGRESS=$run/suite SHARDPROXY_TEST_REGRESS_FILES="$*" SHARDPROXY_TEST_REGRESS_OUT=$run/score \
	go test -tags regress -count 1 -timeout 1h -run 'TestRegressFiles$' ./cmd/shardproxy >"$run/log" 2>&1 || {
	grep -v 'level=' "$run/log" | tail -n 100
	exit 1
}
cat "$run/score"
[ $# = 0 ] || exit 0
if [ -n "${UPDATE:-}" ]; then
	cp "$run/score" "$expected"
	exit 0
fi
# Column 2 counts the equal ones: what depends on the order of rows moves between it and "varies".
awk 'NR == FNR { want[$1] = $2 + $5; next } FNR > 1 && $2 + $5 < want[$1] { print $1 ": " $2 " equal and " $5 " that vary, " want[$1] " before"; bad = 1 } END { exit bad }' \
	"$expected" "$run/score"
