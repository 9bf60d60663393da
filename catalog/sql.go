package catalog

// The queries run with search_path = pg_catalog, pg_temp. They work from
// PostgreSQL 13 on.

// roleSchemasSQL finds the schemas that $user may stand for.
const roleSchemasSQL = `SELECT n.nspname FROM pg_namespace n JOIN pg_roles r ON r.rolname = n.nspname ORDER BY 1`

// functionsSQL reads functions, aggregates, window functions and procedures.
// The last column says whether a.f can be a call of f: it can be called with
// one argument and that may be a row.
const functionsSQL = `
SELECT p.oid, n.nspname, p.proname, p.provolatile::text, l.lanname, e.extname,
       p.pronargs - p.pronargdefaults, CASE WHEN p.provariadic <> 0 THEN -1 ELSE p.pronargs END,
       CASE WHEN p.oid >= 16384 AND l.lanname IN ('sql', 'plpgsql') THEN p.prosrc END,
       p.pronargs > 0 AND p.pronargs - p.pronargdefaults <= 1 AND
       (t.typtype = 'c' OR t.typname IN ('record', 'anyelement', 'anycompatible', 'any', 'anynonarray', 'anycompatiblenonarray')
        OR t.typtype = 'd' AND EXISTS (SELECT FROM pg_type b WHERE b.oid = t.typbasetype AND b.typtype IN ('c', 'd')))
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
JOIN pg_language l ON l.oid = p.prolang
LEFT JOIN pg_type t ON t.oid = p.proargtypes[0]
LEFT JOIN (pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid)
       ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
WHERE n.nspname !~ '^pg_temp_'`

const operatorsSQL = `
SELECT o.oid, n.nspname, o.oprname, o.oprcode::oid
FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
WHERE n.nspname !~ '^pg_temp_'`

const relationsSQL = `
SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_(toast|temp_)' AND c.relpersistence <> 't'`

// typesSQL reads the types that somebody created, and those that somebody
// created a cast for.
const typesSQL = `
SELECT t.oid, n.nspname, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname !~ '^pg_(toast|temp_)' AND (t.oid >= 16384 OR EXISTS (
    SELECT FROM pg_cast WHERE castfunc >= 16384 AND t.oid IN (castsource, casttarget)))`

// typeEdgesSQL reads what the types use, and who uses them, in the form of
// edgesSQL. A cast between a type of PostgreSQL's own and another is only
// reached by way of the other.
const typeEdgesSQL = `
SELECT 't', t.oid, 'f', s.fn::oid FROM pg_type t,
       unnest(ARRAY[typinput, typoutput, typreceive, typsend, typmodin, typmodout]) s (fn)
WHERE t.oid >= 16384 AND s.fn::oid >= 16384
UNION ALL
SELECT 't', t.oid, 't', s.part FROM pg_type t, unnest(ARRAY[typelem, typbasetype]) s (part)
WHERE t.oid >= 16384 AND s.part >= 16384
UNION ALL
SELECT 't', t.oid, 't', a.atttypid FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid
WHERE t.typrelid <> 0 AND a.atttypid >= 16384
UNION ALL
SELECT 't', rngtypid, 't', rngsubtype FROM pg_range WHERE rngsubtype >= 16384
UNION ALL
SELECT 't', s.typ, 'f', c.castfunc FROM pg_cast c, unnest(ARRAY[castsource, casttarget]) s (typ)
WHERE c.castfunc >= 16384 AND (s.typ >= 16384 OR castsource < 16384 AND casttarget < 16384)
UNION ALL
SELECT 't', o.opcintype, 'f', p.amproc::oid FROM pg_opclass o
JOIN pg_amproc p ON p.amprocfamily = o.opcfamily AND p.amproclefttype = o.opcintype
WHERE o.opcintype >= 16384 AND p.amproc::oid >= 16384
UNION ALL
SELECT 't', o.opcintype, 'o', p.amopopr FROM pg_opclass o
JOIN pg_amop p ON p.amopfamily = o.opcfamily AND p.amoplefttype = o.opcintype
WHERE o.opcintype >= 16384 AND p.amopopr >= 16384
UNION ALL
SELECT 'r', attrelid, 't', atttypid FROM pg_attribute WHERE attrelid >= 16384 AND atttypid >= 16384
UNION ALL
SELECT 'f', p.oid, 't', s.typ FROM pg_proc p, unnest(p.proargtypes::oid[] || p.prorettype) s (typ)
WHERE p.oid >= 16384 AND s.typ >= 16384`

