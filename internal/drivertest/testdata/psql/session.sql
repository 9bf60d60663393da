-- What people type into psql, and what scripts feed it. Run with -X -q.
\set VERBOSITY verbose
\set SHOW_CONTEXT always
\pset pager off
\echo == connection
SELECT current_user, session_user, 1 + 1 AS two;
\encoding
\echo :SERVER_VERSION_NAME :USER :ENCODING
SHOW application_name;
\echo == describe
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, born date, balance numeric(12,2) DEFAULT 0 CHECK (balance >= 0));
CREATE INDEX customers_name ON customers (lower(name));
CREATE VIEW rich AS SELECT * FROM customers WHERE balance > 100;
CREATE FUNCTION greet(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'hello ' || $1 $$;
COMMENT ON TABLE customers IS 'who pays';
\d customers
\d+ rich
\dt
\df greet
\di
\dn
\sf greet
\z customers
\echo == rows
INSERT INTO customers SELECT i, 'customer ' || i, date '2000-01-01' + i, i * 1.5 FROM generate_series(1, 200) i;
SELECT * FROM customers ORDER BY id LIMIT 3;
\x on
SELECT * FROM rich ORDER BY id LIMIT 2;
\x off
\a
\t on
SELECT id, name FROM customers WHERE id IN (5, 6) ORDER BY 1;
\t off
\a
SELECT id % 3 AS r, id % 2 AS c, count(*) FROM customers GROUP BY 1, 2 ORDER BY 1, 2 \crosstabview r c count
SELECT 1 AS a, 'x'::varchar(3) AS b, now() AS c \gdesc
SELECT max(id) AS top, min(name) AS first FROM customers \gset
\echo :top :first
SELECT format('SELECT %s AS n', i) FROM generate_series(1, 3) i \gexec
TABLE customers ORDER BY id DESC FETCH FIRST 1 ROW ONLY;
VALUES (1, 'a'), (2, NULL);
\echo == fetch count
\set FETCH_COUNT 7
SELECT id FROM customers WHERE id <= 20 ORDER BY id;
SELECT 1 / (10 - id) FROM customers WHERE id < 20 ORDER BY id;
\unset FETCH_COUNT
\echo == errors
SELEC 1;
SELECT 1/0;
SELECT * FROM missing;
INSERT INTO customers VALUES (1, 'twice');
INSERT INTO customers VALUES (1000, 'poor', NULL, -1);
SELECT 'after errors';
\errverbose
\echo == transactions
BEGIN;
INSERT INTO customers VALUES (300, 'in transaction');
SELECT nope;
SELECT 1;
COMMIT;
SELECT count(*) FROM customers WHERE id = 300;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SHOW transaction_isolation;
DELETE FROM customers;
ROLLBACK;
\set ON_ERROR_ROLLBACK on
BEGIN;
INSERT INTO customers VALUES (301, 'kept');
SELECT 1/0;
INSERT INTO customers VALUES (302, 'kept too');
COMMIT;
\set ON_ERROR_ROLLBACK off
\set AUTOCOMMIT off
INSERT INTO customers VALUES (303, 'not kept');
ROLLBACK;
SELECT count(*) FROM customers WHERE id >= 300;
COMMIT;
\set AUTOCOMMIT on
SAVEPOINT nowhere;
COMMIT AND CHAIN;
\echo == several statements
SELECT 1 \; SELECT 2 \; SELECT 3;
INSERT INTO customers VALUES (400, 'x') \; SELECT 1/0;
SELECT count(*) FROM customers WHERE id = 400;
BEGIN \; INSERT INTO customers VALUES (401, 'y') \; COMMIT \; SELECT count(*) FROM customers WHERE id = 401;
;
\echo == notices
DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING HINT = 'a hint'; END $$;
DROP TABLE IF EXISTS not_there;
\echo == copy
COPY customers (id, name) FROM STDIN;
500	five hundred
501	tab\tinside
\.
COPY (SELECT id, name FROM customers WHERE id >= 500 ORDER BY id) TO STDOUT (FORMAT csv, HEADER);
\copy (SELECT id, name FROM customers ORDER BY id) TO PROGRAM 'cksum'
COPY customers FROM STDIN;
not a number	x	y	z
\.
SELECT 'after COPY', count(*) FROM customers;
\echo == prepared
PREPARE by_id (int) AS SELECT name FROM customers WHERE id = $1;
EXECUTE by_id (1);
EXECUTE by_id (2);
BEGIN;
EXECUTE by_id (3);
COMMIT;
EXPLAIN (COSTS off) EXECUTE by_id (4);
DEALLOCATE by_id;
EXECUTE by_id (1);
PREPARE again AS SELECT 1;
DEALLOCATE ALL;
EXECUTE again;
\echo == cursors
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM customers ORDER BY id;
FETCH 3 FROM c;
FETCH PRIOR FROM c;
MOVE LAST FROM c;
FETCH RELATIVE -1 FROM c;
CLOSE c;
COMMIT;
DECLARE held CURSOR WITH HOLD FOR SELECT id FROM customers ORDER BY id;
FETCH held;
SELECT 'between';
FETCH held;
CLOSE ALL;
FETCH held;
\echo == settings
SET work_mem = '5MB';
SHOW work_mem;
SELECT 'between';
SHOW work_mem;
BEGIN;
SET LOCAL work_mem = '6MB';
SHOW work_mem;
COMMIT;
SHOW work_mem;
BEGIN;
SET work_mem = '7MB';
ROLLBACK;
SHOW work_mem;
RESET work_mem;
SHOW work_mem;
SET search_path = pg_catalog;
SELECT to_regclass('customers');
RESET search_path;
SELECT to_regclass('customers');
SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE;
SHOW transaction_isolation;
RESET ALL;
SHOW transaction_isolation;
SET client_encoding = 'LATIN1';
\encoding
SELECT length('hé');
\encoding UTF8
SELECT length('hé');
\echo == temporary
CREATE TEMP TABLE tmp (a int) ON COMMIT PRESERVE ROWS;
INSERT INTO tmp VALUES (1), (2);
SELECT sum(a) FROM tmp;
DISCARD TEMP;
SELECT sum(a) FROM tmp;
SELECT nextval('pg_catalog.nothing');
CREATE SEQUENCE seq;
SELECT nextval('seq'), nextval('seq');
SELECT currval('seq'), lastval();
DISCARD ALL;
SELECT currval('seq');
SELECT pg_advisory_lock(7);
SELECT pg_advisory_unlock(7), pg_advisory_unlock(7);
\echo == listen
LISTEN news;
NOTIFY news, 'to myself';
SELECT count(*) FROM pg_listening_channels();
UNLISTEN *;
NOTIFY news, 'unheard';
SELECT count(*) FROM pg_listening_channels();
\echo == explain
EXPLAIN (COSTS off) SELECT * FROM customers WHERE id = 1;
EXPLAIN (COSTS off, ANALYZE, TIMING off, SUMMARY off) UPDATE customers SET balance = balance WHERE id = 1;
\echo == large objects
\lo_import testdata/psql/session.sql 'this file'
\lo_export :LASTOID /dev/null
SELECT length(lo_get(:LASTOID)) > 1000 AS imported;
\lo_unlink :LASTOID
\echo == reconnect
SET work_mem = '5MB';
\connect - - - -
SHOW work_mem;
SELECT 'done' AS "the end";
