package sequence

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/metadata"
	"shardproxy/wire"
)

// unique makes ids that no other maker makes: see metadata.UniqueEpoch. What it may make is granted by the home
// shard for a while, so that none is made twice whatever a clock says, or whoever is cut off: a proxy that gets no
// further grant has none left after seconds.
type unique struct {
	holder string
	turn   chan struct{} // held by who asks for a grant
	tasks  sync.WaitGroup

	mu     sync.Mutex
	grants []granted
	number int   // of the last grant, -1 before the first
	until  int64 // the end of the last grant
	server int64 // the home shard's time, in milliseconds since metadata.UniqueEpoch, at clock
	clock  time.Time
	asked  time.Time // when a grant was asked for ahead
	closed bool      // none is any more
}

// granted is what is left of a grant: places, which are ids without who made them.
type granted struct {
	number      int64
	next, until int64
}

func newUnique() *unique {
	return &unique{holder: rand.Text(), turn: make(chan struct{}, 1), number: -1}
}

// takeLocked returns n ids, nil when no grant has as many. The caller holds u.mu.
func (u *unique) takeLocked(n int, now int64) []int64 {
	for len(u.grants) > 0 {
		g := &u.grants[0]
		at := max(g.next, now<<metadata.UniqueCountBits)
		if at > g.until-int64(n) {
			u.grants = u.grants[1:] // what follows is later
			continue
		}
		ids := make([]int64, n)
		for i := range ids {
			ids[i] = uniqueID(at+int64(i), g.number)
		}
		g.next = at + int64(n)
		return ids
	}
	return nil
}

// uniqueID makes an id of its place and its maker.
func uniqueID(place, number int64) int64 {
	const counts = 1<<metadata.UniqueCountBits - 1
	return place>>metadata.UniqueCountBits<<(metadata.UniqueCountBits+metadata.UniqueMakerBits) | number<<metadata.UniqueCountBits | place&counts
}

// nowLocked is the home shard's time as it was at the last grant, and as long as has passed since.
func (u *unique) nowLocked() int64 { return u.server + time.Since(u.clock).Milliseconds() }

// add notes a grant.
func (u *unique) add(g metadata.Grant) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.number, u.until, u.server, u.clock, u.asked = g.Number, g.Until, g.Now, time.Now(), time.Time{}
	from, until := g.From<<metadata.UniqueCountBits, g.Until<<metadata.UniqueCountBits
	if n := len(u.grants); n > 0 && u.grants[n-1].number == int64(g.Number) && u.grants[n-1].until == from {
		u.grants[n-1].until = until
		return
	}
	u.grants = append(u.grants, granted{number: int64(g.Number), next: from, until: until})
}

// uniqueMax bounds how many ids are made at once: a small part of what is granted.
const uniqueMax = 1 << 20

// ahead is how much of the granted time is left, in milliseconds, when more is asked for.
const ahead = 5000

// TakeUnique returns n ids that no other call returns, of no proxy and of no shard. ok is false when that takes
// waiting: then DrawUnique must be asked.
func (a *Allocator) TakeUnique(n int) (ids []int64, ok bool) {
	u := a.unique
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed || len(u.grants) == 0 || n > uniqueMax {
		return nil, false
	}
	now := u.nowLocked()
	ids = u.takeLocked(n, now)
	if u.until-now < ahead && time.Since(u.asked) > a.opts.Timeout {
		u.asked = time.Now()
		u.tasks.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), a.opts.Timeout)
			defer cancel()
			if err := a.askUnique(ctx); err != nil && !errors.Is(err, ErrClosed) {
				a.opts.Logger.Warn("no more unique ids from the home shard yet", "error", err)
			}
		})
	}
	return ids, ids != nil
}

// DrawUnique is TakeUnique, but waits for the home shard, up to the timeout. When it cannot be asked the error is a
// *wire.Error of code 57P03; nothing is given out then, and the call may be repeated.
func (a *Allocator) DrawUnique(ctx context.Context, n int) ([]int64, error) {
	if n > uniqueMax {
		return nil, wire.Errorf("54000", "more than %d unique ids in one statement", uniqueMax)
	}
	ctx, cancel := context.WithTimeout(ctx, a.opts.Timeout)
	defer cancel()
	u := a.unique
	for {
		if ids, ok := a.TakeUnique(n); ok {
			return ids, nil
		}
		select {
		case u.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, noUnique(ctx.Err())
		}
		ids, ok := a.TakeUnique(n)
		var err error
		if !ok {
			err = a.askHome(ctx)
		}
		<-u.turn
		if ok {
			return ids, nil
		}
		if err != nil {
			return nil, noUnique(err)
		}
	}
}

func noUnique(err error) *wire.Error {
	return wire.Errorf("57P03", "unique ids cannot be made now").WithDetail("The home shard does not grant them: %v.", err).
		WithHint("Try again; see that the home shard can be reached.").WithCause(err)
}

// askUnique asks for a grant in its turn.
func (a *Allocator) askUnique(ctx context.Context) error {
	select {
	case a.unique.turn <- struct{}{}:
		defer func() { <-a.unique.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return a.askHome(ctx)
}

// askHome asks for a grant. The caller has the turn.
func (a *Allocator) askHome(ctx context.Context) error {
	u := a.unique
	u.mu.Lock()
	number, floor := u.number, u.until
	u.mu.Unlock()
	for {
		var g metadata.Grant
		err := a.onHome(ctx, func(conn *pgx.Conn) (err error) {
			g, err = metadata.Renew(ctx, conn, u.holder, number, floor)
			return err
		})
		if locked(err) && ctx.Err() == nil {
			continue // another proxy takes a number
		}
		if err == nil {
			u.add(g)
		}
		return err
	}
}

// closeUnique waits until nothing is asked for any more.
func (a *Allocator) closeUnique() {
	a.unique.mu.Lock()
	a.unique.closed = true
	a.unique.mu.Unlock()
	a.unique.tasks.Wait()
}
