package auth

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/config"
)

const (
	// searchPath is in force while auth_query runs: a name without a schema
	// means PostgreSQL's own object, never one that somebody put in its way.
	searchPath = "pg_catalog, pg_temp"

	// pinSQL holds until the Sync behind the batch. The date settings are for
	// reading rolvaliduntil.
	pinSQL = "SELECT pg_catalog.set_config('search_path', '" + searchPath + "', true)," +
		" pg_catalog.set_config('datestyle', 'ISO, YMD', true)," +
		" pg_catalog.set_config('timezone', 'UTC', true)," +
		" pg_catalog.set_config('statement_timeout', $1, true)"
	// roleSQL makes VALID UNTIL and NOLOGIN hold whatever the query returns:
	// pg_roles may be read by everybody.
	roleSQL = "SELECT rolcanlogin::pg_catalog.text, rolvaliduntil::pg_catalog.text" +
		" FROM pg_catalog.pg_roles WHERE rolname = $1"

	oidTimestampTZ = 1184
)

// ServerQuerier runs auth_query on PostgreSQL servers.
//
// The query has one parameter, the user's name. It returns no row for a user
// that does not exist, or one row: the password as in pg_authid.rolpassword,
// then optionally a timestamptz from which on the password is refused. The
// user's name may stand before the password, as in PgBouncer's queries. Where a
// role of the name exists on that server, its VALID UNTIL and NOLOGIN count as
// well. The query runs with search_path = pg_catalog, pg_temp, so functions and
// tables of one's own must be named with their schema.
//
// Connections are opened by the first lookups and kept; Close ends them.
type ServerQuerier struct {
	dial  func(ctx context.Context, database string) (*pgconn.PgConn, error)
	limit int

	mu         sync.Mutex
	servers    map[string]*lookupConns
	generation int // raised by Reset
	closed     bool
}

// lookupConns are the connections to one database.
type lookupConns struct {
	slots chan struct{}
	idle  []*pgconn.PgConn // guarded by ServerQuerier.mu
}

// NewServerQuerier returns a Querier over at most limit connections (2 when
// that is 0) for each database, which dial opens. It opens none yet. dial
// must log in as the user of auth_query, not as the client's.
func NewServerQuerier(dial func(ctx context.Context, database string) (*pgconn.PgConn, error), limit int) *ServerQuerier {
	if limit <= 0 {
		limit = 2
	}
	return &ServerQuerier{dial: dial, limit: limit, servers: make(map[string]*lookupConns)}
}

// errQuerierClosed is returned by lookups after Close.
var errQuerierClosed = errors.New("the look-up connections are closed")

// QueryUser implements Querier. A kept connection that has died is replaced
// and the query sent again.
func (q *ServerQuerier) QueryUser(ctx context.Context, database, sql, user string) (UserRecord, bool, error) {
	conns := q.conns(database)
	select {
	case conns.slots <- struct{}{}:
	case <-ctx.Done():
		return UserRecord{}, false, context.Cause(ctx)
	}
	defer func() { <-conns.slots }()
	for {
		conn, generation, err := q.take(conns)
		reused := conn != nil
		if err == nil && !reused {
			conn, err = q.dial(ctx, database)
		}
		if err != nil {
			return UserRecord{}, false, fmt.Errorf("connect: %w", err)
		}
		rec, found, err := queryUser(ctx, conn, sql, user)
		died := err != nil && conn.IsClosed()
		q.give(conns, conn, generation, err)
		if died && reused && ctx.Err() == nil {
			continue // every kept connection may be dead; a new one ends the loop
		}
		return rec, found, err
	}
}

func (q *ServerQuerier) conns(database string) *lookupConns {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.servers[database]
	if c == nil {
		c = &lookupConns{slots: make(chan struct{}, q.limit)}
		q.servers[database] = c
	}
	return c
}

// take returns a kept connection, nil when there is none.
func (q *ServerQuerier) take(c *lookupConns) (conn *pgconn.PgConn, generation int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, 0, errQuerierClosed
	}
	if n := len(c.idle); n > 0 {
		conn, c.idle = c.idle[n-1], c.idle[:n-1]
	}
	return conn, q.generation, nil
}

// give keeps a connection that is in order and not older than the last Reset.
func (q *ServerQuerier) give(c *lookupConns, conn *pgconn.PgConn, generation int, err error) {
	q.mu.Lock()
	keep := err == nil && !q.closed && generation == q.generation && conn.TxStatus() == 'I'
	if keep {
		c.idle = append(c.idle, conn)
	}
	q.mu.Unlock()
	if !keep {
		closeConn(conn)
	}
}

// closeConn says good-bye without waiting long for a server that does not listen.
func closeConn(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing can be done about a failure
}

// Reset closes the kept connections, so that the next lookups dial again: for
// a reload that may have changed the servers or the login.
func (q *ServerQuerier) Reset() { q.drop(false) }

// Close is Reset, and makes every later lookup fail; lookups that run finish
// first, or fail with their context. It is idempotent.
func (q *ServerQuerier) Close() error {
	q.drop(true)
	return nil
}

