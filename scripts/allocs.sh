#!/usr/bin/env bash
# Runs without the race detector what cannot be tested with it: the tests that
# name raceEnabled (they count allocations, or work less under it), and all of
# the package wire, whose system calls are others then. Each must be seen to
# have run.
set -euo pipefail
cd "$(dirname "$0")/.."

# Lines of "package test": the test functions in whose text raceEnabled stands.
tests=$(grep -rl --include='*_test.go' raceEnabled . | sort | xargs awk '
	/^func / { name = $2; sub(/\(.*/, "", name) }
	/^}/ { name = "" }
	name ~ /^Test/ && /raceEnabled/ {
		dir = FILENAME; sub(/\/[^\/]*$/, "", dir)
		if (!seen[dir " " name]++) print dir, name
	}')
if [ -z "$tests" ]; then
	echo "no test names raceEnabled: this script looks for the wrong word" >&2
	exit 1
fi

for package in $(cut -d' ' -f1 <<<"$tests" | sort -u); do
	names=$(awk -v package="$package" '$1 == package { print $2 }' <<<"$tests")
	pattern="^($(paste -sd'|' <<<"$names"))\$"
	[ "$package" = ./wire ] && pattern=.
	if ! output=$(go test -count=1 -v -run "$pattern" "$package" 2>&1); then
		echo "$output"
		exit 1
	fi
	for name in $names; do
		if ! grep -q "^--- PASS: $name " <<<"$output"; then
			echo "$package: $name did not run" >&2
			exit 1
		fi
	done
	tail -n 1 <<<"$output"
done
