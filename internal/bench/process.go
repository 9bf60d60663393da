package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a running program whose use of the machine is read from /proc.
type process struct {
	cmd   *exec.Cmd
	pid   int
	log   string        // file of everything it printed
	ended chan struct{} // closed when it has ended
}

// startProcess starts a program that dies with this one; log receives its output.
func startProcess(cmd *exec.Cmd, log string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setpgid = true // a Ctrl-C reaches this program first
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, pid: cmd.Process.Pid, log: log, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // its end is what counts
		close(p.ended)
	}()
	return p, nil
}

// kill ends the program at once and waits for that. Its state is worth nothing.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.ended
	return nil
}

// tail returns the end of what the program printed, for an error.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// awaitPort waits until the program accepts connections on a port.
func (p *process) awaitPort(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address(port))
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.ended:
			return fmt.Errorf("it ended: %s", p.tail())
		case <-ctx.Done():
			return fmt.Errorf("it does not listen: %w: %s", err, p.tail())
		case <-tick.C:
		}
	}
}

func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// usage is what a process has used since it began.
type usage struct {
	cpu      time.Duration // of all its threads
	switches int64         // of context, by all its threads
	mallocs  float64       // objects allocated, where the process tells; else 0
}

func (u usage) since(before usage) usage {
	return usage{u.cpu - before.cpu, u.switches - before.switches, u.mallocs - before.mallocs}
}

func (u *usage) add(more usage) {
	u.cpu += more.cpu
	u.switches += more.switches
	u.mallocs += more.mallocs
}

// usage reads the scheduler's counters, nanoseconds of every thread. A thread
// that ends takes its counter along; poolers do not end threads.
func (p *process) usage() (usage, error) {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid))
	if err != nil {
		return usage{}, fmt.Errorf("the process has ended: %w: %s", err, p.tail())
	}
	var u usage
	for _, thread := range threads {
		dir := fmt.Sprintf("/proc/%d/task/%s", p.pid, thread.Name())
		one, err := threadUsage(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it ended between the two reads
		}
		if err != nil {
			return usage{}, err
		}
		u.add(one)
	}
	return u, nil
}

func threadUsage(dir string) (usage, error) {
	text, err := os.ReadFile(filepath.Join(dir, "schedstat"))
	if err != nil {
		return usage{}, err
	}
	fields := bytes.Fields(text)
	if len(fields) == 0 {
		return usage{}, fmt.Errorf("%s/schedstat is empty", dir)
	}
	nanoseconds, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return usage{}, fmt.Errorf("%s/schedstat: %w", dir, err)
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return usage{}, err
	}
	voluntary, err := statusNumber(string(status), "voluntary_ctxt_switches")
	if err != nil {
		return usage{}, err
	}
	forced, err := statusNumber(string(status), "nonvoluntary_ctxt_switches")
	if err != nil {
		return usage{}, err
	}
	return usage{cpu: time.Duration(nanoseconds), switches: voluntary + forced}, nil
}

// residentKiB returns the process's resident memory.
func (p *process) residentKiB() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return 0, fmt.Errorf("the process has ended: %w: %s", err, p.tail())
	}
	n, err := statusNumber(string(status), "VmRSS")
	return float64(n), err
}

// statusNumber returns the number of one line of a /proc status file.
func statusNumber(status, name string) (int64, error) {
	for line := range strings.Lines(status) {
		key, value, found := strings.Cut(line, ":")
		if found && key == name {
			return strconv.ParseInt(strings.Fields(value + " ?")[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("no line %s in the status of a process", name)
}

// mallocs asks a Go program's metrics page how many objects it has allocated.
func mallocs(ctx context.Context, admin string) (float64, error) {
	var page bytes.Buffer
	if err := readMetrics(ctx, admin, &page); err != nil {
		return 0, err
	}
	const family = "go_memstats_mallocs_total "
	for line := range strings.Lines(page.String()) {
		if number, found := strings.CutPrefix(line, family); found {
			return strconv.ParseFloat(strings.TrimSpace(number), 64)
		}
	}
	return 0, fmt.Errorf("no %sat %s", family, admin)
}
