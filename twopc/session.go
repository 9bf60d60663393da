package twopc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/metadata"
)

// session is a control connection to a shard's primary.
type session struct {
	conn    *pgx.Conn
	user    string
	super   bool
	owner   string // of the schema
	began   time.Time
	timeout time.Duration
}

// sessionLife is how long a session is used. A server that is the primary no
// longer may go on answering.
const sessionLife = 30 * time.Second

func (s *session) usable() bool { return !s.conn.IsClosed() && time.Since(s.began) < sessionLife }

// setup sees to it that nothing a role or a database has set changes what the
// statements mean or whether they are durable when they return. Locks are waited
// for only as long as it takes a transaction to commit: who waits longer asks
// again in the next round.
const setup = "SET search_path = pg_catalog, pg_temp; SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;" +
	" SET statement_timeout = 0; SET lock_timeout = '100ms';" +
	" SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')"

const whoSQL = `SELECT c.id::text, c.shard, c.schema_version, pg_is_in_recovery(), current_user::text, r.rolsuper, pg_get_userbyid(n.nspowner)::text
	FROM shardproxy.cluster c, pg_roles r, pg_namespace n WHERE r.rolname = current_user AND n.nspname = 'shardproxy'`

// connect returns a session of a shard whose server is what it should be.
func (r *Resolver) connect(ctx context.Context, shard int) (*session, error) {
	return connect(ctx, r.opts.Cluster, r.opts.Shards[shard], r.opts.Timeout)
}

func connect(ctx context.Context, cluster string, shard Shard, timeout time.Duration) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := shard.Connect(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn, began: time.Now(), timeout: timeout}
	if err := s.verify(ctx, cluster, shard.Name); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) verify(ctx context.Context, cluster, shard string) error {
	if _, err := s.conn.Exec(ctx, setup); err != nil {
		return err
	}
	var id, name string
	var version int
	var standby bool
	err := s.conn.QueryRow(ctx, whoSQL, pgx.QueryExecModeExec).Scan(&id, &name, &version, &standby, &s.user, &s.super, &s.owner)
	switch {
	case err != nil:
		return err
	case standby:
		return errStandby
	case id != cluster || name != shard:
		return fmt.Errorf("its server is shard %q of cluster %s", name, id)
	case version != metadata.Version:
		return &metadata.VersionError{Found: version, Known: metadata.Version}
	}
	return nil
}

var errStandby = errors.New("its server is a standby")

// closeTimeout is how long the end of a connection is waited for.
const closeTimeout = time.Second

func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = s.conn.Close(ctx) // there is nobody left to tell
	select {
	case <-s.conn.PgConn().CleanupDone():
	case <-ctx.Done():
	}
}

// exec runs a statement and returns the SQLSTATE of the server's error, "" when
// there is none.
func (s *session) exec(ctx context.Context, sql string, args ...any) (rows int64, code string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	tag, err := s.conn.Exec(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
	var said *pgconn.PgError
	if errors.As(err, &said) {
		code = said.Code
	}
	return tag.RowsAffected(), code, err
}

// A standby lists no prepared transactions, so that it must be asked along with
// them what it is. The name's prefix is compared without a pattern.
const listSQL = `SELECT pg_is_in_recovery(), coalesce(x.gid, ''), coalesce(x.owner::text, ''), coalesce(extract(epoch FROM clock_timestamp() - x.prepared)::float8, 0)
	FROM (SELECT) one LEFT JOIN pg_prepared_xacts x ON x.database = current_database() AND left(x.gid, length($1)) = $1`

// list returns the prepared parts of the cluster's transactions on a shard,
// among them those whose names are none of ours.
func (s *session) list(ctx context.Context, cluster string, shard int) (all []*part, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	rows, err := s.conn.Query(ctx, listSQL, pgx.QueryExecModeExec, prefixOf(cluster))
	if err != nil {
		return nil, err
	}
	var standby bool
	var p part
	var seconds float64
	_, err = pgx.ForEachRow(rows, []any{&standby, &p.name, &p.owner, &seconds}, func() error {
		if standby {
			return errStandby
		}
		if p.name == "" {
			return nil
		}
		one := p
		one.shard, one.age = shard, time.Duration(seconds*float64(time.Second))
		var wrong error
		if one.gid, one.decider, wrong = parsePart(cluster, one.name); wrong != nil {
			one.why = "its name is none that a commit gives"
		}
		all = append(all, &one)
		return nil
	})
	if err != nil {
		return nil, err // also of what had come: who lost the connection can finish nothing on it
	}
	return all, nil
}

// lookUp returns the row of a transaction.
func (s *session) lookUp(ctx context.Context, gid string) (r row, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err = s.conn.QueryRow(ctx, "SELECT committed, decided_by FROM shardproxy.commits WHERE gid = $1", pgx.QueryExecModeExec, gid).Scan(&r.committed, &r.by)
	if errors.Is(err, pgx.ErrNoRows) {
		return row{}, nil
	}
	r.found, r.trusted = true, r.by == s.user || r.by == s.owner
	return r, err
}

const codeLock = "55P03"

// settle returns the row of a transaction, and writes a tombstone when there is
// none: from then on its coordinator can no longer commit. What holds is what is
// read in the end: another one may have been first. The row is not found when the
// coordinator is about to commit.
func (s *session) settle(ctx context.Context, gid string) (r row, buried bool, err error) {
	if r, err = s.lookUp(ctx, gid); err != nil || r.found {
		return r, false, err
	}
	n, code, err := s.exec(ctx, "INSERT INTO shardproxy.commits (gid, committed, decided_by) VALUES ($1, false, current_user) ON CONFLICT DO NOTHING", gid)
	if err != nil {
		if code == codeLock {
			err = nil
		}
		return row{}, false, err
	}
	r, err = s.lookUp(ctx, gid)
	return r, n > 0, err
}

// finish commits or rolls back a prepared part, as its owner, and returns why it
// could not, in words.
func (s *session) finish(ctx context.Context, p *part) error {
	word := "ROLLBACK"
	if p.verdict == commitIt {
		word = "COMMIT"
	}
	if p.owner != s.user && !s.super {
		if _, code, err := s.exec(ctx, "SET ROLE "+pgx.Identifier{p.owner}.Sanitize()); err != nil {
			if code == "42501" {
				return fmt.Errorf("the control user %q may not act for role %q, which prepared it: GRANT %[2]q TO %[1]q", s.user, p.owner)
			}
			return err
		}
		defer func() {
			if _, _, err := s.exec(ctx, "RESET ROLE"); err != nil {
				s.close() // it must not go on as somebody else
			}
		}()
	}
	_, code, err := s.exec(ctx, word+" PREPARED '"+p.name+"'")
	if code == codeNoObject {
		return nil // somebody else has done it; the next round tells
	}
	return err
}
