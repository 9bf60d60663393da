package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"shardproxy/config"
)

// dumpFlags are the flags of dump.
type dumpFlags struct {
	config, database string
	to, format       string
	program          string
	jobs             int
	lockWait         time.Duration
	json             bool
	fence            fenceFlags
}

// The files of a dump that are not a shard's. A dump with a manifest is whole.
const (
	manifestName   = "manifest.json"
	unfinishedName = "UNFINISHED"
	unfinishedText = "This dump is not whole: shardproxy dump has not ended, or failed. A whole one has manifest.json in place of this file.\n"
)

// manifest says what a dump holds.
type manifest struct {
	Version   int         `json:"version"` // of this format: 1
	Program   string      `json:"program"`
	Cluster   string      `json:"cluster"`
	Database  string      `json:"database"`
	Epoch     int64       `json:"epoch"`
	Schema    int         `json:"schema_version"`
	At        string      `json:"at"` // the moment of the snapshots, by the home shard's clock
	Ended     string      `json:"ended"`
	PgDump    pgDump      `json:"pg_dump"`
	Format    string      `json:"format"`
	Arguments []string    `json:"arguments"`
	Warnings  []string    `json:"warnings,omitempty"`
	Shards    []shardDump `json:"shards"` // the home shard first
}

// shardDump is a shard's part of a dump.
type shardDump struct {
	Shard    string `json:"shard"`
	File     string `json:"file"` // or folder, in that of the manifest
	Bytes    int64  `json:"bytes"`
	Server   string `json:"server_version"`
	Address  string `json:"address"`
	Snapshot string `json:"snapshot"`
	LSN      string `json:"lsn"` // where the server's WAL was at the snapshot
}

func dumpCommand() *cobra.Command {
	var f dumpFlags
	c := &cobra.Command{
		Use:   "dump --to DIR [-- pg_dump arguments]",
		Short: "Dump all shards as they are at one moment",
		Long: "Dump takes a snapshot of every shard while no transaction over several shards is half\n" +
			"committed, and runs pg_dump on each with it. DIR gets a file for each shard, or a folder,\n" +
			"and manifest.json when all is well; it must be empty or not be there.\n" +
			"Restoring is pg_restore or psql for each shard.\n" +
			"Exit code 0: the dump is whole, 1: it is not, 2: nothing was dumped.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n > 0 || n < 0 && len(args) > 0 {
				return fmt.Errorf("unknown argument %q: those for pg_dump stand behind --", args[0])
			}
			return f.run(cmd, args)
		},
	}
	fs := c.Flags()
	fs.StringVarP(&f.config, "config", "c", "shardproxy.yaml", "configuration file")
	fs.StringVar(&f.database, "database", "", "database of the configuration; needed when it has several")
	fs.StringVar(&f.to, "to", "", "folder for the dump, empty or to be made")
	fs.StringVar(&f.format, "format", "custom", "custom, directory or plain")
	fs.IntVar(&f.jobs, "jobs", 2, "how many shards to dump at a time")
	fs.StringVar(&f.program, "pg-dump", "", "the program pg_dump; it is looked for in PATH and the usual places when not given")
	fs.DurationVar(&f.lockWait, "lock-wait", time.Minute, "how long locks of tables are waited for")
	fs.BoolVar(&f.json, "json", false, "print the manifest")
	f.fence.add(fs)
	return c
}

// extension returns what a shard's file ends in.
func (f *dumpFlags) extension() string {
	return map[string]string{"custom": ".dump", "directory": ".dir", "plain": ".sql"}[f.format]
}

func (f *dumpFlags) sensible(arguments []string) error {
	switch {
	case f.to == "":
		return errors.New("--to says where the dump goes: it is needed")
	case f.extension() == "":
		return fmt.Errorf("--format is custom, directory or plain, not %q", f.format)
	case f.jobs < 1 || f.lockWait < time.Millisecond:
		return errors.New("--jobs is at least 1, --lock-wait at least 1ms")
	}
	return errors.Join(f.fence.sensible(), judgeDumpArguments(arguments))
}

func (f *dumpFlags) run(cmd *cobra.Command, arguments []string) error {
	if err := f.sensible(arguments); err != nil {
		return err
	}
	cfg, conf, err := databaseOf(cmd, f.config, f.database)
	if err != nil {
		return err
	}
	if len(conf.Shards) < 2 {
		return fmt.Errorf("database %q has one shard: pg_dump alone does it", conf.Name)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	links, err := openLinks(ctx, cfg, conf)
	if err != nil {
		return &exitError{exitProblems, err.Error()}
	}
	defer links.close()
	m := f.newManifest(links, arguments)
	major, err := links.newestMajor(ctx, m)
	var program *pgDump
	if err == nil {
		program, err = findPgDump(ctx, f.program, major)
	}
	if err == nil {
		err = makeEmpty(f.to)
	}
	if err != nil {
		return &exitError{exitProblems, err.Error()}
	}
	m.PgDump = *program
	if err := takeSnapshots(ctx, links, f, m); err != nil {
		return &exitError{exitProblems, err.Error()}
	}
	if err := f.dump(ctx, cfg, links, m, cmd.ErrOrStderr()); err != nil {
		return &exitError{exitUnfinished, fmt.Sprintf("%v\nthe dump in %s is NOT whole; what is there was left", err, f.to)}
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), m)
	}
	return m.print(cmd.OutOrStdout(), f.to)
}

