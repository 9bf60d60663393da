package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// pollInterval is how often a server's state is looked at while waiting.
const pollInterval = 3 * time.Millisecond

// stopTimeout bounds how long a server may take to end at once before it is
// killed.
const stopTimeout = 10 * time.Second

// Node is one server. Its address stays the same for its whole life, also
// while it is stopped.
type Node struct {
	cluster *Cluster
	name    string
	dataDir string
	logFile string

	mu      sync.Mutex
	port    *portLock
	follows *Node // nil for a primary
	pid     int   // of the postmaster; 0 when it does not run
	started bool  // it has run once: its address is known and must not change
}

// Name returns "primary", "replica1" and so on: the role the node was made in.
func (n *Node) Name() string { return n.name }

// Port returns the TCP port on 127.0.0.1.
func (n *Node) Port() int {
	if n.port == nil { // the template has none: it listens on its socket only
		return templatePort
	}
	return n.port.port
}

// PID returns the process ID of the postmaster, 0 when it does not run.
func (n *Node) PID() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pid
}

// Addr returns "127.0.0.1:port".
func (n *Node) Addr() string { return fmt.Sprintf("127.0.0.1:%d", n.Port()) }

// DataDir returns the data directory.
func (n *Node) DataDir() string { return n.dataDir }

// LogFile returns the file that holds what the server logged since it was
// made, restarts included.
func (n *Node) LogFile() string { return n.logFile }

// Running reports whether the server's process is there; a paused one is.
func (n *Node) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.runningLocked()
}

func (n *Node) runningLocked() bool {
	if n.pid != 0 && exited(n.pid) {
		n.pid = 0
	}
	return n.pid != 0
}

// Start starts a stopped server and returns when it accepts connections. A
// server that runs already is an error.
func (n *Node) Start(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.start(ctx); err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	return nil
}

// start is Start under the node's lock.
func (n *Node) start(ctx context.Context) error {
	if n.runningLocked() {
		return errors.New("it runs already")
	}
	for try := 1; ; try++ {
		err := n.launch(ctx)
		if err == nil {
			n.started = true
			return nil
		}
		if n.started || try == 5 || !errors.Is(err, errPortTaken) {
			return err
		}
		if err := n.changePort(); err != nil {
			return err
		}
	}
}

// errPortTaken says that a process that does not use this package has the port.
var errPortTaken = errors.New("the port is in use")

