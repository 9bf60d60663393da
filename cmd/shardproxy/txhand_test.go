package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
)

// TestCommitNotCancelled: a cancel request that comes while a transaction over several shards commits, before the
// decision or behind it, leaves nothing half done: the commit goes on, and so does the session.
func TestCommitNotCancelled(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			var fronts []*faultproxy.Proxy
			s := startShardsBehind(t, 2, pgtest.Options{}, func(addr string) string {
				fronts = append(fronts, faultproxy.Start(t, faultproxy.Options{Target: addr, RefuseTLS: true}))
				return fronts[len(fronts)-1].Addr()
			}, "runtime: {driver: "+driver+"}")
			c := s.connectLoaded()
			for i := range 10 {
				must(t, c, "INSERT INTO customers VALUES ($1, 'old')", i)
			}
			for n, at := range []string{"PREPARE TRANSACTION", "shardproxy.decide", "COMMIT PREPARED"} {
				name := fmt.Sprint("new ", n)
				must(t, c, "BEGIN")
				for i := range 10 {
					must(t, c, "UPDATE customers SET name = $2 WHERE id = $1", i, name)
				}
				reached := make(chan struct{}, 1)
				wake := make(chan struct{})
				var rules []*faultproxy.Trigger
				for _, f := range fronts {
					rules = append(rules, f.On(faultproxy.Rule{From: faultproxy.FromClient, Kind: 'Q', Text: at, Do: faultproxy.Call(func() {
						reached <- struct{}{}
						<-wake
					})}))
				}
				done := make(chan error, 1)
				go func() {
					_, err := c.Exec(within(t, 20*time.Second), "COMMIT")
					done <- err
				}()
				<-reached
				asked := time.Now()
				if err := c.PgConn().CancelRequest(within(t, 20*time.Second)); err != nil || time.Since(asked) > 3*time.Second {
					t.Errorf("%s: the canceller waits for %v: %v", at, time.Since(asked), err)
				}
				select {
				case err := <-done:
					t.Fatalf("%s: the client does not wait for the commit: %v", at, err)
				case <-time.After(300 * time.Millisecond): // who waits looks each 100 ms whether it is wanted
				}
				close(wake)
				if err := <-done; err != nil {
					t.Errorf("%s: %v", at, err)
				}
				for _, r := range rules {
					r.Remove()
				}
				if got := one(t, c, fmt.Sprintf("SELECT count(*)::text FROM customers WHERE name = '%s'", name)); got != "10" {
					t.Errorf("%s: %s rows are committed", at, got)
				}
			}
		})
	}
}

// TestDoubtByHand: a part whose decider nobody knows is in doubt; the console shows it and ends it for an administrator
// who insists, and the log says who that was.
func TestDoubtByHand(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	console, _ := s.consoleOf()
	second := s.shards[1].Primary()
	prefix := "shardproxy:" + second.Value("app", "SELECT id::text FROM shardproxy.cluster") + ":gone:"
	for n, word := range []string{"COMMIT", "ROLLBACK"} {
		name := fmt.Sprintf("%s%s:1", prefix, strings.Repeat("A", 19)+"AQ"[n:n+1])
		second.Exec("app", fmt.Sprintf("BEGIN; INSERT INTO customers VALUES (%d, 'x'); PREPARE TRANSACTION '%s'", n, name))
		eventually(t, "in doubt", func() bool {
			shown := shownBy(t, console, "SHOW TWOPC")
			return len(shown) == 1 && shown[0]["name"] == name && shown[0]["shard"] == "s1"
		})
		fails(t, console, word+" "+name, "42601")
		if _, err := console.Exec(t.Context(), "TWOPC "+word+" '"+name+"'"); sqlState(err) != "55000" || !strings.Contains(err.Error(), "gone") {
			t.Errorf("without FORCE: %v", err)
		}
		must(t, console, "TWOPC "+word+" '"+name+"' FORCE")
		if got := second.Value("app", fmt.Sprintf("SELECT count(*) FROM customers WHERE id = %d", n)); got != fmt.Sprint(1-n) {
			t.Errorf("%s: %s rows", word, got)
		}
		eventually(t, "ended", func() bool { return len(shownBy(t, console, "SHOW TWOPC")) == 0 })
		log, err := os.ReadFile(strings.TrimSuffix(s.path, "shardproxy.yaml") + "log")
		if err != nil {
			t.Fatal(err)
		}
		told := false
		for line := range strings.Lines(string(log)) {
			told = told || strings.Contains(line, "ended by hand") && strings.Contains(line, name) && strings.Contains(line, "by=app")
		}
		if !told {
			t.Errorf("%s: the log does not say who did it:\n%s", word, log)
		}
	}
}

// TestSnapshotConfigured: what queries over several shards see is what the user's configuration says, else the
// database's, and the session's word is before both.
func TestSnapshotConfigured(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	console, _ := s.consoleOf()
	text, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	s.connectLoaded()
	for _, test := range []struct {
		database, user, session string
		whole                   bool
	}{
		{"", "", "", true}, {"off", "", "", false}, {"transaction", "", "", true}, {"statement", "off", "", false}, {"off", "statement", "", true},
		{"off", "off", "statement", true}, {"statement", "transaction", "off", false}, {"off", "", "transaction", true},
	} {
		now := string(text)
		if test.user != "" {
			now = strings.Replace(now, "- {name: app, ", "- {name: app, snapshot: "+test.user+", ", 1)
		}
		if test.database != "" {
			now = strings.Replace(now, "    catalog:", "    snapshot: "+test.database+"\n    catalog:", 1)
		}
		s.write(now)
		must(t, console, "RELOAD")
		c := s.connect()
		ways := map[string]string{"of its own": "", "READ COMMITTED": "BEGIN", "REPEATABLE READ": "BEGIN ISOLATION LEVEL REPEATABLE READ"}
		for way, begin := range ways {
			if test.session != "" {
				must(t, c, "SET shardproxy.snapshot = "+test.session)
			}
			before := s.sample("shardproxy_fence_windows_total")
			if begin != "" {
				must(t, c, begin)
			}
			must(t, c, "SELECT id FROM customers ORDER BY id")
			if begin != "" {
				must(t, c, "COMMIT")
			}
			if opened := s.sample("shardproxy_fence_windows_total") > before; opened != test.whole {
				t.Errorf("%+v, %s: a window was opened: %v", test, way, opened)
			}
		}
		_ = c.Close(context.Background())
	}
}
