package main

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestSilentShard stops all processes of a shard's primary, as a machine that hangs,
// under what runs on several shards: nothing waits for ever, and nothing is kept.
func TestSilentShard(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2, "    failover: {probe_interval: 200ms, probe_timeout: 500ms, fail_after: 2, recover_after: 1, hold_timeout: 1s}\n")
	loaded := s.connectLoaded()
	must(t, loaded, "INSERT INTO customers SELECT 1, 'x'")
	rows := func(from int) string {
		var b strings.Builder
		b.WriteString("INSERT INTO customers VALUES ")
		for i := range 20 {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString("(" + strconv.Itoa(from+i) + ", 'y')")
		}
		return b.String()
	}
	for i, test := range []struct {
		name string
		run  func(ctx context.Context, c *pgx.Conn, stop func()) error
	}{
		{"a split INSERT", func(ctx context.Context, c *pgx.Conn, stop func()) error {
			stop()
			_, err := c.Exec(ctx, rows(1000))
			return err
		}},
		{"one in a transaction", func(ctx context.Context, c *pgx.Conn, stop func()) error {
			if _, err := c.Exec(ctx, "BEGIN"); err != nil {
				return err
			}
			if _, err := c.Exec(ctx, rows(2000)); err != nil {
				return err
			}
			stop()
			_, err := c.Exec(ctx, rows(3000))
			return err
		}},
		{"a COPY that begins", func(ctx context.Context, c *pgx.Conn, stop func()) error {
			stop()
			_, err := c.PgConn().CopyFrom(ctx, strings.NewReader("1\tx\n"), "COPY customers FROM STDIN")
			return err
		}},
		{"a COPY", func(ctx context.Context, c *pgx.Conn, stop func()) error {
			return copySlowly(ctx, c, stop)
		}},
		{"a batch", func(ctx context.Context, c *pgx.Conn, stop func()) error {
			b := &pgx.Batch{}
			for i := range 20 {
				b.Queue("INSERT INTO customers VALUES ($1, 'z')", 5000+i)
			}
			stop()
			return c.SendBatch(ctx, b).Close()
		}},
	} {
		c := s.connect()
		node := s.shards[1].Primary()
		ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
		began := time.Now()
		err := test.run(ctx, c, node.Pause)
		took := time.Since(began)
		node.Resume()
		if err == nil || ctx.Err() != nil {
			t.Errorf("%s: %v after %v", test.name, err, took)
		}
		cancel()
		t.Logf("%d, %s: %v after %v", i, test.name, err, took)
		eventually(t, "the shard is back", func() bool {
			c, err := pgx.Connect(within(t, 10*time.Second), s.dsn())
			if err != nil {
				return false
			}
			defer c.Close(context.Background())
			_, err = c.Exec(within(t, 10*time.Second), rows(10_000*(i+1))+" ON CONFLICT DO NOTHING")
			return err == nil
		})
		eventually(t, "nothing is kept", func() bool {
			return strings.Join(s.onEach("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'"), "") == "00"
		})
	}
	if got := s.onEach("SELECT count(*) FROM customers WHERE id BETWEEN 1000 AND 9999"); got[0]+got[1] != "00" {
		t.Errorf("what failed is there: %v", got)
	}
}

// copySlowly begins a COPY, stops the shard, and goes on.
func copySlowly(ctx context.Context, c *pgx.Conn, stop func()) error {
	var data strings.Builder
	for i := range 60_000 {
		data.WriteString(strconv.Itoa(100_000+i) + "\t" + strings.Repeat("n", 300) + "\n")
	}
	_, err := c.PgConn().CopyFrom(ctx, &halfway{r: strings.NewReader(data.String()), stop: stop}, "COPY customers FROM STDIN")
	return err
}

// halfway calls stop once some of it has been read.
type halfway struct {
	r     *strings.Reader
	stop  func()
	reads int
}

func (h *halfway) Read(p []byte) (int, error) {
	if h.reads++; h.reads == 3 {
		h.stop()
	}
	return h.r.Read(p)
}
