package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgcluster"
)

// shardsName is the side of two shards, and shardsDatabase what it serves: its
// first shard is another database of the server that the other sides have.
const (
	shardsName     = proxyName + ", 2 shards"
	shardsDatabase = "keyed"
)

// The tables that the part writes into, in the database of each side. They are
// UNLOGGED: the replicas, which only the first server has, take no part.
const (
	insertsTable = "keyed_inserts"
	copyTable    = "keyed_copies"
)

// accountsPerScale is how many rows a unit of pgbench's scale is.
const accountsPerScale = 100_000

// shardServers is how many server connections the part needs on the first
// server: those of two users, and those of this program and of the proxy itself.
func shardServers(o options) int { return 2*o.serverConns + 20 }

// shardStage is what the part about shards has besides the stage.
type shardStage struct {
	stage   *stage
	moves   bool // it has the tables of moves only
	second  *pgcluster.Cluster
	side    *endpoint         // the proxy over both shards
	scripts map[string]string // files of pgbench, by keyedKinds
	// whole and split are connections past the poolers to the one database of
	// the other sides, and to those of the shards.
	whole, split []*pgx.Conn
}

// open makes the second server, the tables and the program over both shards.
func (s *shardStage) open(ctx context.Context) error {
	if err := s.writeScripts(); err != nil {
		return err
	}
	s.second = pgcluster.New(pgcluster.Options{Binaries: s.stage.cluster.Binaries(), Settings: map[string]string{"shared_buffers": "256MB"}})
	if err := s.second.Open(ctx); err != nil {
		return err
	}
	if err := s.makeTables(ctx); err != nil {
		return err
	}
	if err := s.startProxy(ctx); err != nil || s.moves {
		return err
	}
	return s.fill(ctx)
}

// writeScripts writes what pgbench runs. The keys of inserts are ever new: as
// many are drawn of 2^62 as do not meet twice.
func (s *shardStage) writeScripts() error {
	s.scripts = map[string]string{}
	for kind, text := range map[string]string{
		"select": fmt.Sprintf("\\set aid random(1, %d)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n", s.accounts()),
		"insert": "\\set aid random(1, 4611686018427387904)\n\\set delta random(-5000, 5000)\n" +
			"INSERT INTO " + insertsTable + " (aid, delta) VALUES (:aid, :delta);\n",
	} {
		path := filepath.Join(s.stage.dir, "keyed-"+kind+".sql")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
		s.scripts[kind] = path
	}
	return nil
}

func (s *shardStage) accounts() int { return s.stage.options.scale * accountsPerScale }

