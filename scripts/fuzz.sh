#!/usr/bin/env bash
# Runs every fuzz target of the repository, one after the other, for the time
# given (a Go duration). The first that finds something ends the run. Little time
# goes into making inputs smaller: where servers and clients talk at once, what
# an input reaches varies, and that would never end.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?usage: scripts/fuzz.sh TIME}

grep -rlE --include='*_test.go' '^func Fuzz' . | xargs -r -n 1 dirname | sort -u | while read -r package; do
	targets=$(go test -list '^Fuzz' "$package" | grep '^Fuzz')
	for target in $targets; do
		echo "== $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 20x "$package" </dev/null
	done
done
