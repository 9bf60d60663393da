package twopc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"shardproxy/wire"
)

// Conn runs statements in one session of a server.
type Conn interface {
	// Exec sends sql as one simple query, which may hold several statements,
	// throws rows and notices away and returns when the server is ready for
	// the next one. What the server says is wrong is a *wire.Error with its
	// SQLSTATE; every other error means that the connection is lost, and with
	// it the knowledge whether sql was carried out. When ctx ends first the
	// connection is lost too.
	Exec(ctx context.Context, sql string) error
}

// Part is one shard's part of a transaction: an open transaction block, not
// failed, that has written.
type Part struct {
	Shard string
	// Conn is its session; it is not used, and may be nil, when Options.Run is set.
	Conn Conn
}

// Outcome is what became of a transaction.
type Outcome int

const (
	// RolledBack: nothing of it will ever be seen.
	RolledBack Outcome = iota
	// Unknown: it will be committed on all shards or rolled back on all, and
	// which of both cannot be said now.
	Unknown
	// Committed: it is durable. All parts are committed, or will be.
	Committed
)

// String returns the outcome in words.
func (o Outcome) String() string {
	switch o {
	case RolledBack:
		return "rolled back"
	case Unknown:
		return "unknown"
	case Committed:
		return "committed"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// DefaultTimeout is Options.Timeout when that is 0.
const DefaultTimeout = 30 * time.Second

// Options say whose transaction it is.
type Options struct {
	// Cluster is the cluster's ID, metadata.Cluster.ID; required for more than
	// one part.
	Cluster string
	// Resolver finishes what Commit must leave. Without one of its own a process
	// leaves it to those of others.
	Resolver *Resolver
	// Run runs statements in the sessions of parts, all at once: those of sql, by part, "" for
	// none. The errors are theirs, by part, as Conn.Exec gives them. When nil, each part's Conn runs
	// its own, by a goroutine. It is called by the goroutine that called Commit.
	Run func(ctx context.Context, sql []string) []error
	// Timeout bounds each statement that the end of Commit's context does not:
	// those from the decision on, and those that roll back.
	Timeout time.Duration
	// Left is called for each part that the decision has committed and that could not be told so,
	// by one goroutine, before Commit returns; nil for nobody.
	Left func(shard string)
	// Logger hears of what is left to the Resolver; slog.Default when nil.
	Logger *slog.Logger
}

// SQLSTATEs that mean something here.
const (
	codeNoObject = "42704" // no prepared transaction of the name
	codeUnique   = "23505"
)

// durable makes a transaction wait for what a crash must not take back, whatever
// the session has set: a decision that is lost when others have acted on it is
// half a transaction. Its end restores the setting. It fails in a transaction
// block that has failed, where PREPARE TRANSACTION and COMMIT would roll back
// without an error. The lock says to those who look for deadlocks that it commits.
const durable = "SELECT " + commitsLock + ", CASE WHEN pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) ANY ('{off,local}'::pg_catalog.text[])" +
	" THEN pg_catalog.set_config('synchronous_commit', 'on', true) END; "

// Commit ends the transaction whose parts these are. The first part decides: it
// should be the one whose shard is most likely to be there later. A transaction
// of one part is committed as it is.
//
// The error is nil when the outcome is Committed, also when a part could not yet
// be told so; that one's rows stay locked, and its old ones seen, until the
// Resolver has done it. Otherwise it is a *wire.Error for the client, of severity
// ERROR: the server's, with the shard in DETAIL; 08006 (a connection was lost),
// 57014 (ctx ended), 40001 (it took so long that recovery gave it up) and, with
// Unknown, 08007.
//
// The end of ctx before the decision rolls back; after that it has no effect. A
// connection that gave nothing but nil and *wire.Error of severity ERROR is in no
// transaction when Commit returns; all others are lost.
func Commit(ctx context.Context, o Options, parts []Part) (Outcome, error) {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	c := &commit{Options: o, parts: parts, states: make([]state, len(parts))}
	began := time.Now()
	outcome, err := c.do(ctx)
	if o.Resolver != nil && len(parts) > 1 {
		o.Resolver.count(outcome, time.Since(began))
	}
	return outcome, err
}

// state is what is known of a part.
type state int

const (
	open     state = iota // in its transaction, or in none
	prepared              // it has prepared
	lost                  // its connection is gone; it may have prepared
)

type commit struct {
	Options
	parts  []Part
	states []state
	gid    string
}

func (c *commit) do(ctx context.Context) (Outcome, error) {
	switch {
	case len(c.parts) == 0:
		return Committed, nil
	case len(c.parts) > 1 && !validCluster(c.Cluster):
		c.rollBack(ctx)
		return RolledBack, wire.Errorf("XX000", "a commit over several shards without a cluster")
	case ctx.Err() != nil:
		c.rollBack(ctx)
		return RolledBack, gaveUp(ctx)
	case len(c.parts) == 1:
		return c.finish(c.run(context.WithoutCancel(ctx), []string{"COMMIT"})[0])
	}
	c.gid = newGID(c.Cluster, c.parts[0].Shard)
	if c.Resolver != nil {
		c.Resolver.begin(c.gid)
	}
	left := true // unless we come to the end
	defer func() {
		if c.Resolver != nil {
			c.Resolver.end(c.gid, left)
		}
	}()
	if err := c.prepare(ctx); err != nil {
		left = c.rollBack(ctx)
		return RolledBack, err
	}
	outcome, err := c.finish(c.exec(ctx, c.statement(0, "COMMIT"))[0])
	switch outcome {
	case Committed:
		left = c.commitPrepared(ctx)
	case RolledBack:
		left = c.rollBack(ctx)
	case Unknown:
		c.Logger.Warn("the outcome of a transaction is unknown until its shard can be asked", "gid", c.gid, "shard", c.parts[0].Shard, "error", err)
	}
	return outcome, err
}

// ready makes the first part do now what its COMMIT would still have to check. So
// that is short, and fails for no reason but the server's end.
const ready = "SET CONSTRAINTS ALL IMMEDIATE"

// enclosed takes the shard's fence for the part, and does before it what PREPARE would still
// check: who holds a fence waits for no row. The fence is free again when the part is finished,
// by whom ever: see Fence.
const enclosed = durable + ready + "; SELECT shardproxy.take_part(); "

// prepare prepares all parts but the first. That one gets its decision, which
// nobody sees before it commits; but while it is there recovery waits for the
// end of the session, however long the others take.
func (c *commit) prepare(ctx context.Context) error {
	if err := c.enclose(ctx); err != nil {
		return err
	}
	sql := make([]string, len(c.parts))
	for i := range sql {
		sql[i] = enclosed + "PREPARE TRANSACTION '" + partName(c.gid, i) + "'"
	}
	sql[0] = durable + "SELECT shardproxy.decide('" + c.gid + "'); " + ready
	errs := c.run(ctx, sql)
	for i, err := range errs {
		c.states[i] = after(err, prepared)
	}
	c.states[0] = after(errs[0], open)
	errs[0] = c.givenUp(errs[0])
	if err := c.reason(ctx, errs); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return gaveUp(ctx)
	}
	return nil
}

// enclose takes the first fence ahead when there are several: all windows and transactions take
// the first of theirs, by name, before the others, so that none has what the other waits for.
func (c *commit) enclose(ctx context.Context) error {
	if len(c.parts) <= 2 {
		return nil
	}
	first := 1
	for i := range c.parts {
		if i > 0 && c.parts[i].Shard < c.parts[first].Shard {
			first = i
		}
	}
	errs := c.run(ctx, c.statement(first, strings.TrimSuffix(enclosed, "; ")))
	c.states[first] = after(errs[first], open)
	return c.reason(ctx, errs)
}

// givenUp tells from other errors of the deciding part that recovery has made the decision.
func (c *commit) givenUp(err error) error {
	var said *wire.Error
	// Constraints of the client's, which are checked behind, say 23505 too, of other keys.
	if errors.As(err, &said) && said.Code == codeUnique && strings.Contains(said.Detail, c.gid) {
		return wire.Errorf("40001", "the transaction was given up before it could commit").
			WithDetail("It took so long to commit on all shards that recovery rolled it back.").WithHint("Try the transaction again.").WithCause(err)
	}
	return err
}

// finish says what has become of it by the answer to the first part's COMMIT, which is the decision
// when there are others.
func (c *commit) finish(err error) (Outcome, error) {
	switch {
	case err == nil:
		return Committed, nil
	case after(err, open) == open:
		return RolledBack, c.reason(context.Background(), []error{err})
	}
	c.states[0] = lost
	return Unknown, wire.Errorf("08007", "the connection to the server was lost during the commit: transaction resolution unknown").
		WithDetail("Shard %s.", c.parts[0].Shard).WithHint("Find out whether the transaction took effect before trying it again.").WithCause(err)
}

// commitPrepared carries the decision out, and reports whether something is left
// to do.
func (c *commit) commitPrepared(ctx context.Context) (left bool) {
	sql := make([]string, len(c.parts))
	for i := range sql[1:] {
		sql[i+1] = "COMMIT PREPARED '" + partName(c.gid, i+1) + "'"
	}
	for i, err := range c.exec(ctx, sql) {
		if i > 0 && c.notDone(i, err, "commit") {
			if left = true; c.Left != nil {
				c.Left(c.parts[i].Shard)
			}
		}
	}
	return left
}

// rollBack rolls all parts back as far as they can be reached, and reports
// whether something is left to do.
func (c *commit) rollBack(ctx context.Context) (left bool) {
	sql := make([]string, len(c.parts))
	for i, state := range c.states {
		switch state {
		case open:
			sql[i] = "ROLLBACK"
		case prepared:
			sql[i] = "ROLLBACK PREPARED '" + partName(c.gid, i) + "'"
		}
	}
	for i, err := range c.exec(ctx, sql) {
		switch {
		case c.states[i] == open:
			continue // without a connection the server does it
		case c.states[i] == lost && i > 0: // the first never prepares
			err = errors.New("its connection was lost while it prepared")
		}
		left = c.notDone(i, err, "roll back") || left
	}
	return left
}

// notDone reports whether a prepared part is still there after it was to be
// finished.
func (c *commit) notDone(i int, err error, what string) bool {
	var said *wire.Error
	if err == nil || errors.As(err, &said) && said.Code == codeNoObject {
		return false // a Resolver may have done it
	}
	c.Logger.Warn("recovery has to "+what+" a part of a transaction", "gid", c.gid, "shard", c.parts[i].Shard, "error", err)
	return true
}

// exec runs statements that the end of ctx does not end.
func (c *commit) exec(ctx context.Context, sql []string) []error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Timeout)
	defer cancel()
	return c.run(ctx, sql)
}

