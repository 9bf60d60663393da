package ddl

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/query"
)

// Errors of Resume and Abandon.
var (
	// ErrNone: the journal has no such statement.
	ErrNone = errors.New("there is no such statement in the journal")
	// ErrEnded: it is done, undone or abandoned.
	ErrEnded = errors.New("the statement has ended: nothing is left to do")
	errBusy  = errors.New("the statement is under way: its proxy, or somebody else who resumes it, works on it")
	// ErrBusy: its proxy still runs it, or somebody else resumes it.
	ErrBusy = errBusy
)

// Step is what Resume did on a shard.
type Step struct {
	Shard string `json:"shard"`
	// Did says what it found or did, in words; "" when it failed.
	Did string `json:"did,omitempty"`
	// Error is why it failed.
	Error string `json:"error,omitempty"`
}

// Resume does the rest of a statement: on each shard that has not done it, it looks what
// is there, drops what the statement has left half made and runs it again, as the role
// that sent it. It waits for a server that is still at it. A shard that fails does not
// keep the others from theirs. Each step is told as it ends. The statement is done when
// err is nil and no step has an Error; otherwise it may be resumed again. The error is
// ErrNone, ErrEnded, ErrBusy or one of the home shard.
func (j *Journal) Resume(ctx context.Context, id int64, tell func(Step)) error {
	home, e, err := j.hold(ctx, id)
	if err != nil {
		return err
	}
	defer letGo(home, id)
	c := query.ReadConcurrent(e.Statement)
	if c == nil {
		return fmt.Errorf("statement %d is none that can be resumed", id)
	}
	left := false
	for i := range e.Shards {
		s := &e.Shards[i]
		if s.State == stateDone {
			continue
		}
		t := &task{j: j, e: e, s: s, c: c}
		did, err := t.do(ctx)
		state, step := stateDone, Step{Shard: s.Shard, Did: did}
		if err != nil {
			left, state, step.Error = true, stateFailed, plain(err)
			if t.sent && lost(err) {
				state = stateUnknown
			}
		}
		tell(step)
		// Noted also when ctx has ended meanwhile.
		nctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), j.opts.Timeout)
		whole := ""
		switch {
		case left:
			whole = stateUnfinished
		case !slices.ContainsFunc(e.Shards[i+1:], func(s ShardState) bool { return s.State != stateDone }):
			whole = stateDone
		}
		err = noteOn(nctx, home, id, s.Shard, state, whole, step.Error)
		cancel()
		if err != nil {
			return fmt.Errorf("shard %s: the journal cannot be written: %w", j.opts.Shards[0].Name, err)
		}
	}
	return nil
}

// Abandon ends a statement as it is: what it has done stays.
func (j *Journal) Abandon(ctx context.Context, id int64) error {
	home, _, err := j.hold(ctx, id)
	if err != nil {
		return err
	}
	defer letGo(home, id)
	return within(ctx, home, true, func(tx pgx.Tx) error { return endOn(ctx, tx, id, stateAbandoned) })
}

// hold takes the lock of a statement that has not ended, and reads it.
func (j *Journal) hold(ctx context.Context, id int64) (home *pgx.Conn, e *Entry, err error) {
	if home, err = j.connect(ctx, 0); err != nil {
		return nil, nil, err
	}
	if e, err = held(ctx, home, id); err != nil {
		letGo(home, id)
		return nil, nil, err
	}
	return home, e, nil
}

func held(ctx context.Context, home *pgx.Conn, id int64) (*Entry, error) {
	got, err := lockOf(ctx, home, id)
	if err == nil && !got {
		err = ErrBusy
	}
	if err != nil {
		return nil, err
	}
	all, err := list(ctx, home, "d.id = $1", id)
	switch {
	case err != nil:
		return nil, err
	case len(all) == 0:
		return nil, ErrNone
	}
	if e := &all[0]; e.State != stateDone && e.State != stateUndone && e.State != stateAbandoned {
		return e, nil
	}
	return nil, ErrEnded
}

// plain is an error in one line.
func plain(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		s := fmt.Sprintf("%s (%s)", pe.Message, pe.Code)
		if pe.Detail != "" {
			s += ": " + pe.Detail
		}
		return s
	}
	return err.Error()
}

// task is the rest of a statement on one shard.
type task struct {
	j    *Journal
	e    *Entry
	s    *ShardState
	c    *query.Concurrent
	conn *pgx.Conn
	// sent is set when something that changes the shard was sent.
	sent bool
}

func (t *task) do(ctx context.Context) (did string, err error) {
	shard := slices.IndexFunc(t.j.opts.Shards, func(s Shard) bool { return s.Name == t.s.Shard })
	if shard < 0 {
		return "", errors.New("the configuration has no such shard")
	}
	if t.conn, err = t.j.as(ctx, shard, &t.e.st); err != nil {
		return "", err
	}
	defer hangUp(t.conn)
	now, err := lookAfter(ctx, t.conn, t.names())
	if err != nil {
		return "", err
	}
	if now.table.oid != 0 && t.e.relation != "" && now.table.String() != t.e.relation {
		return "", fmt.Errorf("the name means %s now, and meant %s", &now.table, t.e.relation)
	}
	switch t.c.Kind {
	case query.ConcurrentCreateIndex:
		return t.create(ctx, now)
	case query.ConcurrentDropIndex:
		return t.drop(ctx, now)
	case query.ConcurrentDetach:
		return t.detach(ctx, now)
	}
	return t.reindex(ctx, now)
}

