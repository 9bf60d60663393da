package ddl

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/metadata"
	"shardproxy/wire"
)

// setup sees to it that nothing that a role or a database has set changes what the
// statements mean, whether they are durable when they return, or how long they may take.
const setup = "SET search_path = pg_catalog, pg_temp; SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;" +
	" SET statement_timeout = 0; SET lock_timeout = 0;" +
	" SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('idle_session_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout');" +
	" SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')"

// connect returns a connection of the control user to a shard that is what it should be.
func (j *Journal) connect(ctx context.Context, shard int) (*pgx.Conn, error) {
	s := j.opts.Shards[shard]
	conn, err := s.Connect(ctx)
	if err != nil {
		return nil, said(s.Name, err)
	}
	if err := j.verify(ctx, conn, s.Name); err != nil {
		hangUp(conn)
		return nil, said(s.Name, err)
	}
	return conn, nil
}

func (j *Journal) verify(ctx context.Context, conn *pgx.Conn, shard string) error {
	if _, err := conn.Exec(ctx, setup); err != nil {
		return err
	}
	var database, name string
	var version int
	err := conn.QueryRow(ctx, "SELECT database, shard, schema_version FROM shardproxy.cluster", pgx.QueryExecModeExec).Scan(&database, &name, &version)
	switch {
	case err != nil:
		return err
	case database != j.opts.Database || name != shard:
		return wire.Errorf("55000", "its server is shard %q of the database %q", name, database)
	case version != metadata.Version:
		return &metadata.VersionError{Found: version, Known: metadata.Version}
	}
	return nil
}

// become makes a connection the statement's: its role and its settings.
func become(ctx context.Context, conn *pgx.Conn, st *Statement) error {
	for name, value := range st.Settings {
		if _, err := conn.Exec(ctx, "SELECT pg_catalog.set_config($1, $2, false)", pgx.QueryExecModeExec, name, value); err != nil {
			return err
		}
	}
	var user string
	if err := conn.QueryRow(ctx, "SELECT current_user::text", pgx.QueryExecModeExec).Scan(&user); err != nil {
		return err
	}
	if user != st.Role {
		_, err := conn.Exec(ctx, "SET ROLE "+pgx.Identifier{st.Role}.Sanitize())
		if sqlstate(err) == "42501" {
			return wire.Errorf("42501", "the proxy's control user %q may not act for role %q", user, st.Role).
				WithHint("A statement that may have to be taken up again is run only when it can be: GRANT %s TO %s.",
					pgx.Identifier{st.Role}.Sanitize(), pgx.Identifier{user}.Sanitize())
		}
		if err != nil {
			return err
		}
	}
	_, err := conn.Exec(ctx, "SELECT pg_catalog.set_config('search_path', $1, false)", pgx.QueryExecModeExec, st.SearchPath)
	return err
}

// as returns a connection to a shard that is the statement's.
func (j *Journal) as(ctx context.Context, shard int, st *Statement) (*pgx.Conn, error) {
	conn, err := j.connect(ctx, shard)
	if err != nil {
		return nil, err
	}
	if err := become(ctx, conn, st); err != nil {
		hangUp(conn)
		return nil, said(j.opts.Shards[shard].Name, err)
	}
	return conn, nil
}

// within runs f in a transaction, which is rolled back when keep is false.
func within(ctx context.Context, conn *pgx.Conn, keep bool, f func(pgx.Tx) error) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil || !keep {
		_ = tx.Rollback(ctx) // what fails here has closed the connection
		return err
	}
	return tx.Commit(ctx)
}

// closeTimeout is how long the end of a connection is waited for.
const closeTimeout = time.Second

func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // there is nobody left to tell
	select {
	case <-conn.PgConn().CleanupDone():
	case <-ctx.Done():
	}
}

// sqlstate returns the SQLSTATE of a server's error, "" for others.
func sqlstate(err error) string {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return said.Code
	}
	return ""
}

// lost reports whether it is not known what came of a statement that failed.
func lost(err error) bool {
	var said *pgconn.PgError
	return err != nil && (!errors.As(err, &said) || said.SeverityUnlocalized == "FATAL" || said.SeverityUnlocalized == "PANIC")
}

// said makes a *wire.Error of what a shard, or the way to it, gave.
func said(shard string, err error) error {
	var we *wire.Error
	var pe *pgconn.PgError
	var version *metadata.VersionError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &we):
		if we.Detail == "" {
			return we.WithDetail("Shard %s.", shard)
		}
		return we
	case errors.As(err, &version):
		return wire.Errorf("55000", "the schema shardproxy has %s", version.Error()).WithDetail("Shard %s.", shard).WithHint("Run \"shardproxy init\", which upgrades it.")
	case errors.As(err, &pe):
		return &wire.Error{Code: pe.Code, Message: pe.Message, Detail: pe.Detail, Hint: pe.Hint, Where: "the proxy's journal of definitions, shard " + shard, Cause: err}
	}
	return wire.Errorf("57P03", "a shard cannot be asked what it has").WithDetail("Shard %s.", shard).
		WithHint("The statement was not executed there.").WithCause(err)
}
