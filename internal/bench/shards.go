package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// keyedKinds are the statements that name one key, as the tables have them.
func keyedKinds() []string { return []string{"select", "insert"} }

// keyedCopyKinds names the rows of the table of COPY, in order.
func keyedCopyKinds() []string { return []string{"COPY IN, 8 KiB", "COPY IN, a row"} }

// keyedRow names a row of the table of keyed statements.
func keyedRow(kind, mode string, clients int) string {
	return kind + " " + statementRow(mode, clients)
}

// keyedModes are the modes of pgbench in which the part runs: those two between
// which the others lie.
func (o options) keyedModes() []string {
	return slices.DeleteFunc(slices.Clone(o.modes), func(mode string) bool { return mode == "extended" })
}

// keyedRows names them all.
func (o options) keyedRows() []string {
	var rows []string
	for _, kind := range keyedKinds() {
		for _, row := range statementRows(o.keyedModes(), o.shardClients) {
			rows = append(rows, kind+" "+row)
		}
	}
	return rows
}

// measureShards runs statements that name one key, and COPY, through PgBouncer
// and the proxy in front of one server, and through the proxy over two shards.
func (m *measurement) measureShards(ctx context.Context) (err error) {
	s := m.stage
	shards := &shardStage{stage: s}
	defer func() { err = errors.Join(err, shards.close(ctx)) }()
	if err := shards.open(ctx); err != nil {
		return fmt.Errorf("make the shards: %w", err)
	}
	sides := []*endpoint{s.endpoint(pgbouncerName), s.endpoint(proxyName), shards.side}
	m.keyed, m.keyedCopy = rounds{}, rounds{}
	uploads := map[string][]byte{"COPY IN, 8 KiB": keyedFrames(8 << 10), "COPY IN, a row": keyedFrames(1)}
	rows := append(s.options.keyedRows(), keyedCopyKinds()...)
	err = m.inTurns(ctx, s.options.rounds, "shards", rows, sides, func(row string, e *endpoint) error {
		if frames := uploads[row]; frames != nil {
			return m.runKeyedCopy(ctx, shards, row, frames, e)
		}
		return m.runKeyed(ctx, shards, row, e)
	})
	if err != nil {
		return err
	}
	if err := m.measureScatter(ctx, shards); err != nil {
		return err
	}
	return m.measureTransactions(ctx, shards)
}

// runKeyed measures a row of the keyed statements for one side. Inserts find an
// empty table, and every one that was answered must be in it afterwards.
func (m *measurement) runKeyed(ctx context.Context, shards *shardStage, row string, e *endpoint) error {
	kind, rest, _ := strings.Cut(row, " ")
	l, err := loadOf(rest)
	if err != nil {
		return err
	}
	l.script = shards.scripts[kind]
	if kind == "insert" {
		if err := shards.truncate(ctx, e, insertsTable); err != nil {
			return err
		}
	}
	r, used, err := m.loaded(ctx, e, l)
	if err != nil {
		return err
	}
	if kind == "insert" {
		count, err := shards.count(ctx, e, insertsTable)
		if err != nil {
			return err
		}
		if count != r.statements {
			return fmt.Errorf("%d inserts left %d rows", r.statements, count)
		}
	}
	noteStatements(m.keyed, row, e, r, used)
	return nil
}

