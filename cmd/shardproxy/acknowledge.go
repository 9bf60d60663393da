package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/metadata"
)

// A proxy tells the home shard by which version of the slot map it works: what moves slots waits for that. It does so before
// it reads the map for the first time, whenever there is a new one, until nothing of it works by an older one, and every
// ackBeat besides, for a home shard that has failed over may have lost it.
const (
	ackBeat    = 5 * time.Second
	ackPoll    = 5 * time.Millisecond
	ackTimeout = 5 * time.Second
	ackRetry   = 100 * time.Millisecond
)

// acknowledger tells it for one database.
type acknowledger struct {
	c    *cluster
	poke chan struct{}

	mu   sync.Mutex
	conn *pgx.Conn
	told metadata.Acknowledgement
	was  bool // it has told something
	// missed is set when nobody waited for this proxy for a time, until it is known up to which epoch.
	missed bool
}

func newAcknowledger(c *cluster) *acknowledger {
	host, _ := os.Hostname() // a name for people
	a := &acknowledger{c: c, poke: make(chan struct{}, 1)}
	a.told = metadata.Acknowledgement{Proxy: c.self, Host: fmt.Sprintf("%s, process %d", host, os.Getpid()), Shards: c.names()}
	return a
}

// first tells that there is this proxy, which knows no map yet.
func (a *acknowledger) first(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tellLocked(ctx, a.told)
}

// confirm tells what holds now, whether that is new or not, and returns the home shard's epoch.
func (a *acknowledger) confirm(ctx context.Context) (epoch int64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.tellLocked(ctx, a.nowLocked()); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	err = a.conn.QueryRow(ctx, "SELECT epoch FROM shardproxy.epoch").Scan(&epoch)
	return epoch, err
}

// tellLocked stores what is given. The connection is kept for the next time.
func (a *acknowledger) tellLocked(ctx context.Context, what metadata.Acknowledgement) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	if a.conn == nil || a.conn.IsClosed() {
		conn, err := a.c.db.shards[0].connect(ctx)
		if err != nil {
			return err
		}
		a.conn = conn
		if err := metadata.Present(ctx, conn, what.Proxy); err != nil {
			a.dropLocked()
			return err
		}
	}
	fresh, err := metadata.Acknowledge(ctx, a.conn, what)
	a.missed = a.missed || a.was && (fresh || err != nil) // what came of an error is not known
	if err == nil && a.missed {
		// Behind the commit: what comes later is waited for by whoever makes another map.
		var epoch int64
		if err = a.conn.QueryRow(ctx, "SELECT epoch FROM shardproxy.epoch").Scan(&epoch); err == nil {
			if fresh {
				a.c.log.Warn("this proxy was cut off from the shards: for a time moves of slots did not wait for it", "epoch", epoch)
			}
			a.c.since.Store(max(epoch, a.c.since.Load()))
			a.missed = false
		}
	}
	if err != nil {
		a.dropLocked()
		return err
	}
	a.told, a.was = what, true
	return nil
}

func (a *acknowledger) dropLocked() {
	if a.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = a.conn.Close(ctx) // there is nobody left to tell
	a.conn = nil
}

// run tells what changes until ctx ends; then the proxy serves the cluster no more.
func (a *acknowledger) run(ctx context.Context) {
	defer a.leave()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for beat := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-a.poke:
		case <-timer.C:
		}
		if a.c.lost.Load() {
			return // it refuses all, and is not to be waited for
		}
		a.mu.Lock()
		now := a.nowLocked()
		wait := time.Until(beat.Add(ackBeat))
		due := a.conn == nil || a.conn.IsClosed() || now.Epoch != a.told.Epoch || now.Writes != a.told.Writes || now.Statements != a.told.Statements || wait <= 0
		var err error
		if due {
			err = a.tellLocked(ctx, now)
		}
		a.mu.Unlock()
		if due {
			if err != nil {
				a.c.log.Warn("the home shard was not told by which slot map this proxy works", "epoch", now.Epoch, "error", err)
				timer.Reset(ackRetry)
				continue
			}
			beat, wait = time.Now(), ackBeat
		}
		if now.Writes < now.Epoch || now.Statements < now.Epoch {
			wait = ackPoll
		}
		timer.Reset(wait)
	}
}

// nowLocked is what is to be told.
func (a *acknowledger) nowLocked() metadata.Acknowledgement {
	is := a.told
	is.Epoch = a.c.owners().Epoch()
	is.Writes, is.Statements = a.c.db.deps.kept(a.c.db.proxy, is.Epoch)
	return is
}

// end takes leave where that has not been done: a proxy that never knew a map has told that it is there.
func (a *acknowledger) end() {
	a.mu.Lock()
	told := a.conn != nil
	a.mu.Unlock()
	if told {
		a.leave()
	}
}

// leave takes the proxy away from those that are waited for: no session is left.
func (a *acknowledger) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.dropLocked()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn := a.conn
	if conn == nil || conn.IsClosed() {
		var err error
		if conn, err = a.c.db.shards[0].connect(ctx); err != nil {
			return // an operator may take it away
		}
		a.conn = conn
	}
	if _, err := metadata.Forget(ctx, conn, a.told.Proxy); err != nil {
		a.c.log.Warn("this proxy is still among those that moves of slots wait for", "proxy", a.told.Proxy, "error", err)
	}
}
