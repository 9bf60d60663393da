package clientrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Program is the proxy, running as its users run it. Make it with Start and end
// it with Stop.
type Program struct {
	cmd   *exec.Cmd
	admin string // host:port
	log   string // file of everything it printed
	ended chan struct{}
	err   error // of its end; set before ended is closed
}

// Build builds the proxy into a folder, with the race detector if this process
// has it, and returns the program's path.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "shardproxy")
	args := []string{"build", "-o", binary}
	if RaceEnabled {
		args = append(args, "-race")
	}
	build := exec.CommandContext(ctx, "go", append(args, "shardproxy/cmd/shardproxy")...)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the proxy: %w\n%s", err, out)
	}
	return binary, nil
}

// Start runs the proxy with a configuration whose admin address (host:port) is
// given, and returns when it says that it is ready. It prints into the file
// proxy.log beside the configuration. After an error nothing runs.
func Start(ctx context.Context, binary, configuration, admin string) (*Program, error) {
	p := &Program{admin: admin, log: filepath.Join(filepath.Dir(configuration), "proxy.log"), ended: make(chan struct{})}
	if err := p.start(binary, configuration); err != nil {
		return nil, err
	}
	if err := p.waitReady(ctx); err != nil {
		p.PrintLog()
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *Program) start(binary, file string) error {
	out, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer out.Close() // the child has its own
	p.cmd = exec.Command(binary, "run", "--config", file)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start the proxy: %w", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return nil
}

// waitReady asks /readyz until it says yes.
func (p *Program) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true}
	client := http.Client{Transport: transport}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(response.Status)
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-p.ended:
			return fmt.Errorf("the proxy ended: %w", p.err)
		case <-ctx.Done():
			return fmt.Errorf("the proxy does not get ready: %w", last)
		case <-tick.C:
		}
	}
}

// Stop asks the program to end and says whether it did so cleanly:
// it must have been running, end in time, and have no race.
func (p *Program) Stop() error {
	select {
	case <-p.ended:
		return fmt.Errorf("the proxy ended by itself: %w", p.err)
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("end the proxy: %w", err)
	}
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.ended
		return errors.New("the proxy, left by all its clients, did not end on SIGTERM")
	}
	if p.err != nil {
		return fmt.Errorf("the proxy ended: %w", p.err)
	}
	text, err := os.ReadFile(p.log)
	if err == nil && bytes.Contains(text, []byte("WARNING: DATA RACE")) {
		return errors.New("the race detector found races in the proxy")
	}
	return err
}

// PrintLog prints the end of what the proxy printed, and any panic or race, on
// standard error.
func (p *Program) PrintLog() {
	text, err := os.ReadFile(p.log)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	const most = 40000
	for _, word := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
		if at := bytes.Index(text, []byte(word)); at >= 0 {
			text = text[at:]
			break
		}
	}
	if len(text) > most {
		text = append(text[:most/2:most/2], text[len(text)-most/2:]...)
	}
	fmt.Fprintf(os.Stderr, "what the proxy printed:\n%s\n", text)
}

// FreePorts returns ports that nobody listens on now.
func FreePorts(count int) ([]int, error) {
	var ports []int
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all are chosen, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