// statement is what run runs on one part.
func (c *commit) statement(part int, sql string) []string {
	all := make([]string, len(c.parts))
	all[part] = sql
	return all
}

// run runs statements of several parts at once. Statements and errors are by part.
func (c *commit) run(ctx context.Context, sql []string) []error {
	if c.Run != nil {
		return c.Run(ctx, sql)
	}
	errs := make([]error, len(c.parts))
	var group sync.WaitGroup
	for i := range c.parts {
		if sql[i] != "" {
			group.Go(func() { errs[i] = c.parts[i].Conn.Exec(ctx, sql[i]) })
		}
	}
	group.Wait()
	return errs
}

// after is a part's state after a statement that would lead to done. A session
// that the server ends, and one that a proxy's own error stands for, may have
// carried it out: while it waits for standbys.
func after(err error, done state) state {
	var said *wire.Error
	switch {
	case err == nil:
		return done
	case errors.As(err, &said) && !said.IsFatal() && !strings.HasPrefix(said.Code, "08") && !strings.HasPrefix(said.Code, "57P"):
		return open
	}
	return lost
}

// reason returns what the client is told of errors before the decision, by part:
// the first that a server gave, else that a connection was lost.
func (c *commit) reason(ctx context.Context, errs []error) error {
	var first *wire.Error
	for i, err := range errs {
		var said *wire.Error
		switch {
		case err == nil:
		case errors.As(err, &said):
			e := *said
			e.Severity = ""
			e.Detail = strings.TrimLeft(e.Detail+"\n", "\n") + fmt.Sprintf("Shard %s.", c.parts[i].Shard)
			return &e
		case first == nil:
			first = wire.Errorf("08006", "the server connection was lost before the transaction could commit").
				WithDetail("Shard %s.", c.parts[i].Shard).WithHint("The transaction was rolled back; begin it again.").WithCause(err)
		}
	}
	switch {
	case first == nil:
		return nil
	case ctx.Err() != nil:
		return gaveUp(ctx)
	}
	return first
}

// gaveUp is what the client is told when ctx has ended before the decision.
func gaveUp(ctx context.Context) *wire.Error {
	return wire.Errorf("57014", "canceling the commit before it was decided").
		WithHint("The transaction was rolled back.").WithCause(context.Cause(ctx))
}
