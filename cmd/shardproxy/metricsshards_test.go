package main

import (
	"maps"
	"os"
	"strings"
	"testing"
	"time"
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
