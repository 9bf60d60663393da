"""Uses the console through psycopg2 and psycopg 3; argument: the DSN."""
import datetime
import re
import sys

import psycopg
import psycopg2
import psycopg2.extras

dsn = sys.argv[1]


def check(what, got, want):
    if got != want:
        sys.exit(f"{what}: {got!r}, not {want!r}")


def steer(cur):
    cur.execute("PAUSE shop")
    cur.execute("SHOW DATABASES")
    check("paused", {r["name"]: r["paused"] for r in cur.fetchall()}["shop"], 1)
    cur.execute("RESUME shop")


# psycopg2, as monitoring agents use it.
conn = psycopg2.connect(dsn)
conn.set_session(autocommit=True)
check("parameter", conn.get_parameter_status("server_version"), "1.25.1/shardproxy 0.9.1")
check("encoding", conn.encoding, "UTF8")
with conn.cursor(cursor_factory=psycopg2.extras.DictCursor) as cur:
    cur.execute("SHOW POOLS")
    row = [r for r in cur.fetchall() if r["user"] == "app"][0]
    check("pool", (row["database"], row["maxwait"], row["maxwait_us"]), ("shop", 1, 250001))
    steer(cur)

    # What Datadog's agent reads: NULL is no figure, times are cut behind the second.
    def datadog(query, figures, times=()):
        cur.execute(query)
        rows = cur.fetchall()
        if not rows:
            sys.exit(f"{query} has no rows")
        for r in rows:
            for f in figures:
                float(r[f] if r[f] is not None else 0)
            for f in times:
                datetime.datetime.strptime(re.findall(r"^(\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2})", r[f])[0], "%Y-%m-%d %H:%M:%S")

    kinds = ("xact_count", "query_count", "received", "sent", "xact_time", "query_time", "wait_time", "server_assignment_count",
             "client_parse_count", "server_parse_count", "bind_count")
    datadog("SHOW STATS", ["total_" + k for k in kinds] + ["avg_" + k.replace("received", "recv") for k in kinds])
    datadog("SHOW POOLS", ["cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login", "maxwait", "maxwait_us"])
    datadog("SHOW DATABASES", ["pool_size", "max_connections", "current_connections"])
    connection = ["connect_time", "request_time"]
    datadog("SHOW CLIENTS", ["wait", "wait_us"], connection)
    datadog("SHOW SERVERS", ["wait", "wait_us"], connection)
    cur.execute("SHOW CONFIG")
    config = {r["key"]: r["value"] for r in cur.fetchall()}
    check("max_client_conn", float(config["max_client_conn"]), 10000.0)
    cur.execute("SHOW VERSION")
    check("version", re.search(r"\d+\.\d+\.\d+", cur.fetchone()[0]).group(), "1.25.1")
conn.close()

# psycopg2 with the transaction that it opens by default.
conn = psycopg2.connect(dsn)
with conn.cursor() as cur:
    cur.execute("SHOW STATE")
    check("state", cur.fetchone(), ("active", "yes"))
    try:
        cur.execute("PAUSE")
        sys.exit("PAUSE ran in a transaction block")
    except psycopg2.errors.ActiveSqlTransaction:
        pass
    try:
        cur.execute("SHOW STATE")
        sys.exit("a failed block goes on")
    except psycopg2.errors.InFailedSqlTransaction:
        pass
    conn.rollback()
    cur.execute("SHOW VERSION")
    check("version", cur.fetchone()[0].startswith("PgBouncer 1.25.1"), True)
conn.commit()
conn.close()

# psycopg 3: extended protocol, prepared from the sixth time on, binary too.
with psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as conn:
    for binary in (False, True):
        for _ in range(8):
            cur = conn.execute("SHOW STATS_TOTALS", binary=binary)
            check("bytes", int(cur.fetchall()[0]["bytes_received"]), 123456789012)
    steer(conn.cursor())
    with conn.transaction():
        check("lists", conn.execute("SHOW LISTS").fetchone(), {"list": "databases", "items": 2})
print("ok")
