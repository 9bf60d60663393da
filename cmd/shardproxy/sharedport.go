package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Times of leaving a port that other processes listen on too.
const (
	// leaveTime is for handshakes under way: longer than a round trip, and shorter
	// than the second after which a client tries again whose first packet was dropped.
	leaveTime = 250 * time.Millisecond
	queueTime = 500 * time.Millisecond // for Accept to empty the queue, behind it
	queueLook = 5 * time.Millisecond
)

// sharedTCP is a listener on an address that other processes listen on too.
//
// The kernel chooses a listener when a client's first packet comes. Closing one
// resets who has chosen it and was not accepted yet, unless
// net.ipv4.tcp_migrate_req gives them to another listener.
type sharedTCP struct{ *net.TCPListener }

// Leave implements proxy.Leaver: no first packet is let in any more, those whose
// handshake is under way get through it and are accepted, then it is closed. A
// client whose packet was dropped sends it again after a second, by itself, and
// comes to another process.
func (l *sharedTCP) Leave(ctx context.Context) {
	defer l.Close()
	if migrates() {
		return
	}
	raw, err := l.SyscallConn()
	if err != nil || control(raw, dropFirstPackets) != nil {
		return // closed already; or an old kernel, and what is queued is lost
	}
	pause(ctx, leaveTime)
	for end := time.Now().Add(queueTime); time.Now().Before(end) && ctx.Err() == nil; pause(ctx, queueLook) {
		queued := uint32(0)
		_ = control(raw, func(fd int) error {
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			if err == nil {
				queued = info.Unacked // of a listener: who waits to be accepted
			}
			return err
		})
		if queued == 0 {
			return
		}
	}
}

// migrates tells whether the kernel gives what waits at a listener that is closed to another.
func migrates() bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

// dropFirstPackets has a listener drop packets that begin a connection: SYN
// without ACK. The connections that it accepts inherit that, and get no such packets.
func dropFirstPackets(fd int) error {
	const flags, syn, synAck = 13, 0x02, 0x12 // of the TCP header, which a filter of a TCP socket sees first
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: synAck},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: syn, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// pause waits for a time, or less when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// sharedUnix is a Unix-domain socket that other processes may take the place of.
type sharedUnix struct {
	*net.UnixListener
	path, lock string
	file       os.FileInfo // by which the socket is known as ours
	once       sync.Once
}

// takeUnix makes the socket in place of whatever socket of the same user is there:
// at no time is there none. lock is a folder of this user's alone, by which
// processes take turns.
func takeUnix(path string, mode os.FileMode, lock string) (net.Listener, error) {
	if err := maybeTaken(path); err != nil {
		return nil, err
	}
	tag := make([]byte, 4)
	rand.Read(tag)                                                              // never fails
	fresh := filepath.Join(filepath.Dir(path), ".new."+hex.EncodeToString(tag)) // no longer than the path
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by a name that it no longer has
	s := &sharedUnix{UnixListener: l, path: path, lock: lock}
	err = os.Chmod(fresh, mode)
	if err == nil {
		s.file, err = os.Lstat(fresh)
	}
	if err == nil {
		err = inTurn(lock, func() error { return os.Rename(fresh, path) })
	}
	if err != nil {
		_ = l.Close() // the first error is the one to report
		_ = os.Remove(fresh)
		return nil, err
	}
	return s, nil
}

// maybeTaken refuses a path that somebody else has, as the kernel does with ports.
func maybeTaken(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s: not a socket", path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: belongs to another user", path)
	}
	return nil
}

// inTurn runs f while no other process of this user's runs one with the same folder.
func inTurn(folder string, f func() error) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer d.Close() // which unlocks it
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", folder, err)
	}
	return f()
}

// Addr returns the name by which clients know the socket.
func (s *sharedUnix) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Leave implements proxy.Leaver. Who connects by the path comes to the next
// process from the moment that it has taken it; those who came before are accepted.
func (s *sharedUnix) Leave(ctx context.Context) {
	defer s.Close()
	pause(ctx, leaveTime)
}

// Close ends the listening, and removes the socket unless it is another's by now.
func (s *sharedUnix) Close() error {
	s.once.Do(func() {
		_ = inTurn(s.lock, func() error { // without the folder it is left behind, and taken by the next
			if now, err := os.Lstat(s.path); err != nil || !os.SameFile(now, s.file) {
				return err
			}
			return os.Remove(s.path)
		})
	})
	return s.UnixListener.Close()
}
