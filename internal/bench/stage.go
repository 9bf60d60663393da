package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"shardproxy/internal/pgcluster"
)

// Who logs in, everywhere, and where. pgbench counts the time of its logins as
// part of its run, and libpq derives keys for each: it has a user of its own
// whose verifier takes one iteration, not 4,096.
const (
	userName    = pgcluster.AppUser
	pgbenchUser = "pgbench"
	password    = pgcluster.AppPassword
	database    = pgcluster.AppDatabase
)

const (
	directName    = "direct"
	pgbouncerName = "PgBouncer"
	proxyName     = "shardproxy"
	beforeName    = "shardproxy, before"
)

// splitName is the side that splits reads over so many replicas.
func splitName(replicas int) string { return fmt.Sprintf("%s, %d replicas", proxyName, replicas) }

// maxServers is what each server's max_connections leaves to the sides that
// are there all the time.
const maxServers = 300

// stage is everything that runs during a measurement.
type stage struct {
	options   options
	dir       string
	cluster   *pgcluster.Cluster
	users     []poolUser
	login     *login
	pgbouncer string // its version
	endpoints []*endpoint
}

// poolUser is a user that poolers know.
type poolUser struct{ name, verifier string }

// openStage starts the servers, fills them, and starts the poolers.
func openStage(ctx context.Context, o options) (*stage, error) {
	s := &stage{options: o}
	err := s.open(ctx)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) open(ctx context.Context) error {
	program, err := findPgBouncer(s.options.pgbouncer)
	if err != nil {
		return err
	}
	for _, program := range []*string{&s.options.proxy, &s.options.before} {
		if *program == "" {
			continue
		}
		if *program, err = filepath.Abs(*program); err != nil {
			return err
		}
		if _, err := os.Stat(*program); err != nil {
			return fmt.Errorf("the proxy's program: %w (make build)", err)
		}
	}
	if s.dir, err = os.MkdirTemp("", "shardproxy-bench-"); err != nil {
		return err
	}
	// PgBouncer runs as another user, below this folder.
	if err := os.Chmod(s.dir, 0o711); err != nil {
		return err
	}
	for _, u := range []struct {
		name       string
		iterations int
	}{{userName, 4096}, {pgbenchUser, 1}} {
		verifier, err := verifierOf(password, u.iterations)
		if err != nil {
			return err
		}
		s.users = append(s.users, poolUser{u.name, verifier})
	}
	if s.login, err = newLogin(); err != nil {
		return err
	}
	// Each feature's side has connections of its own, and some for its probes.
	features := s.options.chosenFeatures()
	spare := 0
	if len(features) > 0 {
		spare = len(features) * (s.options.featureServers() + s.options.serverConns)
	}
	if s.options.wants("shards") || s.options.wants("moves") {
		spare += shardServers(s.options)
	}
	s.cluster = pgcluster.New(pgcluster.Options{
		Replicas: s.options.replicas, MaxConnections: maxServers + spare,
		TLS:      slices.ContainsFunc(features, func(f feature) bool { return f.tls }),
		Settings: map[string]string{"shared_buffers": "512MB"},
	})
	if err := s.cluster.Open(ctx); err != nil {
		return err
	}
	if err := s.fill(ctx); err != nil {
		return err
	}
	return s.openEndpoints(ctx, program)
}

