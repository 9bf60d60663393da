"""psycopg 3, as its users use it. Connects by libpq's environment."""

import asyncio
import datetime as dt
import decimal
import ipaddress
import os
import select
import sys
import threading
import time
import uuid

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg.types.range import Range

from transcript import BIG, error, md5, refused, run


def connect(**options):
    return psycopg.connect("", **options)


def wait_running(mark):
    """Returns when a statement that holds the mark runs, on whatever node."""
    nodes = [
        psycopg.connect(host="127.0.0.1", port=port, user="postgres", sslmode="disable", channel_binding="disable", autocommit=True)
        for port in os.environ["NODE_PORTS"].split()
    ]
    while not any(
        node.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
            " AND pid <> pg_backend_pid() AND query LIKE %s", ["%" + mark + "%"]
        ).fetchone() for node in nodes
    ):
        time.sleep(0.01)
    for node in nodes:
        node.close()


def connection():
    with connect() as conn:
        info = conn.info
        for name in (
            "server_version", "server_encoding", "client_encoding", "DateStyle", "IntervalStyle", "TimeZone",
            "integer_datetimes", "standard_conforming_strings", "application_name", "is_superuser",
            "session_authorization", "default_transaction_read_only", "in_hot_standby",
        ):
            print(name, info.parameter_status(name))
        print(info.transaction_status, info.user, conn.pgconn.ssl_in_use, conn.pgconn.used_password)
        print(conn.execute("SELECT current_user, session_user, 1 + 1").fetchone())
        print(info.transaction_status)
    print("closed", conn.closed)
    for options in (
        {"password": "wrong"}, {"user": "nobody_here"}, {"dbname": "no_such_database"},
        {"sslrootcert": os.environ["WRONG_CA"]}, {"options": "-c no_such_setting=1"}, {"options": "-c statement_timeout=x"},
    ):
        try:
            connect(**options)
            print("FAIL: connected", options)
        except psycopg.OperationalError as e:
            print(list(options), e.sqlstate, type(e).__name__, str(e).rsplit(": ", 1)[-1].strip())
    with connect(application_name="my app", options="-c statement_timeout=12345 -c search_path=a,b") as conn:
        for name in ("application_name", "statement_timeout", "search_path"):
            print(name, conn.execute("SHOW " + name).fetchone())


TYPES = [
    ("boolean", True), ("boolean", False), ("smallint", -32768), ("integer", 2147483647), ("bigint", -(2**63)),
    ("numeric", decimal.Decimal("-12345678901234567890.12345678901234567890")), ("numeric", decimal.Decimal("NaN")),
    ("numeric", decimal.Decimal("0E-10")), ("real", 1.5), ("double precision", 0.1), ("double precision", float("inf")),
    ("double precision", float("-inf")), ("text", ""), ("text", "h\u00e9llo \u4e16\u754c \U0001f600 'quoted' \\ %s $1 ?"),
    ("varchar(5)", "abc"), ("char(5)", "abc"), ("name", "n"), ("bytea", b""), ("bytea", bytes(range(256))),
    ("date", dt.date(2024, 2, 29)), ("time", dt.time(23, 59, 59, 999999)),
    ("timestamp", dt.datetime(1999, 12, 31, 23, 59, 59, 123456)),
    ("timestamptz", dt.datetime(2024, 7, 1, 12, 0, tzinfo=dt.timezone.utc)), ("interval", dt.timedelta(days=3, seconds=4, microseconds=5)),
    ("uuid", uuid.UUID("12345678-1234-5678-1234-567812345678")), ("jsonb", Jsonb({"a": [1, None, "x"], "b": {"c": 1.5}})),
    ("integer[]", [1, 2, 3]), ("integer[]", []), ("text[]", ["a", None, 'q"\\,{}']), ("integer[]", [[1, 2], [3, 4]]),
    ("inet", ipaddress.ip_address("192.168.0.1")), ("cidr", ipaddress.ip_network("10.0.0.0/8")),
    ("int4range", Range(1, 10)), ("tstzrange", Range(dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc), None, "[)")),
    ("integer", None), ("text", None), ("bytea", None),
]


def types():
    with connect(autocommit=True) as conn:
        for text_or_binary in (False, True):
            for marker in ("%s", "%b", "%t"):
                for name, value in TYPES:
                    if marker == "%b" and isinstance(value, decimal.Decimal) and value.is_nan():
                        continue
                    cursor = conn.cursor(binary=text_or_binary)
                    try:
                        row = cursor.execute("SELECT %s::%s AS v, pg_typeof(%s::%s)::text" % (marker, name, marker, name), [value, value]).fetchone()
                    except psycopg.Error as e:
                        error(e)
                        continue
                    print(text_or_binary, marker, name, repr(row[0]), row[1], cursor.description[0].type_code, row[0] == value)


