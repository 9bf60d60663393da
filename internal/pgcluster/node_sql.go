package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// templatePort names the socket of a template while it is made.
const templatePort = 5432

// DSN returns a URL for a database and a user over TCP, with the password of
// the two users every cluster has. Options may be appended with "&name=value".
// TLS is used, and the server verified, when the cluster has it.
func (n *Node) DSN(database, user string) string {
	u := url.URL{Scheme: "postgres", Host: n.Addr(), Path: "/" + database, User: url.User(user)}
	switch user {
	case Superuser:
		u.User = url.UserPassword(user, SuperuserPassword)
	case AppUser:
		u.User = url.UserPassword(user, AppPassword)
	}
	query := url.Values{"sslmode": {"disable"}}
	if t := n.cluster.tls; t != nil {
		query = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {t.CAFile}}
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// Connect returns a connection of the superuser through the Unix socket,
// which no pg_hba.conf of a test closes. The caller closes it.
func (n *Node) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable connect_timeout=10 application_name=pgcluster",
		n.cluster.dir, n.Port(), Superuser, database))
	if err != nil {
		return nil, err
	}
	config.Fallbacks = nil
	return pgx.ConnectConfig(ctx, config)
}

// withConn runs f on a connection of its own.
func (n *Node) withConn(ctx context.Context, database string, f func(*pgx.Conn) error) error {
	conn, err := n.Connect(ctx, database)
	if err != nil {
		return err
	}
	return errors.Join(f(conn), conn.Close(ctx))
}

// Promote makes a replica the primary and returns when it accepts writes.
func (n *Node) Promote(ctx context.Context) error {
	err := n.withConn(ctx, "postgres", func(conn *pgx.Conn) error {
		var ok bool
		if err := conn.QueryRow(ctx, "SELECT pg_promote(true, 60)").Scan(&ok); err != nil {
			return err
		}
		if !ok {
			return errors.New("the server did not leave recovery in 60 s")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("promote %s: %w", n.name, err)
	}
	n.mu.Lock()
	n.follows = nil
	n.mu.Unlock()
	return nil
}

// Follow makes a running replica stream from another node and returns when it
// does.
func (n *Node) Follow(ctx context.Context, primary *Node) error {
	n.mu.Lock()
	n.follows = primary
	err := n.configure()
	n.mu.Unlock()
	if err == nil {
		err = n.Reload(ctx)
	}
	if err == nil {
		err = n.waitStreaming(ctx)
	}
	if err != nil {
		return fmt.Errorf("follow %s with %s: %w", primary.name, n.name, err)
	}
	return nil
}

// Rebuild throws the node's data away, takes a base backup of primary in its
// place and starts it as a replica at its old address. It returns when the
// replica streams. This is how a lost primary comes back.
func (n *Node) Rebuild(ctx context.Context, primary *Node) error {
	if err := n.rebuild(ctx, primary); err != nil {
		return fmt.Errorf("rebuild %s from %s: %w", n.name, primary.name, err)
	}
	return nil
}

func (n *Node) rebuild(ctx context.Context, primary *Node) error {
	if err := n.Stop(ctx); err != nil {
		return err
	}
	removeSharedMemory(n.dataDir)
	if err := os.RemoveAll(n.dataDir); err != nil {
		return err
	}
	c := n.cluster
	err := c.account.run(c.dir, c.bin.Path("pg_basebackup"), "-D", n.dataDir, "-d", primary.conninfo(n.name),
		"--checkpoint=fast", "--wal-method=stream", "--no-sync", "--no-manifest")
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.follows = primary
	n.mu.Unlock()
	if err := n.Start(ctx); err != nil {
		return err
	}
	return n.waitStreaming(ctx)
}

// Set changes settings of a running server with ALTER SYSTEM and reloads. An
// empty value resets the setting.
func (n *Node) Set(ctx context.Context, name, value string) error {
	err := n.withConn(ctx, "postgres", func(conn *pgx.Conn) error {
		sql := "ALTER SYSTEM RESET " + pgx.Identifier{name}.Sanitize()
		if value != "" {
			sql = "ALTER SYSTEM SET " + pgx.Identifier{name}.Sanitize() + " = " + quote(value)
		}
		_, err := conn.Exec(ctx, sql)
		return err
	})
	if err == nil {
		err = n.Reload(ctx)
	}
	if err != nil {
		return fmt.Errorf("set %s of %s: %w", name, n.name, err)
	}
	return nil
}

// Reload makes the server read its configuration again and returns when new
// sessions have it.
func (n *Node) Reload(ctx context.Context) error {
	var before time.Time
	return n.withConn(ctx, "postgres", func(conn *pgx.Conn) error {
		if err := conn.QueryRow(ctx, "SELECT pg_conf_load_time() FROM pg_reload_conf()").Scan(&before); err != nil {
			return err
		}
		return poll(ctx, func() (bool, error) {
			var loaded time.Time
			err := n.withConn(ctx, "postgres", func(fresh *pgx.Conn) error {
				return fresh.QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&loaded)
			})
			return loaded.After(before), err
		})
	})
}

// LSN returns the end of the WAL that the node has: written on a primary,
// replayed on a replica.
func (n *Node) LSN(ctx context.Context) (string, error) {
	var lsn string
	err := n.withConn(ctx, "postgres", func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
			ELSE pg_current_wal_insert_lsn() END)::text`).Scan(&lsn)
	})
	return lsn, err
}

// WaitReplayed returns when the node has replayed up to lsn, as LSN gives it.
func (n *Node) WaitReplayed(ctx context.Context, lsn string) error {
	err := n.withConn(ctx, "postgres", func(conn *pgx.Conn) error {
		return poll(ctx, func() (ok bool, err error) {
			err = conn.QueryRow(ctx, "SELECT NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() >= $1::text::pg_lsn", lsn).Scan(&ok)
			return ok, err
		})
	})
	if err != nil {
		return fmt.Errorf("wait until %s has replayed %s: %w", n.name, lsn, err)
	}
	return nil
}

// SystemIdentifier returns the number that all nodes of one cluster share.
func (n *Node) SystemIdentifier(ctx context.Context) (id int64, err error) {
	err = n.withConn(ctx, "postgres", func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT system_identifier FROM pg_control_system()").Scan(&id)
	})
	return id, err
}

// waitStreaming returns when the replica receives WAL from the node it follows.
func (n *Node) waitStreaming(ctx context.Context) error {
	n.mu.Lock()
	from := n.follows.Port()
	n.mu.Unlock()
	return n.withConn(ctx, "postgres", func(conn *pgx.Conn) error {
		return poll(ctx, func() (ok bool, err error) {
			err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming' AND sender_port = $1)", from).Scan(&ok)
			var pe *pgconn.PgError
			if errors.As(err, &pe) && pe.Code == "57P03" {
				return false, nil // still starting
			}
			return ok, err
		})
	})
}