// openEndpoints makes the sides that are compared, in the order of a round.
func (s *stage) openEndpoints(ctx context.Context, program string) error {
	version, err := s.pgbouncerVersion(program)
	if err != nil {
		return err
	}
	bouncer, err := s.pgbouncerEndpoint(program, version)
	if err != nil {
		return err
	}
	proxy, err := s.proxyEndpoint(proxyName, s.options.proxy, "proxy", s.defaults())
	if err != nil {
		return err
	}
	proxy.plain = true
	direct := &endpoint{name: directName, port: s.cluster.Primary().Port(), plain: true}
	s.endpoints = []*endpoint{direct, bouncer, proxy}
	if s.options.before != "" {
		before, err := s.proxyEndpoint(beforeName, s.options.before, "before", s.defaults())
		if err != nil {
			return err
		}
		before.plain = true
		s.endpoints = append(s.endpoints, before)
	}
	if s.options.replicas > 0 {
		c := s.defaults()
		s.overReplicas(&c)
		split, err := s.proxyEndpoint(splitName(s.options.replicas), s.options.proxy, "split", c)
		if err != nil {
			return err
		}
		s.endpoints = append(s.endpoints, split)
	}
	for _, e := range s.endpoints {
		if err := e.start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// fill makes pgbench's tables and those of the bulk part, the same on all nodes.
func (s *stage) fill(ctx context.Context) error {
	primary := s.cluster.Primary()
	cmd := exec.CommandContext(ctx, s.cluster.Binaries().Path("pgbench"),
		"-i", "-q", "-s", strconv.Itoa(s.options.scale), primary.DSN(database, userName))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fill pgbench's tables: %w: %s", err, out)
	}
	conn, err := primary.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range []string{
		"CREATE TABLE bulk (v text)",
		fmt.Sprintf("INSERT INTO bulk SELECT lpad(i::text, %d, 'x') FROM generate_series(1, %d) i", bulkRowBytes, bulkRows),
		"CREATE TABLE sink (v text)",
		"GRANT ALL ON bulk, sink TO " + userName,
		"CREATE ROLE " + pgbenchUser + " LOGIN IN ROLE pg_read_all_data",
		"VACUUM ANALYZE",
		"CHECKPOINT",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("fill: %w", err)
		}
	}
	for _, u := range s.users {
		// PgBouncer logs in with the keys that the client's login has shown it,
		// which needs the same salt on both sides.
		if _, err := conn.Exec(ctx, fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", u.name, u.verifier)); err != nil {
			return fmt.Errorf("fill: %w", err)
		}
	}
	lsn, err := primary.LSN(ctx)
	if err != nil {
		return err
	}
	for _, r := range s.cluster.Replicas() {
		if err := r.WaitReplayed(ctx, lsn); err != nil {
			return err
		}
	}
	return nil
}

// endpoint returns a side by its name.
func (s *stage) endpoint(name string) *endpoint {
	for _, e := range s.endpoints {
		if e.name == name {
			return e
		}
	}
	return nil
}

func (s *stage) close() error {
	var errs []error
	for _, e := range s.endpoints {
		errs = append(errs, e.stop())
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// findPgBouncer returns the path of the program that was asked for or, when none
// was, of the one that is installed.
func findPgBouncer(asked string) (string, error) {
	if asked != "" {
		path, err := filepath.Abs(asked)
		if err == nil {
			_, err = exec.LookPath(path)
		}
		if err != nil {
			return "", fmt.Errorf("PgBouncer's program: %w", err)
		}
		return path, nil
	}
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("PgBouncer is not installed (scripts/need-pgbouncer.sh)")
}

// pgbouncerVersion asks for PgBouncer's version and notes it for the report.
func (s *stage) pgbouncerVersion(program string) ([2]int, error) {
	out, err := exec.Command(program, "--version").CombinedOutput()
	if err != nil {
		return [2]int{}, fmt.Errorf("ask PgBouncer for its version: %w: %s", err, out)
	}
	found := regexp.MustCompile(`PgBouncer ((\d+)\.(\d+)[.\w]*)`).FindStringSubmatch(string(out))
	if found == nil {
		return [2]int{}, fmt.Errorf("PgBouncer says of its version: %s", out)
	}
	s.pgbouncer = found[1]
	major, _ := strconv.Atoi(found[2]) // digits only
	minor, _ := strconv.Atoi(found[3])
	return [2]int{major, minor}, nil
}

// verifierOf returns a SCRAM verifier of a password, as in pg_authid, so that
// no side derives keys for each login.
func verifierOf(password string, iterations int) (string, error) {
	c, err := scram.SHA256.NewClient("", password, "") // PostgreSQL does not look at the name
	if err != nil {
		return "", err
	}
	salt := "sixteen bytes ok"
	stored, err := c.WithMinIterations(iterations).GetStoredCredentialsWithError(scram.KeyFactors{Salt: salt, Iters: iterations})
	if err != nil {
		return "", err
	}
	base := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, base([]byte(salt)), base(stored.StoredKey), base(stored.ServerKey)), nil
}

// freePorts returns ports that nobody listens on.
func freePorts(count int) ([]int, error) {
	var ports []int
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at the end, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// oneLine runs a program for one line of the report; "?" if that fails.
func oneLine(program string, args ...string) string {
	out, err := exec.Command(program, args...).Output()
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(out))
}
