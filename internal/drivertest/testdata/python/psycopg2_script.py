"""psycopg2, as its users use it: simple protocol, client-side parameters.

Connects by libpq's environment.
"""

import datetime as dt
import decimal
import io
import os
import select
import sys
import threading
import time
import uuid

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool

from transcript import BIG, error, md5, refused, run

psycopg2.extras.register_uuid()


def connect(autocommit=False, **options):
    conn = psycopg2.connect("", **options)
    conn.autocommit = autocommit
    return conn


def ask(conn, statement, parameters=None):
    with conn.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else cursor.statusmessage


def wait_running(mark):
    """Returns when a statement that holds the mark runs, on whatever node."""
    nodes = [
        connect(autocommit=True, host="127.0.0.1", port=port, user="postgres", sslmode="disable", channel_binding="disable")
        for port in os.environ["NODE_PORTS"].split()
    ]
    while not any(
        ask(
            node, "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
            " AND pid <> pg_backend_pid() AND query LIKE %s", ["%" + mark + "%"]
        ) for node in nodes
    ):
        time.sleep(0.01)
    for node in nodes:
        node.close()


def connection():
    conn = connect()
    for name in ("server_version", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings", "is_superuser"):
        print(name, conn.get_parameter_status(name))
    print(conn.server_version, conn.protocol_version, conn.encoding, conn.status, conn.get_transaction_status(), conn.info.ssl_in_use)
    print(ask(conn, "SELECT current_user, 1 + 1"), conn.get_transaction_status())
    conn.set_client_encoding("LATIN1")
    print(conn.encoding, ask(conn, "SELECT 'h\u00e9'"), conn.get_parameter_status("client_encoding"))
    conn.reset()
    print(conn.encoding)
    conn.close()
    for options in ({"password": "wrong"}, {"user": "nobody_here"}, {"dbname": "no_such_database"}, {"sslrootcert": os.environ["WRONG_CA"]}):
        try:
            connect(**options)
            print("FAIL: connected", options)
        except psycopg2.OperationalError as e:
            print(list(options), str(e).rsplit(": ", 1)[-1].strip())


def types():
    conn = connect(autocommit=True)
    for name, value in [
        ("boolean", True), ("smallint", -32768), ("integer", 2147483647), ("bigint", -(2**63)),
        ("numeric", decimal.Decimal("-12345678901234567890.123456789")), ("numeric", decimal.Decimal("NaN")),
        ("real", 1.5), ("double precision", 0.1), ("double precision", float("inf")),
        ("text", ""), ("text", "h\u00e9llo \u4e16\u754c \U0001f600 'quoted' \\ %s $1 ?"), ("char(5)", "abc"), ("bytea", bytes(range(256))),
        ("date", dt.date(2024, 2, 29)), ("time", dt.time(23, 59, 59, 999999)), ("timestamp", dt.datetime(1999, 12, 31, 23, 59, 59, 123456)),
        ("timestamptz", dt.datetime(2024, 7, 1, 12, 0, tzinfo=dt.timezone.utc)), ("interval", dt.timedelta(days=3, seconds=4, microseconds=5)),
        ("uuid", uuid.UUID("12345678-1234-5678-1234-567812345678")), ("jsonb", psycopg2.extras.Json({"a": [1, None, "x"]})),
        ("integer[]", [1, 2, 3]), ("text[]", ["a", None, 'q"\\,{}']), ("int4range", psycopg2.extras.NumericRange(1, 10)), ("text", None),
    ]:
        with conn.cursor() as cursor:
            cursor.execute("SELECT (%%s)::%s AS v" % name, [value])
            got = cursor.fetchone()[0]
            print(name, repr(bytes(got) if isinstance(got, memoryview) else got), cursor.description[0].type_code)
    conn.close()


def sql_prepared():
    conn, other = connect(), connect(autocommit=True)
    ask(conn, "CREATE TABLE sp (id int, v text)")
    ask(conn, "PREPARE ins (int, text) AS INSERT INTO sp VALUES ($1, $2)")
    ask(conn, "PREPARE sel AS SELECT * FROM sp WHERE id = $1")
    conn.commit()
    ask(other, "PREPARE sel AS SELECT 'of another client'")
    for i in range(10):
        ask(conn, "EXECUTE ins (%s, %s)", [i, "x%d" % i])
        conn.commit()
        print(ask(conn, "EXECUTE sel (%s)", [i]), ask(other, "EXECUTE sel"))
        conn.rollback()
    ask(conn, "ALTER TABLE sp ADD COLUMN w int")
    conn.commit()
    refused(ask, conn, "EXECUTE sel (1)")
    conn.rollback()
    ask(conn, "DEALLOCATE sel")
    ask(conn, "PREPARE sel AS SELECT * FROM sp WHERE id = $1")
    print(ask(conn, "EXECUTE sel (1)"))
    conn.rollback()  # a prepared statement outlives the transaction it was made in
    print(ask(conn, "EXECUTE sel (2)"))
    conn.rollback()
    refused(ask, other, "EXECUTE ins (1, 'x')")
    with conn.cursor() as cursor:
        cursor.execute("PREPARE many AS INSERT INTO sp (id) VALUES ($1)")
        psycopg2.extras.execute_batch(cursor, "EXECUTE many (%s)", [(i,) for i in range(100, 350)], page_size=50)
        psycopg2.extras.execute_values(cursor, "INSERT INTO sp (id, v) VALUES %s", [(i, "v") for i in range(1000, 1500)])
        cursor.execute("DEALLOCATE many")
    conn.commit()
    print(ask(conn, "SELECT count(*), sum(id) FROM sp"))
    conn.close()
    other.close()


def transactions():
    with connect() as conn:
        ask(conn, "CREATE TABLE tx (id int PRIMARY KEY)")
    conn = connect()
    with conn:
        ask(conn, "INSERT INTO tx VALUES (1)")
    try:
        with conn:
            ask(conn, "INSERT INTO tx VALUES (2)")
            raise ValueError("no")
    except ValueError:
        print("rolled back", conn.get_transaction_status())
    with conn:
        ask(conn, "SAVEPOINT a")
        refused(ask, conn, "INSERT INTO tx VALUES (1)")
        refused(ask, conn, "SELECT 1")
        ask(conn, "ROLLBACK TO SAVEPOINT a")
        ask(conn, "INSERT INTO tx VALUES (3)")
        ask(conn, "RELEASE SAVEPOINT a")
    print(ask(conn, "SELECT array_agg(id ORDER BY id) FROM tx"))
    conn.rollback()
    for level, readonly, deferrable in (("SERIALIZABLE", True, True), ("REPEATABLE READ", False, False), ("DEFAULT", None, None)):
        conn.set_session(isolation_level=level, readonly=readonly, deferrable=deferrable)
        print([ask(conn, "SHOW transaction_" + n) for n in ("isolation", "read_only", "deferrable")])
        if readonly:
            refused(ask, conn, "INSERT INTO tx VALUES (9)")
        conn.rollback()
    conn.set_session(autocommit=True, isolation_level="SERIALIZABLE", readonly=True)
    print(ask(conn, "SHOW default_transaction_isolation"), ask(conn, "SHOW transaction_read_only"))
    refused(ask, conn, "INSERT INTO tx VALUES (9)")
    conn.set_session(autocommit=True, isolation_level="DEFAULT", readonly="DEFAULT")
    print(ask(conn, "SHOW default_transaction_isolation"), ask(conn, "INSERT INTO tx VALUES (10)"))
    conn.autocommit = False
    for finish in ("tpc_commit", "tpc_rollback"):
        conn.tpc_begin(conn.xid(7, os.environ["PGDATABASE"] + finish, "b"))
        ask(conn, "INSERT INTO tx VALUES (%s)", [20 if finish == "tpc_commit" else 21])
        conn.tpc_prepare()
        getattr(conn, finish)()
    print(ask(conn, "SELECT array_agg(id ORDER BY id) FROM tx"))
    conn.close()
    print(conn.closed)


def errors():
    conn = connect(autocommit=True)
    ask(conn, "CREATE TABLE er (id int PRIMARY KEY, v int NOT NULL)")
    for statement in (
        "SELEC 1", "SELECT 1/0", "SELECT * FROM missing", "INSERT INTO er VALUES (1, NULL)", "SELECT 'x'::int",
        "SELECT 1; SELECT 1/0", "DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'XY123', DETAIL = 'd', HINT = 'h'; END $$",
    ):
        refused(ask, conn, statement)
        print(ask(conn, "SELECT 1"), conn.get_transaction_status())
    conn.autocommit = False
    for statement in ("SELEC 1", "SELECT 1/0", "INSERT INTO er VALUES (1, NULL)"):
        refused(ask, conn, statement)
        refused(ask, conn, "SELECT 1")
        print(conn.get_transaction_status())
        conn.rollback()
        print(ask(conn, "SELECT 1"))
        conn.rollback()
    conn.close()


def notices_and_statements():
    conn = connect(autocommit=True)
    ask(conn, "DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
    ask(conn, "DROP TABLE IF EXISTS not_there")
    print(conn.notices)
    print(ask(conn, "SELECT 1; SELECT 2, 3"), ask(conn, "CREATE TABLE ms (a int); INSERT INTO ms VALUES (1), (2)"))
    refused(ask, conn, "INSERT INTO ms VALUES (3); SELECT 1/0")
    print(ask(conn, "SELECT count(*) FROM ms"))
    refused(ask, conn, "")
    print(ask(conn, "SELECT 1"))
    conn.close()


def copy():
    conn = connect()
    with conn.cursor() as cursor:
        cursor.execute("CREATE TABLE cp (id int, v text)")
        cursor.copy_from(io.StringIO("".join("%d\tv%d\n" % (i, i) for i in range(2000))), "cp")
        print(cursor.rowcount)
        cursor.copy_expert("COPY cp FROM STDIN (FORMAT csv)", io.StringIO("5000,\"a\nb\"\n"))
        conn.commit()
        out = io.StringIO()
        cursor.copy_to(out, "cp", columns=("id", "v"))
        print(len(out.getvalue()), md5(out.getvalue()))
        binary = io.BytesIO()
        cursor.copy_expert("COPY cp TO STDOUT (FORMAT binary)", binary)
        print(len(binary.getvalue()), md5(binary.getvalue()))
        cursor.execute("TRUNCATE cp")
        binary.seek(0)
        cursor.copy_expert("COPY cp FROM STDIN (FORMAT binary)", binary)
        conn.commit()
        refused(cursor.copy_from, io.StringIO("x\ty\n" * 1000), "cp")
        conn.rollback()

        class Broken:
            def read(self, size):
                raise ValueError("cannot read")

        try:
            cursor.copy_expert("COPY cp FROM STDIN", Broken())
        except psycopg2.Error as e:
            print(e.pgcode, "cannot read" in str(e))
        conn.rollback()
        cursor.execute("SELECT count(*), sum(id) FROM cp")
        print(cursor.fetchall())
    conn.close()


def cancel():
    conn = connect(autocommit=True)
    for transaction in (False, True):
        conn.autocommit = not transaction
        mark = "cancel me %s" % transaction

        def cancel_it():
            wait_running(mark)
            conn.cancel()

        thread = threading.Thread(target=cancel_it)
        thread.start()
        refused(ask, conn, "SELECT pg_sleep(50) /* %s */" % mark)
        thread.join()
        print(conn.get_transaction_status())
        conn.rollback()
        print(ask(conn, "SELECT 1"))
        conn.rollback()
    conn.close()


def listen():
    listener, sender = connect(autocommit=True), connect(autocommit=True)
    ask(listener, "LISTEN news")
    got = []

    def notifications(count):
        while len(got) < count:
            got.extend(listener.notifies)
            del listener.notifies[:]
            if len(got) < count:
                select.select([listener], [], [])
                listener.poll()

    ask(sender, "NOTIFY news, 'one'")
    notifications(1)
    ask(sender, "BEGIN")
    ask(sender, "NOTIFY news, 'two'")
    ask(sender, "COMMIT")
    notifications(2)
    print(ask(listener, "SELECT 1"))
    ask(listener, "NOTIFY news, 'self'")
    notifications(3)
    ask(listener, "UNLISTEN *")
    ask(sender, "NOTIFY news, 'unheard'")
    print([(n.channel, n.payload) for n in got], ask(listener, "SELECT 1"), listener.notifies)
    listener.close()
    sender.close()


def churn():
    conn = connect(autocommit=True)
    ask(conn, "CREATE TABLE ch (a int)")
    pool = psycopg2.pool.ThreadedConnectionPool(2, 16, "")
    failures = []

    def client(who):
        try:
            for i in range(10):
                if i % 2:
                    mine = pool.getconn()
                    ask(mine, "INSERT INTO ch VALUES (%s)", [who])
                    mine.commit()
                    pool.putconn(mine, close=i % 3 == 0)
                else:
                    mine = connect()
                    ask(mine, "INSERT INTO ch VALUES (-1)")
                    mine.close()  # without COMMIT
        except Exception as e:
            failures.append(repr(e))

    threads = [threading.Thread(target=client, args=(who,)) for who in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.closeall()
    print("failures", failures)
    ask(conn, "BEGIN READ WRITE")
    print(ask(conn, "SELECT count(*), sum(a) FROM ch"))
    conn.close()


def large():
    conn = connect()
    ask(conn, "CREATE TABLE lg (t text, b bytea)")
    ask(conn, "INSERT INTO lg VALUES (%s, %s)", ["abcdefghij" * (BIG // 10), bytes(BIG // 2)])
    conn.commit()
    t, b = ask(conn, "SELECT t, b FROM lg")[0]
    print(len(t), md5(t), len(b), md5(b))
    print(ask(conn, "SELECT length(%s)", ["y" * BIG]))
    ask(conn, "TRUNCATE lg")
    conn.commit()
    conn.close()


def cursors():
    conn = connect()
    ask(conn, "CREATE TABLE cu AS SELECT i AS id FROM generate_series(1, 5000) i")
    conn.commit()
    with conn.cursor("named") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT id FROM cu ORDER BY id")
        print(cursor.fetchone(), len(cursor.fetchmany(250)), sum(row[0] for row in cursor))
    conn.commit()
    with conn.cursor("scrolling", scrollable=True, withhold=True) as cursor:
        cursor.execute("SELECT id FROM cu ORDER BY id")
        cursor.scroll(4990)
        conn.commit()
        for _ in range(5):
            ask(conn, "SELECT 1")
            conn.commit()
        cursor.scroll(-10)
        print(cursor.fetchmany(3))
    conn.commit()
    conn.close()


def large_objects():
    """libpq's lo_ functions use the protocol's function call."""
    conn = connect()
    lob = conn.lobject(0, "wb")
    oid = lob.oid
    lob.write(b"0123456789" * 100000)
    lob.seek(5)
    lob.write(b"XXXXX")
    lob.close()
    conn.commit()
    lob = conn.lobject(oid, "rb")
    data = lob.read()
    print(len(data), md5(data), lob.seek(3), lob.read(10), lob.tell())
    conn.commit()
    lob = conn.lobject(oid, "rwb")
    lob.truncate(10)
    print(lob.seek(0, 2))
    lob.unlink()
    conn.commit()
    try:
        conn.lobject(oid, "rb")
        print("FAIL: there")
    except psycopg2.Error as e:
        print(type(e).__name__, "does not exist" in str(e), conn.get_transaction_status())
    conn.rollback()
    print(ask(conn, "SELECT 1"))
    conn.close()


def session_state():
    conn, others = connect(autocommit=True), [connect(autocommit=True) for _ in range(3)]

    def stir():
        """Lets other clients use the server connections."""
        for other in others:
            ask(other, "BEGIN")
            ask(other, "SELECT 1")
        for other in others:
            ask(other, "COMMIT")

    ask(conn, "SET search_path TO pg_catalog; SET TimeZone TO 'Asia/Tokyo'; SET application_name = 'mine'")
    stir()
    print(ask(conn, "SHOW search_path"), ask(conn, "SHOW timezone"), conn.get_parameter_status("TimeZone"), conn.get_parameter_status("application_name"))
    print([ask(other, "SHOW timezone") for other in others])
    ask(conn, "CREATE TEMP TABLE tmp AS SELECT 1 AS a")
    stir()
    print(ask(conn, "SELECT * FROM tmp"))
    conn.reset()  # ABORT, DISCARD ALL
    conn.autocommit = True
    stir()
    print(ask(conn, "SHOW search_path"), ask(conn, "SHOW timezone"))
    refused(ask, conn, "SELECT * FROM tmp")
    for c in [conn] + others:
        c.close()


def asynchronous():
    """The driver's own event loop interface."""
    def wait(conn):
        while True:
            state = conn.poll()
            if state == psycopg2.extensions.POLL_OK:
                return
            select.select([conn] if state == psycopg2.extensions.POLL_READ else [], [conn] if state == psycopg2.extensions.POLL_WRITE else [], [])

    conn = psycopg2.connect("", async_=True)
    wait(conn)
    cursor = conn.cursor()
    for statement in ("SELECT 1", "SELECT pg_sleep(0.01)", "SELECT 'x' FROM generate_series(1, 1000)"):
        cursor.execute(statement)
        wait(conn)
        print(len(cursor.fetchall()))
    conn.close()


run([
    connection, types, sql_prepared, transactions, errors, notices_and_statements, copy, cancel, listen, churn, large, cursors,
    large_objects, session_state, asynchronous,
], sys.argv[1:])