func (f *dumpFlags) newManifest(links *shardLinks, arguments []string) *manifest {
	m := &manifest{Version: 1, Program: buildVersion(), Cluster: links.status.Cluster.ID, Database: links.conf.Name, Format: f.format,
		Arguments: append([]string{}, arguments...)}
	for _, link := range links.all {
		// A shard may have any name, a file not: the percent sign is the only one that is made.
		file := url.PathEscape(link.shard)
		if strings.HasPrefix(file, ".") {
			file = "%2E" + file[1:]
		}
		m.Shards = append(m.Shards, shardDump{Shard: link.shard, File: file + f.extension(), Address: link.address})
	}
	return m
}

// newestMajor notes the servers' versions and returns the newest major one.
func (l *shardLinks) newestMajor(ctx context.Context, m *manifest) (major int, err error) {
	for i, link := range l.all {
		var number int
		err := link.conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int, current_setting('server_version')").Scan(&number, &m.Shards[i].Server)
		if err != nil {
			return 0, fmt.Errorf("shard %s: %w", link.shard, err)
		}
		major = max(major, number/10000)
	}
	return major, nil
}

// makeEmpty makes a folder that nobody else may read, or finds that it is there and empty.
func makeEmpty(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	there, err := os.ReadDir(dir)
	if err == nil && len(there) > 0 {
		err = fmt.Errorf("%s is not empty: it has %s", dir, there[0].Name())
	}
	return err
}

// dump dumps the shards, whose snapshots are taken, and writes the manifest.
func (f *dumpFlags) dump(ctx context.Context, cfg *config.Config, links *shardLinks, m *manifest, said io.Writer) error {
	marker := filepath.Join(f.to, unfinishedName)
	if err := os.WriteFile(marker, []byte(unfinishedText), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := watchSnapshots(ctx, links, cancel)
	err := f.dumpAll(ctx, cfg, links, m, said, cancel)
	cancel(nil)
	watch.Wait()
	if err != nil {
		return err
	}
	if err := endSnapshots(links); err != nil {
		return err
	}
	for i := range m.Shards {
		if m.Shards[i].Bytes, err = sizeOf(filepath.Join(f.to, m.Shards[i].File)); err != nil {
			return fmt.Errorf("shard %s: %w", m.Shards[i].Shard, err)
		}
	}
	m.Ended = time.Now().UTC().Format(time.RFC3339)
	if err := m.write(f.to); err != nil {
		return err
	}
	return os.Remove(marker)
}

// dumpAll runs pg_dump for all shards, some at a time. The first that fails ends the others.
func (f *dumpFlags) dumpAll(ctx context.Context, cfg *config.Config, links *shardLinks, m *manifest, said io.Writer, cancel context.CancelCauseFunc) error {
	login := cfg.ControlLogin(links.conf)
	turns := make(chan int, len(links.all))
	for i := range links.all {
		turns <- i
	}
	close(turns)
	var lock sync.Mutex
	var all sync.WaitGroup
	for range min(f.jobs, len(links.all)) {
		all.Go(func() {
			for i := range turns {
				if ctx.Err() != nil {
					return
				}
				t := target(links.conf)
				t.Address, t.User, t.Password = links.all[i].address, login.User, login.Password.Reveal()
				r := dumpRun{program: &m.PgDump, target: t, snapshot: m.Shards[i].Snapshot, format: f.format, file: filepath.Join(f.to, m.Shards[i].File),
					lockWait: f.lockWait, arguments: m.Arguments, said: &prefixed{&lock, said, m.Shards[i].Shard}}
				if err := r.run(ctx); err != nil {
					cancel(fmt.Errorf("shard %s: %w", m.Shards[i].Shard, err)) // the first counts
				}
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
			return err
		}
		return errors.New("it was interrupted")
	}
	return nil
}

// sizeOf returns how many bytes a file has, or those of a folder.
func sizeOf(path string) (bytes int64, err error) {
	err = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	return bytes, err
}

// write puts the manifest in its place when all of it is on disk.
func (m *manifest) write(dir string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	temporary := filepath.Join(dir, manifestName+".part")
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(b, '\n'))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, filepath.Join(dir, manifestName)); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

func (m *manifest) print(w io.Writer, dir string) error {
	fmt.Fprintf(w, "database %s as it was at %s, in %s\n", m.Database, m.At, dir)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  SHARD\tFILE\tBYTES\tLSN")
	for _, s := range m.Shards {
		fmt.Fprintf(t, "  %s\t%s\t%d\t%s\n", s.Shard, s.File, s.Bytes, s.LSN)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, warning := range m.Warnings {
		fmt.Fprintln(w, "warning:", warning)
	}
	return nil
}
