package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// plainName is the side that commits on two connections past the proxy, at once: what a
// transfer would cost that need not be atomic.
const plainName = "plain commits"

// The rows of the table of transfers.
const (
	acrossRow = "two rows, on two shards"
	withinRow = "two rows of one shard"
)

// The tables of transactions. They are logged, and the servers' fsync is on while they are
// measured: a commit costs what it costs.
const (
	bankTable     = "bank"
	bankAccounts  = 200
	bankBalance   = 1000
	tpcbBranches  = 100
	tpcbTellers   = 10
	tpcbAccounts  = 1000 // of a branch
	transfersRate = 250  // a second, while totals are read
	transferrers  = 8
)

// transactionTableNames are those of the tables.
const transactionTableNames = bankTable + ", tpcb_branches, tpcb_tellers, tpcb_accounts, tpcb_history"

// transactionTables makes the tables on a server, for the roles that use them.
func transactionTables(roles string) []string {
	return []string{
		"CREATE TABLE " + bankTable + " (id int PRIMARY KEY, balance int NOT NULL)",
		"CREATE TABLE tpcb_branches (bid int PRIMARY KEY, bbalance int NOT NULL)",
		"CREATE TABLE tpcb_tellers (bid int, tid int, tbalance int NOT NULL, PRIMARY KEY (bid, tid))",
		"CREATE TABLE tpcb_accounts (bid int, aid int, abalance int NOT NULL, PRIMARY KEY (bid, aid))",
		"CREATE TABLE tpcb_history (bid int, tid int, aid int, delta int, mtime timestamp)",
		"GRANT ALL ON " + transactionTableNames + " TO " + roles,
	}
}

// transactionRules are the tables' rules: a branch and what belongs to it are on one shard.
const transactionRules = bankTable + ": {key: id}, tpcb_branches: {key: bid}, tpcb_tellers: {key: bid}, tpcb_accounts: {key: bid}, tpcb_history: {key: bid}"

// tpcbScript is pgbench's TPC-B-like transaction, with the branch named in each statement.
func tpcbScript() string {
	return fmt.Sprintf(`\set bid random(1, %d)
\set tid random(1, %d)
\set aid random(1, %d)
\set delta random(-5000, 5000)
BEGIN;
UPDATE tpcb_accounts SET abalance = abalance + :delta WHERE bid = :bid AND aid = :aid;
SELECT abalance FROM tpcb_accounts WHERE bid = :bid AND aid = :aid;
UPDATE tpcb_tellers SET tbalance = tbalance + :delta WHERE bid = :bid AND tid = :tid;
UPDATE tpcb_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO tpcb_history (bid, tid, aid, delta, mtime) VALUES (:bid, :tid, :aid, :delta, CURRENT_TIMESTAMP);
END;
`, tpcbBranches, tpcbTellers, tpcbAccounts)
}

// transactionStage is what the transactions need besides the shards.
type transactionStage struct {
	*shardStage
	script string
	// ids are accounts of the bank, by shard.
	ids [2][]int
	// ports are those of the shards' servers.
	ports [2]int
}

// openTransactions fills the tables of both sides.
func (s *shardStage) openTransactions(ctx context.Context) (*transactionStage, error) {
	t := &transactionStage{shardStage: s, script: filepath.Join(s.stage.dir, "tpcb.sql"), ports: [2]int{s.stage.cluster.Primary().Port(), s.second.Primary().Port()}}
	if err := os.WriteFile(t.script, []byte(tpcbScript()), 0o600); err != nil {
		return nil, err
	}
	for _, e := range []*endpoint{s.stage.endpoint(proxyName), s.side} {
		if err := t.fill(ctx, e); err != nil {
			return nil, err
		}
	}
	for i, conn := range s.split {
		rows, err := conn.Query(ctx, "SELECT id FROM "+bankTable)
		if err != nil {
			return nil, err
		}
		if t.ids[i], err = pgx.CollectRows(rows, pgx.RowTo[int]); err != nil {
			return nil, err
		}
		if len(t.ids[i]) < bankAccounts/10 {
			return nil, fmt.Errorf("one shard has %d accounts", len(t.ids[i]))
		}
	}
	return t, nil
}

