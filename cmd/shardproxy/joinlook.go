package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// look finds what is in the way before anything is written, and plans.
func (j *join) look(ctx context.Context) error {
	if err := j.moves(ctx); err != nil {
		return err
	}
	home, err := readGlobals(ctx, j.home)
	if err != nil {
		return fmt.Errorf("shard %s: %w", j.home.shard, err)
	}
	target, err := readGlobals(ctx, j.target)
	if err != nil {
		return err
	}
	if j.program, err = findForServer(ctx, j.options.pgDump, max(home.major, target.major)); err != nil {
		return err
	}
	if err := j.extensions(ctx); err != nil {
		return err
	}
	if err := j.emptiness(ctx); err != nil {
		return err
	}
	if j.empty {
		if err := j.schemaCanBeMade(ctx, target); err != nil {
			return err
		}
	} else {
		target.owners, home.owners = nil, nil // nothing is made that would belong to them
	}
	if j.plan, err = planGlobals(home, target); err != nil {
		return err
	}
	r := j.report
	r.Roles, r.Settings, r.Grants = append(r.Roles, j.plan.roles...), append(r.Settings, j.plan.settings...), append(r.Grants, j.plan.grants...)
	r.Copied = j.empty
	r.Warnings = append(r.Warnings, j.plan.warnings...)
	if j.empty {
		r.Notes = append(r.Notes, sequenceNote)
	}
	if err := j.leftOut(ctx, home, target); err != nil {
		return err
	}
	return j.countTables(ctx, j.home)
}

const movesSQL = `SELECT 'trigger ' || tgname || ' of ' || tgrelid::regclass FROM pg_trigger WHERE NOT tgisinternal AND tgname ~ '^shardproxy_fence_'
	UNION ALL SELECT 'publication ' || pubname FROM pg_publication WHERE pubname ~ '^shardproxy_' ORDER BY 1`

func (j *join) moves(ctx context.Context) error {
	traces, err := j.texts(ctx, j.home, movesSQL)
	if err == nil && len(traces) > 0 {
		err = fmt.Errorf("%w; there is %s", errMoveRuns, firstOf(traces))
	}
	return err
}

