package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// slowReader reads the lines of slow statements from the log.
type slowReader struct {
	px   *proxied
	from int // where the log begins that is not forgotten
}

func (r *slowReader) lines() (lines []string) {
	for line := range strings.Lines(r.px.logged()[r.from:]) {
		if strings.Contains(line, `msg="slow statement"`) {
			lines = append(lines, line)
		}
	}
	return lines
}

func (r *slowReader) forget() { r.from = len(r.px.logged()) }

// TestSlowStatements: what is slow is logged, with what it waited for, and without its values.
func TestSlowStatements(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	text := strings.Replace(configText, "reads:", "pool: {size: 1}\n    reads:", 1)
	px := startProgram(t, cl, text)
	log := &slowReader{px: px}
	c := px.connect()
	must(t, c, "SELECT pg_sleep(0.06)")
	if lines := log.lines(); len(lines) != 0 {
		t.Fatal("the setting is off", lines)
	}
	changed := strings.NewReplacer("%NODES%", fmt.Sprintf("%q", cl.Primary().Addr()), "%LISTEN%", px.addr, "%ADMIN%", px.p.state.Load().cfg.Admin.Address).Replace(text)
	px.write(changed + "\nlog: {slow_statement: 50ms}\n")
	console, _ := px.consoleOf()
	must(t, console, "RELOAD")

	one := func(what string, wants ...string) {
		t.Helper()
		lines := log.lines()
		if len(lines) != 1 {
			t.Errorf("%s: %d lines: %v", what, len(lines), lines)
			return
		}
		for _, want := range append(wants, "database=app", "user=app", "shards=s0") {
			if !regexp.MustCompile(want).MatchString(lines[0]) {
				t.Errorf("%s: no %s in %s", what, want, lines[0])
			}
		}
		if strings.Contains(lines[0], "secret") {
			t.Errorf("%s: a value is in %s", what, lines[0])
		}
		log.forget()
	}
	for _, mode := range queryModes {
		must(t, c, "SELECT 1", mode)
		must(t, c, "SELECT pg_sleep(0.06), 'secret'", mode)
		one(mode.String(), `query="select pg_sleep\(\$1\), \$2"`, `rows=1 `, `sqlstate="" `, `fingerprint=[0-9a-f]{16}`, `waited_ms=\d.* held_ms=0 ran_ms=([5-9]\d|\d{3})`, "statements=1 ")
	}
	_, _ = c.Exec(within(t, 10*time.Second), "SELECT pg_sleep(0.06), 1 / (SELECT 0)")
	one("an error", "sqlstate=22012")
	must(t, c, "SELECT 'secret'; SELECT pg_sleep(0.06); SELECT generate_series(1, 7)", pgx.QueryExecModeSimpleProtocol)
	one("several commands", "rows=9 ", "statements=1 ")
	batch := &pgx.Batch{}
	batch.Queue("SELECT pg_sleep(0.06)")
	batch.Queue("SELECT $1::text", "secret")
	if err := c.SendBatch(within(t, 10*time.Second), batch).Close(); err != nil {
		t.Fatal(err)
	}
	log.forget() // pgx prepares first
	if err := c.SendBatch(within(t, 10*time.Second), batch).Close(); err != nil {
		t.Fatal(err)
	}
	one("a pipeline", "statements=2 ", "rows=2 ")

	// A statement that waits for the only server connection.
	other := px.connect()
	must(t, other, "BEGIN")
	must(t, other, "SELECT 1")
	var waits sync.WaitGroup
	waits.Go(func() {
		if _, err := c.Exec(within(t, 10*time.Second), "SELECT 5"); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "a client waits", func() bool {
		return len(shownBy(t, console, "SHOW CLIENTS WHERE state = 'waiting' AND wait_us > 300000")) > 0
	})
	must(t, other, "COMMIT")
	waits.Wait()
	one("waits", `waited_ms=\d{3,4}`)
}

// TestSlowStatementsBound: more than ten lines a second are counted only.
func TestSlowStatementsBound(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	px := startProgram(t, cl, configText+"\nlog: {slow_statement: 1us}\n")
	log := &slowReader{px: px}
	c := px.connect()
	began := time.Now()
	const many = 300
	for range many {
		must(t, c, "SELECT 1")
	}
	seconds := int(time.Since(began).Seconds()) + 2
	if n := len(log.lines()); n < 10 || n > seconds*slowLines {
		t.Errorf("%d lines in %d s", n, seconds)
	}
	found := samples(t, px.metricsText())
	of := `{job="shardproxy", instance="p1", database="app"}`
	slow, unlogged := found["shardproxy_slow_statements_total"+of], found["shardproxy_slow_statements_unlogged_total"+of]
	if slow < many || int(slow-unlogged) != len(log.lines()) {
		t.Errorf("%v slow, %v without a line, %d lines", slow, unlogged, len(log.lines()))
	}
}

// slowLines is how many lines of slow statements there may be in a second.
const slowLines = 10

// TestSlowStatementsShards: the line names the shards, and a gate's wait.
func TestSlowStatementsShards(t *testing.T) {
	px := startShards(t, 2, "log: {slow_statement: 50ms}")
	log := &slowReader{px: px.proxied}
	c := px.connectLoaded()
	must(t, c, "INSERT INTO customers VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e'), (6, 'f')")
	log.forget()
	must(t, c, "SELECT count(*), max(pg_sleep(0.06)::text) FROM customers")
	lines := log.lines()
	if len(lines) != 1 || !strings.Contains(lines[0], `shards=s0,s1 way="gather (rows of different keys meet in it)"`) || !strings.Contains(lines[0], "query=\"select count(*)") {
		t.Error(lines)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := c.Exec(ctx, "SELECT * FROM customers ORDER BY id LIMIT 1 FOR UPDATE"); err == nil {
		t.Error("not refused")
	}
	// What both shards and the proxy refuse is counted by its origin.
	fails(t, c, "SELECT 1 / (count(*) * 0) FROM customers", "22012")
	fails(t, c, "SELECT 1 / (id * 0) FROM customers WHERE id = 1", "22012")
	console, _ := px.consoleOf()
	all := map[string]map[string]string{}
	for _, row := range shownBy(t, console, "SHOW ERRORS") {
		all[row["origin"]+" "+row["sqlstate"]] = row
	}
	if own := all["proxy 0A000"]; own == nil || own["count"] != "1" || own["message"] == "-" {
		t.Errorf("%v", all)
	}
	if theirs := all["server 22012"]; theirs == nil || theirs["count"] != "2" || theirs["message"] != "-" {
		t.Errorf("%v", all)
	}
	ways := map[string]string{}
	for _, row := range shownBy(t, console, "SHOW PLANS") {
		ways[row["query"]] = row["way"] + " " + row["reason"]
	}
	for text, want := range map[string]string{
		"select $1 / (id * $2) from customers where id = $3": "keyed -", "select $1 / (count(*) * $2) from customers": "scatter -",
		"insert into customers values ($1, $2), ...": "split -", "select * from customers order by id limit $1 for update": "refused command",
	} {
		if ways[text] != want {
			t.Errorf("%s: %q, not %q", text, ways[text], want)
		}
	}
}
