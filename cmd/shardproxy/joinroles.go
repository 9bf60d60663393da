package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/catalog"
)

// errGlobals is why roles and settings cannot be given to a new shard; the error says what to do by hand.
var errGlobals = errors.New("the control user may not make what the home shard has beside the schema")

// globalStatement makes something on the new shard.
type globalStatement struct {
	sql string
	// told is the statement without its secret; "" when it has none.
	told string
}

func (s globalStatement) String() string { return cmp.Or(s.told, s.sql) }

// globalsPlan says what to do on the new shard. It is made by comparison alone: a second one, after the
// first was carried out, is empty.
type globalsPlan struct {
	home, target *globals
	roles        []string // that are made
	settings     []string // that are made, in words
	grants       []string // on the database
	statements   []globalStatement
	warnings     []string
	beyond       []globalStatement // what the control user may not do
}

// planGlobals compares. The error is one of errGlobals.
func planGlobals(home, target *globals) (*globalsPlan, error) {
	p := &globalsPlan{home: home, target: target}
	p.makeRoles()
	p.makeMembers()
	p.ownsThings()
	p.makeSettings()
	p.makeDatabase()
	return p, p.refused()
}

func quoteName(name string) string { return pgx.Identifier{name}.Sanitize() }

func quoteText(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

func (p *globalsPlan) do(format string, args ...any) {
	p.statements = append(p.statements, globalStatement{sql: fmt.Sprintf(format, args...)})
}

// ownsDatabase reports whether the control user may do what only the owner of the database may. PostgreSQL would
// merely warn of some of it.
func (p *globalsPlan) ownsDatabase() bool {
	return p.target.super || slices.Contains(p.target.mayUse, p.target.owner)
}

func (p *globalsPlan) onDatabase(sql string) {
	if p.ownsDatabase() {
		p.do("%s", sql)
	} else {
		p.beyond = append(p.beyond, globalStatement{sql: sql})
	}
}

func (p *globalsPlan) warn(format string, args ...any) {
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

// made reports whether the plan makes a role.
func (p *globalsPlan) made(name string) bool { return slices.Contains(p.roles, name) }

// will reports whether the new shard has a role once the plan is carried out.
func (p *globalsPlan) will(name string) bool { return p.target.roles[name] != nil || p.made(name) }

func (p *globalsPlan) makeRoles() {
	var unknown []string
	for _, name := range slices.Sorted(maps.Keys(p.home.roles)) {
		r, have := p.home.roles[name], p.target.roles[name]
		switch {
		case r.predefined:
			continue
		case have != nil:
			p.differs(r, have)
			continue
		}
		p.roles = append(p.roles, name)
		if r.mayBeMade(p.target) {
			p.do("%s", r.create())
		} else {
			p.beyond = append(p.beyond, globalStatement{sql: r.create()})
		}
		if r.Password != nil {
			p.statements = append(p.statements, globalStatement{
				sql:  fmt.Sprintf("ALTER ROLE %s PASSWORD %s", quoteName(name), quoteText(*r.Password)),
				told: fmt.Sprintf("ALTER ROLE %s PASSWORD '...'", quoteName(name)),
			})
		}
		if r.Comment != "" {
			p.do("COMMENT ON ROLE %s IS %s", quoteName(name), quoteText(r.Comment))
		}
		if r.Login && !p.home.passwords {
			unknown = append(unknown, name)
		}
	}
	if unknown != nil {
		p.warn("the control user may not read pg_authid on the home shard: passwords, if they have any, have to be set by hand for: %s", strings.Join(unknown, ", "))
	}
}

// create is the statement that makes the role, without its password.
func (r *roleFacts) create() string {
	var b strings.Builder
	b.WriteString("CREATE ROLE " + quoteName(r.Name) + " WITH")
	for _, a := range []struct {
		has  bool
		word string
	}{{r.Super, "SUPERUSER"}, {r.Inherit, "INHERIT"}, {r.CreateRole, "CREATEROLE"}, {r.CreateDB, "CREATEDB"}, {r.Login, "LOGIN"}, {r.Replication, "REPLICATION"}, {r.BypassRLS, "BYPASSRLS"}} {
		switch {
		case a.has:
			b.WriteString(" " + a.word)
		case a.word == "INHERIT": // the others are not given unless they are asked for
			b.WriteString(" NOINHERIT")
		}
	}
	if r.Limit >= 0 {
		fmt.Fprintf(&b, " CONNECTION LIMIT %d", r.Limit)
	}
	if r.Until != nil {
		b.WriteString(" VALID UNTIL " + quoteText(*r.Until))
	}
	return b.String()
}

// mayBeMade reports whether the user of the new shard may make the role, as PostgreSQL has it: from 16 on
// nobody gives an attribute that he does not have.
func (r *roleFacts) mayBeMade(g *globals) bool {
	if g.super {
		return true
	}
	own := g.roles[g.user]
	if !g.makes || r.Super {
		return false
	}
	if g.major >= 16 {
		return (own.Replication || !r.Replication) && (own.BypassRLS || !r.BypassRLS) && (own.CreateDB || !r.CreateDB)
	}
	return !r.Replication && !r.BypassRLS
}

// differs warns of a role that both have and that may do on one what it may not on the other.
func (p *globalsPlan) differs(home, here *roleFacts) {
	for _, a := range []struct {
		word       string
		home, here bool
	}{{"SUPERUSER", home.Super, here.Super}, {"BYPASSRLS", home.BypassRLS, here.BypassRLS}, {"LOGIN", home.Login, here.Login}} {
		switch {
		case a.home && !a.here:
			p.warn("role %s is there and has not %s, as on the home shard: ALTER ROLE %s %s", home.Name, a.word, quoteName(home.Name), a.word)
		case a.here && !a.home:
			p.warn("role %s is there and has %s, which it has not on the home shard: ALTER ROLE %s NO%s", home.Name, a.word, quoteName(home.Name), a.word)
		}
	}
}

// makeMembers grants roles of which one is made. Two that were there before are somebody's: their
// membership is left alone.
func (p *globalsPlan) makeMembers() {
	for _, k := range slices.SortedFunc(maps.Keys(p.home.members), func(a, b memberKey) int {
		return cmp.Or(strings.Compare(a.role, b.role), strings.Compare(a.member, b.member))
	}) {
		o := p.home.members[k]
		_, has := p.target.members[k]
		if has || !p.will(k.role) || !p.will(k.member) {
			continue
		}
		sql := fmt.Sprintf("GRANT %s TO %s", quoteName(k.role), quoteName(k.member))
		if p.target.major >= 16 {
			sql += fmt.Sprintf(" WITH ADMIN %t, INHERIT %t, SET %t", o.admin, o.inherit, o.set)
		} else if o.admin {
			sql += " WITH ADMIN OPTION"
		}
		if p.made(k.role) || p.made(k.member) {
			p.do("%s", sql)
		} else {
			p.warn("role %s is no member of %s, as on the home shard: %s", k.member, k.role, sql)
		}
	}
}

// ownsThings sees to it that a control user that is no superuser may make things that belong to others.
func (p *globalsPlan) ownsThings() {
	if p.target.super {
		return
	}
	for _, owner := range p.home.owners {
		if owner == p.target.user || slices.Contains(p.target.mayUse, owner) {
			continue
		}
		grant := fmt.Sprintf("GRANT %s TO %s", quoteName(owner), quoteName(p.target.user))
		r := p.home.roles[owner]
		switch {
		case !p.made(owner) || r.Super:
			p.beyond = append(p.beyond, globalStatement{sql: grant})
		case p.target.major >= 16:
			p.do("%s WITH INHERIT TRUE, SET TRUE", grant)
		default:
			p.do("%s", grant)
		}
		if p.made(owner) {
			p.warn("the control user %s becomes a member of %s, whose things it makes", p.target.user, owner)
		}
	}
}

// isList reports whether a setting is a list of names, each of which is quoted by itself.
func isList(name string) bool {
	switch strings.ToLower(name) {
	case "search_path", "local_preload_libraries", "session_preload_libraries", "shared_preload_libraries", "temp_tablespaces", "unix_socket_directories":
		return true
	}
	return false
}

// setting is "name TO value" of an entry name=value, and what is told of it: applications keep secrets in settings
// of their own, whose names have a dot.
func setting(entry string) (sql, told string) {
	name, value, _ := strings.Cut(entry, "=")
	to := quoteName(name) + " TO "
	if names, ok := catalog.SplitNames(value); ok && len(names) > 0 && isList(name) {
		for i := range names {
			names[i] = quoteText(names[i])
		}
		value = strings.Join(names, ", ")
	} else {
		value = quoteText(value)
	}
	if strings.Contains(name, ".") {
		return to + value, to + "'...'"
	}
	return to + value, to + value
}

// makeSettings sets what is set for the database, for roles in it, and for roles that are made.
func (p *globalsPlan) makeSettings() {
	for _, k := range sortedSettings(p.home.settings) {
		if k == (settingKey{}) || k.role != "" && !p.will(k.role) {
			continue // for all databases and roles: it is the server's
		}
		for _, entry := range p.home.settings[k] {
			if slices.Contains(p.target.settings[k], entry) {
				continue
			}
			of := "ROLE " + quoteName(k.role)
			switch {
			case k.role == "":
				of = "DATABASE " + quoteName(p.target.database)
			case k.database:
				of += " IN DATABASE " + quoteName(p.target.database)
			}
			sql, told := setting(entry)
			one := globalStatement{sql: "ALTER " + of + " SET " + sql, told: "ALTER " + of + " SET " + told}
			switch {
			case !k.database && !p.made(k.role):
				p.warn("role %s is there and has other settings than on the home shard: %s", k.role, one)
				continue
			case k.role == "" && !p.ownsDatabase():
				p.beyond = append(p.beyond, one)
			default:
				p.statements = append(p.statements, one)
			}
			p.settings = append(p.settings, one.String())
		}
	}
	for _, k := range sortedSettings(p.target.settings) {
		for _, entry := range p.target.settings[k] {
			name, _, _ := strings.Cut(entry, "=")
			if k.database && !slices.ContainsFunc(p.home.settings[k], func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
				p.warn("%s is set for database %s%s, and not on the home shard", name, p.target.database, ofRole(k.role))
			}
		}
	}
}

func sortedSettings(settings map[settingKey][]string) []settingKey {
	return slices.SortedFunc(maps.Keys(settings), func(a, b settingKey) int {
		return cmp.Or(strings.Compare(a.role, b.role), strings.Compare(fmt.Sprint(a.database), fmt.Sprint(b.database)))
	})
}

func ofRole(role string) string {
	if role == "" {
		return ""
	}
	return " and role " + role
}

// makeDatabase gives the database its owner, its privileges, its comment and its schemas.
func (p *globalsPlan) makeDatabase() {
	database := quoteName(p.target.database)
	if p.home.owner != p.target.owner {
		sql := fmt.Sprintf("ALTER DATABASE %s OWNER TO %s", database, quoteName(p.home.owner))
		if p.target.super {
			p.do("%s", sql)
			p.grants = append(p.grants, sql)
		} else {
			p.warn("the database belongs to %s, on the home shard to %s: %s", p.target.owner, p.home.owner, sql)
		}
	}
	if p.home.comment != "" && p.home.comment != p.target.comment {
		p.onDatabase(fmt.Sprintf("COMMENT ON DATABASE %s IS %s", database, quoteText(p.home.comment)))
	}
	for _, k := range sortedACL(p.home.acl) {
		grantable, has := p.target.acl[k]
		if has && (grantable || !p.home.acl[k]) || k.grantee != "" && !p.will(k.grantee) || k.grantee == p.home.owner && p.target.super {
			continue // an owner gets them with the database
		}
		sql := fmt.Sprintf("GRANT %s ON DATABASE %s TO %s", k.privilege, database, grantee(k.grantee))
		if p.home.acl[k] && k.grantee != "" {
			sql += " WITH GRANT OPTION"
		}
		p.onDatabase(sql)
		p.grants = append(p.grants, sql)
	}
	for _, k := range sortedACL(p.target.acl) {
		if _, has := p.home.acl[k]; has || k.grantee == p.target.owner || k.grantee == p.target.user {
			continue
		}
		sql := fmt.Sprintf("REVOKE %s ON DATABASE %s FROM %s", k.privilege, database, grantee(k.grantee))
		if k.grantee == "" {
			p.onDatabase(sql)
			p.grants = append(p.grants, sql)
		} else {
			p.warn("%s has %s on the database, which it has not on the home shard: %s", k.grantee, k.privilege, sql)
		}
	}
}

func grantee(name string) string {
	if name == "" {
		return "PUBLIC"
	}
	return quoteName(name)
}

func sortedACL(acl map[aclKey]bool) []aclKey {
	return slices.SortedFunc(maps.Keys(acl), func(a, b aclKey) int {
		return cmp.Or(strings.Compare(a.grantee, b.grantee), strings.Compare(a.privilege, b.privilege))
	})
}

// refused is an error with what an operator has to do when the control user may not.
func (p *globalsPlan) refused() error {
	if len(p.beyond) == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "on the new shard %s is no superuser; let a superuser run there, and try again:", p.target.user)
	for _, s := range p.beyond {
		fmt.Fprintf(&b, "\n  %s;", s)
		if name, ok := strings.CutPrefix(s.sql, "CREATE ROLE "); ok && strings.Contains(name, " LOGIN") {
			b.WriteString(" -- and its password, which is not shown here")
		}
	}
	return fmt.Errorf("%w: %s", errGlobals, b.String())
}

// quiet keeps statements with passwords out of the server's log where the user may say so.
const quiet = `SELECT set_config(name, value, true) FROM (VALUES ('log_statement', 'none'), ('log_min_error_statement', 'panic'), ('log_min_duration_statement', '-1'),
	('log_min_duration_sample', '-1')) q (name, value) WHERE (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)`

// carryOut does what is planned, all of it or nothing.
func (p *globalsPlan) carryOut(ctx context.Context, link *shardLink) error {
	if len(p.statements) == 0 {
		return nil
	}
	return pgx.BeginFunc(ctx, link.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, quiet, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		for i, s := range p.statements {
			_, err := tx.Exec(ctx, s.sql, pgx.QueryExecModeSimpleProtocol)
			var said *pgconn.PgError
			switch {
			case err == nil:
			case errors.As(err, &said) && said.Code == "42501":
				p.beyond = p.statements[i:]
				return fmt.Errorf("%w (%s)", p.refused(), said.Message)
			case errors.As(err, &said) && s.told != "" && s.told != s.sql:
				// What the server says of it might have the secret.
				return fmt.Errorf("%s: SQLSTATE %s", s, said.Code)
			default:
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		return nil
	})
}
