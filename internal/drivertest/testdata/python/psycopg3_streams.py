"""psycopg 3: the sections that stream, wait, or share connections."""

import asyncio
import select
import threading
import time

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from psycopg3_connect import connect, wait_running
from transcript import BIG, error, md5, refused, run


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
