package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/admin"
	"shardproxy/metadata"
	"shardproxy/shardmap"
	"shardproxy/verify"
)

// What the home shard keeps of moves and proxies is read while somebody looks at it or slots move, over one connection, which is
// closed when nobody does.
const (
	lookInterval = time.Second
	lookTimeout  = 3 * time.Second
	// lookLasts is for how long it is read on when nobody asks again.
	lookLasts = 30 * time.Second
)

// onlooker reads what there is to see of a database's cluster. Who asks is told what was read last, and waits for nothing.
type onlooker struct {
	c     *cluster
	poke  chan struct{}
	asked atomic.Int64 // Unix nanoseconds
	moved atomic.Bool  // the home shard has another primary than before
	last  atomic.Pointer[sight]
	conn  *pgx.Conn // of run alone
	// backend is the process on the home shard that serves conn, 0 for none.
	backend atomic.Uint32
}

// sight is what was read at a time.
type sight struct {
	moves   []metadata.Move
	proxies []metadata.Acknowledgement
	at      time.Time // zero: never
	err     string    // why the last reading failed
}

func newOnlooker(c *cluster) *onlooker {
	o := &onlooker{c: c, poke: make(chan struct{}, 1)}
	o.last.Store(&sight{})
	return o
}

// wake has the need of reading looked at again.
func (o *onlooker) wake() {
	select {
	case o.poke <- struct{}{}:
	default:
	}
}

// see returns what was read last, and has it read from now on.
func (o *onlooker) see() *sight {
	now := time.Now().UnixNano()
	if was := o.asked.Swap(now); now-was > int64(lookInterval) {
		o.wake()
	}
	return o.last.Load()
}

// refresh returns when what there is to see was read anew, or could not be, or that takes too long.
func (o *onlooker) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	was := o.last.Load()
	began := time.Now()
	o.asked.Store(began.UnixNano())
	o.wake()
	for s := was; !s.at.After(began) && (s == was || s.err == ""); s = o.last.Load() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// wanted reports whether to read on.
func (o *onlooker) wanted() bool {
	m := o.c.owners().Map()
	return time.Since(time.Unix(0, o.asked.Load())) < lookLasts || m != nil && (m.Guarded() || m.Holding())
}

// run reads until ctx ends.
func (o *onlooker) run(ctx context.Context) {
	defer o.drop()
	for {
		if !o.wanted() {
			o.drop()
			was := *o.last.Load()
			was.err = "" // who asks next hears of a new reading
			o.last.Store(&was)
			select {
			case <-ctx.Done():
				return
			case <-o.poke:
			}
			continue
		}
		o.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookInterval):
		case <-o.poke:
		}
	}
}

// look reads once. When that fails, what was read before is kept.
func (o *onlooker) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	if o.moved.Swap(false) {
		o.drop()
	}
	next, err := o.read(ctx)
	if err != nil {
		o.drop()
		was := o.last.Load()
		next = &sight{moves: was.moves, proxies: was.proxies, at: was.at, err: verify.Told(err)}
	}
	o.last.Store(next)
}

func (o *onlooker) read(ctx context.Context) (*sight, error) {
	if o.conn == nil {
		conn, err := o.c.db.shards[0].connect(ctx)
		if err != nil {
			return nil, fmt.Errorf("shard %s: %w", o.c.db.conf.Shards[0].Name, err)
		}
		o.conn = conn
		o.backend.Store(conn.PgConn().PID())
	}
	s := &sight{at: time.Now()}
	moves := map[int64]metadata.Move{}
	for _, ended := range []bool{false, true} { // one that ends between the two is in both
		some, err := metadata.Moves(ctx, o.conn, ended)
		if err != nil {
			return nil, err
		}
		for _, m := range some {
			moves[m.ID] = *m
		}
	}
	s.moves = slices.SortedFunc(maps.Values(moves), func(a, b metadata.Move) int { return cmp.Compare(a.ID, b.ID) })
	var err error
	s.proxies, err = metadata.Acknowledged(ctx, o.conn)
	return s, err
}

func (o *onlooker) drop() {
	if o.conn != nil {
		endConn(o.conn)
		o.conn = nil
		o.backend.Store(0)
	}
}

// shown is what is known of the cluster now. It waits for nothing.
func (c *cluster) shown() *admin.Cluster {
	s := c.looks.see()
	k := &admin.Cluster{Self: c.self, Moves: slices.Clone(s.moves), Proxies: slices.Clone(s.proxies), At: s.at, Error: s.err}
	if c.lost.Load() {
		k.Error = errLost.Error()
	}
	if m := c.owners().Map(); m != nil {
		k.Epoch, k.Slots, k.Owners, k.Guarded, k.Closed, k.Members = m.Epoch(), m.Slots(), slotRanges(m), m.Guarded(), m.Closed(), m.Shards()
	}
	return k
}

// errLost is why a proxy has no slot map for good.
var errLost = errors.New("the slot map has, or had, a shard that the configuration lacks: statements are refused until the proxy is started with it")

// slotRanges are the slots by their owners, ascending.
func slotRanges(m *shardmap.Map) (all []admin.SlotRange) {
	for i := range m.Slots() {
		slot := shardmap.Slot(i)
		next := admin.SlotRange{From: slot, To: slot, Shard: m.Owner(slot), Held: m.Held(slot)}
		if n := len(all) - 1; n >= 0 && all[n].Shard == next.Shard && all[n].Held == next.Held {
			all[n].To = slot
			continue
		}
		all = append(all, next)
	}
	return all
}