// fill fills the tables of a side.
func (t *transactionStage) fill(ctx context.Context, e *endpoint) error {
	c, err := t.stage.login.dial(ctx, e.port, e.databaseName())
	if err != nil {
		return err
	}
	defer c.close()
	for _, table := range []struct {
		name string
		rows int
		row  func(to []byte, n int) []byte
	}{
		{bankTable, bankAccounts, func(to []byte, n int) []byte { return fmt.Appendf(to, "%d\t%d\n", n, bankBalance) }},
		{"tpcb_branches", tpcbBranches, func(to []byte, n int) []byte { return fmt.Appendf(to, "%d\t0\n", n) }},
		{"tpcb_tellers", tpcbBranches * tpcbTellers, func(to []byte, n int) []byte {
			return fmt.Appendf(to, "%d\t%d\t0\n", (n-1)/tpcbTellers+1, (n-1)%tpcbTellers+1)
		}},
		{"tpcb_accounts", tpcbBranches * tpcbAccounts, func(to []byte, n int) []byte {
			return fmt.Appendf(to, "%d\t%d\t0\n", (n-1)/tpcbAccounts+1, (n-1)%tpcbAccounts+1)
		}},
	} {
		if err := c.copyIn("COPY "+table.name+" FROM STDIN", framesOf(table.rows, 8<<10, table.row), fmt.Sprintf("COPY %d", table.rows)); err != nil {
			return fmt.Errorf("fill %s: %w", table.name, err)
		}
	}
	return nil
}

// durably turns fsync on for as long as measure runs.
func (t *transactionStage) durably(ctx context.Context, measure func() error) (err error) {
	set := func(ctx context.Context, value string) error {
		for _, conn := range []*pgx.Conn{t.whole[0], t.split[1]} {
			if err := execute(ctx, conn, "ALTER SYSTEM SET fsync = "+value, "SELECT pg_reload_conf()"); err != nil {
				return err
			}
		}
		return nil
	}
	if err := set(ctx, "on"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, set(context.WithoutCancel(ctx), "off")) }()
	return measure()
}

// measureTransactions measures transfers, TPC-B, and totals that are read under transfers.
func (m *measurement) measureTransactions(ctx context.Context, shards *shardStage) error {
	t, err := shards.openTransactions(ctx)
	if err != nil {
		return fmt.Errorf("fill the tables of transactions: %w", err)
	}
	m.transfers, m.tpcb, m.totals = rounds{}, rounds{}, rounds{}
	count := m.stage.options.rounds
	return t.durably(ctx, func() error {
		plain := &endpoint{name: plainName}
		if err := m.inTurns(ctx, count, "transfers", []string{acrossRow, withinRow}, []*endpoint{plain, shards.side}, func(row string, e *endpoint) error {
			return m.runTransfers(ctx, t, row, e)
		}); err != nil {
			return err
		}
		sides := []*endpoint{m.stage.endpoint(pgbouncerName), m.stage.endpoint(proxyName), shards.side}
		if err := m.inTurns(ctx, count, "TPC-B", m.stage.options.tpcbRows(), sides, func(row string, e *endpoint) error {
			l, err := loadOf(row)
			if err != nil {
				return err
			}
			l.script, l.threads = t.script, l.clients
			r, used, err := m.loaded(ctx, e, l)
			if err == nil {
				noteStatements(m.tpcb, row, e, r, used)
			}
			return err
		}); err != nil {
			return err
		}
		return m.inTurns(ctx, count, "totals", totalRows(), []*endpoint{shards.side}, func(row string, e *endpoint) error {
			return m.runTotals(ctx, t, row, e)
		})
	})
}

// tpcbRows names the rows of the table of TPC-B.
func (o options) tpcbRows() []string { return statementRows(o.keyedModes(), o.shardClients) }

// transfer is the statements of one, and how it is committed.
type transfer struct {
	first, second *client // the same unless it is committed on two connections
}

// run moves one from an account to another. It returns how long the commit took.
func (t transfer) run(from, to int) (commit time.Duration, err error) {
	const update = "UPDATE " + bankTable + " SET balance = balance "
	for _, c := range t.connections() {
		if err := c.ask("BEGIN", "BEGIN"); err != nil {
			return 0, err
		}
	}
	if err := t.first.ask(update+"- 1 WHERE id = "+strconv.Itoa(from), "UPDATE 1"); err != nil {
		return 0, err
	}
	if err := t.second.ask(update+"+ 1 WHERE id = "+strconv.Itoa(to), "UPDATE 1"); err != nil {
		return 0, err
	}
	begun := time.Now()
	var group errgroup.Group
	for _, c := range t.connections()[1:] {
		group.Go(func() error { return c.ask("COMMIT", "COMMIT") })
	}
	err = t.first.ask("COMMIT", "COMMIT")
	err = errors.Join(err, group.Wait())
	return time.Since(begun), err
}

