package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"shardproxy/catalog"
	"shardproxy/pool"
)

// restoreName is the application_name of pg_dump and pg_restore.
const restoreName = "shardproxy join"

// schemaMost bounds a schema, which is held in memory: bytes.
const schemaMost = 1 << 30

// findForServer returns a pg_dump of the servers' own version, for what a newer pg_restore writes an older
// server need not know; a newer one where there is none, or where it is given.
func findForServer(ctx context.Context, given string, major int) (*pgDump, error) {
	if given == "" {
		for _, path := range pgDumpPlaces() {
			if d, err := askPgDump(ctx, path); err == nil && d.major == major {
				return d, restoreBeside(d)
			}
		}
	}
	d, err := findPgDump(ctx, given, major)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx) // nothing is wrong with the programs
	case err != nil:
		return nil, err
	}
	return d, restoreBeside(d)
}

// restore is where pg_restore is.
func (d *pgDump) restore() string { return filepath.Join(filepath.Dir(d.Path), "pg_restore") }

func restoreBeside(d *pgDump) error {
	if _, err := exec.LookPath(d.restore()); err != nil {
		return fmt.Errorf("pg_restore is not beside pg_dump: %w", err)
	}
	return nil
}

// schemaArchive is a schema as pg_dump writes it, in its custom format.
type schemaArchive struct {
	data []byte
	list string // what is in it, as pg_restore lists it
}

// schemaRun is a call of pg_dump or pg_restore.
type schemaRun struct {
	program string
	args    []string
	in      []byte
	list    string       // for --use-list, "" for none
	server  *pool.Target // nil for none
	quiet   bool         // the server logs no statement, for some have passwords; only a superuser may say so
	out     limitedBuffer
}

// limitedBuffer fails when more is written than a schema may have.
type limitedBuffer struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > schemaMost {
		return 0, fmt.Errorf("the schema is larger than %d bytes", schemaMost)
	}
	return b.Buffer.Write(p)
}

