package rebalance

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/catalog"
)

// PreflightSide is one of the shards of a move.
type PreflightSide struct {
	// Shard is the shard's name.
	Shard string
	// Conn leads to its primary, as the control user that the move will have, in no transaction.
	Conn *pgx.Conn
	// Catalog is its schema, loaded with tables.
	Catalog *catalog.Catalog

	facts preflightFacts
}

// PreflightOptions say what is old and how much is told. The zero value has the defaults.
type PreflightOptions struct {
	// Old is how long a transaction that writes may have been open, or a prepared one waited; DefaultPreflightOld when 0.
	Old time.Duration
	// Keys is how many values are named that both sides have; DefaultPreflightKeys when 0.
	Keys int
}

// Defaults of PreflightOptions.
const (
	DefaultPreflightOld  = time.Minute
	DefaultPreflightKeys = 10
)

// PreflightReport is what Preflight found. Each is told once, the servers' first, then those of tables in their order.
type PreflightReport struct {
	// Blockers are in the way of the move. Warnings are not, but somebody should know of them before. Notes say how things
	// are.
	Blockers, Warnings, Notes []*Blocker
}

// String says it in lines for people, the last without its end; "" for nothing.
func (r *PreflightReport) String() string {
	var lines []string
	for _, list := range []struct {
		what string
		all  []*Blocker
	}{{"in the way", r.Blockers}, {"warning", r.Warnings}, {"note", r.Notes}} {
		for _, b := range list.all {
			line := list.what + ": " + b.Error()
			if b.Hint != "" {
				line += " (hint: " + b.Hint + ")"
			}
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// Preflight looks for what is in the way of moving the rows of slots in tables from one shard to another, before anything is
// begun. It writes nothing but a temporary table on the target. Of large tables it reads all rows of the target, and hashes of the
// keys of the source's rows of the slots where a unique constraint lacks the sharding key; memory is bounded.
//
// The error is one of the servers or of ctx, and means that it is not known; connections may be closed then. Repeating is safe.
// Free disk is known only where the server has a function shardproxy.free_disk_bytes() that returns it as bigint:
// PostgreSQL has none.
func Preflight(ctx context.Context, source, target *PreflightSide, tables []*Table, slots *Set, o PreflightOptions) (*PreflightReport, error) {
	o.Old, o.Keys = cmp.Or(o.Old, DefaultPreflightOld), cmp.Or(o.Keys, DefaultPreflightKeys)
	p := &preflight{source: source, target: target, tables: tables, slots: slots, options: o, report: &PreflightReport{}}
	for _, s := range []*PreflightSide{source, target} {
		if err := s.ask(ctx); err != nil {
			return nil, fmt.Errorf("preflight: shard %s: %w", s.Shard, err)
		}
	}
	if source.facts.system == target.facts.system && source.facts.database == target.facts.database {
		p.block(target, nil, "it is the same database as shard "+source.Shard+", or a physical copy of it", "move to another shard")
		return p.report, nil
	}
	for _, s := range []*PreflightSide{source, target} {
		if err := p.server(ctx, s); err != nil {
			return nil, fmt.Errorf("preflight: shard %s: %w", s.Shard, err)
		}
	}
	p.alike()
	if err := p.transactions(ctx); err != nil {
		return nil, fmt.Errorf("preflight: shard %s: %w", source.Shard, err)
	}
	if err := p.collations(ctx); err != nil {
		return nil, fmt.Errorf("preflight: %w", err)
	}
	if err := p.eachTable(ctx); err != nil {
		return nil, fmt.Errorf("preflight: %w", err)
	}
	return p.report, nil
}

// preflight is one look at two shards.
type preflight struct {
	source, target *PreflightSide
	tables         []*Table
	slots          *Set
	options        PreflightOptions
	report         *PreflightReport
	bytes          int64 // that will come to the target, about
}

// preflightFinding makes one of a shard, and of a table unless that is nil.
func preflightFinding(s *PreflightSide, t *Table, reason, hint string) *Blocker {
	b := &Blocker{Shard: s.Shard, Reason: reason, Hint: hint}
	if t != nil {
		b.Table = t.String()
	}
	return b
}

func (p *preflight) block(s *PreflightSide, t *Table, reason, hint string) {
	p.report.Blockers = append(p.report.Blockers, preflightFinding(s, t, reason, hint))
}

func (p *preflight) warn(s *PreflightSide, t *Table, reason, hint string) {
	p.report.Warnings = append(p.report.Warnings, preflightFinding(s, t, reason, hint))
}

func (p *preflight) note(s *PreflightSide, t *Table, reason, hint string) {
	p.report.Notes = append(p.report.Notes, preflightFinding(s, t, reason, hint))
}

// preflightFacts is what a server says of itself.
type preflightFacts struct {
	version                     int
	standby                     bool
	system                      int64
	database                    uint32
	user, encoding, walLevel    string
	slots, slotsUsed            int
	senders, sendersUsed        int
	keepMB                      int64
	replication                 bool
	mayCreate, mayTemp, seesAll bool
	free                        *int64 // bytes; nil for unknown
	standbys, logicalSlots      []string
	hiddenSessions              int
}

const preflightFactsSQL = `
SELECT current_setting('server_version_num')::int4, pg_is_in_recovery(), s.system_identifier, d.oid, current_user::text, pg_encoding_to_char(d.encoding)::text,
       current_setting('wal_level'), current_setting('max_replication_slots')::int4, (SELECT count(*)::int4 FROM pg_replication_slots),
       current_setting('max_wal_senders')::int4, (SELECT count(*)::int4 FROM pg_stat_replication),
       (SELECT setting::int8 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
       r.rolreplication OR r.rolsuper, has_database_privilege(d.oid, 'CREATE'), has_database_privilege(d.oid, 'TEMPORARY'),
       pg_has_role('pg_read_all_stats', 'USAGE'),
       (SELECT count(*)::int4 FROM pg_stat_activity WHERE query = '<insufficient privilege>'),
       ARRAY(SELECT coalesce(nullif(application_name, ''), client_addr::text, pid::text) FROM pg_stat_replication r
              WHERE NOT EXISTS (SELECT FROM pg_replication_slots l WHERE l.active_pid = r.pid AND l.slot_type = 'logical')
                AND r.state IN ('streaming', 'catchup') ORDER BY 1),
       ARRAY(SELECT slot_name::text FROM pg_replication_slots WHERE slot_type = 'logical' AND slot_name NOT LIKE 'shardproxy\_%' ORDER BY 1)
  FROM pg_database d CROSS JOIN pg_control_system() s CROSS JOIN pg_roles r
 WHERE d.datname = current_database() AND r.rolname = current_user`

// preflightFreeSQL is asked where there is such a function.
const preflightFreeSQL = `SELECT to_regprocedure('shardproxy.free_disk_bytes()') IS NOT NULL`

// ask asks the server.
func (s *PreflightSide) ask(ctx context.Context) error {
	f := &s.facts
	*f = preflightFacts{}
	return s.within(ctx, func() error {
		err := s.row(ctx, preflightFactsSQL).Scan(&f.version, &f.standby, &f.system, &f.database, &f.user, &f.encoding, &f.walLevel, &f.slots, &f.slotsUsed,
			&f.senders, &f.sendersUsed, &f.keepMB, &f.replication, &f.mayCreate, &f.mayTemp, &f.seesAll, &f.hiddenSessions, &f.standbys, &f.logicalSlots)
		if err != nil {
			return err
		}
		var known bool
		if err := s.row(ctx, preflightFreeSQL).Scan(&known); err != nil || !known {
			return err
		}
		return s.row(ctx, "SELECT shardproxy.free_disk_bytes()").Scan(&f.free)
	})
}

// preflightSettings are those of each of its transactions. That policies would hide rows is an error.
const preflightSettings = `BEGIN ISOLATION LEVEL READ COMMITTED%s; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL row_security = off; SET LOCAL statement_timeout = 0;
SET LOCAL standard_conforming_strings = on; SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL TimeZone = 'UTC'; SET LOCAL extra_float_digits = 1; SET LOCAL jit = off`

// within does something in a transaction that is rolled back.
func (s *PreflightSide) within(ctx context.Context, f func() error) error {
	mode := ""
	if s.facts.version > 0 && !s.facts.standby {
		mode = ", READ WRITE"
	}
	if err := s.exec(ctx, fmt.Sprintf(preflightSettings, mode)); err != nil {
		return err
	}
	err := f()
	if s.Conn.IsClosed() {
		return err
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), compareEnd)
	defer cancel()
	return cmp.Or(err, s.exec(end, "ROLLBACK"))
}

func (s *PreflightSide) exec(ctx context.Context, sql string) error {
	return s.Conn.PgConn().Exec(ctx, sql).Close()
}

func (s *PreflightSide) row(ctx context.Context, sql string, args ...any) pgx.Row {
	return s.Conn.QueryRow(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
}

// texts asks for one column.
func (s *PreflightSide) texts(ctx context.Context, sql string, args ...any) ([]string, error) {
	rows, err := s.Conn.Query(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// server judges one server.
func (p *preflight) server(ctx context.Context, s *PreflightSide) error {
	f, purpose := &s.facts, "what changes there while rows are copied could not be followed"
	if s == p.target {
		purpose = "what changes there after the move could not be carried back"
	}
	if f.standby {
		p.block(s, nil, "the server is a standby", "the shard has no primary, or the connection did not lead to it")
		return nil
	}
	if f.walLevel != "logical" {
		p.block(s, nil, "wal_level is "+f.walLevel+": "+purpose, "set wal_level to logical and restart the server")
	}
	if f.slotsUsed >= f.slots {
		p.block(s, nil, fmt.Sprintf("no replication slot is free, of %d (max_replication_slots)", f.slots),
			"drop those that nobody uses (pg_replication_slots), or raise max_replication_slots and restart the server")
	}
	if f.sendersUsed >= f.senders {
		p.block(s, nil, fmt.Sprintf("no WAL sender is free, of %d (max_wal_senders)", f.senders),
			"raise max_wal_senders and restart the server, or end those that are not needed (pg_stat_replication)")
	}
	if !f.replication {
		p.block(s, nil, fmt.Sprintf("the control user %q may not replicate: %s", f.user, purpose), fmt.Sprintf("ALTER ROLE %q REPLICATION, or use a superuser", f.user))
	}
	if !f.mayCreate {
		p.block(s, nil, fmt.Sprintf("the control user %q may not create a publication", f.user), fmt.Sprintf("GRANT CREATE ON DATABASE ... TO %q", f.user))
	}
	err := s.within(ctx, func() error { return s.exec(ctx, "SET LOCAL session_replication_role = replica") })
	if b := replicationRoleBlocker(err); b != nil {
		p.block(s, nil, b.Reason, b.Hint)
	} else if err != nil {
		return err
	}
	if s == p.source {
		p.retention(s)
	}
	return nil
}

// retention tells what a replication slot means for the source's disk and standbys.
func (p *preflight) retention(s *PreflightSide) {
	f := &s.facts
	if f.keepMB < 0 {
		free := "how much is free is not known: PostgreSQL does not tell"
		if f.free != nil {
			free = preflightBytes(*f.free) + " are free"
		}
		p.warn(s, nil, "max_slot_wal_keep_size is unlimited: a move that stands still keeps WAL until the disk is full; "+free,
			"set max_slot_wal_keep_size to what the disk can spare; a move that exceeds it begins anew")
	}
	if len(f.standbys) > 0 {
		p.note(s, nil, fmt.Sprintf("standbys follow it (%s) and do not have the move's replication slot: when one is promoted while rows are copied or followed, the copy begins anew",
			strings.Join(f.standbys, ", ")), "plan no switchover while slots move")
	}
	if len(f.logicalSlots) > 0 {
		p.note(s, nil, fmt.Sprintf("others decode its changes, too (replication slots %s)", strings.Join(f.logicalSlots, ", ")), "")
	}
}

// preflightBytes is a size for people.
func preflightBytes(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	size, i := float64(n), 0
	for ; size >= 1024 && i < len(units)-1; i++ {
		size /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", size, units[i])
}

// alike compares the servers.
func (p *preflight) alike() {
	a, b := &p.source.facts, &p.target.facts
	if a.version/10000 != b.version/10000 {
		p.block(p.target, nil, fmt.Sprintf("it has PostgreSQL %d, shard %s has %d: rows are carried in the server's own format", b.version/10000, p.source.Shard, a.version/10000),
			"upgrade all shards to one major version first")
	}
	if a.encoding != b.encoding {
		p.block(p.target, nil, fmt.Sprintf("its encoding is %s, that of shard %s is %s", b.encoding, p.source.Shard, a.encoding), "make the shard's database anew with the same encoding")
	}
}

// preflightOldSQL lists what a new replication slot would wait for. Transactions that only read are not
// among it.
const preflightOldSQL = `
SELECT 'prepared transaction ' || quote_literal(gid) || ' of ' || owner || ' in ' || database || ', prepared ' || date_trunc('second', clock_timestamp() - prepared) || ' ago'
  FROM pg_prepared_xacts WHERE prepared < clock_timestamp() - $1 * interval '1 second'
UNION ALL
SELECT 'the transaction of ' || coalesce(usename, backend_type) || coalesce(' in ' || datname, '') || ' (process ' || pid || coalesce(', ' || nullif(application_name, ''), '') || '), begun ' || date_trunc('second', clock_timestamp() - xact_start) || ' ago'
  FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND xact_start < clock_timestamp() - $1 * interval '1 second'
ORDER BY 1`

// transactions names those that are old on the source.
func (p *preflight) transactions(ctx context.Context) error {
	s := p.source
	if !s.facts.seesAll && s.facts.hiddenSessions > 0 {
		p.warn(s, nil, fmt.Sprintf("%s of other roles hidden from the control user: transactions for which the copy would have to wait cannot be named", counted(int64(s.facts.hiddenSessions), "session")),
			fmt.Sprintf("GRANT pg_read_all_stats TO %q", s.facts.user))
	}
	return s.within(ctx, func() error {
		old, err := s.texts(ctx, preflightOldSQL, p.options.Old.Seconds())
		for _, what := range old {
			hint := "wait for its end, or end it (pg_terminate_backend)"
			if strings.HasPrefix(what, "prepared") {
				hint = "COMMIT PREPARED or ROLLBACK PREPARED it; one of shardproxy's own is resolved by its proxies"
			}
			p.block(s, nil, "the copy cannot begin before its end: "+what, hint)
		}
		return err
	})
}
