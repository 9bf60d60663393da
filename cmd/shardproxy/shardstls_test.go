package main

import (
	"io"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// TestShardsTLS: over TLS what takes longer than the looks at whether it is still wanted
// comes to its end all the same.
func TestShardsTLS(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShardsOf(t, 2, pgtest.Options{TLS: true}, "runtime: {driver: "+driver+"}")
			c := s.connectLoaded()
			if got := s.onEach("SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND usename = 'app' AND pid <> pg_backend_pid()"); got[0]+got[1] == "00" {
				t.Fatalf("no connection is encrypted: %v", got)
			}
			must(t, c, "INSERT INTO customers VALUES (1, 'a'), (2, pg_sleep(0.3)::text), (3, 'c'), (4, pg_sleep(0.3)::text), (5, 'e')")
			must(t, c, "UPDATE products SET name = 'x' WHERE id = 1")
			r, w := io.Pipe()
			go func() {
				for range 3 {
					_, _ = w.Write([]byte("1" + time.Now().Format("150405") + "\tx\n")) // the reader may be gone
					<-time.After(1100 * time.Millisecond)
				}
				w.CloseWithError(io.EOF)
			}()
			tag, err := c.PgConn().CopyFrom(within(t, 20*time.Second), r, "COPY customers FROM STDIN")
			if err != nil || tag.RowsAffected() != 3 {
				t.Errorf("%v, %v", tag, err)
			}
			must(t, c, "SELECT * FROM customers WHERE id = 1")
		})
	}
}