// run returns when the program has ended, which the end of ctx makes it do.
func (r *schemaRun) run(ctx context.Context) error {
	name := filepath.Base(r.program)
	cmd := exec.CommandContext(ctx, r.program, r.args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
	if r.server != nil {
		env, err := dumpEnvironment(os.Environ(), *r.server)
		if err != nil {
			return err
		}
		// What the role or the database has set is not for this.
		settings := "PGOPTIONS=-c default_transaction_read_only=off -c synchronous_commit=on -c statement_timeout=0 -c lock_timeout=0"
		if r.quiet {
			settings += " -c log_statement=none -c log_min_error_statement=panic -c log_min_duration_statement=-1 -c log_min_duration_sample=-1"
		}
		cmd.Env = append(env, "PGAPPNAME="+restoreName, settings)
		cmd.Args = append(cmd.Args, "--no-password", "--dbname=dbname='"+strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(r.server.Database)+"'")
	}
	if r.list != "" {
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		written := make(chan struct{})
		go func() {
			_, _ = write.WriteString(r.list) // who reads has ended when it fails, and says why
			_ = write.Close()
			close(written)
		}()
		defer func() {
			_ = read.Close()
			<-written
		}()
		cmd.ExtraFiles = []*os.File{read}
		cmd.Args = append(cmd.Args, "--use-list=/dev/fd/3")
	}
	said := &saidErrors{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(r.in), &r.out, said
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 15 * time.Second
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &ended):
		return fmt.Errorf("%s: %w: %s", name, err, said)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// saidErrors keeps what a program says is wrong, and nothing else: it also shows the statement that failed, which
// may hold a password.
type saidErrors struct{ text bytes.Buffer }

// saidMost bounds what is kept of it: bytes.
const saidMost = 1 << 20

// Write implements io.Writer.
func (s *saidErrors) Write(p []byte) (int, error) {
	if s.text.Len() < saidMost {
		s.text.Write(p)
	}
	return len(p), nil
}

var errorLine = regexp.MustCompile(`^(pg_\w+: (error|detail|hint|from TOC entry)|DETAIL:|HINT:)`)

func (s *saidErrors) String() string {
	var lines []string
	for line := range strings.Lines(s.text.String()) {
		if errorLine.MatchString(line) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "; ")
}

// server is where the control user logs in.
func (j *join) server(link *shardLink) *pool.Target {
	login := j.cfg.ControlLogin(j.conf)
	t := target(j.conf)
	t.Address, t.User, t.Password = link.address, login.User, login.Password.Reveal()
	return &t
}

// schemaArguments are those by which a schema is written and read.
func schemaArguments() []string {
	return []string{"--schema-only", "--no-publications", "--no-subscriptions", "--no-tablespaces"}
}

// dump reads a shard's schema in a format of pg_dump.
func (j *join) dump(ctx context.Context, link *shardLink, format string) ([]byte, error) {
	r := schemaRun{program: j.program.Path, server: j.server(link),
		args: append(schemaArguments(), "--format="+format, "--exclude-schema=shardproxy", "--lock-wait-timeout=60000")}
	if err := r.run(ctx); err != nil {
		return nil, fmt.Errorf("shard %s: %w", link.shard, err)
	}
	return r.out.Bytes(), nil
}

// archive dumps the home shard's schema.
func (j *join) archive(ctx context.Context) (*schemaArchive, error) {
	data, err := j.dump(ctx, j.home, "custom")
	if err != nil {
		return nil, err
	}
	r := schemaRun{program: j.program.restore(), args: []string{"--list"}, in: data}
	if err := r.run(ctx); err != nil {
		return nil, err
	}
	a := &schemaArchive{data: data}
	for line := range strings.Lines(r.out.String()) {
		if fenceEntry.MatchString(line) {
			return nil, fmt.Errorf("%w; it has begun just now", errMoveRuns)
		}
		if !j.withoutEvent || !eventEntry.MatchString(line) {
			a.list += line
		}
	}
	return a, nil
}

// Lines of an archive's list have numbers, a type, schema and name, and the owner.
var (
	fenceEntry = regexp.MustCompile(`^\d+; \d+ \d+ TRIGGER .* shardproxy_fence_`)
	eventEntry = regexp.MustCompile(`^\d+; \d+ \d+ (EVENT TRIGGER|COMMENT - EVENT TRIGGER|SECURITY LABEL - EVENT TRIGGER) `)
)

// copy gives the new shard the schema, all of it or nothing.
func (j *join) copy(ctx context.Context) (*schemaArchive, error) {
	j.options.say("shard %s: the schema is read by %s", j.home.shard, j.program.Path)
	a, err := j.archive(ctx)
	if err != nil {
		return nil, err
	}
	if !j.plan.home.public && j.plan.target.public {
		// pg_dump takes the schema public for granted, and does not say that it is not there.
		if _, err := j.target.conn.Exec(ctx, "DROP SCHEMA public"); err != nil {
			return nil, err
		}
	}
	j.options.say("shard %s: the schema is made", j.report.Shard)
	r := schemaRun{program: j.program.restore(), server: j.server(j.target), quiet: j.plan.target.super, in: a.data, list: a.list,
		args: append(schemaArguments(), "--exit-on-error", "--single-transaction")}
	if err := r.run(ctx); err != nil {
		// Its session may still be at work; nothing is, once it is gone.
		return nil, errors.Join(err, j.alone(context.WithoutCancel(ctx)))
	}
	return a, nil
}

// compareDumps warns of what pg_dump writes of one shard and not of the other: owners, grants, comments and
// whatever else shardproxy check --schema does not look at. Only names are told.
func (j *join) compareDumps(ctx context.Context, home *schemaArchive) error {
	var err error
	if home == nil {
		if home, err = j.archive(ctx); err != nil {
			return err
		}
	}
	r := schemaRun{program: j.program.restore(), in: home.data, list: home.list, args: append(schemaArguments(), "--file=-")}
	if err := r.run(ctx); err != nil {
		return err
	}
	target, err := j.dump(ctx, j.target, "plain")
	if err != nil {
		return err
	}
	if names := unlikeEntries(r.out.String(), string(target)); len(names) > 0 {
		j.report.Warnings = append(j.report.Warnings, fmt.Sprintf("pg_dump does not write the same of both shards: %s", firstOf(names)))
	}
	return nil
}

// entryHead is how pg_dump begins an entry. The owner stands in the entry too, where it matters.
var entryHead = regexp.MustCompile(`(?m)^--\n-- Name: (.*); Type: (.*); Schema: (.*); Owner: .*\n--\n`)

// ofNoEntry are lines that stand where they are by the order of entries, or differ in every dump.
var ofNoEntry = regexp.MustCompile(`(?m)^(SET default_\w+ = .*;|\\(un)?restrict .*|--\n-- PostgreSQL database dump complete\n--)$`)

// dumpEntries are the entries of a plain dump by their names, which may come several times.
func dumpEntries(text string) map[string]string {
	all := map[string]string{}
	heads := entryHead.FindAllStringSubmatchIndex(text, -1)
	for i, h := range heads {
		end := len(text)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		name := text[h[4]:h[5]] + " " + text[h[2]:h[3]]
		if schema := text[h[6]:h[7]]; schema != "-" {
			name += " in schema " + schema
		}
		all[name] += strings.TrimSpace(ofNoEntry.ReplaceAllString(text[h[1]:end], "")) + "\n"
	}
	return all
}

// unlikeEntries names the entries that two dumps do not have alike.
func unlikeEntries(a, b string) (names []string) {
	left, right := dumpEntries(a), dumpEntries(b)
	for head, text := range left {
		if other, is := right[head]; !is || !catalog.SameSQL(text, other) {
			names = append(names, head)
		}
	}
	for head := range right {
		if _, is := left[head]; !is {
			names = append(names, head)
		}
	}
	return sorted(names)
}

func sorted(names []string) []string {
	slices.Sort(names)
	return names
}
