package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"shardproxy/pool"
)

// pgDump is the program that dumps a shard.
type pgDump struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	major   int
}

// findPgDump returns the first pg_dump that knows servers of a major version: the given one, else
// that of PATH, else the newest of the usual places.
func findPgDump(ctx context.Context, given string, major int) (*pgDump, error) {
	places := []string{given}
	if given == "" {
		places = pgDumpPlaces()
	}
	var tried []string
	for _, path := range places {
		d, err := askPgDump(ctx, path)
		switch {
		case err != nil:
			tried = append(tried, fmt.Sprintf("%s: %v", path, err))
		case d.major < major:
			tried = append(tried, fmt.Sprintf("%s: it is of version %s", path, d.Version))
		default:
			return d, nil
		}
	}
	if tried == nil {
		tried = []string{"there is none in PATH or in /usr/lib/postgresql/*/bin"}
	}
	return nil, fmt.Errorf("no pg_dump of version %d or newer, as the servers need it (%s): install postgresql-client-%[1]d, or name the program with --pg-dump",
		major, strings.Join(tried, "; "))
}

// pgDumpPlaces are where pg_dump may be. Debian's wrapper in PATH is none: which version it runs is not
// known beforehand.
func pgDumpPlaces() (all []string) {
	if path, err := exec.LookPath("pg_dump"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil && filepath.Base(real) != "pg_wrapper" {
			all = append(all, path)
		}
	}
	var versioned []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin"} {
		found, _ := filepath.Glob(filepath.Join(pattern, "pg_dump")) // the only error is a bad pattern
		versioned = append(versioned, found...)
	}
	number := regexp.MustCompile(`[0-9]+`)
	version := func(path string) int {
		n, _ := strconv.Atoi(number.FindString(path)) // 0 without one
		return n
	}
	slices.SortStableFunc(versioned, func(a, b string) int { return version(b) - version(a) })
	return append(all, versioned...)
}

var pgDumpVersion = regexp.MustCompile(`^pg_dump \(PostgreSQL\) (([0-9]+)\S*)`)

func askPgDump(ctx context.Context, path string) (*pgDump, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return nil, err
	}
	m := pgDumpVersion.FindSubmatch(out)
	if m == nil {
		return nil, fmt.Errorf("it says %q of its version", strings.TrimSpace(string(out)))
	}
	major, err := strconv.Atoi(string(m[2]))
	return &pgDump{Path: path, Version: string(m[1]), major: major}, err
}

// What the command itself tells pg_dump, and nobody else may: where to connect, what to see,
// where to write. The letters of -W and -w are among them, for nobody is there to be asked.
const oursShort = "dfFhpUwW"

func oursLong() []string {
	return []string{"dbname", "file", "format", "host", "port", "username", "no-password", "password", "snapshot", "serializable-deferrable",
		"no-synchronized-snapshots", "lock-wait-timeout"}
}

// withValue are pg_dump's letters that are followed by a value.
const withValue = "eEjnNStTXZ"

// judgeDumpArguments refuses arguments for pg_dump that would undo what the command promises.
func judgeDumpArguments(args []string) error {
	refused := func(arg string) error {
		return fmt.Errorf("pg_dump's %s is not yours to give here: the servers, the snapshot, the format, the files and the locks are this command's (--format, --to, --lock-wait)", arg)
	}
	for _, arg := range args {
		switch {
		case arg == "--" || arg == "" || arg == "-":
			return fmt.Errorf("%q is no argument for pg_dump here", arg)
		case strings.HasPrefix(arg, "--"):
			// getopt takes the beginning of a name for the name.
			name, _, _ := strings.Cut(arg[2:], "=")
			if name == "no-sync" {
				continue
			}
			if slices.ContainsFunc(oursLong(), func(ours string) bool { return strings.HasPrefix(ours, name) }) {
				return refused(arg)
			}
		case strings.HasPrefix(arg, "-"):
			for _, letter := range arg[1:] {
				if strings.ContainsRune(oursShort, letter) {
					return refused("-" + string(letter))
				}
				if strings.ContainsRune(withValue, letter) {
					break
				}
			}
		}
	}
	return nil
}

// dumpRun is pg_dump at work on a shard.
type dumpRun struct {
	program   *pgDump
	target    pool.Target
	snapshot  string
	format    string
	file      string
	lockWait  time.Duration
	arguments []string
	said      io.Writer
}

// run returns when pg_dump has ended, which the end of ctx makes it do.
func (r *dumpRun) run(ctx context.Context) error {
	args := []string{
		"--dbname=dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(r.target.Database) + "'", "--no-password",
		"--snapshot=" + r.snapshot, "--format=" + r.format, "--file=" + r.file,
		// Definitions that wait for the locks of the snapshot's transaction would keep pg_dump waiting behind
		// them, and that transaction waits for pg_dump.
		"--lock-wait-timeout=" + strconv.FormatInt(r.lockWait.Milliseconds(), 10),
		// Transaction numbers mean nothing on another server. No transaction of the snapshot needs these rows.
		"--exclude-table-data=shardproxy.parts", "--exclude-table-data=shardproxy.commits",
	}
	cmd := exec.CommandContext(ctx, r.program.Path, append(args, r.arguments...)...)
	var err error
	if cmd.Env, err = dumpEnvironment(os.Environ(), r.target); err != nil {
		return err
	}
	out := &lastLines{to: r.said}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 15 * time.Second
	err = cmd.Run()
	out.end()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &ended):
		return fmt.Errorf("pg_dump: %s: %s", err, out.last)
	}
	return err
}

// dumpEnvironment is the environment of pg_dump: it logs in as the command itself did, and the
// password is in no argument.
func dumpEnvironment(environment []string, t pool.Target) ([]string, error) {
	host, port, err := net.SplitHostPort(t.Address)
	if err != nil {
		return nil, fmt.Errorf("node address %q: %w", t.Address, err)
	}
	env := slices.DeleteFunc(slices.Clone(environment), func(v string) bool { return strings.HasPrefix(v, "PG") })
	put := func(name, value string) {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	put("PGHOST", host)
	put("PGPORT", port)
	put("PGUSER", t.User)
	put("PGPASSWORD", t.Password)
	put("PGPASSFILE", os.DevNull+"/none") // libpq leaves alone what is not there
	put("PGAPPNAME", "shardproxy dump")
	put("PGGSSENCMODE", "disable")
	put("PGCONNECT_TIMEOUT", strconv.Itoa(max(2, int(t.ConnectTimeout/time.Second))))
	put("PGSSLMODE", t.TLS.Mode)
	put("PGSSLROOTCERT", t.TLS.CA)
	put("PGSSLCERT", t.TLS.Certificate)
	put("PGSSLKEY", t.TLS.Key)
	if t.TLS.Mode == "verify-full" && t.TLS.CA == "" {
		put("PGSSLROOTCERT", "system")
	}
	return env, nil
}

// lastLines passes lines on and keeps the last that says something. One goroutine writes.
type lastLines struct {
	to   io.Writer
	rest []byte
	last string
}

func (l *lastLines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		l.line(line)
		l.rest = bytes.Clone(rest)
	}
}

func (l *lastLines) line(line []byte) {
	if text := strings.TrimSpace(string(line)); text != "" {
		l.last = text
		fmt.Fprintln(l.to, text)
	}
}

func (l *lastLines) end() { l.line(l.rest) }

// prefixed writes whole lines behind a word, one at a time; all share the lock.
type prefixed struct {
	mu   *sync.Mutex
	to   io.Writer
	word string
}

func (p *prefixed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := fmt.Fprintf(p.to, "%s: %s", p.word, b)
	return len(b), err
}
