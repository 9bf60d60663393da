package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shardproxy/catalog"
)

// TestNews: what one proxy changes in the schema another knows within a second, though it
// looks by itself once an hour only.
func TestNews(t *testing.T) {
	t.Parallel()
	one := startShards(t, 2, "      later: {key: id}")
	c := one.connectLoaded()
	other := one.beside("refresh: 1s", "refresh: 1h")
	other.run()
	d := (&shardedProgram{proxied: other}).connectLoaded()
	known := other.p.state.Load().databases["app"].catalog
	has := func(name, column string) bool {
		for _, found := range known.Current().Tables() {
			if found.Name == name {
				return found.Column(column) != nil || found.Kind == catalog.KindSequence
			}
		}
		return false
	}
	for _, change := range []struct{ sql, table, column string }{
		{"CREATE TABLE later (id int PRIMARY KEY, note text)", "later", "id"},                // on all shards
		{"BEGIN; ALTER TABLE later ADD COLUMN more text; COMMIT", "later", "more"},           // in a transaction of the client's
		{"CREATE SEQUENCE alone", "alone", ""},                                               // on the home shard
		{"CREATE TABLE kept (id int)", "kept", "id"},                                         // the same
		{"BEGIN; CREATE TABLE pair (id int); SELECT 1 FROM customers; COMMIT", "pair", "id"}, // more than one
		{"BEGIN; INSERT INTO customers VALUES (5, 'x'); ALTER TABLE later ADD last int; COMMIT", "later", "last"},
	} {
		for sql := range strings.SplitSeq(change.sql, "; ") {
			if sql == "SELECT 1 FROM customers" {
				sql += " WHERE id = 1"
			}
			must(t, c, sql)
		}
		began := time.Now()
		eventually(t, change.sql+": known", func() bool { return has(change.table, change.column) })
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s: known after %v", change.sql, took)
		}
	}
	must(t, d, "INSERT INTO later (id, more) VALUES (1, 'x')")
	if got := one.logged() + other.logged(); strings.Contains(got, "are not told") {
		t.Error(got)
	}
}

// beside writes the configuration of another proxy of the same databases, with changes, each an old and a new part, and does not start it.
func (px *proxied) beside(changes ...string) *proxied {
	px.t.Helper()
	other := &proxied{t: px.t, addr: freeAddr(px.t), path: filepath.Join(px.t.TempDir(), "shardproxy.yaml")}
	text := px.text()
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			px.t.Fatalf("no %q in the configuration", changes[i])
		}
	}
	other.write(strings.NewReplacer(append([]string{px.addr, other.addr, adminOf(text), freeAddr(px.t)}, changes...)...).Replace(text))
	return other
}

// adminOf returns the address of the console in a configuration.
func adminOf(text string) string {
	_, rest, _ := strings.Cut(text, `admin:  {address: "`)
	address, _, _ := strings.Cut(rest, `"`)
	return address
}
