#!/usr/bin/env bash
# Builds the Prometheus exporter that people run in front of PgBouncer's console, which the tests run in front
# of ours, and prints where it is. exporter/go.mod and go.sum pin it with all it is made of; it is built once for
# each version of them, into a folder of the user's cache. Debian's package prometheus-pgbouncer-exporter is
# another program: it asks for columns that PgBouncer has not had since version 1.8.
set -euo pipefail
cd "$(dirname "$0")/exporter"

cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/shardproxy/exporter
folder=$cache/$(cat go.mod go.sum | cksum | tr ' ' '-')

if [ ! -x "$folder/pgbouncer_exporter" ]; then
	# Into a folder of this process first: who comes at the same time must not
	# find half of it.
	mkdir -p "$cache"
	fresh=$(mktemp -d "$cache/new.XXXXXX")
	trap 'rm -rf "$fresh"' EXIT
	CGO_ENABLED=0 go build -o "$fresh/" github.com/prometheus-community/pgbouncer_exporter >&2
	mv -T "$fresh" "$folder" 2>/dev/null || [ -x "$folder/pgbouncer_exporter" ]
fi
echo "$folder/pgbouncer_exporter"
