package rebalance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/catalog"
	"shardproxy/metadata"
	"shardproxy/shardmap"
)

// MoverShard is one shard as a Mover reaches it.
type MoverShard struct {
	Name string
	// Connect leads to its primary as the control user, Replication to the same with the parameter replication=database.
	Connect     func(context.Context) (*pgx.Conn, error)
	Replication func(context.Context) (*pgconn.PgConn, error)
}

// FlipPart is one shard's part of the transaction that flips slots.
type FlipPart struct {
	Shard string
	Conn  *pgx.Conn
}

// MoverOptions say whose slots a Mover moves.
type MoverOptions struct {
	// Shards are those of the configuration, the home shard first.
	Shards []MoverShard
	// Tables returns the tables whose rows lie in slots by a catalog, and what is in the way of moving these of so many.
	Tables func(c *catalog.Catalog, moving *Set, slots int) ([]*Table, []*Blocker)
	// Everywhere returns the tables that every shard has whole, with NewTable for one slot and no key, and what keeps a shard from
	// getting their rows.
	Everywhere func(c *catalog.Catalog) ([]*Table, []*Blocker)
	// Differences says how the definitions of another shard differ from those of the home shard; "" for not at all.
	Differences func(ctx context.Context, shard string) (string, error)
	// Stays returns what keeps a shard from leaving that owns no slots, by the home shard's catalog.
	Stays func(c *catalog.Catalog, shard string) []*Blocker
	// Commit commits open transactions on several shards, all or none; the first decides. unknown is set when it cannot be said which.
	Commit func(ctx context.Context, parts []FlipPart) (unknown bool, err error)
	// Yields, when set, says that others are to carry out what there is.
	Yields func() bool
	// Limits returns what moves may take; it is asked again and again. The defaults when nil.
	Limits func() MoverLimits
	// Workers is how many tables, or parts of them, are copied at once; 2 when 0.
	Workers int
	// Logger hears of each phase; slog.Default when nil.
	Logger *slog.Logger
}

// DefaultHoldLimit bounds one hold.
const DefaultHoldLimit = 500 * time.Millisecond

// How a Mover waits.
const (
	moverIdle    = time.Second            // between two looks for moves
	moverConnect = 10 * time.Second       // for a connection to a shard
	moverPoll    = 5 * time.Millisecond   // for proxies
	moverTell    = time.Second            // until it is said who is waited for
	moverWatch   = 500 * time.Millisecond // between two looks at the row of a move while something long runs
	moverCaught  = 100 * time.Millisecond // how long the last changes may take before writes are held
	moverBackoff = 5 * time.Second        // the longest wait between two holds
)

// Mover carries moves of slots out. Of all Movers of a cluster one does at a time; another goes on where it was
// ended. It is made by NewMover and run by one goroutine.
type Mover struct {
	o    MoverOptions
	home *pgx.Conn     // nil, or what moves are looked for with
	maps chan struct{} // has one place: who changes the slot map, or counts on it that nobody else of this Mover does

	throttle *Throttle // of what all moves copy

	mu    sync.Mutex
	away  map[string]time.Time // since when proxies that are waited for have been seen not to be there
	parts map[int64]float64    // of the rate, that moves use
	anew  map[int64]int        // how often moves were copied anew
}