// launch writes the configuration, starts the postmaster and waits for it.
func (n *Node) launch(ctx context.Context) error {
	if err := n.configure(); err != nil {
		return err
	}
	log, err := os.OpenFile(n.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	mark, err := log.Seek(0, 2)
	if err != nil {
		return err
	}
	cmd := n.cluster.account.command(n.dataDir, n.cluster.bin.Path("postgres"), "-D", n.dataDir)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	n.pid = cmd.Process.Pid
	// The child is reaped by exited, without a goroutine that waits for it.
	if err := cmd.Process.Release(); err != nil {
		return err
	}
	return n.waitReady(ctx, mark)
}

// configure writes the three configuration files. The template's own
// postgresql.conf is kept beside, as the part that stays the same.
func (n *Node) configure() error {
	own := filepath.Join(n.dataDir, "postgresql.conf")
	initial := filepath.Join(n.dataDir, "postgresql.initial.conf")
	content, err := os.ReadFile(initial)
	if errors.Is(err, os.ErrNotExist) {
		if content, err = os.ReadFile(own); err == nil {
			err = n.cluster.account.writeFile(initial, content, 0o600)
		}
	}
	if err != nil {
		return err
	}
	a := n.cluster.account
	if err := a.writeFile(own, append(content, n.conf()...), 0o600); err != nil {
		return err
	}
	if err := a.writeFile(filepath.Join(n.dataDir, "pg_hba.conf"), []byte(n.cluster.hba()), 0o600); err != nil {
		return err
	}
	if n.follows == nil {
		return nil
	}
	return a.writeFile(filepath.Join(n.dataDir, "standby.signal"), nil, 0o600)
}

// waitReady waits until the postmaster says in its pid file that it accepts
// connections. mark is where this start's part of the log begins.
func (n *Node) waitReady(ctx context.Context, mark int64) error {
	return poll(ctx, func() (bool, error) {
		if exited(n.pid) {
			n.pid = 0
			said := readFrom(n.logFile, mark)
			if strings.Contains(said, "could not bind IPv4 address") {
				return false, errPortTaken
			}
			return false, fmt.Errorf("the server ended: %s", said)
		}
		content, err := os.ReadFile(filepath.Join(n.dataDir, "postmaster.pid"))
		if err != nil {
			return false, nil // not written yet
		}
		// Line 1 is the pid, line 8 the status; a dead server's file may lie there.
		lines := strings.Split(string(content), "\n")
		return len(lines) >= 8 && lines[0] == fmt.Sprint(n.pid) && strings.TrimSpace(lines[7]) == "ready", nil
	})
}

// changePort takes another port.
func (n *Node) changePort() error {
	port, err := reservePort(n.cluster.base, n.cluster.account)
	if err != nil {
		return err
	}
	n.port.release()
	n.port = port
	return nil
}

// Stop ends the server as "pg_ctl stop -m fast" does: open transactions are
// rolled back, replicas receive everything. A stopped server is no error. A
// paused one is resumed first.
func (n *Node) Stop(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.end(ctx, syscall.SIGINT); err != nil {
		return fmt.Errorf("stop %s: %w", n.name, err)
	}
	return nil
}

// Restart stops the server and starts it again.
func (n *Node) Restart(ctx context.Context) error {
	if err := n.Stop(ctx); err != nil {
		return err
	}
	return n.Start(ctx)
}

// end sends a signal to the postmaster and waits until it is gone.
func (n *Node) end(ctx context.Context, signal syscall.Signal) error {
	if !n.runningLocked() {
		return nil
	}
	n.resumeLocked()
	if err := syscall.Kill(n.pid, signal); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) { return !n.runningLocked(), nil })
}

// Kill9 kills all processes of the server with SIGKILL, as a crash of the
// machine would, and returns when they are gone. Start recovers from it.
func (n *Node) Kill9() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.kill(); err != nil {
		return fmt.Errorf("kill %s: %w", n.name, err)
	}
	return nil
}

func (n *Node) kill() error {
	if !n.runningLocked() {
		return nil
	}
	// The postmaster goes first and so cannot start more children.
	pids := serverProcesses(n.dataDir, n.pid)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return poll(ctx, func() (bool, error) {
		if n.runningLocked() {
			return false, nil
		}
		left := serverProcesses(n.dataDir, 0)[1:]
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(left) == 0, nil
	})
}

// Pause stops all processes of the server with SIGSTOP: connections stay open
// and new ones are accepted by the kernel, but nothing answers. It returns
// when all are stopped. Resume ends it.
func (n *Node) Pause() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.runningLocked() {
		return fmt.Errorf("pause %s: it does not run", n.name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	// Until the postmaster has stopped it may start children.
	return poll(ctx, func() (bool, error) {
		all := true
		for _, pid := range serverProcesses(n.dataDir, n.pid) {
			if !isStopped(pid) {
				all = false
				_ = syscall.Kill(pid, syscall.SIGSTOP) // it may have ended by itself
			}
		}
		return all, nil
	})
}

// Resume lets a paused server go on; on a server that is not paused it does
// nothing.
func (n *Node) Resume() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.runningLocked() {
		return fmt.Errorf("resume %s: it does not run", n.name)
	}
	n.resumeLocked()
	return nil
}

func (n *Node) resumeLocked() {
	for _, pid := range serverProcesses(n.dataDir, n.pid) {
		_ = syscall.Kill(pid, syscall.SIGCONT) // it may have ended by itself
	}
}

// discard ends the server for good and gives back what it held of the system.
func (n *Node) discard() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := n.end(ctx, syscall.SIGQUIT)
	if err != nil {
		err = n.kill()
	}
	n.port.release()
	removeSharedMemory(n.dataDir)
	return err
}

// poll calls done until it says yes or fails, or ctx ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// readFrom returns a file's content from an offset on, for error messages.
func readFrom(path string, at int64) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(content[min(at, int64(len(content))):]))
}