// names are those to look for: what is there already by the name it was found to have.
func (t *task) names() sought {
	w := soughtBy(t.c)
	if w.kind != query.ConcurrentCreateIndex && t.e.namespace != "" {
		w.object = query.Name{Schema: t.e.namespace, Name: t.e.object}
	}
	return w
}

// run runs a statement in no transaction.
func (t *task) run(ctx context.Context, sql string) error {
	t.sent = true
	_, err := t.conn.Exec(ctx, sql, pgx.QueryExecModeExec)
	return err
}

// create makes the index unless it is there. One that is not valid is the statement's
// own when it is defined as that says.
func (t *task) create(ctx context.Context, now *sight) (string, error) {
	o := &now.object
	switch {
	case now.table.oid == 0:
		return "", fmt.Errorf("table %s is not there", written(t.c.Table))
	case o.oid == 0:
		return "made the index", t.run(ctx, t.e.Statement)
	case t.c.Lenient && o.oid == t.s.before:
		return "the name was taken before: nothing is to be made", nil
	}
	same, err := t.same(ctx, now)
	switch {
	case err != nil:
		return "", err
	case !same:
		return "", fmt.Errorf("%s is there, and is not what the statement makes", o)
	case o.valid:
		return "the index is there", nil
	}
	if err := t.run(ctx, "DROP INDEX CONCURRENTLY "+o.String()); err != nil {
		return "", err
	}
	return "dropped the invalid index and made it anew", t.run(ctx, t.e.Statement)
}

// same reports whether what has the index's name is what the statement makes.
func (t *task) same(ctx context.Context, now *sight) (same bool, err error) {
	if now.object.table != now.table.oid {
		return false, nil
	}
	err = within(ctx, t.conn, false, func(tx pgx.Tx) error {
		create, err := copied(ctx, tx, t.c, &now.table)
		if err != nil {
			return err
		}
		wanted, err := create(pgx.Identifier{now.object.name}.Sanitize())
		if err != nil {
			return err
		}
		same = wanted.definition == now.object.definition
		return nil
	})
	return same, err
}

// drop drops the index that was there before the statement, and no other.
func (t *task) drop(ctx context.Context, now *sight) (string, error) {
	if now.object.oid == 0 || now.object.oid != t.s.before {
		return "the index is gone", nil
	}
	return "dropped the index", t.run(ctx, "DROP INDEX CONCURRENTLY "+now.object.String())
}

// detach detaches the partition, or ends what was begun.
func (t *task) detach(ctx context.Context, now *sight) (string, error) {
	switch {
	case now.object.oid != t.s.before || !now.attached:
		return "the partition is detached", nil
	case now.pending:
		return "ended the detachment", t.run(ctx, fmt.Sprintf("ALTER TABLE %s DETACH PARTITION %s FINALIZE", &now.table, &now.object))
	}
	return "detached the partition", t.run(ctx, t.e.Statement)
}

// halfBuilt matches the names of what REINDEX CONCURRENTLY leaves when it fails.
var halfBuilt = regexp.MustCompile(`_cc(new|old)[0-9]*$`)

// reindex drops what the statement has left, which PostgreSQL does not use, and rebuilds
// all again: that is right however often it is done.
func (t *task) reindex(ctx context.Context, now *sight) (string, error) {
	if now.object.oid == 0 {
		return "", fmt.Errorf("%s.%s is not there", t.e.namespace, t.e.object)
	}
	did := "rebuilt"
	for _, oid := range now.invalid {
		if slices.Contains(t.s.invalid, oid) || t.s.State == statePending {
			continue
		}
		left, err := t.clear(ctx, oid)
		if err != nil {
			return "", err
		}
		if did = "dropped what was half built and rebuilt"; left != "" {
			did = "rebuilt; the invalid index " + left + " is left for a superuser to drop"
		}
	}
	return did, t.run(ctx, t.e.Statement)
}

// clear drops an index that the statement has left half built. Those of what is stored
// out of line are dropped by the control user, if it may: left is the name otherwise.
func (t *task) clear(ctx context.Context, oid uint32) (left string, err error) {
	var index relation
	err = within(ctx, t.conn, false, func(tx pgx.Tx) (err error) {
		index, err = relationAt(ctx, tx, oid)
		return err
	})
	if err != nil || !halfBuilt.MatchString(index.name) {
		return "", err
	}
	if index.namespace != "pg_toast" {
		return "", t.run(ctx, "DROP INDEX CONCURRENTLY "+index.String())
	}
	if _, err := t.conn.Exec(ctx, "RESET ROLE"); err != nil {
		return "", err
	}
	if err = t.run(ctx, "DROP INDEX CONCURRENTLY "+index.String()); sqlstate(err) == "42501" {
		left, err = index.String(), nil
	}
	if err == nil {
		err = become(ctx, t.conn, &t.e.st)
	}
	return left, err
}
