package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// endpoint is one of the sides that are compared: where clients connect.
type endpoint struct {
	name  string
	port  int
	admin string // host:port of its metrics page, "" if it has none
	// command makes the program anew; nil for the server itself.
	command  func() *exec.Cmd
	log      string
	login    *login
	process  *process // nil when it does not run
	database string   // that clients ask for; "" for the one of all other sides
	// preparedDatabase is asked for in place of the database in pgbench's mode
	// "prepared", where the pooler cannot share servers then.
	preparedDatabase string
	// plain is set for the sides that all parts measure; the others are in the
	// comparison of statements or of features only.
	plain   bool
	sslmode string // of pgbench; "" for disable
	scraped bool   // its metrics page is read each second of a run of statements
}

// start starts the endpoint's program and returns when it listens.
func (e *endpoint) start(ctx context.Context) error {
	if e.command == nil {
		return nil
	}
	p, err := startProcess(e.command(), e.log)
	if err != nil {
		return fmt.Errorf("start %s: %w", e.name, err)
	}
	e.process = p
	if err := p.awaitPort(ctx, e.port); err != nil {
		return fmt.Errorf("start %s: %w", e.name, err)
	}
	// The first login finds the servers, and is no part of a measurement.
	c, err := e.login.dial(ctx, e.port, e.databaseName())
	if err != nil {
		return fmt.Errorf("log in to %s: %w: %s", e.name, err, p.tail())
	}
	defer c.close()
	return c.ask(selectOne, selectOneTag)
}

// databaseName is what clients ask for.
func (e *endpoint) databaseName() string { return cmp.Or(e.database, database) }

func (e *endpoint) stop() error {
	if e.process == nil {
		return nil
	}
	p := e.process
	e.process = nil
	return p.kill()
}

// restart begins a process that has seen no client yet but the first.
func (e *endpoint) restart(ctx context.Context) error {
	if err := e.stop(); err != nil {
		return err
	}
	return e.start(ctx)
}

// proxyEndpoint writes a configuration of a build of the proxy; file is the
// name of its files.
func (s *stage) proxyEndpoint(name, program, file string, c settings) (*endpoint, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	e := &endpoint{name: name, port: ports[0], admin: address(ports[1]), log: filepath.Join(s.dir, file+".log"), login: s.login, database: c.database}
	path := s.configFile(file)
	if err := os.WriteFile(path, []byte(c.document(address(e.port), e.admin, s.users)), 0o600); err != nil {
		return nil, err
	}
	e.command = func() *exec.Cmd { return exec.Command(program, "run", "--config", path) }
	return e, nil
}

// configFile is where the configuration of that name is written.
func (s *stage) configFile(file string) string { return filepath.Join(s.dir, file+".yaml") }

// pgbouncerEndpoint writes a configuration of PgBouncer for the primary. It
// is the proxy's as far as the two have the same settings. The queue of
// connections not yet accepted is the kernel's maximum, as it is in Go.
func (s *stage) pgbouncerEndpoint(program string, version [2]int) (*endpoint, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, "pgbouncer")
	e := &endpoint{name: pgbouncerName, port: ports[0], log: filepath.Join(s.dir, "pgbouncer.log"), login: s.login, plain: true}
	target := fmt.Sprintf("host=127.0.0.1 port=%d dbname=%s", s.cluster.Primary().Port(), database)
	prepared := "max_prepared_statements = 200\n"
	if !sharesPrepared(version) {
		// It cannot share servers between clients that prepare: each gets its own.
		prepared = ""
		e.preparedDatabase = database + "_session"
		target += fmt.Sprintf("\n%s = %s pool_mode=session pool_size=%d", e.preparedDatabase, target, maxServers/2)
	}
	config := fmt.Sprintf(`[databases]
%s = %s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
listen_backlog = 4096
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s/users
server_tls_sslmode = disable
pool_mode = transaction
default_pool_size = %d
max_client_conn = 10000
log_connections = 0
log_disconnections = 0
ignore_startup_parameters = extra_float_digits
%s`, database, target, e.port, dir, s.options.serverConns, prepared)
	who, err := programUser()
	if err != nil {
		return nil, err
	}
	if err := who.mkdir(dir); err != nil {
		return nil, err
	}
	ini := filepath.Join(dir, "pgbouncer.ini")
	var users strings.Builder
	for _, u := range s.users {
		fmt.Fprintf(&users, "%q %q\n", u.name, u.verifier)
	}
	for path, text := range map[string]string{ini: config, filepath.Join(dir, "users"): users.String()} {
		if err := who.writeFile(path, text); err != nil {
			return nil, err
		}
	}
	e.command = func() *exec.Cmd {
		cmd := exec.Command(program, ini)
		cmd.SysProcAttr = who.attr()
		return cmd
	}
	return e, nil
}

// sharesPrepared reports whether this PgBouncer follows prepared statements
// over pooled connections.
func sharesPrepared(version [2]int) bool {
	return version[0] > 1 || version[0] == 1 && version[1] >= 21
}

// who is the user that PgBouncer, which refuses to be root, runs as.
type who struct {
	uid, gid int
	drop     bool // this process is root and starts it as the user
}

func programUser() (who, error) {
	if uid := os.Geteuid(); uid != 0 {
		return who{uid: uid, gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil {
			return who{uid: uid, gid: gid, drop: true}, nil
		}
	}
	return who{}, fmt.Errorf("running as root and no account \"postgres\" or \"nobody\" for PgBouncer, which refuses to be root")
}

func (w who) attr() *syscall.SysProcAttr {
	if !w.drop {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(w.uid), Gid: uint32(w.gid)}}
}

func (w who) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return os.Chown(path, w.uid, w.gid)
}

func (w who) writeFile(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Chown(path, w.uid, w.gid)
}
