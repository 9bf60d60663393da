package shiptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgcluster"
)

// stage runs the services of docker-compose.yml as processes of this machine:
// their commands, scripts and configuration, with other addresses and folders.
type stage struct {
	t       *testing.T
	file    composeFile
	dir     string
	bin     pgcluster.Binaries
	program string
	cred    *syscall.Credential // of servers, which refuse to run as root
	secrets map[string]string
	ports   map[string]string // of a service
}

func newStage(t *testing.T) *stage {
	t.Helper()
	bin, err := pgcluster.FindBinaries()
	if err != nil {
		t.Fatal(err)
	}
	// Short, for the path of a socket; and where the servers' account reaches it.
	dir, err := os.MkdirTemp("/tmp", "ship")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &stage{t: t, file: compose(t), dir: dir, bin: bin, program: build(t, dir), ports: map[string]string{}, secrets: map[string]string{}}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		s.check(os.Chown(dir, uid, gid))
	}
	for _, name := range []string{"APP_PASSWORD", "DBA_PASSWORD", "CONTROL_PASSWORD", "REPLICATION_PASSWORD", "POSTGRES_PASSWORD"} {
		s.secrets[name] = "it's \\ " + strings.ToLower(name)
	}
	for _, name := range []string{"roles.sh", "replica.sh"} {
		s.check(os.WriteFile(filepath.Join(dir, name), []byte(read(t, "deploy/compose/postgres/"+name)), 0o755))
	}
	for name := range s.file.Services {
		s.ports[name], s.ports[name+" admin"] = freePort(t), freePort(t)
	}
	return s
}

func build(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "shardproxy")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/shardproxy")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (s *stage) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// environment is the service's, with this stage's folders and addresses.
func (s *stage) environment(name string) []string {
	env := []string{"PATH=" + s.bin.Dir + ":" + os.Getenv("PATH"), "LC_ALL=C", "HOME=" + s.dir}
	for key, value := range s.file.Services[name].Environment {
		if m := regexp.MustCompile(`^\$\{(\w+):\?`).FindStringSubmatch(value); m != nil {
			value = s.secrets[m[1]]
		}
		switch key {
		case "PGDATA":
			value = filepath.Join(s.dir, name)
		case "PRIMARY_HOST":
			env = append(env, "PRIMARY_PORT="+s.ports[value])
			value = "127.0.0.1"
		}
		env = append(env, key+"="+value)
	}
	return env
}

// run runs a program of a server's image to its end.
func (s *stage) run(name string, env []string, args ...string) {
	s.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = s.dir, append(s.environment(name), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %q: %v: %s", name, args, err, out)
	}
}

// start runs a service until the test ends, and ends it with the signal.
func (s *stage) start(name string, env []string, cred *syscall.Credential, end syscall.Signal, args ...string) (stop func()) {
	s.t.Helper()
	var printed bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, append(s.environment(name), env...), &printed, &printed
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Pdeathsig: syscall.SIGKILL}
	s.check(cmd.Start())
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		_ = cmd.Process.Signal(end)
		timer := time.AfterFunc(40*time.Second, func() { _ = cmd.Process.Kill() })
		if err := cmd.Wait(); err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
		timer.Stop()
		if s.t.Failed() {
			s.t.Logf("%s printed:\n%s", name, printed.String()[max(0, printed.Len()-4000):])
		}
	}
	s.t.Cleanup(stop)
	return stop
}

// serverArgs are those of the service, on this stage's port.
func (s *stage) serverArgs(name string) []string {
	args := append([]string{}, s.file.Services[name].Command...)
	return append(args, "-c", "port="+s.ports[name], "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories="+s.dir, "-c", "fsync=off", "-c", "shared_buffers=16MB")
}

// primary does what the image's entry point does: initdb, the scripts while the
// server listens on its socket only, then the server.
func (s *stage) primary(name string) {
	s.t.Helper()
	data := filepath.Join(s.dir, name)
	pwfile := filepath.Join(s.dir, "pw")
	s.check(os.WriteFile(pwfile, []byte(s.secrets["POSTGRES_PASSWORD"]+"\n"), 0o644))
	args := append([]string{"initdb", "--username=postgres", "--no-sync", "--pwfile=" + pwfile, "-D", data},
		strings.Fields(s.file.Services[name].Environment["POSTGRES_INITDB_ARGS"])...)
	args[0] = s.bin.Path("initdb")
	s.run(name, nil, args...)
	socket := []string{"PGHOST=" + s.dir, "PGPORT=" + s.ports[name]}
	s.run(name, nil, s.bin.Path("pg_ctl"), "-D", data, "-w", "-l", data+".log", "-o",
		"-c listen_addresses= -c port="+s.ports[name]+" -c unix_socket_directories="+s.dir, "start")
	s.run(name, socket, "createdb", "-U", "postgres", s.file.Services[name].Environment["POSTGRES_DB"])
	s.run(name, socket, "bash", filepath.Join(s.dir, "roles.sh"))
	s.run(name, nil, s.bin.Path("pg_ctl"), "-D", data, "-w", "-m", "fast", "stop")
	command := s.serverArgs(name)
	s.start(name, nil, s.cred, syscall.SIGINT, append([]string{s.bin.Path(command[0])}, command[1:]...)...)
	s.healthy(name)
}

