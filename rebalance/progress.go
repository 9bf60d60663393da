package rebalance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
)

// LSN is a position in a server's WAL. Positions of one server on one timeline only can be compared.
type LSN = pglogrepl.LSN

// Cause says why rows cannot be carried on. None goes away by trying again.
type Cause string

// The causes. What the caller can do about each is in the error's hint.
const (
	Truncated Cause = "truncated"  // a moving table was truncated on the source
	Redefined Cause = "redefined"  // a table is not, or no longer, what the move was begun with
	Collided  Cause = "collided"   // another row of the target is in the way
	SlotLost  Cause = "slot lost"  // the source's replication slot, or what it holds, is gone
	Unproven  Cause = "unproven"   // it cannot be told which row is meant, or which slot it is in
	Overtaken Cause = "overtaken"  // another follower of the same move has gone on
	Delayed   Cause = "delayed"    // older transactions keep the replication slot from being made
	Denied    Cause = "denied"     // a role lacks a right
	NotCopied Cause = "not copied" // the target has no complete copy to go on from
	LeftOver  Cause = "left over"  // something of an earlier attempt is there
	Refused   Cause = "refused"    // a server refuses a row for another reason
	Unequal   Cause = "unequal"    // the rows of both shards were compared, and differ
	Behind    Cause = "behind"     // a server keeps more WAL for the move than is allowed
)

// CarryError ends the carrying over of a move's rows. Every other error of a Carry is one of a connection or of the context:
// then the same call may be made again.
type CarryError struct {
	Cause Cause
	// Table is the table's qualified name as SQL, Constraint what was violated, Row the source's row by its primary key, Detail what the
	// server says of the row that is in the way. "" when there is none.
	Table, Constraint, Row, Detail string
	Reason, Hint                   string
	// Err is the server's error, nil when there is none.
	Err error
}

