package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"shardproxy/wire"
)

// scatterStatement is a statement that needs the rows of all shards.
type scatterStatement struct {
	name, sql string
	rows      int    // of its answer; 0: as many as there are accounts
	setting   string // what is SET before
	parts     bool   // each shard's answer is a part of the whole one
}

// fewerRows is how many rows the smaller answers have.
const fewerRows = 100_000

// scatterStatements lists them, in the order of the table.
func scatterStatements() []scatterStatement {
	all := "SELECT aid, bid, abalance, filler FROM pgbench_accounts"
	fewer := fmt.Sprintf("%s WHERE aid <= %d", all, fewerRows)
	return []scatterStatement{
		{"a sum of few rows", "SELECT sum(abalance) FROM pgbench_accounts WHERE aid IN (1, 2, 3, 4, 5, 6, 7, 8)", 1, "", false},
		{"the same, snapshot off", "SELECT sum(abalance) FROM pgbench_accounts WHERE aid IN (1, 2, 3, 4, 5, 6, 7, 8)", 1, "shardproxy.snapshot = off", false},
		{"count(*)", "SELECT count(*) FROM pgbench_accounts", 1, "", false},
		{"groups", "SELECT aid % 100, count(*), avg(abalance) FROM pgbench_accounts GROUP BY 1", 100, "", false},
		{"all rows", all, 0, "", true},
		{"all rows, in order", all + " ORDER BY aid", 0, "", true},
		{"100,000 rows", fewer, fewerRows, "", true},
		{"100,000 rows, in order", fewer + " ORDER BY aid", fewerRows, "", true},
		{"the first 100 of an order", "SELECT aid, abalance FROM pgbench_accounts ORDER BY abalance, aid DESC LIMIT 100", 100, "", false},
		{"join off the key", "SELECT count(*) FROM pgbench_accounts a JOIN pgbench_accounts b ON b.aid = a.bid WHERE a.aid % 10 = 0", 1, "", false},
	}
}

// oneByOneName is the side that reads the shards past the proxy, one after the other: what a client
// without one would do whose rows need no order.
const oneByOneName = "shards, one by one"

// scatterSides are compared: the server itself, the proxy over one and two shards, and these without it.
func scatterSides() []string { return []string{directName, proxyName, shardsName, oneByOneName} }

// scatterReader asks the servers that a side has for the rows, one after the other.
type scatterReader []*client

// reader connects to a side.
func (s *shardStage) reader(ctx context.Context, e *endpoint) (r scatterReader, err error) {
	ports := []int{e.port}
	if e.name == oneByOneName {
		ports = append(ports, s.second.Primary().Port())
	}
	for _, port := range ports {
		c, err := s.stage.login.dial(ctx, port, e.databaseName())
		if err != nil {
			r.close()
			return nil, err
		}
		c.readSize = largeRead
		r = append(r, c)
	}
	return r, nil
}

func (r scatterReader) close() {
	for _, c := range r {
		c.close()
	}
}

// read asks for rows, and returns how long the first took to come.
func (r scatterReader) read(sql string, rows int) (first time.Duration, err error) {
	begun, total := time.Now(), 0
	for _, c := range r {
		c.tag, c.firstRow = "", time.Time{}
		if err := c.send(wire.AppendQuery(nil, sql)); err != nil {
			return 0, err
		}
		if err := c.frames(nil); err != nil {
			return 0, err
		}
		n := 0
		if _, err := fmt.Sscanf(c.tag, "SELECT %d", &n); err != nil {
			return 0, fmt.Errorf("the answer is %q", c.tag)
		}
		if total == 0 && n > 0 {
			first = c.firstRow.Sub(begun)
		}
		total += n
	}
	if total != rows {
		return 0, fmt.Errorf("%d rows, not %d", total, rows)
	}
	return first, nil
}

// measureScatter runs each statement on one connection of each side.
func (m *measurement) measureScatter(ctx context.Context, shards *shardStage) error {
	m.scatter = rounds{}
	s := m.stage
	statements := map[string]scatterStatement{}
	var names []string
	for _, st := range scatterStatements() {
		statements[st.name], names = st, append(names, st.name)
	}
	oneByOne := &endpoint{name: oneByOneName, port: s.cluster.Primary().Port(), login: s.login, database: shardsDatabase}
	sides := []*endpoint{s.endpoint(directName), s.endpoint(proxyName), shards.side, oneByOne}
	return m.inTurns(ctx, s.options.rounds, "scatter", names, sides, func(row string, e *endpoint) error {
		if st := statements[row]; st.parts || e != oneByOne {
			return m.runScatter(ctx, shards, st, e)
		}
		return nil
	})
}

// runScatter measures a statement for one side.
func (m *measurement) runScatter(ctx context.Context, shards *shardStage, st scatterStatement, e *endpoint) error {
	rows := st.rows
	if rows == 0 {
		rows = shards.accounts()
	}
	r, err := shards.reader(ctx, e)
	if err != nil {
		return err
	}
	defer r.close()
	if st.setting != "" {
		if err := r[0].ask("SET "+st.setting, "SET"); err != nil {
			return err
		}
	}
	if _, err := r.read(st.sql, rows); err != nil { // the first finds its way
		return fmt.Errorf("%s: %w", st.sql, err)
	}
	count, toFirst, begun := 0, time.Duration(0), time.Now()
	used, err := e.during(ctx, func() error {
		for count == 0 || time.Since(begun) < m.stage.options.each {
			first, err := r.read(st.sql, rows)
			if err != nil {
				return err
			}
			toFirst += first
			count++
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.scatter.add(st.name, e.name, "ms", time.Since(begun).Seconds()*1000/float64(count))
	m.scatter.add(st.name, e.name, "first", toFirst.Seconds()*1000/float64(count))
	cpu := math.NaN()
	if e.process != nil {
		cpu = used.cpu.Seconds() * 1000 / float64(count)
	}
	m.scatter.add(st.name, e.name, "cpu", cpu)
	return nil
}

func (m *measurement) scatterTable() table {
	var t table
	t.row("statement", "side", "ms", "ms / "+directName+" (range)", "ms / one shard", "ms / one by one (range)", "first row, ms", "first row / "+directName+" (range)", "CPU ms of the proxy")
	for _, st := range scatterStatements() {
		for _, side := range scatterSides() {
			if side == oneByOneName && !st.parts {
				continue
			}
			ratio := func(other string) series { return m.scatter.against(st.name, side, other, "ms") }
			t.row(st.name, side, m.scatter.get(st.name, side, "ms").text(2), ratio(directName).span(2), ratio(proxyName).text(2), ratio(oneByOneName).span(2),
				m.scatter.get(st.name, side, "first").text(2), m.scatter.against(st.name, side, directName, "first").span(2), m.scatter.get(st.name, side, "cpu").text(2))
		}
	}
	return t
}

// scatterGoals: two shards give rows in order at no less than 80 % of the speed of one server.
func (m *measurement) scatterGoals() []goal {
	return []goal{{"all rows in order, speed of 2 shards / " + directName, m.scatter.against("all rows, in order", directName, shardsName, "ms"), 0.8, false}}
}
