package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// TestDrawsAfterPromotion promotes a replica of the home shard that has not heard of the last values drawn from a
// sequence: no proxy gives one of them once more.
func TestDrawsAfterPromotion(t *testing.T) {
	s := startShardsOf(t, 2, pgtest.Options{Replicas: 1, Settings: map[string]string{"max_prepared_transactions": "50"}}, "      buyers: {key: id}")
	for _, cl := range s.shards {
		must(t, pgtest.Connect(t, cl.Primary().DSN("app", "app")), "CREATE TABLE buyers (id bigserial PRIMARY KEY, name text)")
	}
	text := s.text()
	for _, cl := range s.shards {
		text = strings.Replace(text, fmt.Sprintf("[%q]", cl.Primary().Addr()), fmt.Sprintf("[%q, %q]", cl.Primary().Addr(), cl.Replicas()[0].Addr()), 1)
	}
	var clients []*pgx.Conn
	for range 2 {
		px := &proxied{t: t, addr: freeAddr(t), path: filepath.Join(t.TempDir(), "shardproxy.yaml")}
		px.write(strings.NewReplacer(s.addr, px.addr, adminOf(text), freeAddr(t)).Replace(text))
		px.run()
		clients = append(clients, (&shardedProgram{proxied: px}).connectLoaded())
	}

	var mu sync.Mutex
	given := map[int64]bool{}
	insert := func(n int) {
		var all sync.WaitGroup
		for _, c := range clients {
			all.Go(func() {
				for range n {
					var id int64
					if err := c.QueryRow(within(t, 20*time.Second), "INSERT INTO buyers (name) VALUES ('x') RETURNING id").Scan(&id); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					if given[id] {
						t.Errorf("%d was given twice", id)
					}
					given[id] = true
					mu.Unlock()
				}
			})
		}
		all.Wait()
	}
	insert(30)
	heir := s.shards[0].Replicas()[0]
	heir.Exec("postgres", "ALTER SYSTEM SET primary_conninfo = ''")
	heir.Exec("postgres", "SELECT pg_reload_conf()")
	eventually(t, "the replica hears nothing more", func() bool { return heir.Value("app", "SELECT count(*) FROM pg_stat_wal_receiver") == "0" })
	insert(300)
	last := s.shards[0].Primary().Value("app", "SELECT last_value FROM buyers_id_seq")
	s.shards[0].Primary().Kill9()
	heir.Promote()
	if behind := heir.Value("app", "SELECT last_value FROM buyers_id_seq"); behind == last {
		t.Fatalf("the replica has the last value, %s: nothing is tested", last)
	}
	for _, c := range clients {
		eventually(t, "the home shard gives values", func() bool {
			_, err := c.Exec(within(t, 20*time.Second), "SELECT nextval('buyers_id_seq')")
			return err == nil
		})
	}
	insert(300)
	if len(given) != 2*630 {
		t.Errorf("%d ids", len(given))
	}
}
