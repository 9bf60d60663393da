package main

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// inits calls init with a proxy's configuration and compares its exit code and words of what it prints.
func (px *proxied) inits(code int, args []string, words ...string) {
	px.t.Helper()
	o := call(px.t, "", append([]string{"init", "-c", px.path}, args...)...)
	if o.code != code {
		px.t.Errorf("init %q: exit code %d, want %d\n%s%s", args, o.code, code, o.out, o.err)
	}
	for _, w := range words {
		if !strings.Contains(o.out+o.err, w) {
			px.t.Errorf("init %q does not say %q:\n%s%s", args, w, o.out, o.err)
		}
	}
}

// refusesStart fails unless the proxy does not start, and says why.
func (px *proxied) refusesStart(why string) {
	px.t.Helper()
	p, err := newProgram(px.path, io.Discard)
	if err != nil {
		px.t.Fatal(err)
	}
	err = p.open(context.Background())
	p.close()
	if err == nil || !strings.Contains(err.Error(), why) {
		px.t.Errorf("it starts, or does not say %q: %v", why, err)
	}
}

// TestClusterRules has two proxies with unlike rules at one cluster, and the cluster get others.
func TestClusterRules(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	c := s.connectLoaded()
	fails := func(c *pgx.Conn, sql, why string) {
		t.Helper()
		if _, err := c.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", sql, err, why)
		}
	}
	next := s.beside("    tables:\n", "    tables:\n      later: {key: id}\n")
	differs := `table later has the rule {"key":["id"]}, and none in the cluster`
	next.refusesStart("the configuration places rows otherwise than the cluster does: " + differs)
	next.inits(2, nil, differs, "init --rules")
	if o := call(t, "", "rebalance", "plan", "-c", next.path); o.code == 0 || !strings.Contains(o.err, differs) {
		t.Errorf("a plan by other rules: %+v", o)
	}
	next.inits(0, []string{"--rules", "--dry-run"}, differs)
	next.refusesStart(differs)

	// A definition that is under way is waited for; without end the rules stay, and definitions go on.
	must(t, c, "BEGIN")
	must(t, c, "CREATE TABLE underway (id int)")
	next.inits(2, []string{"--rules", "--timeout", "1s"}, "the rules stay as they are: transactions that began before have not ended in proxy")
	must(t, c, "COMMIT")
	must(t, c, "CREATE TABLE goes_on (id int)")
	next.inits(0, []string{"--rules"}, "stored the rules by which rows are placed", "nothing to do: everything is there")
	next.inits(0, []string{"--rules"}, "nothing to do: everything is there")

	// The proxy that runs serves what both place alike, from that moment on.
	fails(c, "CREATE TABLE more (id int)", "other rules for tables now than this proxy")
	fails(c, "SELECT id INTO more FROM customers", "other rules for tables now than this proxy")
	must(t, s.connectLoaded(), "CREATE TEMP TABLE mine (id int)")
	must(t, c, "INSERT INTO customers SELECT i, 'c' FROM generate_series(1, 20) i")
	next.run()
	d := (&shardedProgram{proxied: next}).connectLoaded()
	must(t, d, "CREATE TABLE later (id int PRIMARY KEY, note text)")
	must(t, d, "INSERT INTO later SELECT i, 'x' FROM generate_series(1, 20) i")
	s.settledCatalog("later")
	fails(c, "SELECT count(*) FROM later", "is placed otherwise by the rules that the cluster has now")
	fails(c, "INSERT INTO later VALUES (21, 'x')", "is placed otherwise by the rules that the cluster has now")
	for _, conn := range []*pgx.Conn{c, d} {
		if got := one(t, conn, "SELECT count(*) FROM customers"); got != "20" {
			t.Errorf("%s customers", got)
		}
	}
	if got := one(t, d, "SELECT count(*) FROM later"); got != "20" {
		t.Errorf("%s rows", got)
	}

	for px, want := range map[*proxied]string{s.proxied: "1", next: "0"} {
		if want = `shardproxy_slot_map_rules_differ{database="app"} ` + want + "\n"; !strings.Contains(px.metricsText(), want) {
			t.Errorf("no %s", want)
		}
	}

	// Tables that there are: nobody may serve them, and no row may be elsewhere then.
	back := s.beside("    tables:\n", "    tables:\n      order_items_old: {key: id}\n")
	back.inits(2, []string{"--rules"}, "placed otherwise: \"public\".\"later\"", "has rows that would not be found there by the new rules")
	other := s.beside("      orders:      {key: customer_id}\n", "      orders: {key: id}\n      later: {key: id}\n")
	other.inits(2, []string{"--rules"}, "placed otherwise: \"public\".\"orders\"", "the cluster is served by proxy")
	must(t, d, "CREATE TABLE still (id int)") // definitions go on
	next.p.close()
	s.p.close()
	reference := s.beside("      products:    {reference: true}\n", "      products: {key: id}\n      later: {key: id}\n")
	reference.inits(2, []string{"--rules"}, "placed otherwise: \"public\".\"products\"", "has rows that would not be found there by the new rules")
	other.inits(0, []string{"--rules"}, "stored the rules")
	next.refusesStart(`table orders has the rule {"key":["customer_id"]}, and {"key":["id"]} in the cluster`)
	other.run()
}

// settledCatalog waits until the proxy knows a table.
func (s *shardedProgram) settledCatalog(table string) {
	known := s.p.state.Load().databases["app"].catalog
	eventually(s.t, table+" is known", func() bool {
		for _, found := range known.Current().Tables() {
			if found.Name == table {
				return true
			}
		}
		return false
	})
}
