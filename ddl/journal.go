package ddl

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"shardproxy/metadata"
	"shardproxy/query"
	"shardproxy/wire"
)

// Shard is one of the cluster's shards.
type Shard struct {
	Name string
	// Connect leads to the shard's primary, as the control user.
	Connect metadata.Connect
}

// Options say whose statements are journalled. Database and Shards are required.
type Options struct {
	// Database is the logical database's name.
	Database string
	// Shards are all of the cluster's; the first is the home shard.
	Shards []Shard
	// Members returns the places of those shards that belong to the cluster when a statement begins, in order. All do where it is nil, or what it returns is.
	Members func() []int
	// Timeout bounds what a Run asks and notes; 0 means DefaultTimeout. It does not
	// bound Resume, which waits as long as its context lets it.
	Timeout time.Duration
	Logger  *slog.Logger // slog.Default when nil
}

// DefaultTimeout is that of Options.
const DefaultTimeout = 10 * time.Second

// kept is how long statements that have ended stay in the journal, as an interval.
const kept = "90 days"

// Advisory locks on the home shard: who works on a statement holds the lock of its
// number, for a session.
const lockClass = 0x73687264 // "shrd"

// Journal is the journal of one database. It holds nothing but its options.
type Journal struct{ opts Options }

// New returns a Journal, which connects when it is asked.
func New(o Options) *Journal {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Journal{opts: o}
}

// Statement is a statement and what its meaning depends on.
type Statement struct {
	// Text is one command with CONCURRENTLY, in UTF-8.
	Text string
	// Role is the one that runs it, SearchPath its search path.
	Role, SearchPath string
	// Settings are others by which its text is read, by their names.
	Settings map[string]string
}

// Begin notes a statement that is about to run, and where. It looks at all shards
// before: what stands in the way on one of them is an error, with PostgreSQL's code, and
// nothing is noted. So is a role that the control user may not act for, and a shard that
// cannot be asked (57P03). All errors are *wire.Error. The caller closes the Run.
func (j *Journal) Begin(ctx context.Context, st Statement) (*Run, error) {
	ctx, cancel := context.WithTimeout(ctx, j.opts.Timeout)
	defer cancel()
	c := query.ReadConcurrent(st.Text)
	if c == nil || c.Odd != "" {
		return nil, wire.Errorf("0A000", "the statement is none that can be journalled")
	}
	r := &Run{j: j, st: st, members: j.members(), sights: make([]*sight, len(j.opts.Shards)), states: make([]string, len(j.opts.Shards))}
	conns, err := j.lookAll(ctx, r, soughtBy(c))
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				hangUp(conn)
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	if r.shards, err = j.judge(c, r.members, r.sights); err != nil {
		return nil, err
	}
	if c.Kind == query.ConcurrentCreateIndex && c.Object.Name == "" {
		if c, err = j.name(ctx, r, c, conns); err != nil {
			return nil, err
		}
	}
	r.sought = soughtBy(c)
	return r, r.open(ctx, c)
}

// members are the places of the shards that belong to the cluster.
func (j *Journal) members() (all []int) {
	if j.opts.Members != nil {
		all = j.opts.Members()
	}
	if all != nil {
		return all
	}
	for i := range j.opts.Shards {
		all = append(all, i)
	}
	return all
}

// lookAll looks at all shards at once, through connections that the caller closes.
func (j *Journal) lookAll(ctx context.Context, r *Run, w sought) ([]*pgx.Conn, error) {
	conns := make([]*pgx.Conn, len(j.opts.Shards))
	group, ctx := errgroup.WithContext(ctx)
	for _, i := range r.members {
		group.Go(func() (err error) {
			if conns[i], err = j.as(ctx, i, &r.st); err != nil {
				return err
			}
			r.sights[i], err = look(ctx, conns[i], w)
			return said(j.opts.Shards[i].Name, err)
		})
	}
	return conns, group.Wait()
}

// judge returns the shards where a statement is to be run, or what a server would say
// on one of them.
func (j *Journal) judge(c *query.Concurrent, members []int, all []*sight) (shards []int, err error) {
	for _, i := range members {
		s, name := all[i], j.opts.Shards[i].Name
		switch c.Kind {
		case query.ConcurrentCreateIndex:
			if s.table.oid == 0 {
				return nil, missing(c.Table, name)
			}
			if s.object.oid != 0 && !c.Lenient {
				return nil, taken(&s.object, name)
			}
		case query.ConcurrentReindexTable, query.ConcurrentDetach:
			if s.object.oid == 0 {
				return nil, missing(c.Object, name)
			}
			if s.table.oid == 0 {
				return nil, missing(c.Table, name)
			}
		default:
			if s.object.oid == 0 {
				continue // it may be one of a table on the home shard alone
			}
		}
		if first := all[0]; s.table.String() != first.table.String() && first.table.oid != 0 {
			return nil, wire.Errorf("55000", "the name means %s on shard %s and %s on shard %s", &first.table, j.opts.Shards[0].Name, &s.table, name)
		}
		shards = append(shards, i)
	}
	return shards, j.judgeIndex(c, members, all, shards)
}