// NewMover returns a Mover. It starts nothing.
func NewMover(o MoverOptions) *Mover {
	if o.Workers <= 0 {
		o.Workers = 2
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	m := &Mover{o: o, maps: make(chan struct{}, 1), throttle: &Throttle{}, away: map[string]time.Time{}, parts: map[int64]float64{}, anew: map[int64]int{}}
	m.throttle.SetRate(m.limits().CopyRate)
	return m
}

// errOvertaken says that somebody else has advanced the move.
var errOvertaken = errors.New("the move was advanced by somebody else")

// errAbort says that the move is to be given up.
var errAbort = errors.New("the move is given up")

// Run looks for moves and carries them out until the context ends. What fails is tried again.
func (m *Mover) Run(ctx context.Context) {
	defer m.leave()
	var told string
	for ctx.Err() == nil {
		switch err := m.turn(ctx); {
		case ctx.Err() != nil:
			return
		case err == nil:
			told = ""
		case err.Error() != told:
			told = err.Error()
			m.o.Logger.Warn("a move of slots does not go on, and is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(moverIdle):
		}
	}
}

// moverSession sees to it that nothing a role or a database has set changes what is done.
func moverSession(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SET search_path = pg_catalog, pg_temp; SET default_transaction_read_only = off; SET default_transaction_deferrable = off;
		SET default_transaction_isolation = 'read committed'; SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
		SET DateStyle = 'ISO'; SET TimeZone = 'UTC';
		SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('transaction_timeout', 'idle_session_timeout');
		SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')`)
	return err
}

// moving is one move that is being carried out.
type moving struct {
	m              *Mover
	home           *pgx.Conn // its own, for as long as which nobody else carries moves out
	move           *metadata.Move
	source, target *MoverShard
	slots          *Set
	total          int // how many slots there are
	tables         []*Table
	carry          *Carry
	reverse        *Carry               // from the target to the source; nil when nothing is streamed back
	flipped        time.Time            // when the hold of the flip began
	conns          map[string]*pgx.Conn // to the shards of the flip, made before it
	now            *shardmap.Map        // while writes are held
	cluster        *metadata.Cluster
	defined        string // what definitions gave when tables were looked at
	// What watches the servers has found, and what it slows down.
	verdict atomic.Pointer[CarryError]
	why     string // it cannot be rolled back
	mine    bool   // it is the only one that changes the slot map: see alone
	slowed  atomic.Pointer[string]
	purge   atomic.Pointer[Purge]
}

// carryOut takes one move to its end.
func (m *Mover) carryOut(ctx context.Context, home *pgx.Conn, move *metadata.Move) error {
	r := &moving{m: m, home: home, move: move}
	for i := range m.o.Shards {
		switch s := &m.o.Shards[i]; s.Name {
		case move.Source:
			r.source = s
		case move.Target:
			r.target = s
		}
	}
	if r.source == nil || r.target == nil {
		return fmt.Errorf("its shards %q and %q are not both in the configuration", move.Source, move.Target)
	}
	defer r.share()
	r.why, _, _ = strings.Cut(move.Said, saidBehind)
	if !strings.HasPrefix(r.why, notKept) {
		r.why = ""
	}
	if move.Kind != metadata.MoveLeave {
		defer r.govern(ctx)()
	}
	if err := r.dropKept(ctx); err != nil {
		r.say(ctx, err.Error())
		return err
	}
	blockers, err := r.look(ctx)
	if err != nil {
		if v := r.verdict.Load(); v != nil && kept(move) {
			return r.to(ctx, metadata.MovePurging, notKept+v.Error())
		}
		return err
	}
	m.o.Logger.Info("moves", "move", move.ID, "kind", move.Kind, "phase", move.Phase, "from", move.Source, "to", move.Target, "slots", len(move.Slots))
	for !move.Phase.Ended() {
		if move.Phase == metadata.MoveReversing && move.Wanted == "" {
			return r.keep(ctx)
		}
		if move.Abort && !move.Phase.Flipped() && move.Phase != metadata.MoveAborting {
			next := metadata.MoveAborting
			if move.Phase == metadata.MovePlanned {
				next = metadata.MoveAborted // it has made nothing
			}
			if err := r.to(ctx, next, "given up"); err != nil {
				return err
			}
			continue
		}
		was := move.Phase
		err := r.rest(ctx)
		if err == nil {
			err = r.step(ctx, blockers)
		}
		var lasting *CarryError
		switch {
		case errors.Is(err, errTurned):
			return nil
		case errors.Is(err, errAbort):
			move.Abort = true
			continue
		case errors.As(err, &lasting) && r.again(lasting):
			move.Verified, move.Origin, move.Copied = false, nil, 0
			if err := r.to(ctx, metadata.MoveCopying, "copied anew: "+lasting.Error()); err != nil {
				return err
			}
			return nil // with nothing that was known of the servers before
		case errors.As(err, &lasting) && lasting.Cause != Delayed && lasting.Cause != LeftOver && !move.Phase.Flipped() && move.Phase != metadata.MoveAborting:
			if err := r.to(ctx, metadata.MoveAborting, lasting.Error()); err != nil {
				return err
			}
			continue
		case err != nil:
			r.say(ctx, err.Error())
			return err
		}
		if was == move.Phase {
			return fmt.Errorf("phase %s does not end", was)
		}
		m.o.Logger.Info("move goes on", "move", move.ID, "phase", move.Phase, "said", move.Said)
	}
	return nil
}

// moverAnew is how often a move is copied anew before it is given up.
const moverAnew = 3

// again reports whether a move that cannot go on from where it is can be copied anew: a server has failed over, and has lost the replication slot or the copy.
func (r *moving) again(why *CarryError) bool {
	if why.Cause != SlotLost && why.Cause != NotCopied || r.move.Phase != metadata.MoveFollowing || r.move.Back {
		return false
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	r.m.anew[r.move.ID]++
	return r.m.anew[r.move.ID] <= moverAnew
}

// look finds out what moves.
func (r *moving) look(ctx context.Context) ([]*Blocker, error) {
	now, c, err := metadata.Load(ctx, r.home)
	if err != nil {
		return nil, err
	}
	r.cluster, r.total = c, now.Slots()
	if r.move.Kind != metadata.MoveSlots {
		r.total, r.move.Slots = 1, []shardmap.Slot{0} // of what every shard has whole
	}
	r.slots = NewSet(r.move.Slots, r.total)
	if r.move.Kind == metadata.MoveLeave {
		return nil, nil // nothing is carried, and its server may be lost
	}
	conn, err := r.source.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer carryClose(conn.PgConn())
	tables, err := r.source.catalog(ctx, conn)
	if err != nil {
		return nil, err
	}
	var blockers []*Blocker
	r.tables, blockers = r.movable(tables)
	r.carry = NewCarry(CarryOptions{
		Move: r.move.Name(), Tables: r.tables, Slots: r.slots, Source: r.source.Connect, Target: r.target.Connect, Replication: r.source.Replication,
		Throttle: r.m.throttle,
	})
	if r.move.Reversible && !r.move.Back {
		r.reverse = NewCarry(CarryOptions{
			Move: r.move.ReverseName(), Tables: r.tables, Slots: r.slots, Source: r.target.Connect, Target: r.source.Connect, Replication: r.target.Replication,
		})
	}
	return blockers, nil
}

// movable returns what is to be carried, and what is in the way of it.
func (r *moving) movable(c *catalog.Catalog) ([]*Table, []*Blocker) {
	switch r.move.Kind {
	case metadata.MoveJoin:
		return r.m.o.Everywhere(c)
	case metadata.MoveLeave:
		return nil, r.m.o.Stays(c, r.move.Source)
	}
	return r.m.o.Tables(c, r.slots, r.total)
}

// connect connects and makes the session one of ours.
func (s *MoverShard) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, moverConnect) // or it waits for a primary without an end
	defer cancel()
	conn, err := s.Connect(ctx)
	if err == nil {
		if err = moverSession(ctx, conn); err != nil {
			carryClose(conn.PgConn())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", s.Name, err)
	}
	return conn, nil
}

// catalog reads what the shard has, over a connection to it.
func (s *MoverShard) catalog(ctx context.Context, conn *pgx.Conn) (*catalog.Catalog, error) {
	c, err := catalog.LoadTables(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("shard %s: read the catalog: %w", s.Name, err)
	}
	return c, nil
}

// to stores another phase, and what is said of it.
func (r *moving) to(ctx context.Context, phase metadata.MovePhase, said string) error {
	from := r.move.Phase
	if strings.HasPrefix(said, notKept) {
		r.why = said
	} else if r.why != "" {
		said = strings.TrimSuffix(r.why+saidBehind+said, saidBehind)
	}
	r.move.Phase, r.move.Said = phase, strings.ToValidUTF8(said, "?")
	ok, err := metadata.AdvanceMove(ctx, r.home, from, r.move)
	if err == nil && !ok {
		err = errOvertaken
	}
	if err != nil {
		r.move.Phase = from
	}
	return err
}

// say stores what is waited for. It is for people: that it fails shows elsewhere.
func (r *moving) say(ctx context.Context, said string) {
	if said == r.move.Said || r.why != "" && said == "" || r.home.IsClosed() {
		return
	}
	_ = r.to(ctx, r.move.Phase, said)
}

// watched runs what takes long, and meanwhile looks whether the move is to be given up, and stores how far it is.
func (r *moving) watched(ctx context.Context, progress func(), run func(context.Context) error) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(inner) }()
	tick := time.NewTicker(moverWatch)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			progress()
			return err
		case <-tick.C:
		}
		err := r.reread(ctx)
		if err == nil {
			progress()
			err = r.to(ctx, r.move.Phase, r.paceSaid())
		}
		if err != nil {
			cancel()
			<-done
			return err
		}
	}
}