// edgesSQL reads what uses what: a kind of user, the user, a kind of what it
// uses, and that. Kinds: f function, o operator, t type, r reading a relation,
// w writing to a relation. Stored expressions are read as text, for pg_depend
// does not list PostgreSQL's own functions.
const edgesSQL = `
WITH expressions (kind, oid, expression) AS (
    SELECT 'r', ev_class, ev_action::text FROM pg_rewrite JOIN pg_class c ON c.oid = ev_class
    WHERE ev_type = '1' AND c.relkind = 'v'
    UNION ALL
    SELECT 'w', ev_class, ev_action::text || ev_qual::text FROM pg_rewrite WHERE ev_type <> '1'
    UNION ALL
    SELECT 'r', polrelid, concat(polqual::text, polwithcheck::text)
    FROM pg_policy JOIN pg_class c ON c.oid = polrelid WHERE c.relrowsecurity
    UNION ALL
    SELECT 'w', adrelid, adbin::text FROM pg_attrdef
    UNION ALL
    SELECT 'w', conrelid, conbin::text FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0
    UNION ALL
    SELECT 'w', tgrelid, tgqual::text FROM pg_trigger WHERE tgqual IS NOT NULL
    UNION ALL
    SELECT 't', contypid, conbin::text FROM pg_constraint WHERE contypid <> 0 AND conbin IS NOT NULL
    UNION ALL
    SELECT 'f', oid, proargdefaults::text FROM pg_proc WHERE pronargdefaults > 0 AND oid >= 16384
    UNION ALL -- BEGIN ATOMIC and RETURN; the column is missing before version 14
    SELECT 'f', oid, to_jsonb(p) ->> 'prosqlbody' FROM pg_proc p
    WHERE oid >= 16384 AND to_jsonb(p) ->> 'prosqlbody' IS NOT NULL
), mentions AS (
    SELECT DISTINCT x.kind, x.oid, m[1] AS field, m[2]::oid AS target
    FROM expressions x, regexp_matches(x.expression,
         ':(funcid|opfuncid|opno|aggfnoid|winfnoid|tsmhandler|relid) (\d+)', 'g') m
    WHERE m[2] <> '0'
)
SELECT kind, oid, CASE field WHEN 'opno' THEN 'o' WHEN 'relid' THEN 'r' ELSE 'f' END, target FROM mentions
UNION ALL -- writing to a view writes to what it shows; rules write to what they name
SELECT 'w', oid, 'w', target FROM mentions WHERE field = 'relid' AND kind IN ('r', 'w')
UNION ALL -- CURRENT_DATE and its like, which are no calls
SELECT 'r', oid, 'f', 'pg_catalog.now'::regproc::oid FROM expressions WHERE kind = 'r' AND expression ~ 'SQLVALUEFUNCTION :op [0-8] '
UNION ALL
SELECT 'w', tgrelid, 'f', tgfoid FROM pg_trigger WHERE NOT tgisinternal
UNION ALL -- event triggers: under number 0, writing to no relation
SELECT 'w', 0::oid, 'f', evtfoid FROM pg_event_trigger WHERE evtenabled <> 'D'
UNION ALL
SELECT k.kind, inhparent, k.kind, inhrelid FROM pg_inherits, (VALUES ('r'), ('w')) k (kind)
UNION ALL
SELECT 'w', confrelid, 'w', conrelid FROM pg_constraint
WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
UNION ALL
SELECT 'f', a.aggfnoid::oid, 'f', s.fn::oid FROM pg_aggregate a,
       unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
                    a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]) s (fn)
WHERE s.fn::oid <> 0`

// fingerprintSQL condenses the versions of all rows that the other queries read.
// Temporary tables come and go all the time: what is theirs is left out.
const fingerprintSQL = `
WITH temporary (oid) AS MATERIALIZED (SELECT oid FROM pg_class WHERE relpersistence = 't')
SELECT string_agg(n || ':' || s, ' ' ORDER BY k) FROM (
    SELECT 1 AS k, count(*) AS n, coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) AS s FROM pg_proc
    UNION ALL SELECT 2, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_operator
    UNION ALL SELECT 3, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_class
              WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relpersistence <> 't'
    UNION ALL SELECT 4, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_rewrite
              WHERE ev_class NOT IN (SELECT oid FROM temporary)
    UNION ALL SELECT 5, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_policy
              WHERE polrelid NOT IN (SELECT oid FROM temporary)
    UNION ALL SELECT 6, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_trigger
              WHERE tgrelid NOT IN (SELECT oid FROM temporary)
    UNION ALL SELECT 7, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_namespace
              WHERE nspname !~ '^pg_(toast_)?temp_'
    UNION ALL SELECT 8, count(*), coalesce(sum(hashint8extended(xmin::text::int8, aggfnoid::oid::int8)), 0) FROM pg_aggregate
    UNION ALL SELECT 9, count(*), coalesce(sum(hashint8extended(xmin::text::int8, inhrelid::int8)), 0) FROM pg_inherits
              WHERE inhrelid NOT IN (SELECT oid FROM temporary)
    UNION ALL SELECT 10, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_constraint
              WHERE conrelid NOT IN (SELECT oid FROM temporary)
    UNION ALL SELECT 11, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_attrdef
              WHERE adrelid NOT IN (SELECT oid FROM temporary)
    UNION ALL SELECT 12, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_extension
    UNION ALL SELECT 15, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_cast
    UNION ALL SELECT 16, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_type
              WHERE typtype <> 'c' AND typelem = 0
    UNION ALL SELECT 17, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_opclass
    UNION ALL SELECT 14, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_event_trigger
    UNION ALL SELECT 13, count(*), coalesce(sum(hashtextextended(rolname, 0)), 0)
              FROM pg_roles JOIN pg_namespace ON nspname = rolname
) x`