func (s *stage) replica(name string) {
	s.t.Helper()
	s.start(name, nil, s.cred, syscall.SIGINT, append([]string{"bash", filepath.Join(s.dir, "replica.sh")}, s.serverArgs(name)...)...)
	s.healthy(name)
}

// healthy runs the service's own check until it is content.
func (s *stage) healthy(name string) {
	s.t.Helper()
	test := append([]string{}, s.file.Services[name].Healthcheck.Test[1:]...)
	if test[0] == "shardproxy" {
		test[0] = s.program
		test[len(test)-1] = "127.0.0.1:" + s.ports[name+" admin"]
	} else {
		test = append(test, "-p", s.ports[name])
	}
	var out []byte
	var err error
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
		cmd := exec.Command(test[0], test[1:]...)
		cmd.Env = s.environment(name)
		if out, err = cmd.CombinedOutput(); err == nil {
			return
		}
	}
	s.t.Fatalf("%s is not healthy: %v: %s", name, err, out)
}

// addresses are what the configuration takes from the environment.
func (s *stage) addresses(name string) []string {
	env := []string{"SHARDPROXY_LISTEN=127.0.0.1:" + s.ports[name], "SHARDPROXY_ADMIN=127.0.0.1:" + s.ports[name+" admin"]}
	for _, server := range []string{"s0-primary", "s0-replica", "s1-primary", "s1-replica"} {
		variable := strings.ToUpper(strings.ReplaceAll(server, "-", "_"))
		env = append(env, variable+"=127.0.0.1:"+s.ports[server])
	}
	return env
}

// call runs the program as the service does, to its end.
func (s *stage) call(name string) string {
	s.t.Helper()
	cmd := exec.Command(s.program, s.programArgs(name)...)
	cmd.Env = append(s.environment(name), s.addresses(name)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v: %s", name, err, out)
	}
	return string(out)
}

func (s *stage) programArgs(name string) []string {
	args := append([]string{}, s.file.Services[name].Command...)
	path, err := filepath.Abs(filepath.Join(root, "deploy/compose/shardproxy.yaml"))
	s.check(err)
	args[len(args)-1] = path
	return args
}

func (s *stage) connect(name, user, database string) *pgx.Conn {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%s user=%s dbname=%s sslmode=disable", s.ports[name], user, database))
	s.check(err)
	cfg.Password = s.secrets[strings.ToUpper(user)+"_PASSWORD"]
	c, err := pgx.ConnectConfig(ctx, cfg)
	s.check(err)
	s.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func (s *stage) value(c *pgx.Conn, sql string) (v int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := c.QueryRow(ctx, sql).Scan(&v); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// TestComposeCluster starts what docker-compose.yml starts, in its order, writes
// on both shards through one proxy and reads through the other, from replicas too.
func TestComposeCluster(t *testing.T) {
	s := newStage(t)
	for _, shard := range []string{"s0", "s1"} {
		s.primary(shard + "-primary")
		s.replica(shard + "-replica")
	}
	s.call("init")
	s.call("init") // a second "up" runs it again
	var stops []func()
	for _, name := range []string{"proxy-1", "proxy-2"} {
		stops = append(stops, s.start(name, s.addresses(name), nil, syscall.SIGINT, append([]string{s.program}, s.programArgs(name)...)...))
		s.healthy(name)
	}
	one, two := s.connect("proxy-1", "app", "shop"), s.connect("proxy-2", "app", "shop")
	for _, sql := range []string{
		"CREATE TABLE customers (id int PRIMARY KEY, name text)",
		"BEGIN",
		"INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 100) g",
		"COMMIT",
	} {
		if _, err := one.Exec(context.Background(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	sum := 0
	for _, shard := range []string{"s0", "s1"} {
		n := s.value(s.connect(shard+"-primary", "app", "shop"), "SELECT count(*) FROM customers")
		if n == 0 {
			t.Errorf("%s has no rows", shard)
		}
		sum += n
	}
	if sum != 100 {
		t.Errorf("%d rows on the shards", sum)
	}
	// Another proxy knows a new table within a second, and refuses it before.
	for end := time.Now().Add(20 * time.Second); ; <-time.After(50 * time.Millisecond) {
		var n int
		err := two.QueryRow(context.Background(), "SELECT count(*) FROM customers").Scan(&n)
		if err == nil && n == 100 {
			break
		}
		if err == nil || time.Now().After(end) {
			t.Fatalf("the other proxy counts %d rows (%v)", n, err)
		}
	}
	replicas := map[string]bool{s.ports["s0-replica"]: true, s.ports["s1-replica"]: true}
	answered := map[string]bool{}
	for end := time.Now().Add(30 * time.Second); len(answered) < 2 && time.Now().Before(end); {
		for id := 1; id <= 20; id++ {
			sql := fmt.Sprintf("/* shardproxy: route=replica */ SELECT inet_server_port() FROM customers WHERE id = %d", id)
			if port := strconv.Itoa(s.value(two, sql)); replicas[port] {
				answered[port] = true
			}
		}
	}
	if len(answered) != 2 {
		t.Errorf("replicas that answered: %v of %v", answered, replicas)
	}
	console := s.connect("proxy-1", "dba", "shardproxy")
	if _, err := console.PgConn().Exec(context.Background(), "SHOW SHARDS").ReadAll(); err != nil {
		t.Error(err)
	}
	for _, stop := range stops {
		stop()
	}
}
