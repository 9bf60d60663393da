#!/usr/bin/env bash
# Runs PostgreSQL's own regression suite directly and through the proxy, and
# compares the score of each file with testdata/regress/expected*.tsv. A file
# that fails and should not, or passes and was not expected to, fails the run.
#
#   scripts/regress.sh            the whole suite
#   scripts/regress.sh FILE...    these files alone, after test_setup: a way to
#                                 look at one file without the load of the rest
#
# Variables:
#   MODE=transaction|session  the proxy's pool mode
#   SIDES="direct proxy"      what to run
#   UPDATE=1                  write the result as the expected one; reasons stay
#   JOBS=0                    at most so many files at once; 0: as the schedule says
#   FILE_SECONDS=300          a file that takes longer is ended and fails
#   OUT=folder                where results and differences go (default: the cache)
#   PROXY=program             a built shardproxy; else it is built
#   SERVER_LOG=1              the servers log every statement
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${here%/*}
. "$here/regress/source.sh"
. "$here/regress/servers.sh"

mode=${MODE:-transaction}
sides=${SIDES:-direct proxy}
jobs=${JOBS:-0}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/shardproxy/regress
case $mode in
transaction) expected=$root/testdata/regress/expected.tsv ;;
session) expected=$root/testdata/regress/expected-session.tsv ;;
*) echo "regress: MODE is transaction or session, not $mode" >&2 && exit 2 ;;
esac

if [ -n "${UPDATE:-}" ] && [ $# != 0 ]; then
	echo "regress: UPDATE wants the whole suite" >&2
	exit 2
fi
find_server
suite=$cache/$installed
bring_suite
out=${OUT:-$cache/out}
make_run_folder
trap end_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# run_side runs the suite against one side and leaves $out/SIDE.tsv.
run_side() {
	local side=$1 port what=(--schedule=parallel_schedule)
	shift
	[ $# = 0 ] || what=(test_setup "$@")
	start_server
	port=$server_port
	if [ "$side" = proxy ]; then
		start_proxy
		port=$proxy_port
	fi
	rm -rf "${out:?}/$side"
	echo "regress: $side ($mode), $(date +%T)"
	as_server env -C "$run/suite" PATH="$bin:$PATH" LC_ALL=C timeout "${RUN_SECONDS:-3600}" \
		"$pgxs/pg_regress" --use-existing --inputdir=. --outputdir="$run/work" --dlpath="$run/suite" \
		--bindir="$bin" --host=127.0.0.1 --port="$port" --user=postgres --dbname=regression \
		--launcher="timeout -k 5 ${FILE_SECONDS:-300}" --max-connections="$jobs" \
		"${what[@]}" 2>&1 | tee "$run/$side.txt" | grep -E 'FAILED|failed|not ok|pg_regress:|could not' || true
	stop_proxy
	stop_server
	mkdir -p "$out/$side"
	cp -r "$run/work/." "$run/server.log" "$out/$side/"
	[ "$side" = direct ] || cp "$run/proxy.log" "$run/proxy.yaml" "$out/$side/"
	rm -rf "$run/work" "$run/data"
	cp "$run/$side.txt" "$out/$side.txt"
	# "test x ... ok 12 ms", "     y ... FAILED (test process exited with ...) 3 ms"
	sed -nE 's/^(test)? +([a-z0-9_.]+) +\.\.\. (ok|FAILED|failed).*/\2\t\3/p' "$run/$side.txt" |
		sed 's/FAILED$/failed/' | LC_ALL=C sort >"$out/$side.tsv"
}

# update writes the expected file from the run; a side that did not run keeps
# its column, and what varies stays so until it is changed by hand.
update() {
	local old=$expected
	[ -e "$old" ] || old=/dev/null
	{
		grep '^#' "$old" || printf '# file\tdirect\tproxy\treason\n'
		awk 'BEGIN { FS = OFS = "\t" } /^#/ { next }
			FILENAME == ARGV[1] { d[$1] = $2; p[$1] = $3; r[$1] = $4; all[$1] = 1; next }
			all[$1] = 1 { }
			FILENAME == ARGV[2] { if (d[$1] != "varies") d[$1] = $2; next }
			p[$1] != "varies" { p[$1] = $2 }
			END { for (f in all) print f, d[f], p[f], (d[f] == "ok" && p[f] == "ok") ? "" : r[f] }' \
			"$old" <(side_result direct) <(side_result proxy) | LC_ALL=C sort
	} >"$run/new.tsv"
	cp "$run/new.tsv" "$expected"
	echo "regress: wrote $expected"
}

side_result() {
	case " $sides " in *" $1 "*) cat "$out/$1.tsv" ;; esac
}

mkdir -p "$out"
status=0
for side in $sides; do
	run_side "$side" "$@"
done
[ -z "${UPDATE:-}" ] || update
for side in $sides; do
	awk -v side="$side" -v whole=$(($# == 0)) -f "$here/regress/compare.awk" "$expected" "$out/$side.tsv" || status=1
done
[ $status = 0 ] || echo "regress: differences are in $out/SIDE/regression.diffs"
exit $status
