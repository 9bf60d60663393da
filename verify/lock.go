package verify

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// SQLSTATEs after which locks are tried for again.
const (
	codeLockTimeout = "55P03"
	codeDeadlock    = "40P01"
)

// patience is how long a statement waits for a row, or a commit for its decision, once
// the tables are locked.
const patience = "SET LOCAL lock_timeout = '10s'"

// lock begins a transaction on all shards and locks tables there, on the home shard
// first, as writers do: who has a table there gets it everywhere. So the transactions
// that wrote have come to their ends, the prepared ones too, and others wait. On an error there is no
// transaction.
func (c *Checker) lock(ctx context.Context, mode string, tables []*table) error {
	end := time.Now().Add(c.opts.LockWait)
	pause := 50 * time.Millisecond
	for {
		err := c.tryLock(ctx, mode, tables)
		if err == nil {
			return nil
		}
		c.rollback(ctx)
		if said := code(err); said != codeLockTimeout && said != codeDeadlock {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("locks were not given within %s: %w; is a long transaction open, or one prepared (pg_prepared_xacts)?", c.opts.LockWait, err)
		}
		// Who waited behind us goes on meanwhile.
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		pause = min(2*pause, 2*time.Second)
	}
}

func (c *Checker) tryLock(ctx context.Context, mode string, tables []*table) error {
	var names []string
	for _, t := range tables {
		names = append(names, t.only+t.sql())
	}
	for _, s := range c.sessions {
		if err := s.exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED; LOCK TABLE "+strings.Join(names, ", ")+" IN "+mode+" MODE; "+patience); err != nil {
			return fmt.Errorf("shard %s: %w", s.Shard, err)
		}
	}
	return nil
}

// rollback ends the transactions on all shards.
func (c *Checker) rollback(ctx context.Context) {
	var group sync.WaitGroup
	for _, s := range c.sessions {
		group.Go(func() { s.rollback(ctx) })
	}
	group.Wait()
}
