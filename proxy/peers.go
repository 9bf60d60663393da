package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"shardproxy/wire"
)

// Bounds of what processes do for each other.
const (
	maxPeers      = 32              // asked for one cancel request
	passedAtOnce  = 64              // cancel requests that are being passed on
	servedAtOnce  = 256             // and those that are served for others
	peerTime      = 6 * time.Second // to pass one on: longer than a session may take to tell its server
	unfinishedAge = time.Minute     // of a socket that was made and never took its name
	peerPrefix    = "peer."
	newPrefix     = "new."
	peerHasIt     = 'Y'
	peerHasItNot  = 'N'
)

// Peers passes cancel requests on between the processes of one machine: a cancel
// request is a connection of its own, which may reach another process than the
// one that has the session.
//
// Each process listens on a Unix-domain socket in a folder that only its own user
// can open. A request whose key a process does not know goes to all others there,
// who look among their own sessions only, so that it is passed on once and never
// round. They answer with one byte; the client is told nothing, as in PostgreSQL.
//
// Design: docs/design/restart.md.
type Peers struct {
	dir   string
	log   *slog.Logger
	own   func(wire.CancelKey) bool
	slots chan struct{} // one entry for each request that is being passed on
	tasks sync.WaitGroup

	// received counts requests of others that named a session here.
	received atomic.Int64

	// mu guards what follows.
	mu       sync.Mutex
	name     string
	listener *net.UnixListener // nil before open and after close
	conns    map[net.Conn]struct{}
}

// Peer is another process of this machine.
type Peer struct {
	PID  int
	Path string // its socket
}

// NewPeers returns Peers that meet in the folder; nothing is opened.
func NewPeers(dir string, log *slog.Logger) *Peers {
	return &Peers{dir: dir, log: log, slots: make(chan struct{}, passedAtOnce), conns: map[net.Conn]struct{}{}}
}

// open makes the folder and this process's socket, removes what dead processes
// left, and serves others until close. own cancels a session of this process's.
func (p *Peers) open(own func(wire.CancelKey) bool) error {
	if err := privateFolder(p.dir); err != nil {
		return err
	}
	tag := make([]byte, 4)
	rand.Read(tag) // never fails
	name := strconv.Itoa(os.Getpid()) + "." + hex.EncodeToString(tag)
	// Nobody listens on a socket that is just bound: others would take it for a
	// dead process's. So it gets its name when it is ready.
	fresh := filepath.Join(p.dir, newPrefix+name)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	l.SetUnlinkOnClose(false) // by a name that it no longer has
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, filepath.Join(p.dir, peerPrefix+name))); err != nil {
		_ = l.Close() // the first error is the one to report
		return fmt.Errorf("listen for peers: %w", err)
	}
	p.mu.Lock()
	p.own, p.name, p.listener = own, peerPrefix+name, l
	p.mu.Unlock()
	p.tasks.Go(func() { p.accept(l) })
	p.sweep()
	return nil
}

// privateFolder makes sure that nobody else can put a socket there: cancel keys
// are sent to all that are found.
func privateFolder(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s: not a folder", dir)
	case ok && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s: belongs to user %d, not to that of this process (%d)", dir, st.Uid, os.Geteuid())
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s: has mode %04o, other users can get in; it must have 0700", dir, info.Mode().Perm())
	}
	return nil
}

// close ends the listening and waits for the requests that are being served.
func (p *Peers) close() {
	p.mu.Lock()
	if p.listener != nil {
		_ = os.Remove(filepath.Join(p.dir, p.name)) // it may be gone
		_ = p.listener.Close()
		p.listener = nil
	}
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.tasks.Wait()
}

func (p *Peers) accept(l *net.UnixListener) {
	slots := make(chan struct{}, servedAtOnce)
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			p.log.Warn("accept of a peer failed", "error", err)
			<-time.After(100 * time.Millisecond) // out of descriptors, most likely: it passes
			continue
		}
		if !p.keep(c) {
			return
		}
		slots <- struct{}{}
		p.tasks.Go(func() {
			p.serve(c)
			<-slots
		})
	}
}

