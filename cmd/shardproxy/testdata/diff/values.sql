CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE facts (
    k bigint, id int, i2 smallint, i4 int, i8 bigint, n numeric, m numeric(12,3), f4 real, f8 double precision, b boolean, t text, tc text COLLATE "C",
    vc varchar(20), c char(5), d date, ts timestamp, tz timestamptz, iv interval, u uuid, by bytea, PRIMARY KEY (k, id));
CREATE TABLE sums (
    k bigint, id int, i2 smallint, i4 int, i8 bigint, n numeric, m numeric(12,3), f4 real, f8 double precision, b boolean, t text,
    vc varchar(20), c char(5), d date, ts timestamp, tz timestamptz, iv interval, PRIMARY KEY (k, id));
CREATE TABLE shapes (
    k bigint PRIMARY KEY, a int[], ta text[], j json, jb jsonb, bt bit(4), vb varbit, ip inet, mo mood, r int4range, tm time, cu money, oi oid);
CREATE TABLE nothing (k bigint, v text, n numeric);
CREATE TABLE huge (k bigint PRIMARY KEY, v bigint, w int, f double precision, n numeric, iv interval);
CREATE TABLE "Odd Table" ("Key" bigint PRIMARY KEY, "select" text, "a""b" int, "Größe" numeric);
CREATE SCHEMA side;
CREATE TABLE side.visits (k bigint, note text);
CREATE TABLE links (k bigint, other bigint, PRIMARY KEY (k, other));
CREATE TABLE names (id int PRIMARY KEY, name text);

CREATE VIEW v_facts AS SELECT k, id, i4, t FROM facts WHERE b;
CREATE VIEW v_totals AS SELECT tc, count(*) AS n, sum(i8) AS s, avg(n) AS a FROM facts GROUP BY tc;
CREATE VIEW v_first AS SELECT k, id, i4 FROM facts ORDER BY i4 DESC NULLS LAST, k, id LIMIT 7;
CREATE VIEW v_mixed AS SELECT f.k, f.id, n.name FROM facts f JOIN names n ON n.id = f.i4;
CREATE FUNCTION f_odd(i int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT i % 2 = 1';
CREATE FUNCTION f_three(i int) RETURNS SETOF int LANGUAGE sql IMMUTABLE AS 'SELECT i + g FROM generate_series(1, 3) g';
CREATE FUNCTION f_now() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT now() IS NOT NULL';
CREATE FUNCTION f_volatile() RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN 1; END';
CREATE AGGREGATE f_product(bigint) (SFUNC = int8mul, STYPE = bigint, INITCOND = '1');
