package metadata

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Shard is one of a cluster's shards, as the configuration has it.
type Shard struct {
	// Name is unique within the cluster.
	Name string
	// Weight is the shard's share of the slots in a map that Init makes,
	// relative to the others'; 0 means 1.
	Weight int
	// Connect leads to the shard's primary.
	Connect Connect
}

// facts is what a shard's server says of itself.
type facts struct {
	shard string
	err   error // it could not be asked; the rest is then worth nothing

	version        int // server_version_num
	standby        bool
	system         int64  // system identifier
	databaseOID    uint32 //
	user           string
	encoding       string
	collate, ctype string
	provider       string // of the database's collation: libc, icu, builtin
	locale, rules  string // ICU's and the built-in provider's
	collation      string // the collation's version, recorded when the database was made
	library        string // the version that the server's library has now
	prepared       int    // max_prepared_transactions
	connections    int    // max_connections
	walLevel       string
	datetimes      string   // integer_datetimes
	mayCreate      bool     // CREATE on the database
	owner          string   // of the schema; empty when there is none
	isOwner        bool     // the user is the owner or can become it
	strangers      int      // relations in a schema that has no table cluster
	wrongHashes    []string // see otherHashes

	rowErr error    // the rows could not be read
	row    *Cluster // nil when there is none
	epoch  int64    // 0 when there is none
}

// A database's collation has grown columns with every version; those that a
// server has not are NULL.
const factsSQL = `
SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), s.system_identifier, d.oid, current_user,
       pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
       CASE coalesce(j ->> 'datlocprovider', 'c') WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE j ->> 'datlocprovider' END,
       coalesce(j ->> 'datlocale', j ->> 'daticulocale', ''), coalesce(j ->> 'daticurules', ''), coalesce(j ->> 'datcollversion', ''),
       current_setting('max_prepared_transactions')::int, current_setting('max_connections')::int,
       current_setting('wal_level'), current_setting('integer_datetimes'),
       has_database_privilege(d.oid, 'CREATE'),
       coalesce(pg_get_userbyid(n.nspowner), ''), coalesce(pg_has_role(n.nspowner, 'MEMBER'), false),
       (SELECT CASE WHEN bool_or(c.relname = 'cluster' AND c.relkind = 'r') THEN 0 ELSE count(*) END
          FROM pg_class c WHERE c.relnamespace = n.oid)
  FROM pg_database d CROSS JOIN LATERAL to_jsonb(d) j CROSS JOIN pg_control_system() s
       LEFT JOIN pg_namespace n ON n.nspname = 'shardproxy'
 WHERE d.datname = current_database()`

// The version of the library that sorts. Before PostgreSQL 15 databases had
// none, but a collation of the same name does.
const (
	librarySQL   = "SELECT coalesce(pg_database_collation_actual_version(oid), '') FROM pg_database WHERE datname = current_database()"
	library13SQL = `SELECT coalesce(max(pg_collation_actual_version(c.oid)), '') FROM pg_collation c, pg_database d
		WHERE d.datname = current_database() AND c.collprovider = 'c' AND c.collcollate = d.datcollate`
	libraryFrom = 150000
)

// read asks one server for everything, in one snapshot.
func (f *facts) read(ctx context.Context, tx pgx.Tx) error {
	err := row(ctx, tx, factsSQL).Scan(&f.version, &f.standby, &f.system, &f.databaseOID, &f.user,
		&f.encoding, &f.collate, &f.ctype, &f.provider, &f.locale, &f.rules, &f.collation,
		&f.prepared, &f.connections, &f.walLevel, &f.datetimes, &f.mayCreate, &f.owner, &f.isOwner, &f.strangers)
	if err != nil {
		return err
	}
	if f.version/10000 < oldest {
		return nil // judged by its version alone; it may lack what is asked next
	}
	sql := librarySQL
	if f.version < libraryFrom {
		sql = library13SQL
	}
	if err := row(ctx, tx, sql).Scan(&f.library); err != nil {
		return err
	}
	if f.wrongHashes, err = otherHashes(ctx, tx); err != nil {
		return err
	}
	if !f.readable() {
		return nil
	}
	// From here on an error is one of the schema's, not of the server.
	if f.row, f.rowErr = readCluster(ctx, tx); f.rowErr == nil && f.row != nil {
		f.epoch, f.rowErr = readEpoch(ctx, tx)
	}
	return nil
}

// readable reports whether the shard's rows were asked for. Otherwise what is
// wrong with the server itself is why not.
func (f *facts) readable() bool {
	return f.err == nil && f.version/10000 >= oldest && (f.owner == "" || f.isOwner) && f.strangers == 0
}

// inspect is read with a connection. A server whose rows could not be read has
// told the rest.
func inspect(ctx context.Context, shard string, conn *pgx.Conn) *facts {
	f := &facts{shard: shard}
	// The transaction only reads: that the server forgets it does no harm, and
	// after an error of the rows it ends with an error too.
	f.err = within(ctx, conn, beginRead, func(tx pgx.Tx) error {
		if err := f.read(ctx, tx); err != nil {
			return err
		}
		return f.rowErr
	})
	if f.rowErr != nil && !errors.Is(asked("", "", f.rowErr), ErrUnreachable) {
		f.err = nil
	}
	return f
}

// surveyConnect bounds a connection to one of the shards but the home shard.
const surveyConnect = 3 * time.Second

// survey connects to all shards and inspects them, all at once. turn, when set,
// is waited for on the home shard before any other is asked: what they say must
// not be older than it. The connections, nil where there is none, are the
// caller's to close.
func survey(ctx context.Context, shards []Shard, turn func(context.Context, *pgx.Conn) error) ([]*facts, []*pgx.Conn) {
	all, conns := make([]*facts, len(shards)), make([]*pgx.Conn, len(shards))
	connect := func(i int) (err error) {
		if shards[i].Connect == nil {
			return errors.New("no way to connect")
		}
		limited := ctx
		if i > 0 { // one that is away must not take the time of the others
			var cancel context.CancelFunc
			limited, cancel = context.WithTimeout(ctx, surveyConnect)
			defer cancel()
		}
		conns[i], err = shards[i].Connect(limited)
		if err == nil && i == 0 && turn != nil {
			err = turn(ctx, conns[i])
		}
		return err
	}
	errs := make([]error, len(shards))
	errs[0] = connect(0)
	var group sync.WaitGroup
	for i, s := range shards {
		group.Go(func() {
			if i > 0 {
				errs[i] = connect(i)
			}
			if errs[i] != nil {
				all[i] = &facts{shard: s.Name, err: fmt.Errorf("connect: %w", errs[i])}
				return
			}
			all[i] = inspect(ctx, s.Name, conns[i])
		})
	}
	group.Wait()
	return all, conns
}

// closeAll closes the connections that there are.
func closeAll(conns []*pgx.Conn) {
	var group sync.WaitGroup
	for _, conn := range conns {
		if conn != nil {
			group.Go(func() { closeConn(conn) })
		}
	}
	group.Wait()
}