// keep notes a connection for close; false when that has been called.
func (p *Peers) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil {
		_ = c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

// serve deals with one cancel request of another process.
func (p *Peers) serve(c net.Conn) {
	defer func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
		_ = c.Close()
	}()
	_ = c.SetDeadline(time.Now().Add(peerTime)) // fails when it is closed
	start, err := wire.ReadStartup(c, 1<<10)
	if err != nil || start.Kind != wire.StartupCancel {
		return // somebody who looked whether we live
	}
	answer := byte(peerHasItNot)
	if p.own(start.Cancel) {
		p.received.Add(1)
		answer = peerHasIt
	}
	_, _ = c.Write([]byte{answer}) // the other may have given up
}

// passOn asks the other processes to cancel the session with the key, and
// reports whether one of them has it. It returns as soon as one says so.
func (p *Peers) passOn(ctx context.Context, key wire.CancelKey) bool {
	ctx, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		p.log.Warn("cancel request not passed on: too many at once", "pid", key.PID)
		return false
	}
	peers := p.List()
	if len(peers) > maxPeers {
		p.log.Warn("cancel request passed on to some processes only: there are too many", "processes", len(peers), "asked", maxPeers)
		peers = peers[:maxPeers]
	}
	answers := make(chan bool, len(peers))
	for _, peer := range peers {
		p.tasks.Go(func() { answers <- p.ask(ctx, peer, key) })
	}
	for range peers {
		if <-answers {
			return true
		}
	}
	return false
}

// ask passes a cancel request on to one process, and waits until it has dealt with it.
func (p *Peers) ask(ctx context.Context, peer Peer, key wire.CancelKey) (known bool) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", peer.Path)
	if err != nil {
		p.removeDead(peer, err)
		return false
	}
	defer c.Close()
	// Another one has answered, or the time is over.
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if _, err := c.Write(wire.AppendCancelRequest(nil, key)); err != nil {
		return false // it ends, and its sessions have
	}
	answer := make([]byte, 1)
	if _, err := c.Read(answer); err != nil {
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			p.log.Warn("a process does not answer a cancel request that was passed on", "process", peer.PID)
		}
		return false
	}
	return answer[0] == peerHasIt
}

// removeDead removes the socket of a process that has ended without doing so. Its
// name has a random part and is nobody else's.
func (p *Peers) removeDead(peer Peer, err error) {
	if errors.Is(err, syscall.ECONNREFUSED) && os.Remove(peer.Path) == nil {
		p.log.Info("the socket of a dead process was removed", "process", peer.PID)
	}
}

// sweep removes what dead processes left.
func (p *Peers) sweep() {
	for _, peer := range p.List() {
		c, err := net.DialTimeout("unix", peer.Path, time.Second)
		if err != nil {
			p.removeDead(peer, err)
			continue
		}
		_ = c.Close()
	}
	left, err := filepath.Glob(filepath.Join(p.dir, newPrefix+"*"))
	if err != nil {
		return // the folder's name is no pattern
	}
	for _, path := range left {
		if info, err := os.Lstat(path); err == nil && time.Since(info.ModTime()) > unfinishedAge {
			_ = os.Remove(path) // another process may have been faster
		}
	}
}

// List returns the other processes that are found now, dead ones among them that
// nobody has met since. nil stands for no Peers.
func (p *Peers) List() []Peer {
	if p == nil {
		return nil
	}
	files, err := os.ReadDir(p.dir)
	if err != nil {
		p.log.Warn("the folder of the peers cannot be read", "error", err)
		return nil
	}
	p.mu.Lock()
	own := p.name
	p.mu.Unlock()
	var all []Peer
	for _, f := range files {
		name, found := strings.CutPrefix(f.Name(), peerPrefix)
		if !found || f.Name() == own {
			continue
		}
		number, _, _ := strings.Cut(name, ".")
		pid, err := strconv.Atoi(number)
		if err != nil {
			continue // not one of ours
		}
		all = append(all, Peer{PID: pid, Path: filepath.Join(p.dir, f.Name())})
	}
	slices.SortFunc(all, func(a, b Peer) int { return a.PID - b.PID })
	return all
}
