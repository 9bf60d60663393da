#!/usr/bin/env bash
# Installs PgBouncer, which the benchmarks compare with, when it is missing.
# The service that Debian's package would start is not wanted and not started.
set -euo pipefail
cd "$(dirname "$0")"
. ./apt.sh

if ! command -v pgbouncer >/dev/null && [ ! -x /usr/sbin/pgbouncer ]; then
	need_packages pgbouncer
fi
