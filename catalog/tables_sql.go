package catalog

// The queries of this file run after settingsSQL; see sql.go for the rest. What
// is stored as a tree comes back as SQL by functions that wait for whoever is
// changing the table, and that look at the newest state instead of the
// snapshot's: they return NULL for what has just been dropped.

// settingsSQL makes what the server prints independent of the session.
const settingsSQL = `
SELECT set_config(name, value, true) FROM (VALUES
    ('DateStyle', 'ISO, MDY'), ('IntervalStyle', 'postgres'), ('TimeZone', 'UTC'), ('bytea_output', 'hex'),
    ('extra_float_digits', '1'), ('quote_all_identifiers', 'off'), ('standard_conforming_strings', 'on'),
    ('backslash_quote', 'safe_encoding'), ('xmlbinary', 'base64'), ('lc_monetary', 'C'), ('lock_timeout', '10s')) s (name, value)`

// usageSQL reads who may look into the schemas. Roles are listed as long as
// that is cheap.
const usageSQL = `
SELECT n.nspname, has_schema_privilege('public', n.oid, 'USAGE'), few,
       CASE WHEN few AND NOT has_schema_privilege('public', n.oid, 'USAGE')
            THEN ARRAY(SELECT rolname::text FROM pg_roles r WHERE has_schema_privilege(r.oid, n.oid, 'USAGE')) END
FROM pg_namespace n,
     (SELECT (SELECT count(*) FROM pg_roles) * (SELECT count(*) FROM pg_namespace) < 200000 AS few) x
WHERE n.nspname !~ '^pg_(toast|temp_|toast_temp_)'`

const collationsSQL = `
WITH used (oid) AS MATERIALIZED (SELECT DISTINCT attcollation FROM pg_attribute WHERE attcollation <> 0)
SELECT l.oid, n.nspname, l.collname, l.collisdeterministic,
       CASE WHEN l.oid = 100 THEN d.provider || ':' || d.locale || ':' || d.datcollate
            ELSE l.collprovider::text || ':' || coalesce(to_jsonb(l) ->> 'colllocale', '') || ':' || coalesce(l.collcollate, '') END,
       coalesce(l.collversion, '')
FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace,
     (SELECT coalesce(j ->> 'datlocprovider', 'c') AS provider, coalesce(j ->> 'datlocale', '') AS locale, j ->> 'datcollate' AS datcollate
      FROM (SELECT to_jsonb(b) AS j FROM pg_database b WHERE datname = current_database()) b) d
WHERE l.oid >= 16384 OR l.oid = 100 OR l.oid IN (SELECT oid FROM used) OR l.collprovider::text IN ('b', 'd')
   OR l.collname IN ('C', 'POSIX')`

// namedTypesSQL reads all types but those that come with a table.
const namedTypesSQL = `
SELECT t.oid, n.nspname, t.typname, t.typtype::text, t.typbasetype, t.typtypmod, t.typelem, t.typcollation, t.typnotnull,
       t.typcategory::text, CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END,
       CASE WHEN t.typdefaultbin IS NOT NULL THEN pg_get_expr(t.typdefaultbin, 0) END,
       t.typdefaultbin::text,
       CASE WHEN t.typtype = 'd' THEN ARRAY(SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
            WHERE contypid = t.oid AND contype = 'c' ORDER BY 1)
            WHEN t.typtype = 'e' THEN ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder)
            WHEN t.typtype = 'c' AND t.oid >= 16384 THEN ARRAY(SELECT attname || ' ' || format_type(atttypid, atttypmod)
                 FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped ORDER BY attnum)
            WHEN t.typtype = 'r' AND t.oid >= 16384 THEN ARRAY(SELECT format_type(rngsubtype, NULL) FROM pg_range WHERE rngtypid = t.oid)
       END
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_class c ON c.oid = t.typrelid
LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typlen = -1
LEFT JOIN pg_class ec ON ec.oid = e.typrelid
WHERE n.nspname !~ '^pg_(toast|temp_)' AND (c.relkind IS NULL OR c.relkind = 'c') AND (ec.relkind IS NULL OR ec.relkind = 'c')`

const tablesSQL = `
SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relrowsecurity, c.relforcerowsecurity,
       c.relreplident::text, c.relispartition,
       CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
       CASE WHEN c.relispartition AND c.relkind IN ('r', 'p', 'f') THEN pg_get_expr(c.relpartbound, c.oid) END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I', 'c') AND n.nspname !~ '^pg_(toast|temp_)' AND c.relpersistence <> 't'`

const typeNamesSQL = `
SELECT atttypid, atttypmod, format_type(atttypid, atttypmod)
FROM (SELECT DISTINCT atttypid, atttypmod FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped) a`