// makeTables makes the databases of the shards and the tables of all sides.
func (s *shardStage) makeTables(ctx context.Context) error {
	first, second := s.stage.cluster.Primary(), s.second.Primary()
	roles := []string{"CREATE ROLE " + pgbenchUser + " LOGIN IN ROLE pg_read_all_data"}
	for _, u := range s.stage.users {
		roles = append(roles, fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", u.name, u.verifier))
	}
	create := fmt.Sprintf("CREATE DATABASE %s OWNER %s", shardsDatabase, userName)
	again := "DROP DATABASE IF EXISTS " + shardsDatabase + " WITH (FORCE)" // another part has made it
	for _, on := range []struct {
		node       *pgcluster.Node
		statements []string
	}{{first, []string{again, create}}, {second, append(roles, create)}} {
		conn, err := on.node.Connect(ctx, database)
		if err != nil {
			return err
		}
		err = execute(ctx, conn, on.statements...)
		if err := errors.Join(err, conn.Close(ctx)); err != nil {
			return err
		}
	}
	writable := []string{
		"CREATE UNLOGGED TABLE " + insertsTable + " (aid bigint PRIMARY KEY, delta int)",
		"CREATE UNLOGGED TABLE " + copyTable + " (aid bigint, v text)",
		fmt.Sprintf("GRANT ALL ON %s, %s TO %s, %s", insertsTable, copyTable, userName, pgbenchUser),
	}
	writable = append(writable, transactionTables(userName+", "+pgbenchUser)...)
	drop := []string{fmt.Sprintf("DROP TABLE IF EXISTS %s, %s, %s", insertsTable, copyTable, transactionTableNames)}
	accounts := []string{
		"CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84))",
		"GRANT ALL ON pgbench_accounts TO " + userName,
	}
	sharded := append(accounts, writable...)
	if s.moves {
		sharded = moveTables(userName + ", " + pgbenchUser)
	}
	for _, on := range []struct {
		node       *pgcluster.Node
		database   string
		keep       *[]*pgx.Conn
		statements []string
	}{
		{first, database, &s.whole, append(drop, writable...)},
		{first, shardsDatabase, &s.split, sharded},
		{second, shardsDatabase, &s.split, sharded},
	} {
		conn, err := on.node.Connect(ctx, on.database)
		if err != nil {
			return err
		}
		*on.keep = append(*on.keep, conn)
		if err := execute(ctx, conn, on.statements...); err != nil {
			return err
		}
	}
	return nil
}

func execute(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// startProxy initialises the shards and starts the program over them.
func (s *shardStage) startProxy(ctx context.Context) error {
	const file = "shards"
	c := s.stage.defaults()
	c.overShards(s.second.Primary().Addr())
	if s.moves {
		c.tables = movedRules
	}
	e, err := s.stage.proxyEndpoint(shardsName, s.stage.options.proxy, file, c)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, s.stage.options.proxy, "init", "--config", s.stage.configFile(file)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("shardproxy init: %w: %s", err, out)
	}
	s.side = e
	if err := e.start(ctx); err != nil {
		return err
	}
	return s.awaitTables(ctx)
}

// overShards lets the settings serve two shards.
func (c *settings) overShards(second string) {
	c.database, c.second, c.control = shardsDatabase, second, pgcluster.Superuser
	c.tables = fmt.Sprintf("pgbench_accounts: {key: aid}, %s: {key: aid}, %s: {key: aid}", insertsTable, copyTable) + ", " + transactionRules
}

// awaitTables waits until the program knows the tables: until then it says
// 57P03 to statements about them.
func (s *shardStage) awaitTables(ctx context.Context) error {
	probe := "SELECT abalance FROM pgbench_accounts WHERE aid = 1"
	if s.moves {
		probe = "SELECT n FROM " + movedTable + " WHERE id = 1"
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := s.stage.login.dial(ctx, s.side.port, shardsDatabase)
		if err != nil {
			return err
		}
		err = c.ask(probe, "SELECT 0")
		c.close()
		if err == nil || !strings.Contains(err.Error(), "C57P03") {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// fill copies pgbench's accounts into the shards, through the program, and makes
// sure that each has its part of them.
func (s *shardStage) fill(ctx context.Context) error {
	c, err := s.stage.login.dial(ctx, s.side.port, shardsDatabase)
	if err != nil {
		return err
	}
	defer c.close()
	frames := framesOf(s.accounts(), 8<<10, func(to []byte, n int) []byte {
		return fmt.Appendf(to, "%d\t%d\t0\t\n", n, (n-1)/accountsPerScale+1)
	})
	if err := c.copyIn("COPY pgbench_accounts FROM STDIN", frames, fmt.Sprintf("COPY %d", s.accounts())); err != nil {
		return fmt.Errorf("fill pgbench_accounts: %w", err)
	}
	for _, conn := range s.split {
		count, err := countRows(ctx, conn, "pgbench_accounts")
		if err != nil {
			return err
		}
		if half := s.accounts() / 2; count < half*8/10 || count > half*12/10 {
			return fmt.Errorf("of %d accounts one shard has %d", s.accounts(), count)
		}
		if err := execute(ctx, conn, "VACUUM ANALYZE", "CHECKPOINT"); err != nil {
			return err
		}
	}
	return nil
}

// servers are the connections past the pooler to where a side's rows lie.
func (s *shardStage) servers(e *endpoint) []*pgx.Conn {
	if e == s.side {
		return s.split
	}
	return s.whole
}

// truncate empties a table of a side.
func (s *shardStage) truncate(ctx context.Context, e *endpoint, table string) error {
	for _, conn := range s.servers(e) {
		if err := execute(ctx, conn, "TRUNCATE "+table); err != nil {
			return err
		}
	}
	return nil
}

// count returns how many rows a table of a side has. On several shards each
// has some.
func (s *shardStage) count(ctx context.Context, e *endpoint, table string) (int, error) {
	total := 0
	for _, conn := range s.servers(e) {
		n, err := countRows(ctx, conn, table)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, fmt.Errorf("one server has no rows of %s", table)
		}
		total += n
	}
	return total, nil
}

func countRows(ctx context.Context, conn *pgx.Conn, table string) (n int, err error) {
	err = conn.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n)
	return n, err
}

func (s *shardStage) close(ctx context.Context) error {
	var errs []error
	for _, conn := range append(s.whole, s.split...) {
		errs = append(errs, conn.Close(context.WithoutCancel(ctx)))
	}
	if s.side != nil {
		errs = append(errs, s.side.stop())
	}
	if s.second != nil {
		errs = append(errs, s.second.Close())
	}
	return errors.Join(errs...)
}
