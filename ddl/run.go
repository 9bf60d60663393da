package ddl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"shardproxy/query"
	"shardproxy/wire"
)

// States of a shard in the journal.
const (
	statePending = "pending"
	stateRunning = "running"
	stateDone    = "done"
	stateFailed  = "failed"
	stateUnknown = "unknown"
)

// States of a statement in the journal; it may be running and done, too.
const (
	stateUnfinished = "unfinished"
	stateUndone     = "undone"
	stateAbandoned  = "abandoned"
)

// Run is a statement that is under way.
type Run struct {
	j       *Journal
	id      int64
	st      Statement
	sought  sought
	shards  []int    // where it runs
	sights  []*sight // what was there before, by shard
	members []int    // the places of the cluster's shards
	states  []string // by shard; "" where it does not run
	home    *pgx.Conn
	ended   bool
}

// ID returns the statement's number in the journal.
func (r *Run) ID() int64 { return r.id }

// Text returns what is to be run: the statement, with a name for its index.
func (r *Run) Text() string { return r.st.Text }

// Shards returns the places of the shards where it is to be run, in this order: the
// home shard first. So a failure that all would have leaves its traces on one.
func (r *Run) Shards() []int { return r.shards }

// open writes the statement into the journal and takes its lock.
func (r *Run) open(ctx context.Context, c *query.Concurrent) error {
	if len(r.shards) == 0 {
		r.shards = []int{0} // for what PostgreSQL says
	}
	name := r.j.opts.Shards[0].Name
	var err error
	if r.home, err = r.j.connect(ctx, 0); err != nil {
		return err
	}
	settings, err := json.Marshal(r.st.Settings)
	if err == nil {
		err = within(ctx, r.home, true, func(tx pgx.Tx) error { return r.insert(ctx, tx, c, string(settings)) })
	}
	if err != nil {
		hangUp(r.home)
		return said(name, err)
	}
	return nil
}

// insert writes the rows of the statement.
func (r *Run) insert(ctx context.Context, tx pgx.Tx, c *query.Concurrent, settings string) error {
	first := r.sights[r.shards[0]]
	namespace, object := first.object.namespace, first.object.name
	switch {
	case c.Kind == query.ConcurrentCreateIndex:
		namespace, object = first.table.namespace, c.Object.Name
	case object == "":
		namespace, object = c.Object.Schema, c.Object.Name
	}
	if _, err := tx.Exec(ctx, "DELETE FROM shardproxy.ddl WHERE ended_at < now() - '"+kept+"'::interval", pgx.QueryExecModeExec); err != nil {
		return err
	}
	err := tx.QueryRow(ctx, `INSERT INTO shardproxy.ddl (statement, role, search_path, settings, namespace, object, relation, state)
			VALUES ($1, $2, $3, $4::jsonb, $5, $6, $7, 'running') RETURNING id`, pgx.QueryExecModeExec,
		r.st.Text, r.st.Role, r.st.SearchPath, settings, namespace, object, first.table.String()).Scan(&r.id)
	if err != nil {
		return err
	}
	for n, i := range r.shards {
		s := r.sights[i]
		r.states[i] = statePending
		invalid := make([]int64, len(s.invalid))
		for n, oid := range s.invalid {
			invalid[n] = int64(oid)
		}
		_, err := tx.Exec(ctx, `INSERT INTO shardproxy.ddl_shard (id, shard, position, state, before, invalid) VALUES ($1, $2, $3, $4, nullif($5::oid, 0), $6::int8[]::oid[])`,
			pgx.QueryExecModeExec, r.id, r.j.opts.Shards[i].Name, n, statePending, s.object.oid, invalid)
		if err != nil {
			return err
		}
	}
	_, err = lockOf(ctx, tx, r.id)
	return err
}

// queryer is a connection or a transaction.
type queryer interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// lockOf takes the lock of a statement for the connection; got is false when somebody
// else has it.
func lockOf(ctx context.Context, q queryer, id int64) (got bool, err error) {
	err = q.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", pgx.QueryExecModeExec, int32(lockClass), int32(id)).Scan(&got)
	return got, err
}

// Start notes that a shard is about to be sent the statement. After an error it must
// not be. The error is a *wire.Error.
func (r *Run) Start(ctx context.Context, shard int) error {
	return r.note(ctx, shard, stateRunning, "", "")
}

