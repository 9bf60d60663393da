package rebalance

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// MoverLimits bound what moves take of the shards. The zero value has the defaults, but for what says otherwise.
type MoverLimits struct {
	// Moves is how many are carried out at once, each between other shards than the others; 2 when 0.
	Moves int
	// HoldLimit is for how long writes of the slots of a move may be held at once; DefaultHoldLimit when 0.
	HoldLimit time.Duration
	// CopyRate is how many bytes all moves copy in a second, PurgeRows how many rows each deletes; 0 does not bound.
	CopyRate, PurgeRows int64
	// MaxLag is how many bytes of WAL a standby may be behind before both slow down; 0 does not look.
	MaxLag int64
	// MaxActive is how many sessions may run statements on a server before they do; half of what may connect when 0.
	MaxActive int
	// MaxWAL is how many bytes of WAL a server may keep for a move; 0 does not bound.
	MaxWAL int64
}

// limits are those of now.
func (m *Mover) limits() MoverLimits {
	var l MoverLimits
	if m.o.Limits != nil {
		l = m.o.Limits()
	}
	if l.Moves <= 0 {
		l.Moves = 2
	}
	if l.HoldLimit <= 0 {
		l.HoldLimit = DefaultHoldLimit
	}
	return l
}

// How moves give way: the part of their rates that they use is halved each second in which a server has too much to do, and grows by a quarter in
// each in which none has.
const (
	governEach   = time.Second
	governLeast  = 1.0 / 64
	governGrowth = 1.25
	// governUnbound stands for no bound, so that it can be halved.
	governUnbound, governUnboundRows = 1 << 30, 1 << 20
)

// governSQL asks a server how it is: how far its farthest standby is behind that follows it now, how many others run statements, how many may, and how much WAL
// it keeps for a move, whose replication slots are in $1.
const governSQL = `SELECT coalesce((SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)) FROM pg_stat_replication
		WHERE state = 'streaming' AND pid NOT IN (SELECT active_pid FROM pg_replication_slots WHERE slot_type = 'logical' AND active_pid IS NOT NULL)), 0)::int8,
	(SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> ALL ($1::text[]))::int4,
	current_setting('max_connections')::int4,
	coalesce((SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) FROM pg_replication_slots WHERE slot_name = ANY ($1::text[]) AND database = current_database()), 0)::int8`

// governed is what a server has said.
type governed struct {
	lag          int64
	active, most int
	kept         int64
}

// slows says why a move is to slow down, "" when it is not.
func (g *governed) slows(shard string, l *MoverLimits) string {
	most := l.MaxActive
	if most == 0 {
		most = g.most / 2
	}
	switch {
	case l.MaxLag > 0 && g.lag > l.MaxLag:
		return fmt.Sprintf("a standby of shard %s is %s behind", shard, preflightBytes(g.lag))
	case g.active > most:
		return fmt.Sprintf("%d sessions of shard %s run statements", g.active, shard)
	}
	return ""
}

// govern watches both servers of a move until stop is called. It slows copying and deleting down where that is felt, and has the move given up that makes a
// server keep too much WAL.
func (r *moving) govern(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.m.gives(r.move.ID, 0)
		g := &governor{r: r, part: 1, names: []string{MoveObject(r.move.Name()), MoveObject(r.move.ReverseName())}}
		defer g.close()
		for carrySleep(ctx, governEach) == nil {
			g.look(ctx)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// governor is what watches the servers of one move.
type governor struct {
	r     *moving
	names []string // of replication slots, which sessions are called, too
	part  float64  // of the rates
	conns [2]*pgx.Conn
}

func (g *governor) close() {
	for _, c := range g.conns {
		if c != nil {
			carryClose(c.PgConn())
		}
	}
}

// look asks both servers. One that cannot be asked is somebody else's business.
func (g *governor) look(ctx context.Context) {
	l := g.r.m.limits()
	slow := ""
	for i, s := range []*MoverShard{g.r.source, g.r.target} {
		is, err := g.ask(ctx, i, s)
		if err != nil {
			continue
		}
		if l.MaxWAL > 0 && is.kept > l.MaxWAL {
			g.r.verdict.Store(&CarryError{Cause: Behind, Reason: fmt.Sprintf("shard %s keeps %s of WAL for the move", s.Name, preflightBytes(is.kept)),
				Hint: "it is more than moves.max_wal: find out why changes are not carried over, or allow more"})
		}
		if why := is.slows(s.Name, &l); why != "" {
			slow = why
		}
	}
	if slow != "" {
		g.part = max(g.part/2, governLeast)
	} else {
		g.part = min(g.part*governGrowth, 1)
	}
	if before := g.r.slowed.Swap(&slow); before == nil || *before != slow {
		g.r.m.o.Logger.Info("the pace of a move", "move", g.names[0], "part", g.part, "because", slow)
	}
	g.r.m.gives(g.r.move.ID, g.part)
	if p := g.r.purge.Load(); p != nil {
		p.SetRate(rateOf(l.PurgeRows, governUnboundRows, g.part))
	}
}

// governAsk bounds one question.
const governAsk = 5 * time.Second

func (g *governor) ask(ctx context.Context, i int, s *MoverShard) (is governed, err error) {
	if g.conns[i] == nil || g.conns[i].IsClosed() {
		if g.conns[i], err = s.connect(ctx); err != nil {
			g.conns[i] = nil
			return is, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, governAsk)
	defer cancel()
	err = g.conns[i].QueryRow(ctx, governSQL, pgx.QueryExecModeExec, g.names).Scan(&is.lag, &is.active, &is.most, &is.kept)
	return is, err
}

// rateOf is a part of a rate, of which 0 is no bound and then unbound stands for it.
func rateOf(rate, unbound int64, part float64) int64 {
	switch {
	case part == 1:
		return rate
	case rate == 0:
		rate = unbound
	}
	return max(int64(float64(rate)*part), 1)
}

// gives notes which part of the rate a move uses, 0 for one that has ended: all copy at the pace of the slowest.
func (m *Mover) gives(move int64, part float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if part == 0 {
		delete(m.parts, move)
	} else {
		m.parts[move] = part
	}
	least := 1.0
	for _, p := range m.parts {
		least = min(least, p)
	}
	m.throttle.SetRate(rateOf(m.limits().CopyRate, governUnbound, least))
}

// slowedSaid is what is said of a move that is slowed down, before why.
const slowedSaid = "slowed down: "

// paceSaid is what is to be said of a move while something long runs.
func (r *moving) paceSaid() string {
	switch slow := r.slowed.Load(); {
	case slow != nil && *slow != "":
		return slowedSaid + *slow
	case strings.HasPrefix(r.move.Said, slowedSaid):
		return ""
	}
	return r.move.Said
}
