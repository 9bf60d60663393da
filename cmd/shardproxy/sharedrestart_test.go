package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// restarts is how often TestRestartUnderLoad changes the process.
const restarts = 20

// restartLoad is what clients do while processes change, and what they meet.
type restartLoad struct {
	stop              chan struct{}
	running           sync.WaitGroup
	connections, slow atomic.Int64
	transactions      atomic.Int64
	drained           atomic.Int64
	failed            chan error
}

func (l *restartLoad) report(err error) {
	select {
	case l.failed <- err:
	default: // there are enough
	}
}

func (l *restartLoad) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// connecting connects, asks one thing and leaves, all the time. Nothing of it may fail.
func (l *restartLoad) connecting(dsn string) {
	for !l.stopped() {
		begin := time.Now()
		err := once(dsn)
		if err != nil {
			l.report(fmt.Errorf("a new connection, after %v: %w", time.Since(begin), err))
		}
		l.connections.Add(1)
		if time.Since(begin) > 900*time.Millisecond {
			l.slow.Add(1)
		}
	}
}

func once(dsn string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, "SELECT 1")
	return errors.Join(err, c.Close(ctx))
}

// staying runs transactions on connections that it keeps. They may be ended
// between transactions (57P01), and never within one.
func (l *restartLoad) staying(dsn string) {
	for !l.stopped() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		c, err := pgx.Connect(ctx, dsn)
		if err != nil {
			l.report(fmt.Errorf("a connection to stay: %w", err))
			cancel()
			continue
		}
		for err == nil && !l.stopped() {
			begun := false
			if _, err = c.Exec(ctx, "BEGIN"); err == nil {
				begun = true
				_, err = c.Exec(ctx, "SELECT pg_sleep(0.02)")
			}
			if err == nil {
				_, err = c.Exec(ctx, "COMMIT")
			}
			switch {
			case err == nil:
				l.transactions.Add(1)
			case begun || sqlState(err) != "57P01" && !gone(err):
				l.report(fmt.Errorf("in a transaction %v: %w", begun, err))
			default:
				l.drained.Add(1)
			}
		}
		_ = c.Close(ctx)
		cancel()
	}
}

// gone reports whether the connection was found closed: its last words came to
// nobody who read them.
func gone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// TestRestartUnderLoad changes the process again and again, by SIGINT, while
// clients connect in a tight loop, over TCP and by the socket, and others run
// transactions. Nobody is refused, reset, or ended within a transaction.
func TestRestartUnderLoad(t *testing.T) {
	t.Parallel()
	ps := startProcess(t, sharedText)
	dir := filepath.Dir(ps.path)
	socket := filepath.Join(dir, ".s.PGSQL."+portOf(t, ps.addr))
	l := &restartLoad{stop: make(chan struct{}), failed: make(chan error, 20)}
	for range 4 {
		l.running.Go(func() { l.connecting(ps.dsn()) })
	}
	l.running.Go(func() { l.connecting(dsnOfSocket(dir, portOf(t, ps.addr))) })
	l.running.Go(func() { l.staying(ps.dsn()) })
	l.running.Go(func() { l.staying(dsnOfSocket(dir, portOf(t, ps.addr))) })
	for range restarts {
		next := ps.beside("")
		next.logged("another process has the admin address")
		ps.signal(syscall.SIGINT)
		ps.endsWithin(20 * time.Second)
		next.logged("the admin address is taken over")
		eventually(t, "the next one is ready", func() bool { return next.get("/readyz") == http.StatusOK })
		ps = next
	}
	close(l.stop)
	l.running.Wait()
	for len(l.failed) > 0 {
		t.Error(<-l.failed)
	}
	t.Logf("%d restarts: %d connections, %d of them waited for a second; %d transactions, %d connections ended between two", restarts,
		l.connections.Load(), l.slow.Load(), l.transactions.Load(), l.drained.Load())
	if l.drained.Load() == 0 || l.connections.Load() < 100 {
		t.Error("that is no load")
	}
	if peers, err := os.ReadDir(filepath.Join(dir, ".shardproxy-peers")); err != nil || len(peers) != 1 {
		t.Errorf("sockets of peers: %v, %v", peers, err)
	}
	ps.signal(syscall.SIGINT)
	ps.endsWithin(20 * time.Second)
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the last one leaves its socket: %v", err)
	}
	if c, err := net.Dial("tcp", ps.addr); err == nil {
		_ = c.Close()
		t.Error("somebody listens still")
	}
}
