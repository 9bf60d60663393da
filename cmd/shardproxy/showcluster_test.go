package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// consoleOf returns a session of the console, and where its notices go.
func (px *proxied) consoleOf() (*pgx.Conn, *[]*pgconn.Notice) {
	px.t.Helper()
	cfg, err := pgx.ParseConfig(strings.Replace(px.dsn(), "/app?", "/shardproxy?", 1))
	if err != nil {
		px.t.Fatal(err)
	}
	var notices []*pgconn.Notice
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n) }
	c, err := pgx.ConnectConfig(within(px.t, 20*time.Second), cfg)
	if err != nil {
		px.t.Fatal(err)
	}
	px.t.Cleanup(func() { _ = c.Close(within(px.t, time.Second)) })
	return c, &notices
}

// shownBy returns the rows of a SHOW by their columns, NULL as -.
func shownBy(t testing.TB, console *pgx.Conn, sql string) (all []map[string]string) {
	t.Helper()
	rows, err := console.Query(within(t, 20*time.Second), sql)
	if err != nil {
		t.Fatal(sql, err)
	}
	defer rows.Close()
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			t.Fatal(sql, err)
		}
		row := map[string]string{}
		for i, f := range rows.FieldDescriptions() {
			if row[f.Name] = "-"; values[i] != nil {
				row[f.Name] = fmt.Sprint(values[i])
			}
		}
		all = append(all, row)
	}
	if rows.Err() != nil {
		t.Fatal(sql, rows.Err())
	}
	return all
}

// TestShowCluster: what the console tells of shards, slots, moves and proxies is what the home shard has; it is read over one
// connection while somebody looks; and a home shard that is down keeps nobody waiting.
func TestShowCluster(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	s.connectLoaded()
	console, notices := s.consoleOf()
	home := s.shards[0].Primary()

	shards := shownBy(t, console, "SHOW SHARDS")
	if len(shards) != 2 || shards[0]["home"] != "1" || shards[1]["home"] != "0" || shards[0]["state"] != "member" || shards[0]["primary"] != home.Addr() {
		t.Error(shards)
	}
	sameSlots := func() {
		t.Helper()
		epoch := home.Value("app", "SELECT epoch FROM shardproxy.epoch")
		for _, r := range shownBy(t, console, "SHOW SLOTS") {
			got := home.Value("app", fmt.Sprintf("SELECT count(*) FROM shardproxy.slots WHERE shard = '%s' AND slot BETWEEN %s AND %s", r["shard"], r["first_slot"], r["last_slot"]))
			if got != r["slots"] || r["epoch"] != epoch || r["held"] != "0" {
				t.Errorf("%v, of these %s are so at epoch %s", r, got, epoch)
			}
		}
		for _, r := range shownBy(t, console, "SHOW SHARDS") {
			if got := home.Value("app", fmt.Sprintf("SELECT count(*) FROM shardproxy.slots WHERE shard = '%s'", r["shard"])); got != r["slots"] {
				t.Errorf("%v, it has %s slots", r, got)
			}
		}
	}
	sameSlots()
	proxies := shownBy(t, console, "SHOW PROXIES")
	if len(proxies) != 1 || proxies[0]["self"] != "1" || proxies[0]["present"] != "1" || proxies[0]["shards"] != "s0, s1" ||
		proxies[0]["proxy"] != home.Value("app", "SELECT proxy FROM shardproxy.acknowledged") {
		t.Error(proxies)
	}

	slot := home.Value("app", "SELECT max(slot) FROM shardproxy.slots WHERE shard = 's0'")
	if o := call(t, "", "rebalance", "start", "-c", s.path, "--slots", slot, "--to", "s1"); o.code != 0 {
		t.Fatalf("%+v", o)
	}
	if moves := shownBy(t, console, "SHOW MOVES"); len(moves) == 1 && (moves[0]["slot_ranges"] != slot || moves[0]["source"] != "s0" || moves[0]["target"] != "s1") {
		t.Error(moves)
	}
	var history []map[string]string
	soon(t, time.Minute, "the move has ended", func() bool { history = shownBy(t, console, "SHOW MOVE_HISTORY"); return len(history) == 1 })
	if len(history) != 1 {
		return
	}
	if h := history[0]; h["phase"] != "done" || h["slots"] != "1" || h["slot_ranges"] != slot || h["verified"] != "1" || h["id"] != "1" {
		t.Error(h)
	}
	if moves := shownBy(t, console, "SHOW MOVES"); len(moves) != 0 {
		t.Error("a move that has ended goes on:", moves)
	}
	soon(t, 10*time.Second, "nothing moves", func() bool { return home.Value("app", "SELECT guarded FROM shardproxy.epoch") == "f" })
	soon(t, 10*time.Second, "the proxy has the last map", func() bool {
		return shownBy(t, console, "SHOW SLOTS")[0]["epoch"] == home.Value("app", "SELECT epoch FROM shardproxy.epoch")
	})
	sameSlots()

	looks := s.p.state.Load().databases["app"].cluster.looks
	pid := looks.backend.Load()
	if home.Value("app", fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid)) != "1" {
		t.Error("there is no connection by which moves are read")
	}
	looks.asked.Store(0) // as if nobody had asked for long
	soon(t, 10*time.Second, "the connection by which moves are read is closed", func() bool {
		return home.Value("app", fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid)) == "0" && looks.backend.Load() == 0
	})

	if len(*notices) > 0 {
		t.Errorf("%+v", (*notices)[0])
	}
	home.Stop()
	soon(t, 20*time.Second, "it is told that the home shard does not answer", func() bool {
		began := time.Now()
		again := shownBy(t, console, "SHOW MOVE_HISTORY")
		if took := time.Since(began); took > 8*time.Second || len(again) != 1 {
			t.Errorf("with a home shard that is down: %v, %v", took, again)
		}
		return len(*notices) > 0 && strings.Contains((*notices)[0].Detail, "what is shown of it is of")
	})
	home.Start()
	soon(t, 30*time.Second, "the home shard is read again", func() bool {
		*notices = nil
		return len(shownBy(t, console, "SHOW PROXIES")) == 1 && len(*notices) == 0
	})
}

// tryConnect logs in, or returns why not.
func (px *proxied) tryConnect() (*pgx.Conn, error) {
	c, err := pgx.Connect(within(px.t, 20*time.Second), px.dsn())
	if err == nil {
		px.t.Cleanup(func() { _ = c.Close(within(px.t, time.Second)) })
	}
	return c, err
}
