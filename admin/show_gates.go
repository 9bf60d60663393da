package admin

import (
	"context"
	"errors"
	"strings"

	"shardproxy/gate"
	"shardproxy/wire"
)

func gateColumns() []column {
	return []column{
		textColumn("database", "The database."),
		textColumn("shard", "The shard; NULL for the gate of slots."),
		textColumn("gate", "shard: statements wait for a primary; slots: writes of slots that are held wait for a move."),
		int4Column("closed", "1 while who comes waits, else 0."),
		int4Column("draining", "1 while those who waited are let go, in their order, else 0."),
		textColumn("reason", "Why it is closed; NULL when it is open."),
		textColumn("closed_since", "Since when, in UTC."),
		int4Column("held", "Statements that wait."),
		int4Column("held_limit", "How many may (failover.hold_statements)."),
		int8Column("held_max_ms", "Milliseconds that the first of them has waited."),
		int8Column("closed_count", "Times that it was closed."),
		int8Column("held_count", "Statements that have waited."),
		int8Column("released_count", "Those of them that went on."),
		int8Column("timed_out_count", "Those that waited for too long."),
		int8Column("evicted_count", "Those that were turned away again."),
		int8Column("cancelled_count", "Those whose client did not want them any more."),
		int8Column("refused_count", "Statements that were refused because too many waited."),
		int8Column("held_ms", "Milliseconds that all have waited together."),
		int8Column("held_longest_ms", "Milliseconds that one has waited at most."),
	}
}

func showGates(c *Console) (rows [][]any) {
	now := c.opt.Clock()
	add := func(database string, shard any, kind string, g *gate.Stats) {
		t := &g.Totals
		count := func(n uint64) int64 { return int64(n) }
		rows = append(rows, []any{
			database, shard, kind, bit(g.Closed), bit(g.Draining), orNull(g.Reason), timestamp(g.ClosedSince), int64(g.HeldNow), int64(g.HeldMax), heldFor(g.OldestSince, now),
			count(t.Closures), count(t.Held), count(t.Released), count(t.TimedOut), count(t.Evicted), count(t.Cancelled), count(t.Refused),
			t.HeldTime.Milliseconds(), t.LongestHeld.Milliseconds(),
		})
	}
	for _, d := range c.opt.Source.Databases() {
		for i := range d.Shards {
			add(d.Name, d.Shards[i].Name, "shard", &d.Shards[i].Gate)
		}
		if d.Slots != nil {
			add(d.Name, nil, "slots", d.Slots)
		}
	}
	return rows
}

func eventColumns() []column {
	return []column{
		int8Column("id", "Its number, from 1 at the start of the process."),
		textColumn("at", "When, in UTC."),
		textColumn("level", "INFO, WARN or ERROR."),
		textColumn("event", "What."),
		textColumn("database", "The database that it is about; NULL for none."),
		textColumn("shard", "The shard; NULL for none."),
		textColumn("node", "The node; NULL for none."),
		textColumn("detail", "What else the log says of it, as key=value; NULL for nothing."),
	}
}

func showEvents(c *Console) (rows [][]any) {
	for _, e := range c.opt.Source.Events() {
		at := e.At.UTC().Format("2006-01-02 15:04:05.000 MST") // many in a second
		rows = append(rows, []any{e.ID, at, e.Level, e.What, orNull(e.Database), orNull(e.Shard), orNull(e.Node), orNull(e.Detail)})
	}
	return rows
}

func settingColumns() []column {
	return []column{
		textColumn("setting", "Its path in the file."),
		textColumn("value", "Its value."),
		textColumn("default", "Its value when the file does not give it; NULL when it has none."),
		int4Column("changed", "1 when it is not the default, else 0."),
		int4Column("needs_restart", "1 when only a restart can change it, 0 when RELOAD can."),
	}
}

func showSettings(c *Console) (rows [][]any) {
	for _, s := range c.opt.Configuration.Settings() {
		rows = append(rows, []any{s.Path, s.Value, orNull(s.Default), bit(s.Value != s.Default), bit(s.Restart)})
	}
	return rows
}

// showPrepared shows what clients have sent, which may hold their users' secrets: it is for admins.
func showPrepared() *command {
	return &command{name: "SHOW PREPARED", usage: "SHOW PREPARED", needs: mayRead,
		doc: "One row for each statement that clients have prepared by name; those of one text, parameter types and search_path are one. For admin users: texts may hold what others must not see. PgBouncer has no such command.",
		columns: []column{
			textColumn("database", "The database."),
			textColumn("name", "What servers call it."),
			int4Column("clients", "How many clients have it prepared."),
			int8Column("bytes", "Bytes that it takes in the proxy."),
			textColumn("query", "Its text."),
		},
		run: func(_ context.Context, s *session, _ request) (result, *wire.Error) {
			res := result{tag: "SHOW"}
			for _, d := range s.console.opt.Source.Databases() {
				if d.Prepared == nil {
					continue
				}
				for _, st := range d.Prepared() {
					res.rows = append(res.rows, []any{d.Name, st.Name, int64(st.Holders), st.Bytes, st.Text})
				}
			}
			return res, nil
		}}
}

func explainRoute() *command {
	return &command{name: "EXPLAIN ROUTE", usage: "EXPLAIN ROUTE 'statement' [IN database]",
		doc:     "Says on which shard a statement would run, and why, or why it would be refused, as EXPLAIN (ROUTE) does in a session with PostgreSQL's default search_path. It runs nothing, and asks no server. The database must be named when there are several.",
		columns: []column{textColumn("route", "One line of it.")},
		run:     runExplainRoute}
}

func runExplainRoute(_ context.Context, s *session, r request) (result, *wire.Error) {
	all := s.console.opt.Source.Databases()
	var d *Database
	var names []string
	for i := range all {
		names = append(names, all[i].Name)
		if all[i].Name == r.in || !r.hasIn && len(all) == 1 {
			d = &all[i]
		}
	}
	switch {
	case d == nil && r.hasIn:
		return result{}, noDatabase(r.in)
	case d == nil && len(all) > 1:
		return result{}, wire.Errorf("42601", "there are several databases: say which").WithDetail("They are %s.", strings.Join(names, ", ")).
			WithHint("EXPLAIN ROUTE 'statement' IN database")
	case d == nil || d.Route == nil:
		return result{}, wire.Errorf("55000", "there is no database to explain that for")
	}
	lines, err := d.Route(r.arg)
	var said *wire.Error
	switch {
	case errors.As(err, &said):
		return result{}, said
	case err != nil:
		return result{}, wire.AsError(err)
	}
	res := result{tag: "EXPLAIN"}
	for _, line := range lines {
		res.rows = append(res.rows, []any{line})
	}
	return res, nil
}
