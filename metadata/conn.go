package metadata

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Connect returns a new connection of the control user to a shard's primary.
// Who called it closes the connection. Whether a server is still the primary is
// the function's business: it is asked again whenever a connection broke.
type Connect func(ctx context.Context) (*pgx.Conn, error)

// How transactions begin. Nothing that a role or a database sets may change
// what the statements mean, how they are isolated, or that they are durable
// when COMMIT returns: a new epoch that a crash takes back would be used twice.
const (
	beginRead  = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp"
	beginWrite = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL search_path = pg_catalog, pg_temp;" +
		" SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') IN ('off', 'local')"
)

// Advisory locks of the schema; they are of one database.
const (
	lockClass  = 0x73687270 // "shrp"
	lockSchema = 1          // who makes or upgrades the schema, for a transaction
	lockInit   = 2          // who makes the cluster, on the home shard, for a session
)

// How long the end of a connection is waited for. One that broke is ended by
// pgx, with a cancel request over a second connection that may take 15 s.
const (
	closeTimeout  = time.Second
	brokenTimeout = 200 * time.Millisecond
)

// closeConn ends a connection and waits for it, but not for a server that
// gives no answer.
func closeConn(conn *pgx.Conn) {
	raw := conn.PgConn()
	if !raw.IsClosed() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = conn.Close(ctx) // there is nobody left to tell
	}
	timer := time.NewTimer(brokenTimeout)
	defer timer.Stop()
	select {
	case <-raw.CleanupDone():
	case <-timer.C:
	}
}

// within runs f in a transaction, which commits when f returns nil. The error
// of a commit whose outcome is unknown is ErrOutcome.
func within(ctx context.Context, conn *pgx.Conn, begin string, f func(pgx.Tx) error) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: begin})
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		rollback(ctx, tx)
		return err
	}
	if err := commitable(ctx, conn); err != nil {
		rollback(ctx, tx)
		return err
	}
	// What pgx says of an error here (pgconn.SafeToRetry) is not to be relied
	// on: a connection that breaks while the answer is read counts as one that
	// was closed before.
	err = tx.Commit(ctx)
	if err != nil && !rolledBack(err) {
		return &Problem{Kind: ErrOutcome, Cause: err, Reason: "the connection was lost during COMMIT: " + err.Error(),
			Hint: "read the state again before doing anything else"}
	}
	return err
}

// rolledBack reports whether an error of COMMIT says that nothing was written.
// A session that a server ends may have committed before: while it waits for
// its standbys.
func rolledBack(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.SeverityUnlocalized == "ERROR"
	}
	return errors.Is(err, pgx.ErrTxCommitRollback)
}

// commitable returns why COMMIT would not even be sent.
func commitable(ctx context.Context, conn *pgx.Conn) error {
	if conn.IsClosed() {
		return errors.New("the connection was lost before COMMIT")
	}
	return ctx.Err()
}

// rollback ends a failed transaction, also when ctx was the cause: the
// connection goes on. What fails here has closed the connection.
func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = tx.Rollback(ctx)
}

// exec runs one statement without a prepared one.
func exec(ctx context.Context, tx pgx.Tx, sql string, args ...any) (int64, error) {
	tag, err := tx.Exec(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
	return tag.RowsAffected(), err
}

// row asks for one row without a prepared statement.
func row(ctx context.Context, tx pgx.Tx, sql string, args ...any) pgx.Row {
	return tx.QueryRow(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
}