// reread looks whether the move is to be given up.
func (r *moving) reread(ctx context.Context) error {
	all, err := metadata.Moves(ctx, r.home, false)
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.ID == r.move.ID {
			r.move.Paused, r.move.Wanted = m.Paused, m.Wanted
			if r.move.Kind == metadata.MoveLeave && m.Phase == metadata.MovePurging {
				r.move.Abort = m.Abort
			}
			if m.Phase != r.move.Phase {
				return errOvertaken
			}
			if m.Abort && !m.Phase.Flipped() && m.Phase != metadata.MoveAborting {
				return errAbort
			}
			if v := r.verdict.Load(); v != nil && (!m.Phase.Flipped() || m.Phase == metadata.MoveReversing) && m.Phase != metadata.MoveAborting {
				return v
			}
			return nil
		}
	}
	return errOvertaken
}

// rest waits while the move is paused. Writes that are held because the target owns their slots are not kept waiting.
func (r *moving) rest(ctx context.Context) error {
	if r.move.Phase == metadata.MoveFlipped || r.move.Phase == metadata.MoveReversing || r.move.Phase == metadata.MoveAborting {
		return nil
	}
	err := r.reread(ctx)
	if err != nil || !r.move.Paused {
		return err
	}
	for err == nil && r.move.Paused {
		r.say(ctx, "paused, until shardproxy rebalance resume")
		if err = carrySleep(ctx, moverWatch); err == nil {
			err = r.reread(ctx)
		}
	}
	if err == nil {
		r.say(ctx, "")
	}
	return err
}

// bits returns the slots of the move as the text of a bit string.
func (r *moving) bits() string {
	bits := []byte(strings.Repeat("0", r.total))
	for _, s := range r.slots.Slots() {
		bits[s] = '1'
	}
	return string(bits)
}

// hideSQL sets or clears the bits of the slots on a shard; that it has been done before makes no difference.
func (r *moving) hideSQL(on bool) string {
	op := "slots | '" + r.bits() + "'::bit varying"
	if !on {
		op = "slots & ~ '" + r.bits() + "'::bit varying"
	}
	return "UPDATE shardproxy.hidden SET slots = " + op
}

// hide sets or clears the bits of the slots on a shard.
func (r *moving) hide(ctx context.Context, s *MoverShard, on bool) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(conn.PgConn())
	if _, err := conn.Exec(ctx, r.hideSQL(on)); err != nil {
		return fmt.Errorf("shard %s: %w", s.Name, err)
	}
	return nil
}
