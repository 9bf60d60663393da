#!/usr/bin/env bash
# Installs the client drivers that the tests run against the proxy, and the object-relational mappers, as far
# as this machine lacks them: psycopg2 and psycopg 3 for Debian's Python (a Python
# from elsewhere that comes first in PATH is not looked at), JDBC with a Java
# compiler, Node.js with npm and the packages pinned for it,
# Django, SQLAlchemy and Alembic.
set -euo pipefail
cd "$(dirname "$0")"
. ./apt.sh

missing=()
/usr/bin/python3 -c 'import psycopg2' 2>/dev/null || missing+=(python3 python3-psycopg2)
/usr/bin/python3 -c 'import psycopg' 2>/dev/null || missing+=(python3 python3-psycopg)
/usr/bin/python3 -c 'import django' 2>/dev/null || missing+=(python3 python3-django)
/usr/bin/python3 -c 'import sqlalchemy' 2>/dev/null || missing+=(python3 python3-sqlalchemy)
/usr/bin/python3 -c 'import alembic' 2>/dev/null || missing+=(python3 python3-alembic)
[ -e /usr/share/java/postgresql.jar ] || missing+=(libpostgresql-jdbc-java)
# The runtime alone cannot compile the test program.
{ command -v java && command -v javac; } >/dev/null || missing+=(default-jdk-headless)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)

if [ "${#missing[@]}" -gt 0 ]; then
	need_packages "${missing[@]}"
fi

# The Node.js packages, as pinned, into a folder of the user's cache.
for folder in ../internal/drivertest/testdata/node ../internal/ormtest/testdata/knex; do
	./node-modules.sh "$folder" >/dev/null
done
