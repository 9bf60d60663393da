package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestShowHot: the slot and the key of the tenant that makes the load come first; keys are there only where the configuration wants them.
func TestShowHot(t *testing.T) {
	px := startShards(t, 2, "    hot_keys: true")
	c := px.connectLoaded()
	console, _ := px.consoleOf()
	for id := range 5 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'a')", id+1)
	}
	var slot string
	if err := c.QueryRow(t.Context(), "SELECT (hashint8extended(3, 0) & 4095)::text").Scan(&slot); err != nil {
		t.Fatal(err)
	}
	// More than once when a minute ends meanwhile.
	eventually(t, "the hottest slot and key are first", func() bool {
		for _, mode := range queryModes {
			for i := range 160 {
				id := int64(3)
				if i%10 == 1 {
					id = int64(1 + i%5)
				}
				must(t, c, "SELECT name FROM customers WHERE id = $1", mode, id)
			}
		}
		hot, keys := shownBy(t, console, "SHOW HOT"), shownBy(t, console, "SHOW HOT_KEYS")
		return len(hot) > 0 && hot[0]["slot"] == slot && figure(t, hot[0], "percent") >= 60 && strings.HasPrefix(hot[0]["shard"], "s") && figure(t, hot[0], "sampled") >= 40 &&
			len(keys) > 0 && keys[0]["key"] == "3" && keys[0]["slot"] == slot && keys[0]["shard"] == hot[0]["shard"] && figure(t, keys[0], "sampled") >= 20
	})
	b := &pgx.Batch{}
	b.Queue("SELECT name FROM customers WHERE id = $1", int64(1))
	b.Queue("SELECT name FROM customers WHERE id = $1", int64(2))
	for range 16 {
		if err := c.SendBatch(t.Context(), b).Close(); err != nil {
			t.Fatal(err)
		}
	}
	px.write(strings.Replace(px.text(), "hot_keys: true", "hot_keys: false", 1))
	must(t, console, "RELOAD")
	must(t, c, "SELECT name FROM customers WHERE id = 3")
	if keys := shownBy(t, console, "SHOW HOT_KEYS"); len(keys) != 0 {
		t.Errorf("not forgotten: %v", keys)
	}
}
