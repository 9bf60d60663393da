package cache

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestNotices has two proxies keep results of one database, of which one is cut off in the end.
func TestNotices(t *testing.T) {
	db := pgtest.Shared(t)
	cfg, err := pgx.ParseConfig(db.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	fp := faultproxy.Start(t, faultproxy.Options{Target: db.Node.Addr()})
	through := func(port uint16) func(context.Context) (*pgx.Conn, error) {
		c := cfg.Copy()
		c.Host, c.Port, c.Fallbacks = "127.0.0.1", port, nil
		return func(ctx context.Context) (*pgx.Conn, error) { return pgx.ConnectConfig(ctx, c) }
	}
	open := func(self string, port int) *Cache {
		var n *Notices
		c := New(Options{Bytes: 1 << 20, Entry: 100, Touched: func(tables []string, all bool) { n.Tell(tables, all) }})
		n = Listen(NoticesOptions{Connect: through(uint16(port)), Self: self, Cache: c, Gather: 10 * time.Millisecond, Interval: 200 * time.Millisecond})
		t.Cleanup(n.Close)
		return c
	}
	a, b := open("a", int(cfg.Port)), open("b", fp.Port())
	until := func(what string, holds func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !holds(); <-time.After(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not in 20 s: %s", what)
			}
		}
	}
	until("both hear", func() bool { return a.Stats().Open && b.Stats().Open })
	has := func(c *Cache, key string) bool { return c.Get([]byte(key), time.Now()) != nil }
	for range 20 {
		for _, c := range []*Cache{a, b} {
			store(t, c, "one", "1", time.Now(), "p.t")
			store(t, c, "other", "2", time.Now(), "p.u")
		}
		a.Touch([]string{"p.t", "p.w"}, false)
		if has(a, "one") || !has(a, "other") {
			t.Fatal("who writes keeps what it has written to")
		}
		until("the other one hears of a table", func() bool { return !has(b, "one") })
		if !has(b, "other") {
			t.Fatal("a table drops what does not hang on it")
		}
		b.Touch(nil, true)
		until("the first hears of all", func() bool { return !has(a, "other") })
	}
	long := make([]string, 300)
	for i := range long {
		long[i] = "some.table_with_a_long_name_that_fills_the_notice_" + string(rune('a'+i%26))
	}
	store(t, b, "one", "1", time.Now(), "p.t")
	a.Touch(append(long, long[0]), false) // is told by its names
	for i := range long {
		long[i] += string(rune('a' + i/26))
	}
	a.Touch(long, false) // too many
	until("too many tables are all", func() bool { return !has(b, "one") })

	store(t, b, "one", "1", time.Now(), "p.t")
	fp.Stall()
	until("who is cut off keeps nothing", func() bool { return !b.Stats().Open && !has(b, "one") })
	a.Touch([]string{"p.t"}, false)
	fp.Unstall()
	until("it is back", func() bool { return b.Stats().Open })
	store(t, b, "one", "1", time.Now(), "p.t")
	a.Touch([]string{"p.t"}, false)
	until("it hears again", func() bool { return !has(b, "one") })
	fp.KillAll()
	b.Touch([]string{"p.t"}, false)
	store(t, a, "one", "1", time.Now(), "p.t")
	until("what was not told is told later", func() bool { return !has(a, "one") })
}
