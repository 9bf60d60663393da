package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// globals is what a database has that pg_dump leaves out, and who asks.
type globals struct {
	major     int
	user      string
	super     bool // the user is a superuser
	makes     bool // the user may make roles
	passwords bool // the user may read passwords
	database  string
	owner     string
	public    bool // there is a schema public
	comment   string
	roles     map[string]*roleFacts
	members   map[memberKey]memberOptions
	settings  map[settingKey][]string // as name=value
	acl       map[aclKey]bool         // whether the grantee may grant it
	owners    []string                // of things in the database
	mayUse    []string                // the roles that the user is a member of
}

// roleFacts are a role's attributes.
type roleFacts struct {
	Name, Comment                        string
	Super, Inherit, CreateRole, CreateDB bool
	Login, Replication, BypassRLS        bool
	Limit                                int
	Until, Password                      *string
	predefined                           bool
}

type memberKey struct{ role, member string }

// memberOptions are those of a membership; inherit and set are there from PostgreSQL 16 on.
type memberOptions struct{ admin, inherit, set bool }

// settingKey is what a setting is for: a role, the database, or the role in the database.
type settingKey struct {
	role     string // "" for all
	database bool
}

// aclKey is a privilege of the database; the grantee is "" for PUBLIC.
type aclKey struct{ grantee, privilege string }

const globalsSQL = `SELECT current_setting('server_version_num')::int / 10000, u.rolname::text, u.rolsuper, u.rolsuper OR u.rolcreaterole,
	has_column_privilege('pg_catalog.pg_authid', 'rolpassword', 'SELECT'), d.datname::text, pg_get_userbyid(d.datdba)::text,
	EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public'), coalesce(shobj_description(d.oid, 'pg_database'), ''),
	ARRAY(SELECT DISTINCT pg_get_userbyid(o)::text FROM (
		SELECT relowner, relnamespace, 'pg_class'::regclass, oid FROM pg_class WHERE oid >= 16384 AND relpersistence <> 't' AND relkind NOT IN ('t', 'i', 'I')
		UNION ALL SELECT proowner, pronamespace, 'pg_proc'::regclass, oid FROM pg_proc WHERE oid >= 16384
		UNION ALL SELECT typowner, typnamespace, 'pg_type'::regclass, oid FROM pg_type WHERE oid >= 16384 AND typtype <> 'c'
		UNION ALL SELECT nspowner, oid, 'pg_namespace'::regclass, oid FROM pg_namespace WHERE oid >= 16384
		UNION ALL SELECT defaclrole, 0, 'pg_default_acl'::regclass, oid FROM pg_default_acl) x (o, schema, class, object)
		WHERE NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = class AND e.objid = object AND e.deptype = 'e')
		AND NOT EXISTS (SELECT FROM pg_namespace n WHERE n.oid = schema AND (n.nspname = 'shardproxy' OR n.nspname ~ '^pg_(toast_)?temp_')) ORDER BY 1),
	ARRAY(SELECT rolname::text FROM pg_roles r WHERE pg_has_role(r.oid, 'MEMBER'))
	FROM pg_roles u, pg_database d WHERE u.rolname = current_user AND d.datname = current_database()`

// rolesSQL needs the column of passwords, and where they are.
const rolesSQL = `SELECT rolname::text, coalesce(shobj_description(oid, 'pg_authid'), ''), rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
	rolbypassrls, rolconnlimit, rolvaliduntil::text, %s FROM %s ORDER BY 1`

// membersSQL knows the options of a membership by name, for older servers lack them.
const membersSQL = `SELECT r.rolname::text, m.rolname::text, bool_or(a.admin_option), bool_or(coalesce((to_jsonb(a)->>'inherit_option')::bool, true)),
	bool_or(coalesce((to_jsonb(a)->>'set_option')::bool, true))
	FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member GROUP BY 1, 2`

const settingsSQL = `SELECT coalesce(r.rolname::text, ''), s.setdatabase <> 0, s.setconfig FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole
	WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) AND (s.setrole = 0 OR r.oid IS NOT NULL)`

const aclSQL = `SELECT CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type, bool_or(a.is_grantable)
	FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE d.datname = current_database() GROUP BY 1, 2`

// readGlobals asks a shard.
func readGlobals(ctx context.Context, link *shardLink) (*globals, error) {
	g := &globals{roles: map[string]*roleFacts{}, members: map[memberKey]memberOptions{}, settings: map[settingKey][]string{}, acl: map[aclKey]bool{}}
	err := link.conn.QueryRow(ctx, globalsSQL, pgx.QueryExecModeExec).Scan(&g.major, &g.user, &g.super, &g.makes, &g.passwords, &g.database, &g.owner, &g.public, &g.comment, &g.owners, &g.mayUse)
	if err != nil {
		return nil, err
	}
	each := func(sql string, into []any, do func()) {
		if err != nil {
			return
		}
		var rows pgx.Rows
		if rows, err = link.conn.Query(ctx, sql, pgx.QueryExecModeExec); err == nil {
			_, err = pgx.ForEachRow(rows, into, func() error { do(); return nil })
		}
	}
	password, from := "NULL::text", "pg_roles"
	if g.passwords {
		password, from = "rolpassword", "pg_authid"
	}
	var r roleFacts
	each(fmt.Sprintf(rolesSQL, password, from), []any{&r.Name, &r.Comment, &r.Super, &r.Inherit, &r.CreateRole, &r.CreateDB, &r.Login, &r.Replication, &r.BypassRLS, &r.Limit, &r.Until, &r.Password}, func() {
		one := r
		one.predefined = strings.HasPrefix(one.Name, "pg_")
		g.roles[one.Name] = &one
	})
	var m memberKey
	var o memberOptions
	each(membersSQL, []any{&m.role, &m.member, &o.admin, &o.inherit, &o.set}, func() { g.members[m] = o })
	var s settingKey
	var values []string
	each(settingsSQL, []any{&s.role, &s.database, &values}, func() { g.settings[s] = slices.Clone(values) })
	var a aclKey
	var grants bool
	each(aclSQL, []any{&a.grantee, &a.privilege, &grants}, func() { g.acl[a] = grants })
	return g, err
}
