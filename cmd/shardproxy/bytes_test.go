package main

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// countedConn counts what a client sends and gets.
type countedConn struct {
	net.Conn
	sent, received *atomic.Int64
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(int64(n))
	return n, err
}

func (c countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// TestBytesOfSessions: what a session sends and gets is counted while it lasts, not when it ends.
func TestBytesOfSessions(t *testing.T) {
	t.Parallel()
	px := startProgram(t, pgtest.Start(t, pgtest.Options{}), configText)
	cfg, err := pgx.ParseConfig(px.dsn())
	if err != nil {
		t.Fatal(err)
	}
	var sent, received atomic.Int64
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return countedConn{c, &sent, &received}, err
	}
	connect := func() *pgx.Conn {
		c, err := pgx.ConnectConfig(within(t, 10*time.Second), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	totals := px.p.state.Load().databases["app"].proxy.Totals
	// The first messages of a login are no database's: what they are a session that does nothing shows.
	_ = connect().Close(context.Background())
	eventually(t, "a session has ended", func() bool { return totals().Received > 0 && totals().Sent > 0 })
	loginSent, loginReceived := sent.Load()-totals().Received, received.Load()-totals().Sent
	c := connect()
	defer func() { _ = c.Close(context.Background()) }()
	for _, sql := range []string{"SELECT 1", "BEGIN", "SELECT repeat('x', 300000)", "COMMIT", "SELECT 2"} {
		must(t, c, sql)
		eventually(t, sql+": the bytes are counted", func() bool {
			is := totals()
			return is.Received+2*loginSent == sent.Load() && is.Sent+2*loginReceived == received.Load()
		})
	}
}
