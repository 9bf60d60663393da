package metadata

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"shardproxy/shardmap"
)

// Options say what cluster the configuration describes.
type Options struct {
	// Database is the logical database's name.
	Database string
	// Slots is the number of slots. 0 means what is stored, and for a new
	// cluster shardmap.DefaultSlots.
	Slots int
	// Shards are all shards; the first is the home shard.
	Shards []Shard
	// Join names shards of Shards that are to join a cluster that has a map: Init prepares them, so that a move can have them join.
	// Others that the map does not have are spare: nothing is asked of them.
	Join []string
	// Rules are the configuration's rules by which rows are placed, as JSON in which equal rules are written alike. They must be those
	// that the cluster has; Init stores them where it has none. "": nothing is compared or stored.
	Rules string
	// DryRun makes Init say what it would do.
	DryRun bool
}

// validate returns the problem with the options themselves, or nil.
func (o *Options) validate() error {
	_, err := o.FirstMap()
	if err == nil && o.Database == "" {
		err = errors.New("the database has no name")
	}
	if err != nil {
		return &CheckError{[]*Problem{{Kind: ErrInvalid, Cause: err, Reason: err.Error(), Hint: "correct the configuration"}}}
	}
	return nil
}

// FirstMap returns the map that Init stores where there is none.
func (o *Options) FirstMap() (*shardmap.Map, error) {
	return o.propose(cmp.Or(o.Slots, shardmap.DefaultSlots))
}

// propose returns the first map, its shards in the configuration's order.
func (o *Options) propose(slots int) (*shardmap.Map, error) {
	members, names := make([]shardmap.Member, len(o.Shards)), make([]string, len(o.Shards))
	for i, s := range o.Shards {
		members[i] = shardmap.Member{Name: s.Name, Weight: s.Weight}
		names[i] = s.Name
	}
	m, err := shardmap.Propose(members, slots)
	if err != nil {
		return nil, err
	}
	return shardmap.NewMap(m.Epoch(), slots, names, m.Rows())
}

// Init makes a cluster of shards that hold none: it checks all of them, makes
// the schema and the row of each shard, stores the map that shardmap.Propose
// gives, and tells every shard its epoch. What is there already is compared
// and left alone, but for an older schema, which is upgraded, and an older
// epoch, which is raised. Shards that the map does not have are left alone, but for those of Join, and warned of. So a second run changes nothing, and one after a crash
// goes on where the first ended. Two runs at once follow each other.
//
// The error is a *CheckError with everything that is wrong with the shards,
// found before anything is written, or a *Problem of the shard where writing
// failed. The report is never nil: it holds the warnings and what was done.
func Init(ctx context.Context, o Options) (*Report, error) {
	return initialise(ctx, o, steps())
}

func initialise(ctx context.Context, o Options, way []step) (*Report, error) {
	r := &Report{DryRun: o.DryRun}
	if err := o.validate(); err != nil {
		return r, err
	}
	var turn func(context.Context, *pgx.Conn) error
	if !o.DryRun {
		turn = takeTurn
	}
	v := look(ctx, o, turn, way[len(way)-1].version, true)
	defer closeAll(v.conns)
	var err error
	if r.Warnings, err = v.judge.errors(); err != nil {
		return r, err
	}
	o.Shards = v.shards
	w := &writer{report: r, view: v, way: way, options: o}
	if v.identity.ID == "" && !o.DryRun {
		v.identity.ID = newID()
	}
	return r, w.run(ctx)
}

// takeTurn waits on the home shard until no other Init runs. The lock ends with
// the connection.
func takeTurn(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SELECT pg_catalog.pg_advisory_lock($1, $2)", pgx.QueryExecModeExec, int32(lockClass), int32(lockInit))
	return err
}

// newID returns a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// view is what was found on all shards, and what was thought of it.
type view struct {
	judge    *judge
	shards   []Shard // without those that are spare
	spare    []string
	conns    []*pgx.Conn
	rules    string  // that are stored
	identity Cluster // the home shard's row as it is or should be; without an ID when no shard has one
}

// look surveys the shards and judges all that can be judged. The caller closes
// the connections.
func look(ctx context.Context, o Options, turn func(context.Context, *pgx.Conn) error, known int, making bool) *view {
	v := &view{judge: &judge{making: making, known: known}}
	v.shards = o.Shards
	v.judge.all, v.conns = survey(ctx, o.Shards, turn)
	// After the survey: a change that comes in between must not make the home
	// shard look as if it were behind the others.
	err := v.readMap(ctx, known)
	v.dropSpare(o.Join)
	v.judge.servers()
	v.identity = v.judge.members(Cluster{Database: o.Database, Home: o.Shards[0].Name, Slots: o.Slots})
	if err != nil {
		p := *asked("", "read the slot map", err)
		p.Shard = o.Shards[0].Name
		v.judge.add(p)
	}
	v.judge.placement(v.shards, o.Join)
	v.judge.ruled(o.Shards[0].Name, o.Rules, v.rules)
	v.identity.Slots = cmp.Or(v.identity.Slots, shardmap.DefaultSlots)
	return v
}

// dropSpare leaves out what the map does not have and is not to join.
func (v *view) dropSpare(join []string) {
	if v.judge.stored == nil {
		return
	}
	var shards []Shard
	var all []*facts
	var conns []*pgx.Conn
	names := v.judge.stored.Shards()
	for i, s := range v.shards {
		if slices.Contains(names, s.Name) || slices.Contains(join, s.Name) {
			shards, all, conns = append(shards, s), append(all, v.judge.all[i]), append(conns, v.conns[i])
			continue
		}
		v.spare = append(v.spare, s.Name)
		closeAll(v.conns[i : i+1])
		v.judge.add(Problem{Shard: s.Name, Kind: ErrMismatch, Warning: true, Reason: "the configuration has the shard, the slot map does not: it holds nothing",
			Hint: "\"shardproxy rebalance start --add " + s.Name + "\" has it join"})
	}
	v.shards, v.judge.all, v.conns = shards, all, conns
}

// readMap reads the map when the home shard's row is one that can have one.
func (v *view) readMap(ctx context.Context, known int) error {
	home := v.judge.all[0]
	if !home.readable() || home.rowErr != nil || home.row == nil || home.row.SchemaVersion > known || home.row.Shard != home.row.Home {
		return nil // said already
	}
	if !v.judge.making && home.row.SchemaVersion < known {
		return nil // said already
	}
	m, c, err := load(ctx, v.conns[0], home.row.SchemaVersion) // Init will upgrade it
	if err != nil {
		if v.judge.making && errors.Is(err, ErrNotInitialised) {
			return nil // it will be made
		}
		return err
	}
	v.judge.stored, home.epoch, v.rules = m, m.Epoch(), c.Rules
	return nil
}
