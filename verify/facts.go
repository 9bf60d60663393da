package verify

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"shardproxy/catalog"
)

func texts(ctx context.Context, s *Session, sql string) ([]string, error) {
	rows, err := s.rows(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// strays finds single tables that have rows on another shard than the home shard:
// no statement through the proxy sees them.
func (c *schemaChecker) strays(ctx context.Context, s *Session) error {
	members, err := texts(ctx, s, "SELECT objid::text FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e'")
	if err != nil {
		return err
	}
	for _, t := range s.Catalog.Tables() {
		if t.Root != nil || t.Schema == ownSchema || t.Kind != catalog.KindTable && t.Kind != catalog.KindPartitioned || slices.Contains(members, fmt.Sprint(t.OID)) {
			continue
		}
		ruled := t
		if home := tableOf(c.home, t.Schema, t.Name); home != nil {
			ruled = home
		}
		if placeOf(c.rules, ruled).kind != single {
			continue
		}
		f := Finding{Severity: Fault, Shard: s.Shard, Kind: t.Kind.String(), Schema: t.Schema, Name: t.Name}
		var some bool
		switch err := s.row(ctx, fmt.Sprintf("SELECT EXISTS (SELECT FROM %s)", quoted(t.Schema, t.Name))).Scan(&some); {
		case ctx.Err() != nil || s.conn.IsClosed():
			return err
		case err != nil:
			f.Severity, f.Message = Note, fmt.Sprintf("single table %s.%s is here too; whether it has rows was not found out: %s", t.Schema, t.Name, Told(err))
		case some:
			f.Message = fmt.Sprintf("single table %s.%s has rows here, which no statement finds: single tables are on the home shard %s", t.Schema, t.Name, c.home.Shard)
		default:
			continue
		}
		c.add(f)
	}
	return nil
}

// maxWait bounds the question for one column's largest value, for which there
// may be no index.
const maxWait = "20s"

// sequences compares the home shard's sequences with the values that there are.
func (c *schemaChecker) sequences(ctx context.Context, sessions []*Session) error {
	if !c.hasHome {
		return nil
	}
	for _, t := range c.home.Catalog.Tables() {
		p := placeOf(c.rules, t)
		if t.Root != nil || t.Schema == ownSchema || p.kind != sharded && p.kind != reference {
			continue
		}
		for i := range t.Columns {
			col := &t.Columns[i]
			if k := col.Default.Kind; k != catalog.DefaultSequence && k != catalog.DefaultIdentity || col.Default.Sequence == nil || col.Default.Sequence.Sequence == nil {
				continue
			}
			if err := c.sequence(ctx, sessions, t, col); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *schemaChecker) sequence(ctx context.Context, sessions []*Session, t *catalog.Table, col *catalog.Column) error {
	seq := col.Default.Sequence
	name := quoted(seq.Schema, seq.Name)
	f := Finding{Severity: Note, Kind: "sequence", Schema: seq.Schema, Name: seq.Name,
		Message: fmt.Sprintf("%s.%s, column %s: its values are drawn from sequence %s on %s for all shards", t.Schema, t.Name, col.Name, name, c.home.Shard)}
	c.add(f)
	if seq.Sequence.Increment < 0 || seq.Sequence.Cycle {
		return nil
	}
	var next int64
	if err := c.home.row(ctx, fmt.Sprintf("SELECT last_value + is_called::int FROM %s", name)).Scan(&next); err != nil {
		if ctx.Err() != nil || c.home.conn.IsClosed() {
			return fmt.Errorf("shard %s: %w", c.home.Shard, err)
		}
		f.Message = fmt.Sprintf("where sequence %s on %s stands was not found out: %s", name, c.home.Shard, Told(err))
		c.add(f)
		return nil
	}
	var highest int64
	var where string
	for _, s := range sessions {
		value, err := c.highest(ctx, s, t, col.Name)
		switch {
		case err != nil && (ctx.Err() != nil || s.conn.IsClosed()):
			return fmt.Errorf("shard %s: %w", s.Shard, err)
		case err != nil:
			c.add(Finding{Severity: Note, Shard: s.Shard, Kind: "sequence", Schema: seq.Schema, Name: seq.Name,
				Message: fmt.Sprintf("%s.%s, column %s: its largest value was not found out: %s", t.Schema, t.Name, col.Name, Told(err))})
		case value > highest:
			highest, where = value, s.Shard
		}
	}
	if highest >= next {
		f.Severity, f.Shard, f.Home, f.Here = Fault, "", fmt.Sprint(next), fmt.Sprint(highest)
		f.Message = fmt.Sprintf("sequence %s on %s will give %d next, but %s.%s has %s = %d on shard %s: values would come again",
			name, c.home.Shard, next, t.Schema, t.Name, col.Name, highest, where)
		f.Mend, f.MendOn = fmt.Sprintf("SELECT pg_catalog.setval(%s, %d)", literal(name), highest), c.home.Shard
		c.add(f)
	}
	return nil
}

// highest returns the largest value of a column on a shard, 0 when there is none.
func (c *schemaChecker) highest(ctx context.Context, s *Session, t *catalog.Table, column string) (value int64, err error) {
	here := tableOf(s, t.Schema, t.Name)
	if here == nil || here.Column(column) == nil {
		return 0, nil // told as a difference
	}
	if err := s.exec(ctx, "SET statement_timeout = '"+maxWait+"'"); err != nil {
		return 0, err
	}
	err = s.row(ctx, fmt.Sprintf("SELECT coalesce(max(%s), 0)::bigint FROM %s", quoted(column), quoted(t.Schema, t.Name))).Scan(&value)
	if off := s.exec(ctx, "SET statement_timeout = 0"); err == nil {
		err = off
	}
	return value, err
}
