#!/usr/bin/env bash
# Installs the client drivers that the tests run against the proxy, as far as
# this machine lacks them: psycopg2 and psycopg 3 for Debian's Python (a Python
# from elsewhere that comes first in PATH is not looked at), JDBC with a Java
# compiler, Node.js with npm and the packages pinned for it.
set -euo pipefail
cd "$(dirname "$0")"
. ./apt.sh

missing=()
/usr/bin/python3 -c 'import psycopg2' 2>/dev/null || missing+=(python3 python3-psycopg2)
/usr/bin/python3 -c 'import psycopg' 2>/dev/null || missing+=(python3 python3-psycopg)
[ -e /usr/share/java/postgresql.jar ] || missing+=(libpostgresql-jdbc-java)
# The runtime alone cannot compile the test program.
{ command -v java && command -v javac; } >/dev/null || missing+=(default-jdk-headless)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)

if [ "${#missing[@]}" -gt 0 ]; then
	need_packages "${missing[@]}"
fi

# The Node.js packages, as pinned, into a folder of the user's cache.
if [ -x ../internal/drivertest/node-modules.sh ]; then
	../internal/drivertest/node-modules.sh >/dev/null
fi
