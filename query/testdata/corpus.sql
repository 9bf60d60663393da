-- Texts as applications, drivers and tools send them, and the odd corners of the lexer.
SELECT abalance FROM pgbench_accounts WHERE aid = 4711;
UPDATE pgbench_accounts SET abalance = abalance + -4999 WHERE aid = 99;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (7, 1, 99, -4999, CURRENT_TIMESTAMP);
SELECT "users".* FROM "users" WHERE "users"."id" = $1 LIMIT $2;
SELECT u0."id", COUNT(*) AS "n" FROM "app_user" u0 WHERE (u0."name" LIKE '%a''b%' AND NOT (u0."x" IS NULL)) GROUP BY u0."id" HAVING COUNT(*) > 3 ORDER BY 2 DESC, 1 ASC;
SELECT n.nspname, c.relname, CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' END FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relname OPERATOR(pg_catalog.~) '^(x)$' COLLATE pg_catalog.default ORDER BY 2, 3;
SELECT e'tab\tquote\'end', E'\\', 'plain''s', N'nat', n'', B'01', b'', X'1F', x'';
SELECT 'a'
'b'
   'c', E'x\'
y'
'z\'', 'p' -- comment
'q', B'01'
'10';
SELECT 'a' 'b';
SELECT 'a' /* no newline
but one in here */ 'b';
SELECT $$dollar$$, $tag$with $$ and $other$ inside$tag$, $T1$x$T1$, $ä$ö$ä$;
SELECT a$b$c, a$1, _x, ä, "Ä""b", "a b".c, x.y.z FROM ta$b;
SELECT 1, 12, 1.5, .5, 1., 1e5, 1E-5, 1.5e+10, 0x1F, 0XabC, 0o17, 0b101, 1_000, 1_0.0_1e1_0, 00012;
SELECT a[1], a[1:2], a[:2], a[1:], a[:], (b).c[1][2], array[1,2,3], array[]::int[];
SELECT 1+1, 1-1, 1*-1, 1+-1, -1, - -1, +1, 1/2, 1%2, 2^3, a<b, a>b, a<=b, a>=b, a<>b, a!=b, a=b, a=-1, a<-1, a@-1, a@>-b, a<#>b;
SELECT a*/* comment */b, a--comment
+b, a-/* x */-b, a@--
b;
SELECT a->'b', a->>'b', a#>'{a}', a@>'{}', a?'b', a?|array['x'], a?&array['x'], a||b, a&&b, a~'x', a!~*'x', @-1, |/ 25, ||/ 27, ~1, !!5;
SELECT x::int, x::numeric(10,2)::text, CAST(x AS varchar(3)), date '2020-01-01', interval '1' day, interval '3 days', timestamp with time zone '2020-01-01', int4 '1', "char" 'x';
SELECT f(a := 1, b => 2), g(VARIADIC x), h(DISTINCT y ORDER BY z), k(*) FILTER (WHERE a) OVER (w ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t WINDOW w AS (PARTITION BY a);
SELECT * FROM t WHERE a IN (1,2,3) AND b NOT IN ('x','y') OR c BETWEEN 1 AND 2 AND d BETWEEN SYMMETRIC 3 AND 4;
SELECT U&'d\0061t\+000061', U&'d!0061' UESCAPE '!', U&"d\0061t" FROM t;
SELECT /* leading */ 1 -- trailing
;
/* /* nested */ still */ SELECT 1;
SELECT 'unicode ü ∀ 漢字', "größe" FROM größen WHERE größe > 1;
select CaseFolding, "CaseKept", ÄÖÜ from SomeWhere;
SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v(x, y), LATERAL (SELECT v.x) l, ROWS FROM (f(1), g(2)) r;
INSERT INTO t (a, b) VALUES (1, 'x'), (2, DEFAULT) ON CONFLICT (a) WHERE b > 0 DO UPDATE SET b = EXCLUDED.b || 'y' WHERE t.a <> 1 RETURNING *, a + 1 AS c;
UPDATE t SET (a, b) = (1, 2), c[1] = 3, d.e = 'f' FROM u WHERE t.id = u.id AND u.x = ANY ($1::int[]);
DELETE FROM ONLY t * USING u WHERE t.a = u.a AND CURRENT_DATE > '2020-01-01';
MERGE INTO t USING (SELECT 1 AS a) s ON t.a = s.a WHEN MATCHED AND t.b > 1 THEN DELETE WHEN MATCHED THEN UPDATE SET b = 2 WHEN NOT MATCHED THEN INSERT (a) VALUES (s.a);
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 100) SEARCH DEPTH FIRST BY n SET o CYCLE n SET c USING p SELECT sum(n) FROM r;
SELECT a FROM t ORDER BY a NULLS FIRST OFFSET 5 ROWS FETCH FIRST 10 ROWS WITH TIES FOR UPDATE OF t NOWAIT;
SELECT JSON_OBJECT('a' : 1), JSON_ARRAY(1, 2), xmlforest(a AS b), GROUPING(a) FROM t GROUP BY GROUPING SETS ((a), ROLLUP (b), CUBE (c, d));
SELECT TRIM(BOTH 'x' FROM y), SUBSTRING(a FROM 1 FOR 2), a AT TIME ZONE 'UTC', a OVERLAPS b, (a, b) OVERLAPS (c, d), NORMALIZE('x', NFC), a IS NOT DISTINCT FROM b, a IS JSON;
SET search_path TO "$user", public;
CREATE FUNCTION f(int) RETURNS int LANGUAGE plpgsql AS $body$ BEGIN RETURN $1; END $body$;
CREATE OPERATOR @#@ (LEFTARG = int, RIGHTARG = int, PROCEDURE = f);
PREPARE p (int, text) AS SELECT $1, $2;
COPY t (a, b) FROM STDIN WITH (FORMAT csv, DELIMITER ',');
SELECT 1 WHERE 'a' LIKE 'b' ESCAPE '\' AND a SIMILAR TO '(x|y)';
SELECT "select", "Table"."from", u&"x" FROM "where";
SELECT $1, $2::text, $10+$11, f($3);
SELECT a.*, (b).*, row(1, 2), (row(a, b)).f1, a.b.c FROM a