// texts asks a shard for a list.
func (j *join) texts(ctx context.Context, link *shardLink, sql string, args ...any) ([]string, error) {
	rows, err := link.conn.Query(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// firstMost bounds how many of a list are named.
const firstMost = 8

// firstOf lists the first of a list.
func firstOf(all []string) string {
	if len(all) > firstMost {
		return strings.Join(all[:firstMost], ", ") + fmt.Sprintf(" and %d more", len(all)-firstMost)
	}
	return strings.Join(all, ", ")
}

type extensionFacts struct{ name, version, schema string }

const extensionsSQL = `SELECT e.extname::text, e.extversion, n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY 1`

// extensions looks whether the new shard has, or can make, the home shard's extensions as they are there. The
// archive does not say which version: it would be the server's default.
func (j *join) extensions(ctx context.Context) error {
	home, err := readExtensions(ctx, j.home, extensionsSQL)
	if err != nil {
		return err
	}
	there, err := readExtensions(ctx, j.target, extensionsSQL)
	if err != nil {
		return err
	}
	available, err := readExtensions(ctx, j.target, "SELECT name::text, default_version, '' FROM pg_available_extensions WHERE default_version IS NOT NULL")
	if err != nil {
		return err
	}
	var bad []string
	for name, e := range home {
		has, is := there[name]
		can, could := available[name]
		switch {
		case is && has.version != e.version:
			bad = append(bad, fmt.Sprintf("%s is there in version %s, on the home shard in %s", name, has.version, e.version))
		case is && has.schema != e.schema:
			bad = append(bad, fmt.Sprintf("%s is there in schema %s, on the home shard in %s", name, has.schema, e.schema))
		case is:
		case !could:
			bad = append(bad, name+" is not installed on the server")
		case can.version != e.version:
			bad = append(bad, fmt.Sprintf("%s would be of version %s, on the home shard it is of %s", name, can.version, e.version))
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("extensions: %s: install the packages that the home shard's server has, or ALTER EXTENSION ... UPDATE on all shards", firstOf(sorted(bad)))
	}
	for name := range there {
		if _, is := home[name]; !is {
			bad = append(bad, "extension "+name)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("%w: it has %s, and the home shard has not", errNotEmpty, firstOf(sorted(bad)))
	}
	return nil
}

func readExtensions(ctx context.Context, link *shardLink, sql string) (map[string]extensionFacts, error) {
	rows, err := link.conn.Query(ctx, sql, pgx.QueryExecModeExec)
	if err != nil {
		return nil, err
	}
	all := map[string]extensionFacts{}
	var e extensionFacts
	_, err = pgx.ForEachRow(rows, []any{&e.name, &e.version, &e.schema}, func() error {
		all[e.name] = e
		return nil
	})
	return all, err
}

// thingsSQL names what somebody has made in a database, but for what belongs to extensions, or to the proxy.
func thingsSQL() string {
	return `WITH o (class, object) AS (SELECT 'pg_class'::regclass::oid, oid FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND relpersistence <> 't'` +
		unionOf("pg_proc", "pg_type", "pg_namespace", "pg_operator", "pg_opclass", "pg_opfamily", "pg_collation", "pg_conversion", "pg_cast", "pg_language", "pg_foreign_data_wrapper",
			"pg_foreign_server", "pg_ts_config", "pg_ts_dict", "pg_ts_parser", "pg_ts_template", "pg_statistic_ext", "pg_event_trigger", "pg_am", "pg_default_acl", "pg_largeobject_metadata", "pg_transform") +
		`) SELECT i.type || ' ' || i.identity FROM o, pg_identify_object(CASE class WHEN 'pg_largeobject_metadata'::regclass THEN 'pg_largeobject'::regclass::oid ELSE class END, object, 0) i WHERE (object >= 16384 OR class = 'pg_largeobject_metadata'::regclass)
	AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = class AND d.objid = object AND d.deptype IN ('e', 'i'))
	AND i.schema IS DISTINCT FROM 'shardproxy' AND NOT coalesce(i.schema, i.name, '') ~ '^pg_(toast_)?temp_' AND NOT (i.type = 'schema' AND i.name IN ('public', 'shardproxy')) ORDER BY 1`
}

func unionOf(catalogs ...string) string {
	var b strings.Builder
	for _, c := range catalogs {
		fmt.Fprintf(&b, " UNION ALL SELECT '%s'::regclass::oid, oid FROM %[1]s", c)
	}
	return b.String()
}

// emptiness looks whether there is nothing on the new shard, or what the home shard has.
func (j *join) emptiness(ctx context.Context) error {
	things, err := j.texts(ctx, j.target, thingsSQL())
	if err != nil {
		return err
	}
	if j.empty = len(things) == 0; j.empty {
		return nil
	}
	var differs *schemaDiffers
	switch err := j.compare(ctx); {
	case errors.As(err, &differs):
		return fmt.Errorf("%w: it has %s; and %w\nmake the database anew, or its schema like the home shard's", errNotEmpty, firstOf(things), differs)
	case err != nil:
		return err
	}
	if j.options.withRows {
		return nil
	}
	return j.rows(ctx)
}

const tablesWithRowsSQL = `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relpersistence <> 't'
	AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'shardproxy')
	AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e') ORDER BY 1`

// rows refuses tables with rows: they would be seen beside those of the other shards.
func (j *join) rows(ctx context.Context) error {
	tables, err := j.texts(ctx, j.target, tablesWithRowsSQL)
	if err != nil {
		return err
	}
	var some []string
	for _, t := range tables {
		var has bool
		if err := j.target.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM ONLY "+t+")", pgx.QueryExecModeExec).Scan(&has); err != nil {
			return err
		}
		if has {
			some = append(some, t)
		}
	}
	if len(some) > 0 {
		return fmt.Errorf("%w: it has the schema of the home shard, and rows in %s: a new shard has none; empty the tables", errNotEmpty, firstOf(some))
	}
	return nil
}

// ourFunctionsSQL lists the functions of the schema shardproxy that other things use, such as a default.
const ourFunctionsSQL = `SELECT DISTINCT p.oid::regprocedure::text FROM pg_depend d JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
	JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'shardproxy', pg_identify_object(d.classid, d.objid, 0) i
	WHERE d.deptype IN ('n', 'a') AND i.identity !~ '(^| )shardproxy\.' ORDER BY 1`

// schemaCanBeMade looks for what would end the restore.
func (j *join) schemaCanBeMade(ctx context.Context, target *globals) error {
	ours, err := j.texts(ctx, j.home, ourFunctionsSQL)
	if err != nil {
		return err
	}
	missing, err := j.texts(ctx, j.target, "SELECT f FROM unnest($1::text[]) f WHERE to_regprocedure(f) IS NULL", ours)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("the schema shardproxy is not there yet, and the home shard's schema uses %s of it: the shard has to be claimed first", firstOf(missing))
	}
	var may bool
	if err := j.target.conn.QueryRow(ctx, "SELECT has_database_privilege(current_database(), 'CREATE')", pgx.QueryExecModeExec).Scan(&may); err != nil {
		return err
	}
	if !may {
		return fmt.Errorf("%w: GRANT CREATE ON DATABASE %s TO %s", errGlobals, quoteName(target.database), quoteName(target.user))
	}
	return nil
}

// leftOut warns of what is not copied. Each question gives the names.
func (j *join) leftOut(ctx context.Context, home, target *globals) error {
	for _, q := range []struct {
		sql, warning string
		is           bool
	}{
		{"SELECT pubname::text FROM pg_publication WHERE pubname !~ '^shardproxy_' ORDER BY 1", "publications are not copied", true},
		{"SELECT subname::text FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1", "subscriptions are not copied", true},
		{`SELECT spcname::text FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') AND (oid IN (SELECT reltablespace FROM pg_class)
			OR oid IN (SELECT dattablespace FROM pg_database WHERE datname = current_database())) ORDER BY 1`, "tablespaces are not copied: everything is made in that of the new database; on the home shard there are", j.empty},
		{"SELECT count(*) || ' of them' FROM pg_largeobject_metadata HAVING count(*) > 0", "large objects are not copied, they stay on the home shard: there are", true},
		{`SELECT evtname::text FROM pg_event_trigger t WHERE NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_event_trigger'::regclass AND e.objid = t.oid AND e.deptype = 'e') ORDER BY 1`,
			"event triggers are not copied, only a superuser makes them", !target.super && j.empty},
		{`SELECT DISTINCT parname FROM (SELECT to_jsonb(p)->>'parname' FROM pg_parameter_acl p) q (parname) ORDER BY 1`, "privileges on parameters of the server (GRANT SET ON PARAMETER) are not copied", home.major >= 15},
		{`SELECT srvname || ' for ' || usename FROM pg_user_mappings ORDER BY 1`, "the control user of the home shard is no superuser: options of user mappings, such as passwords, are perhaps not copied", !home.super && j.empty},
	} {
		if !q.is {
			continue
		}
		names, err := j.texts(ctx, j.home, q.sql)
		if err != nil {
			return fmt.Errorf("shard %s: %w", j.home.shard, err)
		}
		if len(names) > 0 {
			j.report.Warnings = append(j.report.Warnings, q.warning+": "+firstOf(names))
		}
	}
	j.withoutEvent = !target.super
	return nil
}