def own_types():
    with connect(autocommit=True) as conn:
        conn.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
        conn.execute("CREATE TYPE pair AS (a int, b text)")
        conn.execute("CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
        conn.execute("CREATE TABLE own (m mood, p pair, d positive, ms mood[])")
        from psycopg.types.composite import CompositeInfo, register_composite
        from psycopg.types.enum import EnumInfo, register_enum
        register_composite(CompositeInfo.fetch(conn, "pair"), conn)
        register_enum(EnumInfo.fetch(conn, "mood"), conn)
        pair = CompositeInfo.fetch(conn, "pair")
        print(pair.name, pair.field_names)
        conn.execute("INSERT INTO own VALUES (%s, %s, %s, %s)", ["happy", (1, "x,y"), 5, ["sad", "happy"]])
        print(conn.execute("SELECT m::text, p, d, ms::text[] FROM own WHERE m > 'sad'").fetchall())
        refused(conn.execute, "INSERT INTO own (d) VALUES (%s)", [-1])
        refused(conn.execute, "INSERT INTO own (m) VALUES ('angry')")


def prepared():
    first, second = connect(), connect()
    first.execute("CREATE TABLE p (id int PRIMARY KEY, v text)")
    first.execute("INSERT INTO p SELECT i, 'v' || i FROM generate_series(1, 100) i")
    first.commit()
    # Many transactions, two clients by turns: the server connections change.
    for i in range(1, 31):
        for conn in (first, second):
            conn.execute("SET TRANSACTION READ WRITE") if i % 3 == 0 else None
            row = conn.execute("SELECT v FROM p WHERE id = %s", [i], prepare=True).fetchone()
            if row != ("v%d" % i,):
                print("FAIL: row", i, row)
            conn.execute("UPDATE p SET v = v WHERE id = %s", [i])  # prepared at the fifth time
            conn.commit()
    print(len(first._prepared._names), len(second._prepared._names))
    # Held open by one client: the other gets another server connection.
    first.execute("SELECT v FROM p WHERE id = %s", [1], prepare=True)
    for i in range(5):
        second.execute("SELECT v FROM p WHERE id = %s", [2], prepare=True)
        second.commit()
    first.commit()
    # Eviction on the client's side: DEALLOCATE of the driver's own names.
    third = connect(autocommit=True, prepare_threshold=0)
    third.prepared_max = 3
    for round in range(3):
        for i in range(10):
            row = third.execute("SELECT %s::int + " + str(i), [round]).fetchone()
            if row != (round + i,):
                print("FAIL: row", round, i, row)
    print("evictions done", len(third._prepared._names))
    third.close()
    # A statement of the same text whose parameters have other types.
    with connect(autocommit=True, prepare_threshold=0) as conn:
        for value in (1, 2**40, 1.5, b"x", 1):
            print(conn.execute("SELECT pg_typeof(%s)::text", [value]).fetchone())
    first.close()
    second.close()


def prepared_alter():
    with connect(autocommit=True, prepare_threshold=0) as conn:
        conn.execute("CREATE TABLE pa (id int PRIMARY KEY, v text)")
        conn.execute("INSERT INTO pa VALUES (1, 'one')")
        star = "SELECT * FROM pa WHERE id = %s"
        named = "SELECT id, v FROM pa WHERE id = %s"
        for _ in range(3):
            print(conn.execute(star, [1]).fetchall(), conn.execute(named, [1]).fetchall())
        conn.execute("ALTER TABLE pa ADD COLUMN w int DEFAULT 7")
        print(conn.execute(named, [1]).fetchall())
        try:
            print(conn.execute(star, [1]).fetchall())
        except psycopg.Error as e:
            error(e)
        conn.execute("DEALLOCATE ALL")
        conn._prepared.clear()
        print(conn.execute(star, [1]).fetchall())
        conn.execute("ALTER TABLE pa ALTER COLUMN v TYPE varchar(20)")
        conn.execute("CREATE INDEX ON pa (v)")
        try:
            print(conn.execute(named, [1]).fetchall())
        except psycopg.Error as e:
            error(e)
        conn.execute("ALTER TABLE pa DROP COLUMN v")
        try:
            print(conn.execute(named, [1]).fetchall())
        except psycopg.Error as e:
            error(e)
        conn.execute("DROP TABLE pa")
        try:
            print(conn.execute(named, [1]).fetchall())
        except psycopg.Error as e:
            error(e)
        print(conn.execute("SELECT %s::int", [5]).fetchone())


def sql_prepared():
    with connect(autocommit=True) as conn:
        conn.execute("CREATE TABLE sp (id int, v text)")
        conn.execute("PREPARE ins (int, text) AS INSERT INTO sp VALUES ($1, $2)")
        conn.execute("PREPARE sel AS SELECT v FROM sp WHERE id = $1")
        for i in range(5):
            conn.execute("EXECUTE ins (%d, 'x%d')" % (i, i))
            print(conn.execute("EXECUTE sel (%d)" % i).fetchall())
        print(conn.execute("SELECT name, statement, parameter_types::text, from_sql FROM pg_prepared_statements WHERE from_sql ORDER BY name").fetchall())
        refused(conn.execute, "PREPARE sel AS SELECT 1")
        conn.execute("DEALLOCATE sel")
        refused(conn.execute, "EXECUTE sel (1)")
        refused(conn.execute, "DEALLOCATE sel")
        conn.execute("DISCARD ALL")
        refused(conn.execute, "EXECUTE ins (1, 'x')")
        with connect(autocommit=True) as other:
            refused(other.execute, "EXECUTE ins (1, 'x')")


def transactions():
    with connect() as conn:
        conn.execute("CREATE TABLE tx (id int PRIMARY KEY, v int)")
        conn.commit()
        conn.execute("INSERT INTO tx VALUES (1, 1)")
        print(conn.info.transaction_status)
        conn.rollback()
        print(conn.info.transaction_status, conn.execute("SELECT count(*) FROM tx").fetchone())
        with conn.transaction():
            conn.execute("INSERT INTO tx VALUES (1, 1)")
            try:
                with conn.transaction():
                    conn.execute("INSERT INTO tx VALUES (2, 2)")
                    raise ValueError("no")
            except ValueError as e:
                print("inner rolled back", e)
            with conn.transaction(savepoint_name="sp"):
                conn.execute("INSERT INTO tx VALUES (3, 3)")
        with conn.transaction(force_rollback=True):
            conn.execute("DELETE FROM tx")
        print(conn.execute("SELECT * FROM tx ORDER BY id").fetchall())
        conn.commit()
    with connect() as conn:
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        conn.read_only = True
        conn.deferrable = True
        for name in ("transaction_isolation", "transaction_read_only", "transaction_deferrable"):
            print(name, conn.execute("SHOW " + name).fetchone())
        refused(conn.execute, "INSERT INTO tx VALUES (9, 9)")
        conn.rollback()
    with connect(autocommit=True) as conn:
        for statement in (
            "BEGIN ISOLATION LEVEL REPEATABLE READ", "INSERT INTO tx VALUES (4, 4)", "SAVEPOINT a", "INSERT INTO tx VALUES (5, 5)",
            "ROLLBACK TO a", "INSERT INTO tx VALUES (6, 6)", "RELEASE a", "COMMIT AND CHAIN", "SHOW transaction_isolation", "ROLLBACK AND NO CHAIN",
            "SELECT array_agg(id ORDER BY id) FROM tx",
        ):
            cursor = conn.execute(statement)
            print(statement, "->", cursor.statusmessage, cursor.fetchall() if cursor.description else "", conn.info.transaction_status)
    # The error comes at COMMIT only.
    with connect(autocommit=True) as conn:
        conn.execute("CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES tx DEFERRABLE INITIALLY DEFERRED)")
        conn.execute("BEGIN")
        conn.execute("INSERT INTO child VALUES (1, 99)")
        refused(conn.execute, "COMMIT")
        print(conn.info.transaction_status, conn.execute("SELECT count(*) FROM child").fetchone())
    # Two writers of one row under SERIALIZABLE.
    a, b = connect(autocommit=True), connect(autocommit=True)
    for conn in (a, b):
        conn.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        print(conn.execute("SELECT sum(v) FROM tx").fetchone())
    a.execute("UPDATE tx SET v = v + 1 WHERE id = 1")
    a.execute("COMMIT")
    refused(b.execute, "UPDATE tx SET v = v + 1 WHERE id = 1")
    refused(b.execute, "SELECT 1")
    print(b.execute("COMMIT").statusmessage, b.info.transaction_status)
    a.close()
    b.close()


def two_phase():
    with connect() as conn:
        conn.execute("CREATE TABLE tpc (id int)")
        conn.commit()
        for action in ("commit", "rollback"):
            xid = conn.xid(1, os.environ["PGDATABASE"] + action, "branch")
            conn.tpc_begin(xid)
            conn.execute("INSERT INTO tpc VALUES (1)")
            conn.tpc_prepare()
            getattr(conn, "tpc_" + action)()
            print(action, conn.info.transaction_status)
        print(conn.execute("SELECT count(*) FROM tpc").fetchone())


def errors():
    with connect(autocommit=True) as conn:
        conn.execute("CREATE TABLE er (id int PRIMARY KEY, v int NOT NULL CHECK (v < 100))")
        conn.execute("INSERT INTO er VALUES (1, 1)")
        bad = [
            ("SELEC 1", None), ("SELECT 1/0", None), ("SELECT * FROM missing", None), ("SELECT nope FROM er", None),
            ("INSERT INTO er VALUES (1, 1)", None), ("INSERT INTO er VALUES (2, 100)", None), ("INSERT INTO er VALUES (3, NULL)", None),
            ("SELECT %s::int", ["x"]), ("SELECT no_such_function(%s)", [1]), ("SELECT 'abc' COLLATE nope", None),
            ("DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'XY123', DETAIL = 'some detail', HINT = 'some hint',"
             " SCHEMA = 's', TABLE = 't', COLUMN = 'c', DATATYPE = 'd', CONSTRAINT = 'k'; END $$", None),
            ("SELECT * FROM er WHERE id = %s ORDER", [1]), ("VACUUM missing", None), ("SELECT pg_catalog.set_config('work_mem', 'x', false)", None),
        ]
        for statement, parameters in bad:
            refused(conn.execute, statement, parameters)
            print(conn.execute("SELECT count(*) FROM er").fetchone(), conn.info.transaction_status)
        for statement, parameters in bad[:8]:
            conn.execute("BEGIN")
            conn.execute("INSERT INTO er VALUES (50, 50)")
            conn.execute("SAVEPOINT s")
            refused(conn.execute, statement, parameters)
            print(conn.info.transaction_status)
            refused(conn.execute, "SELECT 1")
            conn.execute("ROLLBACK TO s")
            print(conn.info.transaction_status, conn.execute("SELECT count(*) FROM er").fetchone())
            conn.execute("ROLLBACK")
        conn.execute("BEGIN")
        refused(conn.execute, "VACUUM er")
        refused(conn.execute, "SELECT 1")
        print(conn.execute("COMMIT").statusmessage)
        with conn.cursor() as cursor:
            refused(cursor.executemany, "INSERT INTO er VALUES (%s, %s)", [(10, 1), (11, 1), (1, 1), (12, 1)])
        print(conn.execute("SELECT array_agg(id ORDER BY id) FROM er").fetchone())


def notices():
    with connect(autocommit=True) as conn:
        seen = []
        conn.add_notice_handler(lambda d: seen.append((d.severity, d.sqlstate, d.message_primary, d.message_detail)))
        conn.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING DETAIL = 'more'; RAISE INFO 'three'; RAISE DEBUG 'not seen'; END $$")
        conn.execute("DROP TABLE IF EXISTS not_there")
        conn.execute("COMMIT")
        conn.execute("SET client_min_messages = error")
        conn.execute("DO $$ BEGIN RAISE WARNING 'hidden'; END $$")
        for notice in seen:
            print(notice)


def multiple_statements():
    with connect(autocommit=True) as conn:
        cursor = conn.execute("SELECT 1; SELECT 2, 3; CREATE TABLE ms (a int); INSERT INTO ms VALUES (1), (2); SELECT a FROM ms ORDER BY a")
        while True:
            print(cursor.statusmessage, cursor.rowcount, cursor.fetchall() if cursor.description else None)
            if not cursor.nextset():
                break
        # One implicit transaction: nothing of it stays.
        refused(conn.execute, "INSERT INTO ms VALUES (3); SELECT 1/0; INSERT INTO ms VALUES (4)")
        print(conn.execute("SELECT count(*) FROM ms").fetchone())
        refused(conn.execute, "INSERT INTO ms VALUES (3); COMMIT; INSERT INTO ms VALUES (4); SELECT 1/0")
        print(conn.execute("SELECT array_agg(a ORDER BY a) FROM ms").fetchone())
        conn.execute("BEGIN; INSERT INTO ms VALUES (5)")
        print(conn.info.transaction_status)
        conn.execute("INSERT INTO ms VALUES (6); ROLLBACK; SELECT 1")
        print(conn.info.transaction_status, conn.execute("SELECT count(*) FROM ms").fetchone())
        for empty in ("", ";", "  ;; ", "-- comment\n", "/* c */"):
            cursor = conn.execute(empty)
            print(repr(empty), repr(cursor.statusmessage), cursor.description, cursor.pgresult.status)
        cursor = conn.execute("SELECT")
        print(cursor.statusmessage, cursor.fetchall())


def copy():
    with connect() as conn:
        conn.execute("CREATE TABLE cp (id int PRIMARY KEY, v text, b bytea)")
        conn.commit()
        with conn.cursor() as cursor:
            with cursor.copy("COPY cp FROM STDIN") as stream:
                for i in range(1000):
                    stream.write_row((i, "row\t%d\n\\" % i if i % 2 else None, bytes([i % 256])))
            print(cursor.rowcount, cursor.statusmessage)
            with cursor.copy("COPY cp (id, v, b) FROM STDIN (FORMAT binary)") as stream:
                stream.set_types(["int4", "text", "bytea"])
                for i in range(1000, 2000):
                    stream.write_row((i, "binary", b"\x00\xff"))
            print(cursor.rowcount)
            with cursor.copy("COPY (SELECT * FROM cp ORDER BY id) TO STDOUT") as stream:
                print(md5(b"".join(bytes(b) for b in stream)))
            with cursor.copy("COPY (SELECT * FROM cp WHERE id < 3 ORDER BY id) TO STDOUT (FORMAT csv, HEADER)") as stream:
                print(b"".join(bytes(b) for b in stream))
            with cursor.copy("COPY (SELECT * FROM cp ORDER BY id) TO STDOUT (FORMAT binary)") as stream:
                stream.set_types(["int4", "text", "bytea"])
                rows = [(i, v, bytes(b)) for i, v, b in stream.rows()]
                print(len(rows), rows[0], rows[1999])
            conn.commit()
            # Errors of the server, before, in the middle and at the end.
            for statement, data in (
                ("COPY missing FROM STDIN", b""), ("COPY cp FROM STDIN", b"x\ty\tz\n" * 10), ("COPY cp FROM STDIN", b"1\ty\t\n"),
                ("COPY cp FROM STDIN", b"3000\n"), ("COPY cp FROM STDIN", b"4000\ta\t\n" + b"x" * 3000000),
            ):
                try:
                    with cursor.copy(statement) as stream:
                        stream.write(data)
                    print("FAIL: copied")
                except psycopg.Error as e:
                    error(e)
                print(conn.info.transaction_status)
                conn.rollback()
            # Given up by the client.
            try:
                with cursor.copy("COPY cp FROM STDIN") as stream:
                    stream.write_row((5000, "x", b""))
                    raise ValueError("changed my mind")
            except psycopg.Error as e:
                error(e)
            print(conn.info.transaction_status)
            conn.rollback()
            # A reader that stops early.
            try:
                with cursor.copy("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 20000)) TO STDOUT") as stream:
                    stream.read()
                    raise ValueError("enough")
            except ValueError as e:
                print("stopped:", e)
            except psycopg.Error as e:
                error(e)
            conn.rollback()
            print(cursor.execute("SELECT count(*), count(v) FROM cp").fetchone())
    with connect(autocommit=True) as conn:
        with conn.cursor() as cursor, cursor.copy("COPY cp FROM STDIN (FORMAT csv)") as stream:
            stream.write("6000,autocommit,\\x00\n")
        print(conn.execute("SELECT * FROM cp WHERE id = 6000").fetchone())


def cancel():
    with connect(autocommit=True) as conn:
        for in_transaction in (False, True):
            if in_transaction:
                conn.execute("BEGIN")
            mark = "cancel me %s" % in_transaction

            def cancel_it():
                wait_running(mark)
                conn.cancel()

            thread = threading.Thread(target=cancel_it)
            thread.start()
            refused(conn.execute, "SELECT pg_sleep(50) /* %s */" % mark)
            thread.join()
            print(conn.info.transaction_status)
            if in_transaction:
                conn.execute("ROLLBACK")
            print(conn.execute("SELECT 1").fetchone())
        # A cancel request with nothing to cancel does nothing, also to what comes next.
        for _ in range(20):
            conn.cancel()
            conn.execute("SELECT 1") if _ % 2 else None
        time.sleep(0.2)
        print(conn.execute("SELECT 2").fetchone())
        # The server's own time limit.
        conn.execute("BEGIN")
        conn.execute("SET LOCAL statement_timeout = '50ms'")
        refused(conn.execute, "SELECT pg_sleep(50)")
        conn.execute("ROLLBACK")
        print(conn.execute("SHOW statement_timeout").fetchone(), conn.execute("SELECT 3").fetchone())


def listen():
    listener, sender = connect(autocommit=True), connect()
    listener.execute("LISTEN news")
    listener.execute('LISTEN "Odd Channel"')
    got = []

    # Called for those that come with the answer of a statement.
    listener.add_notify_handler(lambda n: got.append((n.channel, n.payload)))

    def notifications(count):
        while len(got) < count:
            for n in iter(listener.pgconn.notifies, None):
                got.append((n.relname.decode(), n.extra.decode()))
            if len(got) < count:
                select.select([listener.fileno()], [], [])
                listener.pgconn.consume_input()

    sender.execute("NOTIFY news, 'rolled back'")
    sender.rollback()
    sender.execute("NOTIFY news, 'one'")
    sender.execute("NOTIFY news, 'one'")  # the same in one transaction: once
    sender.execute("SELECT pg_notify('Odd Channel', 'two')")
    sender.execute("NOTIFY other, 'not listened to'")
    sender.commit()
    notifications(2)
    # The listener goes on working, and hears itself.
    print(listener.execute("SELECT 1").fetchone(), listener.execute("SELECT count(*) FROM pg_listening_channels()").fetchone())
    listener.execute("NOTIFY news, 'self'")
    notifications(3)
    sender.execute("NOTIFY news, '%s'" % ("x" * 7999))
    sender.commit()
    notifications(4)
    listener.execute("UNLISTEN news")
    sender.execute("NOTIFY news, 'unheard'")
    sender.execute("NOTIFY \"Odd Channel\", 'last'")
    sender.commit()
    notifications(5)
    for channel, payload in got:
        print(channel, payload[:20], len(payload))
    refused(sender.execute, "SELECT pg_notify('', 'x')")
    # LISTEN in a transaction that is rolled back is none.
    listener.execute("UNLISTEN *")
    listener.execute("BEGIN; LISTEN news; ROLLBACK; LISTEN real")
    sender.rollback()
    sender.execute("NOTIFY news, 'no'; NOTIFY real, 'yes'")
    sender.commit()
    notifications(6)
    print(got[5])
    listener.close()
    sender.close()


def churn():
    with connect(autocommit=True) as conn:
        conn.execute("CREATE TABLE ch (who int, what int)")
    failures = []

    def client(who):
        try:
            for i in range(8):
                with connect() as conn:
                    conn.execute("INSERT INTO ch VALUES (%s, %s)", [who, i])
                    if i % 4 == 3:
                        conn.rollback()
                    elif i % 4 == 2:
                        conn.commit()
                        conn.execute("INSERT INTO ch VALUES (-1, -1)")
                        conn.pgconn.finish()  # leaves without a word, in a transaction
        except Exception as e:
            failures.append(repr(e))

    threads = [threading.Thread(target=client, args=(who,)) for who in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("failures", failures)
    with connect() as conn:
        conn.execute("SET TRANSACTION READ WRITE")  # on the primary: it counts what others wrote
        conn.execute("LOCK TABLE ch")
        print(conn.execute("SELECT count(*), sum(who), sum(what) FROM ch").fetchone())


def pipeline():
    with connect(autocommit=True) as conn:
        conn.execute("CREATE TABLE pl (id int PRIMARY KEY)")
        with conn.pipeline() as p, conn.cursor() as cursor:
            cursor.executemany("INSERT INTO pl VALUES (%s)", [(i,) for i in range(500)])
            p.sync()
            many = [conn.execute("SELECT count(*), %s::int FROM pl WHERE id < %s", [i, i]) for i in range(100)]
            p.sync()
            print(sum(c.fetchone()[0] for c in many))
        # An error in the middle: what follows up to the Sync is aborted. The
        # driver raises it as soon as it has come.
        conn.execute("TRUNCATE pl")
        try:
            with conn.pipeline():
                for i in (1, 1, 2):
                    conn.execute("INSERT INTO pl VALUES (%s)", [i])
        except psycopg.Error as e:
            error(e)
        with conn.pipeline():
            conn.execute("INSERT INTO pl VALUES (3)")
        print(conn.execute("SELECT array_agg(id) FROM pl").fetchone())
        # A transaction inside, and many Syncs in flight.
        with conn.pipeline() as p:
            with conn.transaction():
                for i in range(10, 20):
                    conn.execute("INSERT INTO pl VALUES (%s)", [i])
            cursors = []
            for i in range(200):
                cursors.append(conn.execute("SELECT %s::int", [i], prepare=True))
                if i % 20 == 0:
                    p.sync()
            print(sum(c.fetchone()[0] for c in cursors))
        print(conn.execute("SELECT count(*) FROM pl").fetchone(), conn.info.transaction_status)


def raw_pipeline():
    """Syncs, Flush and errors by libpq's own pipeline functions."""
    from psycopg.pq import ExecStatus, PGconn
    conn = PGconn.connect(b"")
    conn.enter_pipeline_mode()
    conn.send_query_params(b"CREATE TABLE rp (id int PRIMARY KEY)", None)
    conn.pipeline_sync()
    conn.send_prepare(b"ins", b"INSERT INTO rp VALUES ($1)")
    conn.send_describe_prepared(b"ins")
    for i in range(50):
        conn.send_query_prepared(b"ins", [b"%d" % i])
        if i % 7 == 0:
            conn.pipeline_sync()
    conn.send_query_prepared(b"ins", [b"1"])
    conn.send_query_prepared(b"ins", [b"1000"])
    conn.pipeline_sync()
    conn.send_query_params(b"BEGIN", None)
    conn.send_query_prepared(b"ins", [b"2000"])
    conn.pipeline_sync()
    conn.send_query_prepared(b"ins", [b"x"])
    conn.pipeline_sync()
    conn.send_query_params(b"SELECT 1", None)
    conn.pipeline_sync()
    conn.send_query_params(b"ROLLBACK", None)
    conn.send_query_params(b"SELECT count(*) FROM rp", None)
    conn.send_flush_request()
    conn.flush()
    syncs = 0
    while syncs < 13:
        result = conn.get_result()
        if result is None:
            continue
        status = ExecStatus(result.status)
        if status == ExecStatus.PIPELINE_SYNC:
            syncs += 1
            print("sync", conn.transaction_status)
        elif status == ExecStatus.FATAL_ERROR:
            print("error", result.error_field(67), result.error_field(77))
        else:
            print(status.name, result.command_status, result.get_value(0, 0) if result.ntuples else "")
    # The answers of what was only flushed, before any Sync.
    for _ in range(4):
        result = conn.get_result()
        if result is not None:
            print(ExecStatus(result.status).name, result.command_status, result.get_value(0, 0) if result.ntuples else "")
    conn.pipeline_sync()
    conn.flush()
    result = None
    while result is None:
        result = conn.get_result()
    print(ExecStatus(result.status).name)
    conn.exit_pipeline_mode()
    print(conn.exec_(b"SELECT 7").get_value(0, 0))
    conn.finish()


def large():
    with connect() as conn:
        conn.execute("CREATE TABLE lg (id int, t text, b bytea)")
        for id in (1, 2):
            conn.execute("INSERT INTO lg VALUES (%s, %s, %b)", [id, "abcdefghij" * (BIG // 10), bytes(BIG)])
            conn.commit()
        for binary in (False, True):
            row = conn.cursor(binary=binary).execute("SELECT t, b FROM lg WHERE id = 1").fetchone()
            print(len(row[0]), md5(row[0]), len(row[1]), md5(row[1]))
            conn.rollback()
        print(conn.execute("SELECT sum(length(t)), sum(length(b)) FROM lg").fetchone())
        print(md5(conn.execute("SELECT '" + "y" * BIG + "'").fetchone()[0]))
        conn.execute("TRUNCATE lg")


def cursors():
    with connect() as conn:
        conn.execute("CREATE TABLE cu AS SELECT i AS id, 'row ' || i AS v FROM generate_series(1, 5000) i")
        conn.commit()
        with conn.cursor("named") as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT * FROM cu ORDER BY id")
            print(cursor.fetchone(), len(cursor.fetchmany(250)), sum(1 for _ in cursor))
        conn.commit()
        with conn.cursor("scrolling", scrollable=True) as cursor:
            cursor.execute("SELECT id FROM cu ORDER BY id")
            cursor.scroll(4990, mode="absolute")
            print(cursor.fetchall())
            cursor.scroll(-20)
            print(cursor.fetchmany(3))
        conn.commit()
        with conn.cursor("held", withhold=True) as cursor:
            cursor.execute("SELECT id FROM cu ORDER BY id")
            print(cursor.fetchmany(2))
            conn.commit()
            print(cursor.fetchmany(2))
            conn.commit()
            for _ in range(5):
                conn.execute("SELECT 1")
                conn.commit()
            print(cursor.fetchmany(2))
        conn.commit()
        with connect() as other:
            refused(other.execute, "FETCH 1 FROM held")
        conn.execute("DECLARE up CURSOR FOR SELECT * FROM cu WHERE id < 10 FOR UPDATE")
        conn.execute("FETCH 3 FROM up")
        print(conn.execute("UPDATE cu SET v = 'current' WHERE CURRENT OF up").rowcount)
        conn.commit()
        print(conn.execute("SELECT id FROM cu WHERE v = 'current'").fetchone())
        conn.commit()
        refused(conn.execute, "FETCH 1 FROM up")
        conn.rollback()
        count = 0
        for row in conn.cursor().stream("SELECT id, v FROM cu ORDER BY id"):  # single-row mode
            count += row[0]
        print(count)


def session_state():
    conn = connect(autocommit=True)
    others = [connect(autocommit=True) for _ in range(3)]

    def stir():
        """Lets other clients use the server connections."""
        for other in others:
            other.execute("SELECT 1")
            other.execute("BEGIN")
        for other in others:
            other.execute("ROLLBACK")

    stir()
    conn.execute("CREATE SCHEMA mine")
    conn.execute("SET search_path = mine, public")
    conn.execute("SET TimeZone = 'Asia/Tokyo'")
    conn.execute("SET my.variable = 'kept'")
    conn.execute("SELECT set_config('work_mem', '5MB', false)")
    conn.execute("SET DateStyle = 'German'")
    stir()
    for name in ("search_path", "TimeZone", "my.variable", "work_mem", "DateStyle"):
        print(name, conn.execute("SHOW " + name).fetchone(), conn.info.parameter_status(name))
    conn.execute("CREATE TABLE here (a int)")
    stir()
    print(conn.execute("SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'here'").fetchone())
    print(conn.execute("SELECT '2024-01-02 03:04:05+00'::timestamptz::text").fetchone())
    conn.execute("BEGIN")
    conn.execute("SET LOCAL work_mem = '6MB'")
    conn.execute("SET TimeZone = 'UTC'")
    conn.execute("ROLLBACK")
    stir()
    print(conn.execute("SHOW work_mem").fetchone(), conn.execute("SHOW TimeZone").fetchone(), conn.info.parameter_status("TimeZone"))
    for other in others:
        print(other.execute("SHOW TimeZone").fetchone(), other.execute("SELECT coalesce(current_setting('my.variable', true), '')").fetchone())
    conn.execute("CREATE TEMP TABLE tmp (a int)")
    conn.execute("INSERT INTO tmp VALUES (1)")
    stir()
    print(conn.execute("SELECT * FROM tmp").fetchall())
    refused(others[0].execute, "SELECT * FROM tmp")
    print(conn.execute("SELECT pg_try_advisory_lock(42)").fetchone())
    stir()
    print([other.execute("SELECT pg_try_advisory_lock(42)").fetchone() for other in others])
    print(conn.execute("SELECT pg_advisory_unlock(42)").fetchone())
    conn.execute("RESET ALL")
    stir()
    print(conn.execute("SHOW work_mem").fetchone(), conn.execute("SHOW search_path").fetchone(), conn.info.parameter_status("TimeZone"))
    conn.execute("DISCARD ALL")
    stir()
    refused(conn.execute, "SELECT * FROM tmp")
    conn.execute("CREATE SEQUENCE sq")
    print(conn.execute("SELECT nextval('sq')").fetchone(), conn.execute("SELECT currval('sq')").fetchone())
    for c in [conn] + others:
        c.close()


def functions():
    with connect(autocommit=True) as conn:
        conn.execute("CREATE FUNCTION add_row(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO fn VALUES ($1); RETURN $1; END $$")
        conn.execute("CREATE TABLE fn (a int)")
        conn.execute("CREATE PROCEDURE twice(int) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO fn VALUES ($1); COMMIT; INSERT INTO fn VALUES ($1); ROLLBACK; END $$")
        print(conn.execute("SELECT add_row(%s)", [1]).fetchone())
        conn.execute("CALL twice(%s)", [2])
        print(conn.execute("SELECT array_agg(a ORDER BY a) FROM fn").fetchone())
        with conn.cursor(row_factory=dict_row) as cursor:
            print(cursor.execute("SELECT count(*) AS n FROM fn").fetchone())
        print(conn.execute(sql.SQL("SELECT {} FROM {}").format(sql.Literal("it's"), sql.Identifier("fn"))).fetchall())
        conn.execute("WITH x AS (INSERT INTO fn VALUES (3) RETURNING a) SELECT * FROM x")
        print(conn.execute("SELECT max(a) FROM fn").fetchone())


def read_own_writes():
    with connect(autocommit=True) as conn:
        conn.execute("CREATE TABLE rw (id serial PRIMARY KEY, v int)")
        missed = 0
        for i in range(300):
            conn.execute("INSERT INTO rw (v) VALUES (%s)", [i])
            if conn.execute("SELECT count(*) FROM rw").fetchone() != (i + 1,):
                missed += 1
        print("missed", missed)


def asynchronous():
    async def one(number):
        async with await psycopg.AsyncConnection.connect("") as conn:
            async with conn.cursor() as cursor:
                await cursor.execute("SELECT %s::int, pg_sleep(0.01)", [number])
                return (await cursor.fetchone())[0]

    async def all():
        return sum(await asyncio.gather(*[one(i) for i in range(20)]))

    print(asyncio.run(all()))


run([
    connection, types, own_types, prepared, prepared_alter, sql_prepared, transactions, two_phase, errors, notices,
    multiple_statements, copy, cancel, listen, churn, pipeline, raw_pipeline, large, cursors, session_state, functions,
    read_own_writes, asynchronous,
], sys.argv[1:])
