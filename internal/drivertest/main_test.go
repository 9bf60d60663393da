package drivertest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"shardproxy/internal/clientrun"
	"shardproxy/internal/pgcluster"
)

// clients are the drivers that have a database each, so that what one leaves
// behind cannot change what the next one sees.
var clients = []string{
	"psql", "pgdump", "pgbench", "psycopg2", "psycopg3", "nodepg", "postgresjs", "jdbc", "pq",
	"pgx_statement", "pgx_describe", "pgx_describe_exec", "pgx_exec", "pgx_simple",
}

// stage is where all tests play: the servers and the proxy before them.
type stage struct {
	cluster *pgcluster.Cluster
	proxy   *clientrun.Program
	port    int    // of the proxy
	dir     string // of files made for the tests
	wrongCA string // an authority that signed nothing
}

var theStage *stage

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	s, err := openStage()
	if err != nil {
		fmt.Fprintln(os.Stderr, "drivertest:", err)
		return 1
	}
	theStage = s
	status := m.Run()
	if err := s.close(status != 0); err != nil {
		fmt.Fprintln(os.Stderr, "drivertest:", err)
		status = 1
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "drivertest:", err)
		status = 1
	}
	return status
}

func openStage() (s *stage, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	s = &stage{cluster: pgcluster.New(pgcluster.Options{Replicas: 2, TLS: true, MaxConnections: 400})}
	defer func() {
		if err != nil {
			_ = s.close(true)
		}
	}()
	if s.dir, err = os.MkdirTemp("", "drivertest"); err != nil {
		return nil, err
	}
	s.wrongCA = filepath.Join(s.dir, "wrong.crt")
	if err := writeAuthority(s.wrongCA); err != nil {
		return nil, err
	}
	if err := s.cluster.Open(ctx); err != nil {
		return nil, err
	}
	if err := s.makeDatabases(ctx); err != nil {
		return nil, err
	}
	return s, s.startProxy(ctx)
}

// makeDatabases makes two databases for each client: the one that the proxy
// serves has the client's name.
func (s *stage) makeDatabases(ctx context.Context) error {
	conn, err := s.cluster.Primary().Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, name := range clients {
		for _, database := range []string{name, name + directSuffix} {
			if _, err := conn.Exec(ctx, "CREATE DATABASE "+database+" OWNER "+pgcluster.AppUser); err != nil {
				return err
			}
		}
	}
	return nil
}

// close ends the proxy and the servers; after a failure it prints what the
// proxy had to say.
func (s *stage) close(failed bool) error {
	var err error
	if s.proxy != nil {
		err = s.proxy.Stop()
		if failed || err != nil {
			s.proxy.PrintLog()
		}
	}
	if closeErr := s.cluster.Close(); err == nil {
		err = closeErr
	}
	if removeErr := os.RemoveAll(s.dir); err == nil {
		err = removeErr
	}
	return err
}
