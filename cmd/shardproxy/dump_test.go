package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
	"shardproxy/metadata"
)

// pgProgram returns a program of the servers' installation.
func (s *shardedProgram) pgProgram(name string) string {
	return s.shards[0].Engine.Binaries().Path(name)
}

// runs runs a program that has to succeed.
func runs(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(within(t, time.Minute), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// primaries are the shards' servers.
func (s *shardedProgram) primaries() (all []*pgtest.Node) {
	for _, cl := range s.shards {
		all = append(all, cl.Primary())
	}
	return all
}

// restore makes a database of each shard's file, beside the shard's own.
func (s *shardedProgram) restore(database string, file func(shard int) string) {
	s.t.Helper()
	for i, n := range s.primaries() {
		n.Exec("postgres", "CREATE DATABASE "+database)
		if path := file(i); strings.HasSuffix(path, ".sql") {
			runs(s.t, s.pgProgram("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", n.DSN(database, "postgres"), "-f", path)
		} else {
			runs(s.t, s.pgProgram("pg_restore"), "--exit-on-error", "-d", n.DSN(database, "postgres"), path)
		}
	}
}

// dumped reads the manifest of a dump that is whole.
func (s *shardedProgram) dumped(dir string) *manifest {
	s.t.Helper()
	m := &manifest{}
	b, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err == nil {
		err = json.Unmarshal(b, m)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, unfinishedName)); !os.IsNotExist(err) {
		s.t.Errorf("a whole dump is marked as unfinished: %v", err)
	}
	if m.Version != 1 || m.Database != "app" || m.Cluster == "" || m.Epoch != 1 || m.Schema != metadata.Version || len(m.Shards) != len(s.shards) || m.At == "" {
		s.t.Errorf("manifest: %s", b)
	}
	for i, sh := range m.Shards {
		if sh.Shard != fmt.Sprint("s", i) || sh.Bytes < 1000 || sh.LSN == "" || sh.Snapshot == "" || !strings.HasPrefix(sh.Server, fmt.Sprint(s.shards[0].Engine.Binaries().Major)) {
			s.t.Errorf("manifest, shard %d: %+v", i, sh)
		}
	}
	return m
}

// TestDump restores what was dumped under transfers: all is right together. Dumps of the shards one after the
// other are not, which shows that the test can tell.
func TestDump(t *testing.T) {
	t.Parallel()
	s := startLedger(t)
	b := s.book(4)
	before := b.acknowledged()
	dir := filepath.Join(t.TempDir(), "whole")
	if out, code := s.tool(within(t, time.Minute), dumpCommand(), "--to", dir); code != 0 {
		t.Fatalf("code %d\n%s", code, out)
	}
	apart := t.TempDir()
	for i, n := range s.primaries() {
		runs(t, s.pgProgram("pg_dump"), "-d", n.DSN("app", "postgres"), "-f", fmt.Sprintf("%s/s%d.sql", apart, i))
		b.goOn(t)
	}
	b.stop()
	m := s.dumped(dir)
	s.restore("whole", func(i int) string { return filepath.Join(dir, m.Shards[i].File) })
	for _, bad := range auditsBank(s.primaries(), "whole", before) {
		t.Error(bad)
	}
	s.restore("apart", func(i int) string { return fmt.Sprintf("%s/s%d.sql", apart, i) })
	if len(auditsBank(s.primaries(), "apart", nil)) == 0 {
		t.Error("dumps that were made one after the other are right: the test shows nothing")
	}
	s.servedAgain("whole")
	for _, format := range []string{"plain", "directory"} {
		dir := filepath.Join(t.TempDir(), format)
		if out, code := s.tool(within(t, time.Minute), dumpCommand(), "--to", dir, "--format", format, "--jobs=1", "--", "--no-comments", "-O"); code != 0 {
			t.Fatalf("code %d\n%s", code, out)
		}
		m := s.dumped(dir)
		if !slices.Equal(m.Arguments, []string{"--no-comments", "-O"}) {
			t.Errorf("arguments %q", m.Arguments)
		}
		s.restore(format, func(i int) string { return filepath.Join(dir, m.Shards[i].File) })
		for _, bad := range auditsBank(s.primaries(), format, b.acknowledged()) {
			t.Error(format, bad)
		}
	}
}

// servedAgain expects that the cluster of restored databases is what its configuration says, and that
// the numbers of transactions of the old servers are not in it.
func (s *shardedProgram) servedAgain(database string) {
	t := s.t
	t.Helper()
	text := s.text()
	s.write(strings.Replace(text, "control: {user: postgres}", "database: "+database+", control: {user: postgres}", 1))
	defer s.write(text)
	if out, code := s.tool(within(t, time.Minute), initCommand()); code != 0 || strings.Contains(out, "made") || strings.Contains(out, "stored") {
		t.Errorf("init: code %d\n%s", code, out)
	}
	for _, n := range s.primaries() {
		if got := n.Value(database, "SELECT (SELECT count(*) FROM shardproxy.parts) + (SELECT count(*) FROM shardproxy.commits)"); got != "0" {
			t.Errorf("%s parts and commits are restored", got)
		}
	}
}

// slowDump is a pg_dump that waits until the file go is there, and writes down how it was called.
func (s *shardedProgram) slowDump() (path, dir string) {
	dir = s.t.TempDir()
	path = filepath.Join(dir, "slow_dump")
	text := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --version ] && exec %[1]s --version\necho \"$@\" >>%[2]s/arguments\nenv >>%[2]s/environment\n"+
		"while [ ! -e %[2]s/go ]; do sleep 0.05; done\nexec %[1]s \"$@\"\n", s.pgProgram("pg_dump"), dir)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		s.t.Fatal(err)
	}
	return path, dir
}