func (e *CarryError) Error() string {
	var b strings.Builder
	if e.Table != "" {
		b.WriteString(e.Table + ": ")
	}
	b.WriteString(e.Reason)
	if e.Row != "" {
		b.WriteString(", row " + e.Row)
	}
	if e.Constraint != "" {
		b.WriteString(", constraint " + e.Constraint)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

func (e *CarryError) Unwrap() error { return e.Err }

// carryRefusal returns a server's refusal of a row, or of a statement, as a CarryError; other errors as they are. doing is for the reason.
func carryRefusal(err error, table, row, doing string) error {
	var pg *pgconn.PgError
	var known *CarryError
	if errors.As(err, &known) || !errors.As(err, &pg) {
		return err
	}
	e := &CarryError{Table: table, Row: row, Constraint: pg.ConstraintName, Detail: pg.Detail, Reason: doing, Err: err}
	switch {
	case pg.Code == "23505" || pg.Code == "23P01":
		e.Cause, e.Reason = Collided, "a row of the target is in the way"
		e.Hint = "the constraint lacks the sharding key: change or delete one of the two rows"
	case pg.Code == "42501":
		e.Cause, e.Hint = Denied, "GRANT the right to the role that moves slots"
	case pg.Code == "42P01" || pg.Code == "42703" || pg.Code == "42804":
		e.Cause, e.Hint = Redefined, "end the move, and begin it anew when the tables are alike on both shards"
	case strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23") || strings.HasPrefix(pg.Code, "42"):
		e.Cause = Refused
	default:
		return fmt.Errorf("%s %s: %w", doing, table, err)
	}
	return e
}

// Position is how far a follower has come, in positions of the source.
type Position struct {
	// Received is up to where the source's changes have come, Applied up to where the target has committed them, Stored what the
	// target itself knows to have: after a crash following goes on from there.
	Received, Applied, Stored LSN
}

// Counts are what has been carried over so far. They may be read while it goes on.
type Counts struct {
	// CopiedRows and CopiedBytes are those of Copy; bytes as they travel. Parts are the pieces it is cut into.
	CopiedRows, CopiedBytes, PartsDone, Parts int64
	// Cleared are rows that ClearTarget deleted.
	Cleared int64
	// Transactions and Changes are the source's that concerned the slots. Fetched are rows whose unsent values were read from the source,
	// Missing those that should have been on the target, and were not: they were put there. It is 0 unless rows were deleted
	// or renamed on the source while they were fetched, or somebody else deletes on the target.
	Transactions, Changes, Fetched, Missing int64
}

type carryCounts struct {
	copiedRows, copiedBytes, partsDone, parts, cleared atomic.Int64
	transactions, changes, fetched, missing            atomic.Int64
}

// Counts returns the counts of this Carry. It may be called by any goroutine.
func (c *Carry) Counts() Counts {
	n := &c.counts
	return Counts{
		CopiedRows: n.copiedRows.Load(), CopiedBytes: n.copiedBytes.Load(), PartsDone: n.partsDone.Load(), Parts: n.parts.Load(),
		Cleared: n.cleared.Load(), Transactions: n.transactions.Load(), Changes: n.changes.Load(), Fetched: n.fetched.Load(),
		Missing: n.missing.Load(),
	}
}

// carryPosition is a Position that one goroutine writes and others read and wait for.
type carryPosition struct {
	received, stored atomic.Uint64
	waiters          atomic.Int32

	mu      sync.Mutex
	applied LSN
	changed chan struct{} // closed when applied changes
}

func (p *carryPosition) setReceived(lsn LSN) {
	if uint64(lsn) > p.received.Load() {
		p.received.Store(uint64(lsn))
	}
}

// setApplied is called after the target's commit.
func (p *carryPosition) setApplied(lsn LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if lsn != p.applied {
		p.applied = lsn
		if p.changed != nil {
			close(p.changed)
			p.changed = nil
		}
	}
}

func (p *carryPosition) now() (LSN, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.applied, p.changed
}

// Position returns how far Follow has come; zero before it has begun. It may be called by any goroutine.
func (c *Carry) Position() Position {
	applied, _ := c.position.now()
	return Position{Received: LSN(c.position.received.Load()), Applied: applied, Stored: LSN(c.position.stored.Load())}
}

// WaitFor returns when the target has committed everything that the source had written up to lsn, or with the context's error. lsn is of
// SourceEnd, or pg_current_wal_lsn() where no transaction commits asynchronously. Follow must run meanwhile, or begin. It may be
// called by any goroutine.
func (c *Carry) WaitFor(ctx context.Context, lsn LSN) error {
	c.position.waiters.Add(1)
	defer c.position.waiters.Add(-1)
	for {
		applied, changed := c.position.now()
		if applied >= c.before(lsn) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s is carried over, %s is: %w", lsn, applied, ctx.Err())
		case <-changed:
		}
	}
}

// walHeaderBytes is the longest header of a WAL page: no record ends within one.
const walHeaderBytes = 40

// before is the end of the last record before lsn, where lsn is the beginning of the next one behind a page's header:
// pg_current_wal_insert_lsn() is, and a source that rests never comes to it.
func (c *Carry) before(lsn LSN) LSN {
	if page := LSN(c.walPage.Load()); page > 0 && lsn%page <= walHeaderBytes {
		return lsn - lsn%page
	}
	return lsn
}

// Throttle bounds how many bytes a second Copy carries. Its rate may be changed at any time, by any goroutine. The zero value does not bound.
type Throttle struct {
	rate atomic.Int64

	mu     sync.Mutex
	tokens float64
	filled time.Time
}

// throttleStep is how long a waiting worker sleeps before it looks at the rate again.
const throttleStep = 50 * time.Millisecond

// SetRate sets bytes per second; 0 is without bound.
func (t *Throttle) SetRate(bytes int64) { t.rate.Store(max(bytes, 0)) }

// Rate returns bytes per second; 0 is without bound.
func (t *Throttle) Rate() int64 { return t.rate.Load() }

// take waits until n bytes may go. Debts are paid by whoever comes next, so that a row longer than a second's bytes passes.
func (t *Throttle) take(ctx context.Context, n int) error {
	for paid := false; ; paid = true {
		wait := t.ask(n, paid)
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(min(wait, throttleStep))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// ask takes n, unless it is paid, and returns how long the debt lasts at the rate of now.
func (t *Throttle) ask(n int, paid bool) time.Duration {
	rate := float64(t.rate.Load())
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if rate == 0 {
		t.tokens, t.filled = 0, now
		return 0
	}
	t.tokens = min(t.tokens+rate*now.Sub(t.filled).Seconds(), rate/10)
	t.filled = now
	if !paid {
		t.tokens -= float64(n)
	}
	return time.Duration(-t.tokens / rate * float64(time.Second))
}
