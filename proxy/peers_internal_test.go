package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"shardproxy/wire"
)

// peersOf opens Peers of a process that has the session with the key.
func peersOf(t *testing.T, dir string, has wire.CancelKey) (*Peers, *atomic.Int64) {
	t.Helper()
	cancelled := &atomic.Int64{}
	p := NewPeers(dir, slog.New(slog.DiscardHandler))
	t.Cleanup(p.close)
	if err := p.open(func(key wire.CancelKey) bool {
		if key != has {
			return false
		}
		cancelled.Add(1)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return p, cancelled
}

// TestPeersPassOn: the process with the whole key cancels, once, and no other.
func TestPeersPassOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "peers")
	long := strings.Repeat("s", 256)
	keys := []wire.CancelKey{{PID: 1, Secret: "abcd"}, {PID: 1, Secret: "abce"}, {PID: 2, Secret: long}}
	var all []*Peers
	var counts []*atomic.Int64
	for _, k := range keys {
		p, n := peersOf(t, dir, k)
		all, counts = append(all, p), append(counts, n)
	}
	for i, k := range keys {
		for from, p := range all {
			if got := p.passOn(t.Context(), k); got != (from != i) {
				t.Errorf("key %d from process %d: known %v", i, from, got)
			}
		}
		if n := counts[i].Load(); n != 2 {
			t.Errorf("process %d cancelled %d times", i, n)
		}
	}
	for _, k := range []wire.CancelKey{{PID: 1, Secret: "abcf"}, {PID: 1, Secret: "abcde"}, {PID: 3, Secret: "abcd"}, {PID: 2, Secret: long[1:]}} {
		if all[0].passOn(t.Context(), k) {
			t.Errorf("%d bytes: somebody has the key", len(k.Secret))
		}
	}
	for _, p := range all {
		if n := p.received.Load(); n != 2 {
			t.Errorf("%d received", n)
		}
	}
	all[2].close()
	if left := all[0].List(); len(left) != 1 || all[0].passOn(t.Context(), keys[2]) {
		t.Errorf("one has ended, and %v are left", left)
	}
}

// TestPeersHang: a process that hangs delays what nobody else knows, for a time, and nothing else.
func TestPeersHang(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	hanging, err := net.Listen("unix", filepath.Join(dir, "peer.1.00c0ffee"))
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close() // nothing is accepted
	key := wire.CancelKey{PID: 7, Secret: "abcd"}
	a, _ := peersOf(t, dir, wire.CancelKey{})
	_, cancelled := peersOf(t, dir, key)
	unknown := make(chan time.Duration)
	go func() {
		begin := time.Now()
		if a.passOn(t.Context(), wire.CancelKey{PID: 8, Secret: "abcd"}) {
			t.Error("somebody knows it")
		}
		unknown <- time.Since(begin)
	}()
	begin := time.Now()
	for range 50 {
		if !a.passOn(t.Context(), key) {
			t.Error("the one that has it was not asked")
		}
	}
	if d := time.Since(begin); cancelled.Load() != 50 || d > peerTime/2 {
		t.Errorf("%d of 50 were cancelled, in %v", cancelled.Load(), d)
	}
	if d := <-unknown; d < peerTime-time.Second || d > 2*peerTime {
		t.Errorf("what nobody knows took %v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if a.passOn(ctx, wire.CancelKey{PID: 8, Secret: "abcd"}) { // at the end of the process
		t.Error("somebody knows it")
	}
}

// TestPeersFull: more requests than may be on their way wait, and are given up.
func TestPeersFull(t *testing.T) {
	p, _ := peersOf(t, filepath.Join(t.TempDir(), "peers"), wire.CancelKey{})
	for range passedAtOnce {
		p.slots <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if p.passOn(ctx, wire.CancelKey{PID: 1}) || ctx.Err() == nil {
		t.Error("it was passed on")
	}
}

// TestPeersDead removes what dead processes left, at the start and when it is met; nothing else.
func TestPeersDead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "peers")
	dead := func(name string) string {
		path := filepath.Join(dir, name)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	there := func(path string) bool {
		_, err := os.Lstat(path)
		return !errors.Is(err, os.ErrNotExist)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	before, old, fresh := dead("peer.1.00000001"), dead("new.1.00000002"), dead("new.1.00000003")
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-2*unfinishedAge)); err != nil {
		t.Fatal(err)
	}
	p, _ := peersOf(t, dir, wire.CancelKey{})
	if there(before) || there(old) || !there(fresh) {
		t.Errorf("dead %v, old %v, beginning %v", there(before), there(old), there(fresh))
	}
	later := dead("peer.1.00000004")
	if p.passOn(t.Context(), wire.CancelKey{PID: 1, Secret: "abcd"}) || there(later) {
		t.Error("who died later is still there")
	}
	if len(p.List()) != 0 {
		t.Errorf("peers: %v", p.List())
	}
}

// TestPeersPrivate: a folder that others can get into is refused, and what is made is closed to them.
func TestPeersPrivate(t *testing.T) {
	dir := t.TempDir()
	open, link, file := filepath.Join(dir, "open"), filepath.Join(dir, "link"), filepath.Join(dir, "file")
	if err := errors.Join(os.Mkdir(open, 0o750), os.Chmod(open, 0o750), os.Mkdir(filepath.Join(dir, "real"), 0o700),
		os.Symlink(filepath.Join(dir, "real"), link), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{open: "mode 0750", link: "not a folder", file: "not a folder", filepath.Join(dir, "no", "parent"): "no such file"} {
		err := NewPeers(path, slog.New(slog.DiscardHandler)).open(nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	good := filepath.Join(dir, "good")
	p, _ := peersOf(t, good, wire.CancelKey{})
	for path, want := range map[string]os.FileMode{good: os.ModeDir | 0o700, filepath.Join(good, p.name): os.ModeSocket | 0o600} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// TestPeersNonsense: what is no cancel request gets no answer, and does no harm.
func TestPeersNonsense(t *testing.T) {
	p, cancelled := peersOf(t, filepath.Join(t.TempDir(), "peers"), wire.CancelKey{PID: 1, Secret: "abcd"})
	for _, text := range []string{"", "nonsense", "\x00\x00\x00\x08\x04\xd2\x16\x2f", "\x00\x00\x00\x0c\x04\xd2\x16\x2e\x00\x00\x00\x01", "\xff\xff\xff\xff"} {
		c, err := net.Dial("unix", filepath.Join(p.dir, p.name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Write([]byte(text))
		if err == nil {
			err = c.(*net.UnixConn).CloseWrite()
		}
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); len(b) > 0 {
			t.Errorf("%q is answered: %q, %v", text, b, err)
		}
		_ = c.Close()
	}
	if cancelled.Load() != 0 {
		t.Error("something was cancelled")
	}
}
