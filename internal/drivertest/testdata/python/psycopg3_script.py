"""psycopg 3, as its users use it."""

import datetime as dt
import decimal
import ipaddress
import os
import sys
import uuid

import psycopg
from psycopg.types.json import Jsonb
from psycopg.types.range import Range

from psycopg3_connect import connect
from psycopg3_streams import (
    copy, cancel, listen, churn, pipeline, raw_pipeline, large, cursors, session_state, functions, read_own_writes, asynchronous,
)
from transcript import error, refused, run


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


run([
    connection, types, own_types, prepared, prepared_alter, sql_prepared, transactions, two_phase, errors, notices,
    multiple_statements, copy, cancel, listen, churn, pipeline, raw_pipeline, large, cursors, session_state, functions,
    read_own_writes, asynchronous,
], sys.argv[1:])