func (q *ServerQuerier) drop(closing bool) {
	var idle []*pgconn.PgConn
	q.mu.Lock()
	q.generation++
	q.closed = q.closed || closing
	for _, c := range q.servers {
		idle = append(idle, c.idle...)
		c.idle = nil
	}
	q.mu.Unlock()
	for _, conn := range idle {
		closeConn(conn)
	}
}

// queryUser does one lookup in one round trip and one implicit transaction.
func queryUser(ctx context.Context, conn *pgconn.PgConn, sql, user string) (rec UserRecord, found bool, err error) {
	timeout := int64(0)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(1, time.Until(deadline).Milliseconds())
	}
	name := [][]byte{[]byte(user)}
	batch := &pgconn.Batch{}
	batch.ExecParams(pinSQL, [][]byte{[]byte(strconv.FormatInt(timeout, 10))}, nil, nil, nil)
	batch.ExecParams(sql, name, nil, nil, nil)
	batch.ExecParams(roleSQL, name, nil, nil, nil)
	results := conn.ExecBatch(ctx, batch)
	defer func() {
		if closeErr := results.Close(); err == nil && closeErr != nil {
			rec, found, err = UserRecord{}, false, closeErr
		}
	}()
	if _, _, err := oneRow(results); err != nil {
		return rec, false, err
	}
	fields, row, err := oneRow(results)
	if err != nil {
		return rec, false, err
	}
	_, role, err := oneRow(results)
	if err != nil || row == nil {
		return rec, false, err
	}
	if rec, err = readRecord(fields, row, user); err != nil {
		return rec, false, err
	}
	return applyRole(rec, role)
}

// errRows is a result of more than one row: the query does not tell users apart.
var errRows = errors.New("the query returned more than one row for a user")

// oneRow reads the next result, which has at most one row; row is nil when it
// has none. A value is nil for NULL.
func oneRow(results *pgconn.MultiResultReader) (fields []pgconn.FieldDescription, row [][]byte, err error) {
	if !results.NextResult() {
		if err := results.Close(); err != nil {
			return nil, nil, err
		}
		return nil, nil, errors.New("the server did not answer every query")
	}
	reader := results.ResultReader()
	fields = append(fields, reader.FieldDescriptions()...)
	rows := 0
	for reader.NextRow() {
		if rows++; rows > 1 {
			continue // read to the end, keep nothing
		}
		row = make([][]byte, 0, len(fields))
		for _, v := range reader.Values() {
			if v != nil {
				v = append([]byte{}, v...)
			}
			row = append(row, v)
		}
	}
	if _, err := reader.Close(); err != nil {
		return nil, nil, err
	}
	if rows > 1 {
		return nil, nil, errRows
	}
	return fields, row, nil
}

// readRecord reads what auth_query returned: [name,] password [, valid until].
func readRecord(fields []pgconn.FieldDescription, row [][]byte, user string) (rec UserRecord, err error) {
	if n := len(row); n > 1 && fields[n-1].DataTypeOID == oidTimestampTZ {
		if row[n-1] != nil {
			if rec.ValidUntil, err = parseValidUntil(string(row[n-1])); err != nil {
				return UserRecord{}, err
			}
		}
		row = row[:n-1]
	}
	if len(row) == 2 {
		if string(row[0]) != user {
			return UserRecord{}, errors.New("the query returned another user than was asked for")
		}
		row = row[1:]
	}
	if len(row) != 1 {
		return UserRecord{}, errors.New("the query must return a password, and may return the name before it and a timestamptz behind it")
	}
	rec.Password = config.NewSecret(string(row[0]))
	return rec, nil
}

// applyRole applies the limits of the server's role of that name, if there is one.
func applyRole(rec UserRecord, role [][]byte) (UserRecord, bool, error) {
	if len(role) != 2 {
		return rec, true, nil
	}
	if string(role[0]) != "true" {
		return UserRecord{}, false, nil
	}
	if role[1] == nil {
		return rec, true, nil
	}
	until, err := parseValidUntil(string(role[1]))
	if err != nil {
		return UserRecord{}, false, err
	}
	if !until.IsZero() && (rec.ValidUntil.IsZero() || until.Before(rec.ValidUntil)) {
		rec.ValidUntil = until
	}
	return rec, true, nil
}

// parseValidUntil reads a timestamptz as PostgreSQL prints it in ISO style and
// UTC. Zero means never: infinity, and years of five digits, which the time
// package does not read.
func parseValidUntil(s string) (time.Time, error) {
	longPast := time.Unix(0, 0)
	switch {
	case s == "infinity":
		return time.Time{}, nil
	case s == "-infinity":
		return longPast, nil
	}
	date, before := strings.CutSuffix(s, " BC")
	year := strings.IndexByte(date, '-')
	long := year > 4 && strings.Trim(date[:year], "0123456789") == ""
	if long { // checked as the year 9999, which no field depends on but February 29
		date = "9996" + date[year:]
	}
	t, err := time.Parse("2006-01-02 15:04:05.999999-07", date)
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("cannot read the time %q", s)
	case before:
		return longPast, nil
	case long:
		return time.Time{}, nil
	}
	return t, nil
}