func there(path string) func() bool {
	return func() bool {
		_, err := os.Stat(path)
		return err == nil
	}
}

// unfinished expects that a dump is marked as not whole.
func unfinished(t testing.TB, dir string) {
	t.Helper()
	if !there(filepath.Join(dir, unfinishedName))() || there(filepath.Join(dir, manifestName))() {
		t.Errorf("%s is not marked as unfinished", dir)
	}
}

// TestDumpLate: pg_dump begins long after its snapshot. What empties tables or changes them has to wait.
func TestDumpLate(t *testing.T) {
	s := startShards(t, 2)
	s.write(strings.Replace(s.text(), "control: {user: postgres}", "control: {user: postgres, password: geheim}", 1))
	t.Setenv("PGOPTIONS", "-c work_mem=64kB")
	slow, dir := s.slowDump()
	to := filepath.Join(t.TempDir(), "a", "dump")
	type ended struct {
		out  string
		code int
	}
	done := make(chan ended, 1)
	go func() {
		out, code := s.tool(within(t, time.Minute), dumpCommand(), "--to", to, "--pg-dump", slow, "--format=plain", "--json", "--jobs=1")
		done <- ended{out, code}
	}()
	eventually(t, "pg_dump is called", there(filepath.Join(dir, "environment")))
	unfinished(t, to)
	for _, cl := range s.shards {
		c := pgtest.Connect(t, cl.Primary().DSN("app", "postgres"))
		must(t, c, "SET lock_timeout = '300ms'")
		fails(t, c, "TRUNCATE products CASCADE", "55P03")
		fails(t, c, "ALTER TABLE products ADD COLUMN late serial", "55P03")
		must(t, c, "DELETE FROM products")
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := <-done; e.code != 0 {
		t.Fatalf("%+v", e)
	}
	m := s.dumped(to)
	for _, sh := range m.Shards {
		b, err := os.ReadFile(filepath.Join(to, sh.File))
		if err != nil || strings.Count(string(b), "\tproduct ") != 10 {
			t.Errorf("%s lacks rows: %v\n%s", sh.File, err, b)
		}
	}
	arguments, _ := os.ReadFile(filepath.Join(dir, "arguments"))
	environment, _ := os.ReadFile(filepath.Join(dir, "environment"))
	if strings.Contains(string(arguments), "geheim") || strings.Count(string(environment), "PGPASSWORD=geheim\n") != 2 || strings.Contains(string(environment), "PGOPTIONS") {
		t.Errorf("arguments %s, environment %s", arguments, environment)
	}
	err := filepath.WalkDir(to, func(path string, d fs.DirEntry, _ error) error {
		if !d.IsDir() && !slices.Contains([]string{"manifest.json", "s0.sql", "s1.sql"}, d.Name()) {
			t.Errorf("%s is left", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestDumpTables: the snapshots are not those of the locks, and tables that were made in between are noticed.
func TestDumpTables(t *testing.T) {
	s := startShards(t, 2)
	ctx := within(t, time.Minute)
	cfg, err := load(s.path)
	if err != nil {
		t.Fatal(err)
	}
	links, err := openLinks(ctx, cfg, &cfg.Databases[0])
	if err != nil {
		t.Fatal(err)
	}
	defer links.close()
	m, link := (&dumpFlags{}).newManifest(links, nil), links.all[1]
	server := s.shards[1].Primary()
	take := func(sql string) error {
		t.Helper()
		locked, err := lockTables(ctx, link, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		server.Exec("app", sql)
		if err := takeSnapshot(ctx, link, m, 1); err != nil {
			t.Fatal(err)
		}
		return checkLocked(ctx, link, locked)
	}
	if err := take("INSERT INTO products VALUES (77, 'late')"); err != nil {
		t.Error(err)
	}
	if got := one(t, link.conn, "SELECT count(*) FROM public.products WHERE id = 77"); got != "1" {
		t.Error("the snapshot is as old as the locks")
	}
	must(t, link.conn, "ROLLBACK")
	if err := take(`CREATE SCHEMA "a.b"; CREATE TABLE "a.b"."c, d" (x int)`); !errors.Is(err, errTablesChanged) {
		t.Errorf("a new table: %v", err)
	}
	must(t, link.conn, "ROLLBACK")
	if err := take("SELECT 1"); err != nil {
		t.Error(err)
	}
	must(t, link.conn, "ROLLBACK")
	held := pgtest.Connect(t, server.DSN("app", "postgres"))
	must(t, held, "BEGIN")
	must(t, held, `LOCK TABLE "a.b"."c, d"`)
	if _, err := lockTables(ctx, link, 100*time.Millisecond); err == nil || !strings.Contains(err.Error(), "--lock-wait") {
		t.Errorf("a locked table: %v", err)
	}
}

// TestDumpNotWhole: a dump that fails, is interrupted or loses its snapshot says so, and what is there stays.
func TestDumpNotWhole(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	begin := func(more ...string) (to string, cmd *exec.Cmd, out *strings.Builder) {
		t.Helper()
		slow, dir := s.slowDump()
		to = filepath.Join(t.TempDir(), "dump")
		cmd, out = command(t, append([]string{"dump", "-c", s.path, "--to", to, "--pg-dump", slow}, more...)...), &strings.Builder{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "pg_dump is called", there(filepath.Join(dir, "environment")))
		return to, cmd, out
	}
	ends := func(to string, cmd *exec.Cmd, out *strings.Builder, words string) {
		t.Helper()
		timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		_ = cmd.Wait() // the state tells
		if code := cmd.ProcessState.ExitCode(); code != exitUnfinished || !strings.Contains(out.String(), words) || !strings.Contains(out.String(), "NOT whole") {
			t.Errorf("code %d, want %q: %s", code, words, out)
		}
		unfinished(t, to)
	}
	to, cmd, out := begin()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	ends(to, cmd, out, "interrupted")

	to, cmd, out = begin()
	s.shards[1].Primary().Exec("app", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction' AND application_name = 'shardproxy'")
	ends(to, cmd, out, "shard s1: the snapshot's transaction is lost")

	to = filepath.Join(t.TempDir(), "dump")
	s.refuses(exitUnfinished, "no matching tables were found", dumpCommand(), "--to", to, "--", "--table=nothing")
	unfinished(t, to)
	s.refuses(exitProblems, "is not empty", dumpCommand(), "--to", to)
}

// TestDumpRefused refuses what would be no dump of one moment.
func TestDumpRefused(t *testing.T) {
	s := startShards(t, 2)
	to := filepath.Join(t.TempDir(), "dump")
	s.refuses(1, "--to", dumpCommand())
	s.refuses(1, "--format", dumpCommand(), "--to", to, "--format=tar")
	s.refuses(1, "behind --", dumpCommand(), "--to", to, "public")
	for _, arg := range []string{"--snapshot=x", "--snap=x", "-fx", "-aFt", "-h", "--dbname=other", "--serializable-deferrable", "-W", "--lock-wait-timeout=1", "--", ""} {
		s.refuses(1, "", dumpCommand(), "--to", to, "--", arg)
		if judgeDumpArguments([]string{arg}) == nil {
			t.Errorf("%q is not refused", arg)
		}
	}
	for _, arg := range []string{"--no-sync", "-a", "-nfish", "-Zh", "--exclude-table-data=x", "-vO", "public", "-j4"} {
		if err := judgeDumpArguments([]string{arg}); err != nil {
			t.Error(err)
		}
	}
	old := filepath.Join(t.TempDir(), "pg_dump")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.refuses(exitProblems, "it is of version 9.6.24", dumpCommand(), "--to", to, "--pg-dump", old)
	s.refuses(exitProblems, "no such file", dumpCommand(), "--to", to, "--pg-dump", old+"er")
	t.Setenv("PATH", filepath.Dir(old))
	if d, err := findPgDump(t.Context(), "", 13); err != nil || d.Path == old || d.major < 13 {
		t.Errorf("%+v, %v", d, err)
	}
	s.shards[1].Primary().Exec("app", "BEGIN; SELECT shardproxy.take_part(); PREPARE TRANSACTION 'foreign'")
	s.refuses(exitProblems, "shard s1: a transaction over several shards does not end", dumpCommand(), "--to", to, "--wait=2s")
	if left, err := os.ReadDir(to); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	s.shards[1].Primary().Exec("app", "ROLLBACK PREPARED 'foreign'")
}
