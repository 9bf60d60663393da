package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"shardproxy/config"
	"shardproxy/metadata"
	"shardproxy/verify"
)

// exitDiffers is check's exit code when shards differ.
const exitDiffers = 1

// checkFlags are the flags of check.
type checkFlags struct {
	config, database        string
	strict, show            bool
	schema, reference       bool
	repair, dryRun, json    bool
	from                    string
	tables                  []string
	rows, chunkRows         int
	timeout, lockWait, hold time.Duration
}

func checkCommand() *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration file; with --schema or --reference, what its shards have alike",
		Long: "Check reads the configuration as run would and prints every problem as\n" +
			"file:line:column. Exit code 0: good, 2: problems, 3: warnings under --strict.\n\n" +
			"With --schema it compares the schemas of the shards of a database, with --reference\n" +
			"the rows of its reference tables, and with --repair makes these what they are on the\n" +
			"home shard. Exit code 0: alike, 1: differences, 2: something could not be compared.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case f.schema:
				return f.checkShards(cmd, f.checkSchema)
			case f.reference:
				return f.checkShards(cmd, f.checkReference)
			}
			for _, name := range []string{"database", "json", "repair", "dry-run", "from", "table", "rows", "chunk-rows", "timeout", "lock-wait", "hold"} {
				if cmd.Flags().Changed(name) {
					return fmt.Errorf("--%s needs --schema or --reference", name)
				}
			}
			return f.checkFile(cmd)
		},
	}
	fs := c.Flags()
	fs.StringVarP(&f.config, "config", "c", "shardproxy.yaml", "configuration file")
	fs.BoolVar(&f.strict, "strict", false, "fail on warnings too")
	fs.BoolVar(&f.show, "show", false, "print the configuration with every default filled in, secrets hidden")
	fs.BoolVar(&f.schema, "schema", false, "compare the schemas of the shards")
	fs.BoolVar(&f.reference, "reference", false, "compare the rows of reference tables")
	fs.StringVar(&f.database, "database", "", "database of the configuration; needed when it has several")
	fs.BoolVar(&f.json, "json", false, "print one JSON object")
	fs.StringArrayVar(&f.tables, "table", nil, "reference table to compare, with or without its schema; all when not given")
	fs.StringVar(&f.from, "from", "", "shard whose rows are right; the home shard when not given")
	fs.BoolVar(&f.repair, "repair", false, "make the other shards' rows what they are there")
	fs.BoolVar(&f.dryRun, "dry-run", false, "say what --repair would do, and do nothing")
	fs.IntVar(&f.rows, "rows", 10, "how many rows to show of each table and shard")
	fs.IntVar(&f.chunkRows, "chunk-rows", verify.DefaultChunkRows, "how many rows to compare at a time")
	fs.DurationVar(&f.hold, "hold", verify.DefaultHold, "how long a comparison holds a table's locks")
	fs.DurationVar(&f.lockWait, "lock-wait", verify.DefaultLockWait, "how long locks are tried for")
	fs.DurationVar(&f.timeout, "timeout", 0, "for all of it; 0: none")
	c.MarkFlagsMutuallyExclusive("schema", "reference")
	for _, name := range []string{"strict", "show"} {
		c.MarkFlagsMutuallyExclusive("schema", name)
		c.MarkFlagsMutuallyExclusive("reference", name)
	}
	return c
}

// checkFile checks the configuration alone.
func (f *checkFlags) checkFile(cmd *cobra.Command) error {
	cfg, err := load(f.config)
	if err != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), err)
		return &exitError{code: exitProblems}
	}
	for _, w := range cfg.Warnings() {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
	}
	if f.show {
		fmt.Fprint(cmd.OutOrStdout(), cfg.String())
	}
	if f.strict && len(cfg.Warnings()) > 0 {
		return &exitError{code: exitWarnings}
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: good (databases: %d, users: %d)\n", f.config, len(cfg.Databases), len(cfg.Users))
	return nil
}

// checked is a database that is to be compared.
type checked struct {
	conf     *config.Database
	sessions []*verify.Session // of the shards that answer, in their order
	shards   []checkedShard
}

