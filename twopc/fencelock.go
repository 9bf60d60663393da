package twopc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/metadata"
)

// Locks are tried on all shards at once first. Who does not get them all waits, holding but
// those of the shards before, by name: two windows cannot wait for each other. A transaction takes the
// first of its fences, by name, before the others, and those at once. So it can be in a circle with
// a window only if that one has two of the others and not the first: who waits while it holds
// something waits for a short time only, and begins anew.

const (
	firstWait = 20 * time.Millisecond
	longWait  = time.Second
)

// locking is a call of one of PostgreSQL's functions about the fence.
func locking(function string) string {
	return fmt.Sprintf("SELECT %s(%d, %d)", function, metadata.FenceClass, metadata.FenceObject)
}

// acquire takes the locks of shards, in the order of their names, or none.
func (f *Fence) acquire(shards []int) error {
	ctx, cancel := context.WithTimeout(f.ctx, f.opts.Wait)
	defer cancel()
	var inDoubt error // names the shard whose lock could not be had last
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		held, err := f.tryAll(ctx, shards)
		if err == nil && held < len(shards) {
			f.opts.Waited()
			inDoubt = errInDoubt(f.opts.Shards[shards[held]].Name)
			held, err = f.awaitRest(ctx, shards, held, wait)
		}
		if err == nil && held == len(shards) {
			return nil
		}
		_ = f.releaseAll(shards[:held]) // a connection that fails is dropped, and its lock with it
		switch {
		case err == nil:
			inDoubt = errInDoubt(f.opts.Shards[shards[held]].Name)
		case ctx.Err() != nil && inDoubt != nil:
			return inDoubt // a shard that was asked just then is not to blame
		default:
			return err
		}
		select {
		case <-time.After(rand.N(wait)):
		case <-ctx.Done():
			return inDoubt
		}
	}
}

// tryAll tries the locks of all shards at once and returns how many it holds, from the first on;
// what it got behind those it has given back.
func (f *Fence) tryAll(ctx context.Context, shards []int) (held int, err error) {
	got, errs := make([]bool, len(shards)), make([]error, len(shards))
	f.together(shards, func(n, shard int) { got[n], errs[n] = f.try(ctx, shard) })
	for held < len(shards) && got[held] {
		held++
	}
	var back []int
	for n := held; n < len(shards); n++ {
		if got[n] {
			back = append(back, shards[n])
		}
	}
	if back != nil {
		_ = f.releaseAll(back) // as in acquire
	}
	for n, e := range errs {
		if e != nil {
			return held, f.unreachable(shards[n], e)
		}
	}
	return held, nil
}

// together calls do for all shards at once.
func (f *Fence) together(shards []int, do func(n, shard int)) {
	if len(shards) == 1 {
		do(0, shards[0])
		return
	}
	var all sync.WaitGroup
	for n, shard := range shards {
		all.Go(func() { do(n, shard) })
	}
	all.Wait()
}

// try tries one lock, over a connection that may be new.
func (f *Fence) try(ctx context.Context, shard int) (got bool, err error) {
	s := f.sessions[shard]
	old := s != nil && s.usable()
	for {
		if !old {
			f.drop(shard)
			if s, err = connect(ctx, f.opts.Cluster, f.opts.Shards[shard], f.opts.Timeout); err != nil {
				return false, err
			}
			f.sessions[shard] = s
		}
		if got, err = s.says(ctx, locking("pg_try_advisory_lock")); err == nil {
			return got, nil
		}
		f.drop(shard)
		if !old {
			return false, err
		}
		old = false // it may have been lost long ago
	}
}

// awaitRest waits for the locks behind those held, one after the other, and returns how many are held
// then.
func (f *Fence) awaitRest(ctx context.Context, shards []int, held int, wait time.Duration) (int, error) {
	for ; held < len(shards); held++ {
		bound := wait
		if held == 0 {
			bound = longWait
		}
		shard := shards[held]
		if f.sessions[shard] == nil {
			return held, nil // it was lost when it gave a lock back: begun anew
		}
		_, err := f.sessions[shard].says(ctx, fmt.Sprintf("SET lock_timeout = %d; ", bound.Milliseconds())+locking("pg_advisory_lock"))
		var said *pgconn.PgError
		switch {
		case err == nil:
		case errors.As(err, &said) && said.Code == codeLock:
			if err := f.sessions[shard].forgetLock(ctx); err != nil {
				f.drop(shard)
				return held, f.unreachable(shard, err)
			}
			return held, nil
		default:
			f.drop(shard)
			return held, f.unreachable(shard, err)
		}
	}
	return held, nil
}

// forgetLock gives a lock back that the server granted while it gave the waiting up: it says that it
// has not, and the session has it.
func (s *session) forgetLock(ctx context.Context) error {
	_, err := s.says(ctx, locking("pg_advisory_unlock")+fmt.Sprintf(
		" FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND classid = %d AND objid = %d AND granted", metadata.FenceClass, metadata.FenceObject))
	return err
}

// releaseAll gives locks back. The error says which was not held any more: a *wire.Error.
func (f *Fence) releaseAll(shards []int) error {
	errs := make([]error, len(shards))
	f.together(shards, func(n, shard int) {
		s := f.sessions[shard]
		if s == nil {
			errs[n] = f.unreachable(shard, errOther)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
		defer cancel()
		held, err := s.says(ctx, locking("pg_advisory_unlock"))
		if err == nil && !held {
			err = errOther
		}
		if err != nil {
			f.drop(shard)
			errs[n] = f.unreachable(shard, err)
		}
	})
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// says runs SQL and reports whether the last value it gives is true, or void.
func (s *session) says(ctx context.Context, sql string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	results, err := s.conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return false, err
	}
	last := results[len(results)-1]
	return len(last.Rows) == 1 && len(last.Rows[0]) == 1 && (len(last.Rows[0][0]) == 0 || string(last.Rows[0][0]) == "t"), nil
}

// address is where the session's server listens, as the configuration has it.
func (s *session) address() string {
	c := s.conn.Config()
	return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
}
