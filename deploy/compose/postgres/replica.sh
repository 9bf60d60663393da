#!/bin/bash
# Runs a streaming replica: copies the primary when the data folder is new, then
# becomes the server. Arguments are the server's, "postgres" first.
set -euo pipefail
: "${PGDATA:?}" "${PRIMARY_HOST:?}" "${REPLICA_NAME:?}" "${REPLICATION_PASSWORD:?}"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
	# The copy gets its name when it is whole: one that was interrupted is made anew.
	rm -rf "$PGDATA.part"
	PGPASSWORD=$REPLICATION_PASSWORD pg_basebackup \
		--dbname="host=$PRIMARY_HOST port=${PRIMARY_PORT:-5432} user=replicator application_name=$REPLICA_NAME" \
		--pgdata="$PGDATA.part" --wal-method=stream --checkpoint=fast --write-recovery-conf
	chmod 700 "$PGDATA.part"
	rm -rf "$PGDATA"
	mv "$PGDATA.part" "$PGDATA"
fi
exec "$@"
