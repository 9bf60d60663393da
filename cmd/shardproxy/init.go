package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"shardproxy/config"
	"shardproxy/metadata"
	"shardproxy/pool"
)

func initCommand() *cobra.Command {
	var path string
	var dry, grow, rules bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "init [database ...]",
		Short: "Make the clusters of the databases that have several shards",
		Long: "Init checks the shards of each database that has several, makes the schema\n" +
			"shardproxy on them and stores the slot map. What is there already is compared and\n" +
			"left alone: a second run changes nothing, and one after a failure goes on.\n" +
			"With --grow the first shard gets all slots, and may be a database that has been in use: the others join\n" +
			"with rebalance start --add, while applications run.\n" +
			"A cluster keeps the rules by which its rows are placed: proxies with others do not start. --rules has those of the\n" +
			"configuration take their place. That is refused where rows would not be found any more, and, if tables that there are\n" +
			"are placed otherwise, while a proxy runs.\n" +
			"Exit code 0: done, 2: the shards or the configuration do not do.",
		RunE: func(cmd *cobra.Command, names []string) error {
			cfg, err := load(path)
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
				return &exitError{code: exitProblems}
			}
			databases, err := sharded(cfg, names)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			for _, conf := range databases {
				o := clusterOptions(conf, func(i int) metadata.Connect { return primaryOf(cfg, conf, i) })
				o.DryRun = dry
				if grow {
					o.Shards = o.Shards[:1]
				}
				if err := noneElsewhere(ctx, conf, o); err != nil {
					fmt.Fprintln(cmd.ErrOrStderr(), err)
					return &exitError{code: exitProblems}
				}
				if rules {
					if err := changeRules(ctx, cfg, conf, cmd.OutOrStdout(), dry); err != nil {
						fmt.Fprintf(cmd.ErrOrStderr(), "database %s: the rules stay as they are: %v\n", conf.Name, err)
						return &exitError{code: exitProblems}
					}
					if dry {
						continue // what else differs is said without it
					}
				}
				report, err := metadata.Init(ctx, o)
				fmt.Fprint(cmd.OutOrStdout(), report)
				if err != nil {
					fmt.Fprintln(cmd.ErrOrStderr(), err)
					return &exitError{code: exitProblems}
				}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&path, "config", "c", "shardproxy.yaml", "configuration file")
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be done, and do nothing")
	c.Flags().BoolVar(&grow, "grow", false, "the first shard gets all slots; the others join later")
	c.Flags().BoolVar(&rules, "rules", false, "have the configuration's rules for tables, keys, schemas and functions take the place of the cluster's")
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "for all of it")
	return c
}

// sharded returns the databases of the names, all that have several shards without.
func sharded(cfg *config.Config, names []string) (all []*config.Database, err error) {
	for _, name := range names {
		db := cfg.Database(name)
		if db == nil {
			return nil, fmt.Errorf("no database %q in the configuration", name)
		}
		if len(db.Shards) < 2 {
			return nil, fmt.Errorf("database %q has one shard: there is nothing to make", name)
		}
		all = append(all, db)
	}
	if len(names) > 0 {
		return all, nil
	}
	for i := range cfg.Databases {
		if len(cfg.Databases[i].Shards) > 1 {
			all = append(all, &cfg.Databases[i])
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no database of the configuration has several shards")
	}
	return all, nil
}

// primaryOf logs the control user in to the primary of a shard, which it finds by
// asking the nodes in turn.
func primaryOf(cfg *config.Config, conf *config.Database, shard int) metadata.Connect {
	login := cfg.ControlLogin(conf)
	return func(ctx context.Context) (*pgx.Conn, error) {
		last := errors.New("no node is a primary")
		for _, address := range conf.Shards[shard].Nodes {
			t := target(conf)
			t.Address, t.User, t.Password = address, login.User, login.Password.Reveal()
			conn, err := connectPrimary(ctx, t)
			if err == nil {
				return conn, nil
			}
			last = fmt.Errorf("node %s: %w", address, err)
		}
		return nil, last
	}
}

func connectPrimary(ctx context.Context, t pool.Target) (*pgx.Conn, error) {
	pc, err := t.Config()
	if err != nil {
		return nil, err
	}
	cfg, err := pgx.ParseConfig("")
	if err != nil {
		return nil, err
	}
	cfg.Config = *pc
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var standby bool
	if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()", pgx.QueryExecModeSimpleProtocol).Scan(&standby); err != nil || standby {
		_ = conn.Close(ctx)
		return nil, errors.Join(err, metadata.ErrStandby)
	}
	return conn, nil
}