// runKeyedCopy repeats a COPY into the empty table. Emptying it is no part of
// the time; the pooler has nothing to do with it.
func (m *measurement) runKeyedCopy(ctx context.Context, shards *shardStage, row string, frames []byte, e *endpoint) error {
	c, err := m.stage.login.dial(ctx, e.port, e.databaseName())
	if err != nil {
		return err
	}
	defer c.close()
	var moved int
	var took time.Duration
	used, err := e.during(ctx, func() error {
		for took < m.stage.options.each {
			if err := shards.truncate(ctx, e, copyTable); err != nil {
				return err
			}
			begun := time.Now()
			if err := c.copyIn("COPY "+copyTable+" FROM STDIN", frames, fmt.Sprintf("COPY %d", bulkRows)); err != nil {
				return err
			}
			took += time.Since(begun)
			moved += len(frames)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if count, err := shards.count(ctx, e, copyTable); err != nil || count != bulkRows {
		return errors.Join(fmt.Errorf("a COPY of %d rows left %d", bulkRows, count), err)
	}
	m.keyedCopy.add(row, e.name, "speed", float64(moved)/1e6/took.Seconds())
	m.keyedCopy.add(row, e.name, "cpu", used.cpu.Seconds()/(float64(moved)/1e9))
	return nil
}

// keyedFrames returns rows of a key and as many bytes as those of the bulk part
// in frames of at least so many bytes, and the end.
func keyedFrames(least int) []byte {
	rest := append(bytes.Repeat([]byte{'x'}, bulkRowBytes), '\n')
	return framesOf(bulkRows, least, func(to []byte, n int) []byte {
		return append(append(strconv.AppendInt(to, int64(n), 10), '\t'), rest...)
	})
}

// keyedSides names the sides of the part, in order.
func keyedSides() []string { return []string{pgbouncerName, proxyName, shardsName} }

func (m *measurement) keyedTable() table {
	var t table
	t.row("statement", "mode", "clients", "side", "tps", "tps / PgB", "tps / one shard", "p99 / PgB", "CPU ms per 1,000",
		"CPU / PgB (range)", "CPU / one shard (range)", "switches", "allocations")
	for _, kind := range keyedKinds() {
		for _, mode := range m.stage.options.keyedModes() {
			for _, clients := range m.stage.options.shardClients {
				row := keyedRow(kind, mode, clients)
				for _, side := range keyedSides() {
					get := func(figure string) series { return m.keyed.get(row, side, figure) }
					ratio := func(other, figure string) series { return m.keyed.against(row, side, other, figure) }
					t.row(kind, mode, strconv.Itoa(clients), side, get("tps").text(0), ratio(pgbouncerName, "tps").text(2),
						ratio(proxyName, "tps").text(2), ratio(pgbouncerName, "p99").text(2), get("cpu").text(1),
						ratio(pgbouncerName, "cpu").span(2), ratio(proxyName, "cpu").span(2),
						get("switches").text(2), get("mallocs").text(2))
				}
			}
		}
	}
	return t
}

func (m *measurement) keyedCopyTable() table {
	var t table
	t.row("what", "side", "MB/s", "MB/s / PgB (range)", "MB/s / one shard", "CPU s per GB", "CPU / PgB (range)", "CPU / one shard")
	for _, row := range keyedCopyKinds() {
		for _, side := range keyedSides() {
			get := func(figure string) series { return m.keyedCopy.get(row, side, figure) }
			ratio := func(other, figure string) series { return m.keyedCopy.against(row, side, other, figure) }
			t.row(row, side, get("speed").text(0), ratio(pgbouncerName, "speed").span(2), ratio(proxyName, "speed").text(2),
				get("cpu").text(2), ratio(pgbouncerName, "cpu").span(2), ratio(proxyName, "cpu").text(2))
		}
	}
	return t
}

// keyedGoals holds two shards against PgBouncer in front of one server.
func (m *measurement) keyedGoals() []goal {
	var goals []goal
	other := pgbouncerName
	if m.preparedNote() != "" {
		other += " in session pooling"
	}
	for _, kind := range keyedKinds() {
		for _, clients := range m.stage.options.shardClients {
			goals = append(goals, goal{fmt.Sprintf("CPU a statement, keyed %s, prepared, %d clients, 2 shards / %s", kind, clients, other),
				m.keyed.against(keyedRow(kind, "prepared", clients), shardsName, pgbouncerName, "cpu"), 1.15, true})
		}
	}
	for _, row := range keyedCopyKinds() {
		goals = append(goals, goal{row + ", keyed, MB/s, 2 shards / " + pgbouncerName,
			m.keyedCopy.against(row, shardsName, pgbouncerName, "speed"), 1, false})
	}
	if m.scatter != nil {
		goals = append(goals, m.scatterGoals()...)
		goals = append(goals, m.transactionGoals()...)
	}
	return goals
}