const columnsSQL = `
SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attcollation, a.attnotnull
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
ORDER BY a.attrelid, a.attnum`

const sequencesSQL = `
SELECT s.seqrelid, s.seqtypid, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle,
       coalesce(d.refobjid, 0), coalesce(d.refobjsubid, 0), coalesce(d.deptype = 'i', false), coalesce(a.attidentity = 'a', false)
FROM pg_sequence s
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.objsubid = 0
      AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid`

// defaultsSQL reads the defaults of columns: the expression as SQL and, for what
// cannot be said from that, its parts from the stored tree.
const defaultsSQL = `
SELECT d.adrelid, d.adnum, a.attgenerated::text, pg_get_expr(d.adbin, d.adrelid), d.adbin::text,
       (SELECT min(p.refobjid) FROM pg_depend p JOIN pg_class s ON s.oid = p.refobjid AND s.relkind = 'S'
        WHERE p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass)
FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
WHERE c.relpersistence <> 't' AND d.adrelid >= 16384`

const indexesSQL = `
SELECT i.indrelid, i.indexrelid, x.relname, m.amname, i.indisunique, i.indisprimary, i.indisexclusion, k.conname IS NOT NULL,
       NOT i.indimmediate OR coalesce(k.condeferrable, false),
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false), i.indisvalid AND i.indisready,
       i.indkey::int2[], i.indnkeyatts, i.indpred IS NOT NULL,
       NOT EXISTS (SELECT FROM generate_series(0, i.indnkeyatts - 1) p (n)
            LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[p.n]
            LEFT JOIN pg_opclass o ON o.oid = i.indclass[p.n]
            WHERE i.indkey[p.n] = 0 OR NOT o.opcdefault OR i.indcollation[p.n] <> a.attcollation),
       pg_get_indexdef(i.indexrelid), pg_get_constraintdef(k.oid)
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid JOIN pg_am m ON m.oid = x.relam
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
WHERE i.indrelid >= 16384 AND c.relpersistence <> 't' AND c.relkind IN ('r', 'p', 'm', 'f')
ORDER BY i.indrelid, x.relname`

const constraintsSQL = `
SELECT k.oid, k.conrelid, k.conname, k.contype::text, k.confrelid, k.conkey, k.confkey, k.confupdtype::text, k.confdeltype::text,
       k.confmatchtype = 'f', k.condeferrable, k.condeferred, k.convalidated, k.conparentid <> 0, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE k.contype IN ('f', 'c') AND c.relpersistence <> 't' AND k.conrelid >= 16384
ORDER BY k.conrelid, k.conname`

const triggersSQL = `
SELECT t.tgrelid, t.tgname, t.tgconstraint <> 0, t.tgtype::int4, t.tginitdeferred, t.tgenabled::text, t.tgfoid, t.tgparentid <> 0,
       pg_get_triggerdef(t.oid), t.tgname LIKE 'shardproxy\_fence\_%' AND EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
              WHERE p.oid = t.tgfoid AND p.proname = 'fence' AND n.nspname = 'shardproxy')
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND c.relpersistence <> 't' AND t.tgrelid >= 16384
ORDER BY t.tgrelid, t.tgname`

const rulesSQL = `
SELECT r.ev_class, r.rulename, r.ev_type::text, r.is_instead, r.ev_enabled::text, pg_get_ruledef(r.oid)
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
WHERE c.relpersistence <> 't' AND r.ev_class >= 16384 AND NOT (r.ev_type = '1' AND c.relkind IN ('v', 'm'))
ORDER BY r.ev_class, r.rulename`

const policiesSQL = `
SELECT p.polrelid, p.polname, p.polcmd::text, p.polpermissive,
       ARRAY(SELECT coalesce(r.rolname::text, 'public') FROM unnest(p.polroles) m (oid) LEFT JOIN pg_roles r ON r.oid = m.oid ORDER BY 1),
       pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)
FROM pg_policy p WHERE p.polrelid >= 16384
ORDER BY p.polrelid, p.polname`

// membersSQL reads what came with something else and is no difference of its
// own: what belongs to extensions, and the functions of range types.
const membersSQL = `
SELECT CASE classid WHEN 'pg_class'::regclass THEN 'r' WHEN 'pg_type'::regclass THEN 't' ELSE 'f' END, objid
FROM pg_depend WHERE objid >= 16384 AND classid IN ('pg_class'::regclass, 'pg_type'::regclass, 'pg_proc'::regclass)
  AND (deptype = 'e' OR deptype = 'i' AND classid = 'pg_proc'::regclass)`