// connections returns the one, or both.
func (t transfer) connections() []*client {
	if t.first == t.second {
		return []*client{t.first}
	}
	return []*client{t.first, t.second}
}

// dial connects a side's transfer.
func (t *transactionStage) dial(ctx context.Context, row string, e *endpoint) (tr transfer, err error) {
	if e.name != plainName {
		tr.first, err = t.stage.login.dial(ctx, e.port, e.databaseName())
		tr.second = tr.first
		return tr, err
	}
	if tr.first, err = t.stage.login.dial(ctx, t.ports[0], shardsDatabase); err != nil {
		return tr, err
	}
	if tr.second = tr.first; row == acrossRow {
		if tr.second, err = t.stage.login.dial(ctx, t.ports[1], shardsDatabase); err != nil {
			tr.first.close()
		}
	}
	return tr, err
}

func (t transfer) close() {
	for _, c := range t.connections() {
		c.close()
	}
}

// runTransfers measures one client's transfers, one after the other.
func (m *measurement) runTransfers(ctx context.Context, t *transactionStage, row string, e *endpoint) error {
	tr, err := t.dial(ctx, row, e)
	if err != nil {
		return err
	}
	defer tr.close()
	to := t.ids[1]
	if row == withinRow {
		to = t.ids[0][len(t.ids[0])/2:]
	}
	from := t.ids[0][:len(t.ids[0])/2]
	var whole, commits series
	used, err := e.during(ctx, func() error {
		for begun := time.Now(); time.Since(begun) < m.stage.options.each; {
			start, n := time.Now(), len(whole)
			commit, err := tr.run(from[n%len(from)], to[n%len(to)])
			if err != nil {
				return err
			}
			whole, commits = append(whole, time.Since(start).Seconds()*1000), append(commits, commit.Seconds()*1000)
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.transfers.add(row, e.name, "transaction", whole.median())
	m.transfers.add(row, e.name, "commit", commits.median())
	m.transfers.add(row, e.name, "commit99", commits.quantile(0.99))
	if e.process != nil {
		m.transfers.add(row, e.name, "cpu", used.cpu.Seconds()*1000/float64(len(whole)))
	}
	return nil
}

func (m *measurement) transferTable() table {
	var t table
	t.row("a transfer of", "side", "transaction, ms", "/ "+plainName+" (range)", "its COMMIT, ms", "/ "+plainName+" (range)", "COMMIT p99, ms", "CPU ms of the proxy")
	for _, row := range []string{acrossRow, withinRow} {
		for _, side := range []string{plainName, shardsName} {
			get := func(figure string) series { return m.transfers.get(row, side, figure) }
			ratio := func(figure string) string { return m.transfers.against(row, side, plainName, figure).span(2) }
			t.row(row, side, get("transaction").text(2), ratio("transaction"), get("commit").text(2), ratio("commit"), get("commit99").text(2), get("cpu").text(2))
		}
	}
	return t
}

func (m *measurement) tpcbTable() table {
	var t table
	t.row("mode", "clients", "side", "tps", "tps / PgB", "tps / one shard (range)", "p99 / one shard", "CPU ms per 1,000", "CPU / one shard (range)")
	for _, row := range m.stage.options.tpcbRows() {
		mode, clients, _ := strings.Cut(row, " ")
		for _, side := range keyedSides() {
			get := func(figure string) series { return m.tpcb.get(row, side, figure) }
			ratio := func(other, figure string) series { return m.tpcb.against(row, side, other, figure) }
			t.row(mode, clients, side, get("tps").text(0), ratio(pgbouncerName, "tps").text(2), ratio(proxyName, "tps").span(2),
				ratio(proxyName, "p99").text(2), get("cpu").text(0), ratio(proxyName, "cpu").span(2))
		}
	}
	return t
}

// transactionGoals holds the commit over two shards against two commits that are not one.
func (m *measurement) transactionGoals() []goal {
	ratio := func(figure string) series { return m.transfers.against(acrossRow, shardsName, plainName, figure) }
	return []goal{
		{"a transfer over 2 shards / on two connections with " + plainName, ratio("transaction"), 2.1, true},
		{"its COMMIT / two " + plainName + " at once", ratio("commit"), 2.1, true},
	}
}
