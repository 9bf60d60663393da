package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	o, err := parseOptions(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, o, os.Stdout)
	}
	if err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run makes the stage, measures what the options name, prints the tables and
// writes them into the document.
func run(ctx context.Context, o options, out io.Writer) (err error) {
	if err := keepFileLimit(); err != nil {
		return err
	}
	quiet := loadAverage()
	fmt.Fprintln(out, "starting the servers ...")
	s, err := openStage(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if o.serve {
		return s.serve(ctx, out)
	}
	m := &measurement{begun: time.Now(), stage: s, loadBefore: quiet, progress: func(format string, args ...any) {
		fmt.Fprintf(out, format+"\n", args...)
	}}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"statements", m.measureStatements},
		{"features", m.measureFeatures},
		{"rate", m.measureRate},
		{"storm", m.measureStorm},
		{"bulk", m.measureBulk},
		{"shards", m.measureShards},
		{"moves", m.measureMoves},
		{"cold", m.measureCold},
		{"idle", m.measureIdle},
	} {
		if !o.wants(part.name) {
			continue
		}
		if err := part.run(ctx); err != nil {
			// What was measured before it is not lost, but is no whole run either.
			fmt.Fprintf(out, "\n%s", m.report())
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	text := m.report()
	fmt.Fprintf(out, "\n%s", text)
	if o.out == "" {
		return nil
	}
	return writeBetween(o.out, text)
}

// keepFileLimit raises the bound on open files as far as it goes and, by
// setting it explicitly, makes the programs started from here inherit it.
func keepFileLimit() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("ask for the limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	return nil
}

// serve keeps the stage up for a look with other tools, until ctx ends.
func (s *stage) serve(ctx context.Context, out io.Writer) error {
	fmt.Fprintf(out, "PGPASSWORD=%s, users %s and %s, database %s with pgbench's tables\n", password, userName, pgbenchUser, database)
	for _, e := range s.endpoints {
		line := fmt.Sprintf("  %-28s 127.0.0.1 port %d", e.name, e.port)
		if e.process != nil {
			line += fmt.Sprintf("  pid %d", e.process.pid)
		}
		if e.admin != "" {
			line += "  admin " + e.admin
		}
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
	fmt.Fprintln(out, "Ctrl-C ends everything")
	<-ctx.Done()
	return nil
}
