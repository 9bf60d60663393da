package drivertest

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
	"strings"
	"syscall"
	"time"
)

// program is the proxy, running as its users run it.
type program struct {
	cmd   *exec.Cmd
	port  int
	admin string // host:port
	log   string // file of everything it printed
	ended chan struct{}
	err   error // of its end; set before ended is closed
}

// startProxy builds the program, writes its configuration and starts it. It
// returns when the proxy says that it is ready.
func startProxy(ctx context.Context, s *stage) (*program, error) {
	binary := filepath.Join(s.dir, "shardproxy")
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.CommandContext(ctx, "go", append(args, "shardproxy/cmd/shardproxy")...)
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the proxy: %w\n%s", err, out)
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	p := &program{
		port: ports[0], admin: fmt.Sprintf("127.0.0.1:%d", ports[1]),
		log: filepath.Join(s.dir, "proxy.log"), ended: make(chan struct{}),
	}
	file := filepath.Join(s.dir, "shardproxy.yaml")
	config, err := s.configuration(p.port, p.admin)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	if err := p.start(binary, file); err != nil {
		return nil, err
	}
	if err := p.waitReady(ctx); err != nil {
		p.printLog()
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// configuration is one a user would write for this cluster. The pools are
// small, so that clients have to share server connections.
func (s *stage) configuration(port int, admin string) (string, error) {
	certificate, key, err := s.cluster.TLS().Issue("proxy")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "listen: {address: \"127.0.0.1:%d\", tls: {certificate: %s, key: %s}}\n", port, certificate, key)
	fmt.Fprintf(&b, "admin: {address: %q}\n", admin)
	fmt.Fprintf(&b, "users:\n  - {name: app, password: app-secret}\ndatabases:\n")
	var nodes []string
	for _, n := range s.cluster.Nodes() {
		nodes = append(nodes, fmt.Sprintf("%q", n.Addr()))
	}
	for _, name := range clients {
		fmt.Fprintf(&b, "  %s:\n    shards: [{name: s0, nodes: [%s]}]\n", name, strings.Join(nodes, ", "))
		fmt.Fprintf(&b, "    server: {tls: {mode: verify-full, ca: %s}}\n", s.cluster.TLS().CAFile)
		fmt.Fprintf(&b, "    pool: {mode: transaction, size: 4}\n")
	}
	return b.String(), nil
}

func (p *program) start(binary, file string) error {
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
func (p *program) waitReady(ctx context.Context) error {
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

// stop asks the program to end and says whether it did so cleanly.
func (p *program) stop() error {
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

// printLog prints the end of what the proxy printed, and any panic or race.
func (p *program) printLog() {
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

// freePorts returns ports that nobody listens on now.
func freePorts(count int) ([]int, error) {
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
