#!/usr/bin/env bash
# Installs PostgreSQL's server programs when this machine has none. The tests
# and the demo start servers of their own from them; the cluster that Debian's
# package would create and start is not wanted and not made.
set -euo pipefail
cd "$(dirname "$0")"
. ./apt.sh

# have_server looks where internal/pgcluster looks.
have_server() {
	local dir
	for dir in "${SHARDPROXY_PG_BINDIR:-}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
		/opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
		"$(pg_config --bindir 2>/dev/null || true)"; do
		if [ -n "$dir" ] && [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
			return 0
		fi
	done
	command -v initdb >/dev/null && command -v postgres >/dev/null
}

# have_clients: psql and pgbench are tested as clients of the proxy.
have_clients() {
	command -v psql >/dev/null && { command -v pgbench >/dev/null || ls /usr/lib/postgresql/*/bin/pgbench >/dev/null 2>&1; }
}

if have_server && have_clients; then
	exit 0
fi
if ! need_packages postgresql postgresql-client postgresql-contrib; then
	echo "PostgreSQL 14 or later is needed: the server programs (initdb, postgres, pg_basebackup), psql and pgbench." >&2
	echo "  Debian, Ubuntu:  apt-get install postgresql postgresql-contrib" >&2
	echo "  Fedora:          dnf install postgresql-server postgresql-contrib" >&2
	echo "  macOS:           brew install postgresql@17" >&2
	echo "Elsewhere set SHARDPROXY_PG_BINDIR to the folder that holds initdb." >&2
	exit 1
fi
if ! have_server; then
	echo "PostgreSQL was installed, but initdb and postgres are not where they are looked for" >&2
	exit 1
fi
