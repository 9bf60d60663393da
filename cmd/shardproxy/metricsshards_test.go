package main

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// TestMetricsPageShards: a database of several shards exports besides what one of one shard does the families of the page's
// second table. While all is well it has no alert.
func TestMetricsPageShards(t *testing.T) {
	px := startShards(t, 2)
	c := px.connect()
	work := func() {
		must(t, c, "INSERT INTO customers SELECT i, 'x' FROM generate_series((SELECT count(*) + 1 FROM customers), (SELECT count(*) + 20 FROM customers)) i")
		must(t, c, "SELECT count(*) FROM customers")
	}
	work()
	eventually(t, "the shards have been asked for prepared transactions", func() bool {
		found := samples(t, px.metricsText())
		return found[`shardproxy_twopc_shard_reachable{job="shardproxy", instance="p1", database="app",shard="s1"}`] == 1
	})
	found := px.scrape()
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(page), "<!-- end families -->")
	maps.DeleteFunc(found, func(name string, _ *metricFamily) bool { return strings.Contains(first, "| `"+name+"` |") })
	comparePage(t, found, "families of several shards")
	quietAlerts(t, px.proxied, 3*time.Second, work)
}

// requests returns how many requests of a kind and scope there were, and what was timed of them.
func requests(t *testing.T, px *proxied, kind, scope string) (n, timed, seconds float64) {
	t.Helper()
	found := samples(t, px.metricsText())
	of := fmt.Sprintf(`{job="shardproxy", instance="p1", database="app",kind=%q,scope=%q}`, kind, scope)
	return found["shardproxy_requests_total"+of], found["shardproxy_request_duration_seconds_count"+of], found["shardproxy_request_duration_seconds_sum"+of]
}

// TestMetricsRequests: each request is counted once, as what it was, and one in eight has its time taken.
func TestMetricsRequests(t *testing.T) {
	px := startShards(t, 2)
	c := px.connectLoaded()
	aside := pgtest.Connect(t, px.shards[0].Primary().DSN("app", "app"))
	for _, q := range []struct {
		kind, scope, sql string
		least            float64 // seconds
	}{
		{"write", "one", "INSERT INTO customers VALUES (1, 'a') ON CONFLICT DO NOTHING", 0},
		{"read", "one", "SELECT * FROM customers WHERE id = 1", 0},
		{"read", "one", "SELECT pg_sleep(0.05)", 0.05},
		{"read", "several", "SELECT count(*) FROM customers", 0},
		{"write", "several", "UPDATE customers SET name = name", 0},
		{"write", "several", "INSERT INTO customers VALUES (2, 'a'), (3, 'a'), (4, 'a'), (5, 'a'), (6, 'a'), (7, 'a') ON CONFLICT DO NOTHING", 0},
		{"read", "one", "SELECT 1 / 0", 0}, // an error is an answer
		{"write", "refused", "SELECT * FROM customers ORDER BY id LIMIT 1 FOR UPDATE", 0},
	} {
		n, timed, seconds := requests(t, px.proxied, q.kind, q.scope)
		began := time.Now()
		var err error
		for range 16 {
			_, err = c.Exec(within(t, 10*time.Second), q.sql)
			must(t, aside, "SELECT pg_sleep(0.005)") // the client thinks, which is no part of any
		}
		took := time.Since(began).Seconds() - 16*0.005
		isN, isTimed, is := requests(t, px.proxied, q.kind, q.scope)
		if isN-n != 16 || isTimed-timed < 1 || isTimed-timed > 9 || is-seconds < (isTimed-timed)*q.least || is-seconds > took {
			t.Errorf("%s: %v requests (%s, %s), %v timed, in %v s of %v: %v", q.sql, isN-n, q.kind, q.scope, isTimed-timed, is-seconds, took, err)
		}
	}
	// Refused where a shard is in the middle of the transaction.
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		tx, err := c.Begin(within(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = tx.Exec(within(t, 10*time.Second), "SELECT * FROM customers WHERE id = 1")
		before, _, _ := requests(t, px.proxied, "write", "refused")
		_, err = tx.Exec(within(t, 10*time.Second), "SELECT * FROM customers ORDER BY id LIMIT 1 FOR UPDATE", mode)
		if after, _, _ := requests(t, px.proxied, "write", "refused"); after-before != 1 {
			t.Errorf("%v: %v refused: %v", mode, after-before, err)
		}
		_ = tx.Rollback(within(t, 10*time.Second)) // it has failed
	}
	// In a transaction: no server hears of BEGIN, and thinking is no part of anything.
	n, _, _ := requests(t, px.proxied, "transaction", "one")
	_, _, seconds := requests(t, px.proxied, "read", "one")
	began := time.Now()
	for range 8 {
		must(t, c, "BEGIN")
		must(t, c, "SELECT * FROM customers WHERE id = 1")
		must(t, aside, "SELECT pg_sleep(0.02)")
		must(t, c, "COMMIT")
	}
	took := time.Since(began).Seconds() - 8*0.02
	if is, _, _ := requests(t, px.proxied, "transaction", "one"); is-n != 16 {
		t.Errorf("%v requests that begin or end transactions", is-n)
	}
	if _, _, is := requests(t, px.proxied, "read", "one"); is-seconds > took {
		t.Errorf("reads took %v s of %v", is-seconds, took)
	}
	// A pipeline: each Sync ends a request.
	n, timed, _ := requests(t, px.proxied, "read", "one")
	pipeline := c.PgConn().StartPipeline(within(t, 10*time.Second))
	for range 16 {
		pipeline.SendQueryParams("SELECT name FROM customers WHERE id = 1", nil, nil, nil, nil)
		if err := pipeline.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if err := pipeline.Close(); err != nil {
		t.Fatal(err)
	}
	if isN, isTimed, _ := requests(t, px.proxied, "read", "one"); isN-n != 16 || isTimed-timed < 1 || isTimed-timed > 9 {
		t.Errorf("pipeline: %v requests, %v timed", isN-n, isTimed-timed)
	}
}