// judgeIndex looks whether an index that is there already is on all shards that have
// its table, which only they know.
func (j *Journal) judgeIndex(c *query.Concurrent, members []int, all []*sight, shards []int) error {
	if c.Kind != query.ConcurrentDropIndex && c.Kind != query.ConcurrentReindexIndex {
		return nil
	}
	switch {
	case c.Lenient && len(shards) > 0:
		return nil
	case c.Lenient:
		return nil // the caller runs it on the home shard, for what PostgreSQL says
	case len(shards) == 0 || shards[0] != 0:
		return noIndex(c, j.opts.Shards[0].Name)
	case len(shards) == 1 || len(shards) == len(members):
		return nil
	}
	for _, i := range members {
		if all[i].object.oid == 0 {
			return noIndex(c, j.opts.Shards[i].Name)
		}
	}
	return nil
}

func missing(n query.Name, shard string) *wire.Error {
	return wire.Errorf("42P01", "relation \"%s\" does not exist", written(n)).WithDetail("Shard %s. Nothing was done.", shard)
}

func noIndex(c *query.Concurrent, shard string) *wire.Error {
	e := wire.Errorf("42704", "index \"%s\" does not exist", written(c.Object))
	if c.Kind == query.ConcurrentReindexIndex {
		e = wire.Errorf("42P01", "relation \"%s\" does not exist", written(c.Object))
	}
	return e.WithDetail("Shard %s. Nothing was done.", shard)
}

func taken(r *relation, shard string) *wire.Error {
	e := wire.Errorf("42P07", "relation \"%s\" already exists", r.name).WithDetail("Shard %s. Nothing was done.", shard)
	if r.table != 0 && !r.valid {
		return e.WithDetail("Shard %s, where it is an invalid index. Nothing was done.", shard).
			WithHint("\"shardproxy ddl status\" shows whether a statement has left it; else drop it.")
	}
	return e
}

func written(n query.Name) string {
	if n.Schema != "" {
		return n.Schema + "." + n.Name
	}
	return n.Name
}

// name gives the index the name that PostgreSQL would give it on the home shard, or the
// next that is free on all shards. r is on its way: its text has the name then.
func (j *Journal) name(ctx context.Context, r *Run, c *query.Concurrent, conns []*pgx.Conn) (named *query.Concurrent, err error) {
	table := &r.sights[0].table
	err = within(ctx, conns[0], false, func(tx pgx.Tx) error {
		create, err := copied(ctx, tx, c, table)
		for n := 0; err == nil && n < namesMax; n++ {
			var index *relation
			if index, err = create(""); err != nil {
				break
			}
			var free bool
			if free, err = freeOn(ctx, conns, tx, query.Name{Schema: table.namespace, Name: index.name}); err != nil || !free {
				continue
			}
			text, ok := c.Named(pgx.Identifier{index.name}.Sanitize())
			if named = query.ReadConcurrent(text); !ok || named == nil {
				return errPlace
			}
			r.st.Text = text
			return nil
		}
		return err
	})
	shard := j.opts.Shards[0].Name
	switch {
	case errors.Is(err, errPlace) || err == nil && named == nil:
		return nil, wire.Errorf("0A000", "no name for the index, the same on all shards, is found").WithHint("Give it a name.")
	case sqlstate(err) == "42501":
		return nil, said(shard, err).(*wire.Error).WithHint("Give the index a name: to find one, a temporary table is made.")
	}
	return named, said(shard, err)
}

// freeOn reports whether no relation has the name on any shard; tx is a transaction on
// the first.
func freeOn(ctx context.Context, conns []*pgx.Conn, tx pgx.Tx, n query.Name) (bool, error) {
	r, err := relationOf(ctx, tx, n)
	if err != nil || r.oid != 0 {
		return false, err
	}
	for _, conn := range conns[1:] {
		if conn == nil {
			continue // no shard of the cluster
		}
		err := within(ctx, conn, false, func(tx pgx.Tx) error {
			r, err = relationOf(ctx, tx, n)
			return err
		})
		if err != nil || r.oid != 0 {
			return false, err
		}
	}
	return true, nil
}
