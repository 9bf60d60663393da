package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/listappend"
)

// txClient is a client of an application that lives on when connections do not. It knows
// of each transaction whether it was committed, was not, or may have been.
type txClient struct {
	t    testing.TB
	dsn  string
	id   int
	set  []string // statements that each connection begins with
	conn *pgx.Conn
	// longest is the longest that a statement took, in nanoseconds.
	longest atomic.Int64
}

// txBound is more than any statement may take, whatever dies.
const txBound = 45 * time.Second

// connected connects, if need be, as often as it takes.
func (c *txClient) connected(ctx context.Context) bool {
	for ctx.Err() == nil {
		if c.conn != nil && !c.conn.IsClosed() {
			return true
		}
		config, err := pgx.ParseConfig(c.dsn)
		if err != nil {
			c.t.Error(err)
			return false
		}
		if c.id%3 == 0 {
			config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
		}
		// Transactions of this test lock in any order; none may wait for another for long.
		config.RuntimeParams["lock_timeout"] = "200ms"
		dial, cancel := context.WithTimeout(ctx, 10*time.Second)
		c.conn, err = pgx.ConnectConfig(dial, config)
		for _, sql := range c.set {
			if err == nil {
				_, err = c.conn.Exec(dial, sql)
			}
		}
		cancel()
		if err == nil {
			return true
		}
		c.drop()
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false
}

// drop closes the connection.
func (c *txClient) drop() {
	if c.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.conn.Close(ctx)
		c.conn = nil
	}
}

// query runs one statement and returns its rows' values.
func (c *txClient) query(sql string, args ...any) (rows [][]any, tag string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), txBound)
	defer cancel()
	began := time.Now()
	r, err := c.conn.Query(ctx, sql, args...)
	if err == nil {
		for r.Next() {
			values, bad := r.Values()
			if bad != nil {
				err = bad
			}
			rows = append(rows, values)
		}
		r.Close()
		tag = r.CommandTag().String()
		if r.Err() != nil {
			err = r.Err()
		}
	}
	if took := int64(time.Since(began)); took > c.longest.Load() {
		c.longest.Store(took)
	}
	switch {
	case ctx.Err() != nil:
		c.t.Errorf("%s hangs: %v", sql, err)
	case sqlState(err) == "XX000":
		c.t.Errorf("a fault of the proxy: %s: %v", sql, err)
	}
	return rows, tag, err
}

// alone runs a statement outside of transactions.
func (c *txClient) alone(sql string, args ...any) (rows [][]any, o listappend.Outcome, err error) {
	rows, _, err = c.query(sql, args...)
	return rows, outcomeOf(err, false), err
}

// transaction runs f between BEGIN, in some mode, and COMMIT.
func (c *txClient) transaction(mode string, f func() error) (listappend.Outcome, error) {
	if _, _, err := c.query("BEGIN " + mode); err != nil {
		return listappend.Failed, c.rollBack(err)
	}
	if err := f(); err != nil {
		return listappend.Failed, c.rollBack(err)
	}
	_, tag, err := c.query("COMMIT")
	if err == nil && tag != "COMMIT" {
		return listappend.Failed, fmt.Errorf("COMMIT says %s", tag)
	}
	if err != nil {
		return outcomeOf(err, true), c.rollBack(err)
	}
	return listappend.OK, nil
}

// rollBack makes the connection one without a transaction, or none. It returns the error
// that it was for.
func (c *txClient) rollBack(why error) error {
	if c.conn.IsClosed() {
		return why
	}
	if _, _, err := c.query("ROLLBACK"); err != nil {
		c.drop()
	}
	return why
}

// outcomeOf says what an error in answer to COMMIT, or to a statement of its own, says of
// what was to be committed, by what docs/errors.md promises.
func outcomeOf(err error, commit bool) listappend.Outcome {
	var said *pgconn.PgError
	switch {
	case err == nil:
		return listappend.OK
	case !errors.As(err, &said) || said.Code == "08007":
		return listappend.Unknown
	case said.Code == "57P03" && said.Severity == "ERROR":
		return listappend.Failed
	case commit && said.Code == "08006" && said.Severity == "ERROR":
		return listappend.Failed
	case said.Severity != "ERROR" || strings.HasPrefix(said.Code, "08") || strings.HasPrefix(said.Code, "57P"):
		return listappend.Unknown
	}
	return listappend.Failed
}