const extensionsSQL = `
SELECT e.extname, e.extversion, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace`

const inheritsSQL = `SELECT inhrelid, inhparent FROM pg_inherits ORDER BY inhrelid, inhseqno`

// viewsSQL reads some views: printing one locks all that it shows until the
// transaction, or the part of it, ends.
const viewsSQL = `
SELECT c.oid, pg_get_viewdef(c.oid), coalesce(c.reloptions, '{}'),
       CASE WHEN c.relkind = 'v' THEN pg_relation_is_updatable(c.oid, false) ELSE 0 END
FROM pg_class c WHERE c.oid = ANY($1::oid[])`

// tablesFingerprintSQL condenses the versions of what the queries above read
// and fingerprintSQL does not.
const tablesFingerprintSQL = `
SELECT string_agg(n || ':' || s, ' ' ORDER BY k) FROM (
    SELECT 1 AS k, count(*) AS n, coalesce(sum(hashint8extended(a.xmin::text::int8, a.attrelid::int8 << 16 | a.attnum)), 0) AS s
              FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
              WHERE a.attnum > 0 AND c.relpersistence <> 't' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
    UNION ALL SELECT 2, count(*), coalesce(sum(hashint8extended(i.xmin::text::int8, i.indexrelid::int8)), 0)
              FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relpersistence <> 't' AND c.relkind IN ('i', 'I')
    UNION ALL SELECT 3, count(*), coalesce(sum(hashint8extended(s.xmin::text::int8, s.seqrelid::int8)), 0)
              FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid WHERE c.relpersistence <> 't'
    UNION ALL SELECT 4, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_collation
    UNION ALL SELECT 5, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_amop
    UNION ALL SELECT 6, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_enum
    UNION ALL SELECT 7, count(*), coalesce(sum(hashint8extended(roleid::int8, member::int8)), 0) FROM pg_auth_members
    UNION ALL SELECT 8, count(*), coalesce(sum(hashtextextended(concat(rolname, rolsuper, rolinherit), oid::int8)), 0) FROM pg_roles
    UNION ALL SELECT 9, count(*), coalesce(sum(hashint8extended(xmin::text::int8, oid::int8)), 0) FROM pg_class
              WHERE relkind IN ('i', 'I', 'c') AND relpersistence <> 't'
    UNION ALL SELECT 11, count(*), coalesce(sum(hashint8extended(rngtypid::int8, rngsubtype::int8)), 0) FROM pg_range
    UNION ALL SELECT 10, count(*), coalesce(sum(hashint8extended(xmin::text::int8, partrelid::int8)), 0) FROM pg_partitioned_table
) x`

// tableFunctionsSQL reads what is called how. NEWBODY stands for the body of
// BEGIN ATOMIC and RETURN as SQL, which version 13 does not have.
const tableFunctionsSQL = `
SELECT p.oid, n.nspname, p.proname, p.prokind::text, l.lanname, p.provolatile::text, p.proisstrict, p.proretset, p.prosecdef,
       p.prorettype, p.proargtypes::oid[], p.pronargdefaults, p.provariadic, coalesce(a.aggkind <> 'n', false),
       CASE WHEN p.oid >= 16384 THEN NEWBODY END, CASE WHEN p.oid >= 16384 THEN p.prosrc END,
       CASE WHEN p.oid >= 16384 THEN concat_ws(' ', p.probin, p.proconfig::text, p.proleakproof::text, p.proparallel::text,
            pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)) END,
       e.extname
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
JOIN pg_language l ON l.oid = p.prolang
LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid
LEFT JOIN (pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid)
       ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
WHERE n.nspname !~ '^pg_temp_'`

// operatorTypesSQL reads operators with their operands.
const operatorTypesSQL = `
SELECT o.oid, n.nspname, o.oprname, o.oprleft, o.oprright
FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
WHERE n.nspname !~ '^pg_temp_' AND o.oprleft <> 0
  AND (o.oprname IN ('=', '<', '<=', '>', '>=', '<>') OR o.oid >= 16384)`

// defaultFamiliesSQL reads the family of each type's default btree and hash
// operator class.
const defaultFamiliesSQL = `
SELECT o.opcintype, m.amname, o.opcfamily FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod
WHERE o.opcdefault AND m.amname IN ('btree', 'hash')`

const familyMembersSQL = `
SELECT p.amopfamily, p.amopopr, p.amopstrategy FROM pg_amop p JOIN pg_am m ON m.oid = p.amopmethod
WHERE m.amname IN ('btree', 'hash') AND p.amoppurpose = 's'`

const implicitCastsSQL = `SELECT castsource, casttarget FROM pg_cast WHERE castcontext = 'i'`
