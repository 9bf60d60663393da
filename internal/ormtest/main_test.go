package ormtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"shardproxy/internal/clientrun"
	"shardproxy/internal/pgcluster"
)

// application is a database of its own, so that what one leaves behind cannot
// change what the next one sees.
type application struct {
	name   string
	tables string // how its tables are placed: the configuration's "tables"
}

// composite is for models whose primary and foreign keys begin with the
// customer; surrogate for those whose ORM knows keys of one column only. The
// latter are unique per shard, and over all since they are drawn for all.
const (
	composite = `{customers: {key: id}, orders: {key: customer_id}, order_items: {key: customer_id}, products: {reference: true}}`
	surrogate = `{customers: {key: id}, orders: {key: customer_id, per_shard_constraints: true}, ` +
		`order_items: {key: customer_id, per_shard_constraints: true}, favourites: {key: customer_id, per_shard_constraints: true}, ` +
		`products: {reference: true}}`
)

var applications = []application{
	{"django", surrogate}, {"sqlalchemy", composite}, {"gorm", composite}, {"knex", composite}, {"sqlc", composite},
	{"refused", composite}, // of TestRefused
}

// stage is where all tests play: two shards and the proxy before them. What
// runs without the proxy has its databases on the first shard's server.
type stage struct {
	shards [2]*pgcluster.Cluster
	proxy  *clientrun.Program
	port   int    // of the proxy
	dir    string // of files made for the tests
}

var theStage *stage

// ignoredLeaks are goroutines that a library starts and never ends: gorm's
// cache of prepared statements expires its entries for ever.
var ignoredLeaks = []goleak.Option{goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1")}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	theStage = &stage{}
	status := 1
	err := theStage.open()
	if err == nil {
		status = m.Run()
	}
	if err = errors.Join(err, theStage.close(status != 0), goleak.Find(ignoredLeaks...)); err != nil {
		fmt.Fprintln(os.Stderr, "ormtest:", err)
		return 1
	}
	return status
}

func (s *stage) open() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if s.dir, err = os.MkdirTemp("", "ormtest"); err != nil {
		return err
	}
	for i := range s.shards {
		shard := pgcluster.New(pgcluster.Options{MaxConnections: 200, Settings: map[string]string{"max_prepared_transactions": "200"}})
		if err := shard.Open(ctx); err != nil {
			return err
		}
		s.shards[i] = shard
		if err := makeDatabases(ctx, shard); err != nil {
			return err
		}
	}
	return s.startProxy(ctx)
}

// makeDatabases makes two databases for each application: the proxy serves the
// one that has its name.
func makeDatabases(ctx context.Context, shard *pgcluster.Cluster) error {
	conn, err := shard.Primary().Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, a := range applications {
		for _, database := range []string{a.name, a.name + directSuffix} {
			if _, err := conn.Exec(ctx, "CREATE DATABASE "+database+" OWNER "+pgcluster.AppUser); err != nil {
				return err
			}
		}
	}
	return nil
}

// startProxy builds the program, makes the clusters and serves them.
func (s *stage) startProxy(ctx context.Context) error {
	binary, err := clientrun.Build(ctx, s.dir)
	if err != nil {
		return err
	}
	ports, err := clientrun.FreePorts(2)
	if err != nil {
		return err
	}
	s.port = ports[0]
	admin := fmt.Sprintf("127.0.0.1:%d", ports[1])
	file := filepath.Join(s.dir, "shardproxy.yaml")
	if err := os.WriteFile(file, []byte(s.configuration(admin)), 0o600); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, binary, "init", "-c", file).CombinedOutput(); err != nil {
		return fmt.Errorf("shardproxy init: %w\n%s", err, out)
	}
	if s.proxy, err = clientrun.Start(ctx, binary, file, admin); err != nil {
		return err
	}
	for _, a := range applications {
		if err := waitLoaded(ctx, leg{"proxy", s.port, a.name}); err != nil {
			return err
		}
	}
	return nil
}

// waitLoaded waits until the proxy serves a database.
func waitLoaded(ctx context.Context, l leg) error {
	conn, err := pgx.Connect(ctx, "postgres://"+l.url())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for {
		_, err := conn.Exec(ctx, "SELECT FROM no_such_table")
		var e *pgconn.PgError
		switch {
		case !errors.As(err, &e):
			return fmt.Errorf("wait for the tables of %s: %w", l.database, err)
		case e.Code == pgerrcode.UndefinedTable:
			return nil
		case e.Code != pgerrcode.CannotConnectNow:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// configuration is one a user would write. The pools are small, so that
// clients have to share server connections.
func (s *stage) configuration(admin string) string {
	var b, shards strings.Builder
	for i, shard := range s.shards {
		fmt.Fprintf(&shards, "      - {name: s%d, nodes: [%q]}\n", i, shard.Primary().Addr())
	}
	fmt.Fprintf(&b, "listen: {address: \"127.0.0.1:%d\"}\nadmin: {address: %q}\n", s.port, admin)
	fmt.Fprintf(&b, "users:\n  - {name: %s, password: %s}\ndatabases:\n", pgcluster.AppUser, pgcluster.AppPassword)
	for _, a := range applications {
		fmt.Fprintf(&b, "  %s:\n    shards:\n%s    server: {control: {user: %s}}\n", a.name, &shards, pgcluster.Superuser)
		fmt.Fprintf(&b, "    pool: {mode: transaction, size: 4}\n    tables: %s\n", a.tables)
	}
	return b.String()
}

// close ends the proxy and the servers; after a failure it prints what the
// proxy had to say.
func (s *stage) close(failed bool) error {
	var errs []error
	if s.proxy != nil {
		errs = append(errs, s.proxy.Stop())
		if failed || errs[0] != nil {
			s.proxy.PrintLog()
		}
	}
	for _, shard := range s.shards {
		if shard != nil {
			errs = append(errs, shard.Close())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
