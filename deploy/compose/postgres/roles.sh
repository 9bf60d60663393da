#!/bin/bash
# Makes the roles of a shard, once: the image's entry point runs it when the
# data folder is new. Passwords come from the environment and stand in no argument.
set -euo pipefail

psql -X -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d "${POSTGRES_DB:?}" <<'SQL'
\getenv app_password APP_PASSWORD
\getenv dba_password DBA_PASSWORD
\getenv control_password CONTROL_PASSWORD
\getenv replication_password REPLICATION_PASSWORD
\getenv database POSTGRES_DB

-- What applications log in as. It owns the database, and so may make tables.
CREATE ROLE app LOGIN PASSWORD :'app_password';
ALTER DATABASE :"database" OWNER TO app;
ALTER SCHEMA public OWNER TO app;

-- Who steers the proxies, and may look at the servers.
CREATE ROLE dba LOGIN PASSWORD :'dba_password' IN ROLE pg_monitor;

-- What the proxies watch the servers and keep the slot map as. It is a member of
-- app to finish app's transactions over several shards and to move app's rows.
CREATE ROLE control LOGIN REPLICATION PASSWORD :'control_password' IN ROLE pg_monitor, pg_signal_backend, app;
GRANT CREATE ON DATABASE :"database" TO control;
GRANT SET ON PARAMETER session_replication_role TO control;

-- What replicas follow their primary as.
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication_password';
SQL

# "all" in the image's own line does not stand for replication.
echo "host replication replicator,control all scram-sha-256" >>"${PGDATA:?}/pg_hba.conf"