// End notes what came of the statement on a shard: e is nil when it was done there; lost
// is set when that is not known. left reports whether something is left to be done or
// undone: it is not when the statement failed on its first shard and left that as it
// was. The error is a *wire.Error; the shard's state in the journal is not known then.
func (r *Run) End(ctx context.Context, shard int, e *wire.Error, lost bool) (left bool, err error) {
	state, whole, text := stateDone, "", ""
	switch {
	case lost:
		state, whole, left = stateUnknown, stateUnfinished, true
	case e != nil:
		state, whole, left = stateFailed, stateUnfinished, true
		if shard == r.shards[0] && r.unchanged(ctx, shard) {
			whole, left = stateUndone, false
		}
	case shard == r.shards[len(r.shards)-1]:
		whole = stateDone
	}
	if e != nil {
		text = fmt.Sprintf("%s (%s)", e.Message, e.Code)
		if e.Detail != "" {
			text += ": " + e.Detail
		}
	}
	r.ended = whole != ""
	return left, r.note(ctx, shard, state, whole, text)
}

// unchanged looks whether a shard is as it was before the statement.
func (r *Run) unchanged(ctx context.Context, shard int) bool {
	ctx, cancel := context.WithTimeout(ctx, r.j.opts.Timeout)
	defer cancel()
	conn, err := r.j.as(ctx, shard, &r.st)
	if err != nil {
		return false
	}
	defer hangUp(conn)
	now, err := look(ctx, conn, r.sought)
	return err == nil && r.sights[shard].unchanged(now)
}

// note writes the state of a shard, and with it that of the statement unless that is "".
// A connection that is gone is made anew, once.
func (r *Run) note(ctx context.Context, shard int, state, whole, text string) error {
	ctx, cancel := context.WithTimeout(ctx, r.j.opts.Timeout)
	defer cancel()
	name := r.j.opts.Shards[shard].Name
	err := noteOn(ctx, r.home, r.id, name, state, whole, text)
	if err != nil && r.home.IsClosed() {
		var conn *pgx.Conn
		if conn, err = r.j.connect(ctx, 0); err != nil {
			return r.unnoted(err)
		}
		r.home = conn
		var got bool
		if got, err = lockOf(ctx, conn, r.id); err == nil && !got {
			err = errBusy
		}
		if err == nil {
			err = noteOn(ctx, conn, r.id, name, state, whole, text)
		}
	}
	return r.unnoted(err)
}

func (r *Run) unnoted(err error) error {
	if err == nil {
		return nil
	}
	r.j.opts.Logger.Error("the journal of definitions cannot be written", "database", r.j.opts.Database, "statement", r.id, "error", err)
	return wire.Errorf("57P03", "the journal of definitions cannot be written: the statement goes on to no other shard").
		WithDetail("Shard %s.", r.j.opts.Shards[0].Name).WithCause(err)
}

func noteOn(ctx context.Context, conn *pgx.Conn, id int64, shard, state, whole, text string) error {
	return within(ctx, conn, true, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "UPDATE shardproxy.ddl_shard SET state = $3, error = nullif($4, ''), changed_at = clock_timestamp() WHERE id = $1 AND shard = $2",
			pgx.QueryExecModeExec, id, shard, state, text)
		if err == nil && tag.RowsAffected() != 1 {
			err = errors.New("the statement is not in the journal any more")
		}
		if err != nil || whole == "" {
			return err
		}
		return endOn(ctx, tx, id, whole)
	})
}

// endOn writes the state of a statement.
func endOn(ctx context.Context, tx pgx.Tx, id int64, state string) error {
	_, err := tx.Exec(ctx, `UPDATE shardproxy.ddl SET state = $2, ended_at = CASE WHEN $2 IN ('running', 'unfinished') THEN NULL ELSE clock_timestamp() END
		WHERE id = $1`, pgx.QueryExecModeExec, id, state)
	return err
}

// Close ends the run. One that did not come to its end stays in the journal as
// unfinished.
func (r *Run) Close() {
	if !r.ended && !r.home.IsClosed() {
		ctx, cancel := context.WithTimeout(context.Background(), r.j.opts.Timeout)
		defer cancel()
		err := within(ctx, r.home, true, func(tx pgx.Tx) error { return endOn(ctx, tx, r.id, stateUnfinished) })
		if err != nil {
			_ = r.unnoted(err) // it is interrupted, then
		}
	}
	letGo(r.home, r.id)
}

// letGo gives the lock of a statement back and ends the connection: the server might
// hold it for a while after that.
func letGo(home *pgx.Conn, id int64) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_, _ = home.Exec(ctx, "SELECT pg_advisory_unlock($1, $2)", pgx.QueryExecModeExec, int32(lockClass), int32(id)) // the lock ends with the connection
	hangUp(home)
}
