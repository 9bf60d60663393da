package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/catalog"
	"shardproxy/metadata"
	"shardproxy/wire"
)

// Session is a connection to a shard's primary, on which values print in one way.
type Session struct {
	// Shard is the shard's name in the configuration.
	Shard string
	// Cluster is the ID of the cluster that the shard belongs to, "" for none yet.
	Cluster string
	// Catalog is the shard's schema at the time of Open.
	Catalog *catalog.Catalog

	conn *pgx.Conn
}

// settings make values print alike on all shards, whatever a role, a database or a
// server has set, and names mean PostgreSQL's own.
const settings = `SET search_path = pg_catalog; SET DateStyle = 'ISO, MDY'; SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres';
SET extra_float_digits = 1; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET client_encoding = 'UTF8'; SET xmloption = 'content';
SET standard_conforming_strings = on; SET transform_null_equals = off; SET array_nulls = on; SET row_security = off; SET quote_all_identifiers = off;
SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off; SET default_transaction_deferrable = off;
SET idle_in_transaction_session_timeout = 0; SET lock_timeout = '800ms';
SET application_name = 'shardproxy check'; SET client_min_messages = 'warning'; SET jit = off`

// Open connects to a shard, and reads its schema. The server must be the shard of
// that name if it is one of a cluster's.
func Open(ctx context.Context, shard string, connect func(context.Context) (*pgx.Conn, error)) (*Session, error) {
	conn, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	s := &Session{Shard: shard, conn: conn}
	// Alone: a time-out that is usual there is for a whole text.
	if err = s.exec(ctx, "SET statement_timeout = 0"); err == nil {
		err = s.exec(ctx, settings)
	}
	if err == nil {
		err = s.identify(ctx)
	}
	if err == nil {
		s.Catalog, err = catalog.LoadTables(ctx, conn)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// identify asks the server which shard it is.
func (s *Session) identify(ctx context.Context) error {
	var there bool
	if err := s.row(ctx, "SELECT to_regclass('shardproxy.cluster') IS NOT NULL").Scan(&there); err != nil || !there {
		return err
	}
	var name string
	if err := s.row(ctx, "SELECT id::text, shard FROM shardproxy.cluster").Scan(&s.Cluster, &name); err != nil {
		return err
	}
	if name != s.Shard {
		return fmt.Errorf("its server is shard %q", name)
	}
	return nil
}

// closeTimeout is how long the end of a connection is waited for.
const closeTimeout = time.Second

// Close ends the connection, and with it a transaction that is open.
func (s *Session) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = s.conn.Close(ctx) // there is nobody left to tell
	select {
	case <-s.conn.PgConn().CleanupDone():
	case <-ctx.Done():
	}
}

// Exec runs statements for a commit over several shards: what the server says is a
// *wire.Error, any other error means that the connection is lost.
func (s *Session) Exec(ctx context.Context, sql string) error {
	return metadata.Said(s.exec(ctx, sql))
}

// exec runs statements by the simple protocol and throws rows away.
func (s *Session) exec(ctx context.Context, sql string) error {
	return s.conn.PgConn().Exec(ctx, sql).Close()
}

// write runs one statement and returns how many rows it wrote.
func (s *Session) write(ctx context.Context, sql string) (int64, error) {
	tag, err := s.conn.Exec(ctx, sql, pgx.QueryExecModeExec)
	return tag.RowsAffected(), err
}

func (s *Session) row(ctx context.Context, sql string) pgx.Row {
	return s.conn.QueryRow(ctx, sql, pgx.QueryExecModeExec)
}

func (s *Session) rows(ctx context.Context, sql string) (pgx.Rows, error) {
	return s.conn.Query(ctx, sql, pgx.QueryExecModeExec)
}

// rollback ends a transaction, also when ctx has ended. What fails has lost the
// connection, and the server ends the transaction.
func (s *Session) rollback(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = s.exec(ctx, "ROLLBACK")
}

// code returns the SQLSTATE of a server's error, "" for others.
func code(err error) string {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return said.Code
	}
	return ""
}

// Told is an error in the server's words, with what it adds to them.
func Told(err error) string {
	var said *pgconn.PgError
	var we *wire.Error
	switch {
	case errors.As(err, &said):
		return told(err.Error(), said.Detail, said.Hint)
	case errors.As(err, &we):
		return told(we.Error(), we.Detail, we.Hint)
	}
	return err.Error()
}

func told(message string, more ...string) string {
	for _, m := range more {
		if m != "" {
			message += "; " + m
		}
	}
	return message
}
