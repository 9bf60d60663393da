package main

import (
	"context"
	"fmt"
	"math"
	"time"
)

// scatterStatement is a statement that needs the rows of all shards.
type scatterStatement struct {
	name, sql string
	rows      int    // of its answer; 0: as many as there are accounts
	setting   string // what is SET before
}

// scatterStatements lists them, in the order of the table.
func scatterStatements() []scatterStatement {
	return []scatterStatement{
		{"a sum of few rows", "SELECT sum(abalance) FROM pgbench_accounts WHERE aid IN (1, 2, 3, 4, 5, 6, 7, 8)", 1, ""},
		{"the same, snapshot off", "SELECT sum(abalance) FROM pgbench_accounts WHERE aid IN (1, 2, 3, 4, 5, 6, 7, 8)", 1, "shardproxy.snapshot = off"},
		{"count(*)", "SELECT count(*) FROM pgbench_accounts", 1, ""},
		{"groups", "SELECT aid % 100, count(*), avg(abalance) FROM pgbench_accounts GROUP BY 1", 100, ""},
		{"all rows", "SELECT aid, bid, abalance, filler FROM pgbench_accounts", 0, ""},
		{"all rows, in order", "SELECT aid, bid, abalance, filler FROM pgbench_accounts ORDER BY aid", 0, ""},
		{"the first 100 of an order", "SELECT aid, abalance FROM pgbench_accounts ORDER BY abalance, aid DESC LIMIT 100", 100, ""},
		{"join off the key", "SELECT count(*) FROM pgbench_accounts a JOIN pgbench_accounts b ON b.aid = a.bid WHERE a.aid % 10 = 0", 1, ""},
	}
}

// scatterSides are compared: the server itself, and the proxy over one and two shards.
func scatterSides() []string { return []string{directName, proxyName, shardsName} }

// measureScatter runs each statement on one connection of each side.
func (m *measurement) measureScatter(ctx context.Context, shards *shardStage) error {
	m.scatter = rounds{}
	s := m.stage
	statements := map[string]scatterStatement{}
	var names []string
	for _, st := range scatterStatements() {
		statements[st.name], names = st, append(names, st.name)
	}
	sides := []*endpoint{s.endpoint(directName), s.endpoint(proxyName), shards.side}
	return m.inTurns(ctx, s.options.rounds, "scatter", names, sides, func(row string, e *endpoint) error {
		st := statements[row]
		rows := st.rows
		if rows == 0 {
			rows = shards.accounts()
		}
		c, err := s.login.dial(ctx, e.port, e.databaseName())
		if err != nil {
			return err
		}
		defer c.close()
		c.readSize = largeRead
		tag := fmt.Sprintf("SELECT %d", rows)
		if st.setting != "" {
			if err := c.ask("SET "+st.setting, "SET"); err != nil {
				return err
			}
		}
		if err := c.ask(st.sql, tag); err != nil { // the first finds its way
			return fmt.Errorf("%s: %w", st.sql, err)
		}
		count, begun := 0, time.Now()
		used, err := e.during(ctx, func() error {
			for count == 0 || time.Since(begun) < s.options.each {
				if err := c.ask(st.sql, tag); err != nil {
					return err
				}
				count++
			}
			return nil
		})
		if err != nil {
			return err
		}
		m.scatter.add(row, e.name, "ms", time.Since(begun).Seconds()*1000/float64(count))
		cpu := math.NaN()
		if e.process != nil {
			cpu = used.cpu.Seconds() * 1000 / float64(count)
		}
		m.scatter.add(row, e.name, "cpu", cpu)
		return nil
	})
}

func (m *measurement) scatterTable() table {
	var t table
	t.row("statement", "side", "ms", "ms / "+directName+" (range)", "ms / one shard", "CPU ms of the proxy")
	for _, st := range scatterStatements() {
		for _, side := range scatterSides() {
			ratio := func(other string) series { return m.scatter.against(st.name, side, other, "ms") }
			t.row(st.name, side, m.scatter.get(st.name, side, "ms").text(2), ratio(directName).span(2), ratio(proxyName).text(2),
				m.scatter.get(st.name, side, "cpu").text(2))
		}
	}
	return t
}

// scatterGoals: two shards give rows in order at no less than 80 % of the speed of one server.
func (m *measurement) scatterGoals() []goal {
	return []goal{{"all rows in order, speed of 2 shards / " + directName, m.scatter.against("all rows, in order", directName, shardsName, "ms"), 0.8, false}}
}