// checkedShard is whether a shard could be asked.
type checkedShard struct {
	Shard string `json:"shard"`
	Error string `json:"error,omitempty"`
}

// away are the shards that could not be asked.
func (c *checked) away() (names []string) {
	for _, s := range c.shards {
		if s.Error != "" {
			names = append(names, s.Shard)
		}
	}
	return names
}

// hasHome reports whether the home shard is among the sessions.
func (c *checked) hasHome() bool { return c.shards[0].Error == "" }

// code is the exit code of a comparison.
func (c *checked) code(differs, incomplete bool) error {
	switch {
	case incomplete || len(c.away()) > 0:
		return &exitError{code: exitProblems}
	case differs:
		return &exitError{code: exitDiffers}
	}
	return nil
}

// checkShards connects to the shards and compares them.
func (f *checkFlags) checkShards(cmd *cobra.Command, compare func(context.Context, *cobra.Command, *checked) error) error {
	if err := f.sensible(cmd); err != nil {
		return err
	}
	cfg, conf, err := databaseOf(cmd, f.config, f.database)
	if err != nil {
		return err
	}
	if len(conf.Shards) < 2 {
		return fmt.Errorf("database %q has one shard: there is nothing to compare", conf.Name)
	}
	ctx, cancel := limited(cmd.Context(), f.timeout)
	defer cancel()
	c := connectShards(ctx, cfg, membersOf(ctx, cfg, conf))
	defer func() {
		for _, s := range c.sessions {
			s.Close()
		}
	}()
	if len(c.sessions) == 0 {
		for _, s := range c.shards {
			fmt.Fprintf(cmd.ErrOrStderr(), "shard %s: %s\n", s.Shard, s.Error)
		}
		return &exitError{exitProblems, "no shard can be asked"}
	}
	return compare(ctx, cmd, c)
}

// limited is a context that ends after a time when one is given.
func limited(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d > 0 {
		return context.WithTimeout(ctx, d)
	}
	return ctx, func() {}
}

// sensible refuses flags that say nothing together.
func (f *checkFlags) sensible(cmd *cobra.Command) error {
	if f.schema {
		for _, name := range []string{"repair", "dry-run", "from", "table", "rows", "chunk-rows", "lock-wait", "hold"} {
			if cmd.Flags().Changed(name) {
				return fmt.Errorf("--%s needs --reference", name)
			}
		}
	}
	switch {
	case f.dryRun && !f.repair:
		return errors.New("--dry-run needs --repair")
	case f.rows < 0 || f.chunkRows < 1 || f.hold <= 0 || f.lockWait <= 0 || f.timeout < 0:
		return errors.New("--rows, --chunk-rows, --hold, --lock-wait and --timeout are not negative, and all but --rows and --timeout more than 0")
	}
	return nil
}

// membersOf returns a database without the shards that the slot map does not have; as it is when the map cannot be read, which shows elsewhere.
func membersOf(ctx context.Context, cfg *config.Config, conf *config.Database) *config.Database {
	home, err := primaryOf(cfg, conf, 0)(ctx)
	if err != nil {
		return conf
	}
	defer endConn(home)
	m, _, err := metadata.Load(ctx, home)
	if err != nil {
		return conf
	}
	var spare []string
	for _, s := range conf.Shards {
		if !slices.Contains(m.Shards(), s.Name) {
			spare = append(spare, s.Name)
		}
	}
	return withoutSpare(conf, spare)
}

// connectShards logs in to the primaries of all shards, all at once.
func connectShards(ctx context.Context, cfg *config.Config, conf *config.Database) *checked {
	c := &checked{conf: conf, shards: make([]checkedShard, len(conf.Shards))}
	all := make([]*verify.Session, len(conf.Shards))
	var group sync.WaitGroup
	for i := range conf.Shards {
		group.Go(func() {
			c.shards[i].Shard = conf.Shards[i].Name
			var err error
			if all[i], err = verify.Open(ctx, conf.Shards[i].Name, primaryOf(cfg, conf, i)); err != nil {
				c.shards[i].Error = strings.Join(strings.Fields(verify.Told(err)), " ")
			}
		})
	}
	group.Wait()
	for _, s := range all {
		if s != nil {
			c.sessions = append(c.sessions, s)
		}
	}
	return c
}
