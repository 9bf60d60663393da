package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/metadata"
	"shardproxy/shardmap"
)

// databaseDump is the file that catalog writes and route reads.
type databaseDump struct {
	Database string    `json:"database"`
	Made     time.Time `json:"made"`
	Program  string    `json:"program"`
	// Slots is nil when the database has one shard, or no cluster yet.
	Slots   *slotsDump    `json:"slots,omitempty"`
	Catalog *catalog.Dump `json:"catalog"`
}

// slotsDump is a slot map.
type slotsDump struct {
	Epoch  int64    `json:"epoch"`
	Shards []string `json:"shards"`
	// Owners are the places in Shards of the owners, by slot.
	Owners []int `json:"owners"`
}

func dumpSlots(m *shardmap.Map) *slotsDump {
	d := &slotsDump{Epoch: m.Epoch(), Shards: m.Shards()}
	for s := range m.Slots() {
		d.Owners = append(d.Owners, m.OwnerIndex(shardmap.Slot(s)))
	}
	return d
}

// load makes the map again.
func (d *slotsDump) load() (*shardmap.Map, error) {
	rows := make([]shardmap.Row, len(d.Owners))
	for s, owner := range d.Owners {
		if owner < 0 || owner >= len(d.Shards) {
			return nil, fmt.Errorf("the dump's slot map gives slot %d to shard %d of %d", s, owner, len(d.Shards))
		}
		rows[s] = shardmap.Row{Slot: int64(s), Shard: d.Shards[owner]}
	}
	return shardmap.NewMap(d.Epoch, len(d.Owners), d.Shards, rows)
}

func catalogCommand() *cobra.Command {
	var path, name string
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "catalog",
		Short: "Write what the schema and the slot map of a database are, for route",
		Long: "Catalog logs the control user in to the primary of the home shard, reads the catalog\n" +
			"and the slot map in the way that run does, and writes them as JSON to standard output.\n" +
			"No rows of tables are read. Exit code 0: done, 2: the file or the server does not do.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, conf, err := databaseOf(cmd, path, name)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			d, err := readDump(ctx, cfg, conf, cmd.ErrOrStderr())
			if err == nil {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(d)
			}
			if err != nil {
				return &exitError{exitProblems, err.Error()}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&path, "config", "c", "shardproxy.yaml", "configuration file")
	c.Flags().StringVar(&name, "database", "", "database of the configuration; needed when it has several")
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "for all of it")
	return c
}

// databaseOf reads the configuration and finds the database in it.
func databaseOf(cmd *cobra.Command, path, name string) (*config.Config, *config.Database, error) {
	cfg, err := load(path)
	switch {
	case err != nil:
		fmt.Fprintln(cmd.ErrOrStderr(), err)
		return nil, nil, &exitError{code: exitProblems}
	case name == "" && len(cfg.Databases) == 1:
		return cfg, &cfg.Databases[0], nil
	case name == "":
		return nil, nil, errors.New("the configuration has several databases: name one with --database")
	}
	conf := cfg.Database(name)
	if conf == nil {
		return nil, nil, fmt.Errorf("no database %q in the configuration", name)
	}
	return cfg, conf, nil
}

// readDump asks the home shard.
func readDump(ctx context.Context, cfg *config.Config, conf *config.Database, warnings io.Writer) (*databaseDump, error) {
	conn, err := primaryOf(cfg, conf, 0)(ctx)
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", conf.Shards[0].Name, err)
	}
	defer closeConn(ctx, conn)
	d := &databaseDump{Database: conf.Name, Made: time.Now().UTC().Truncate(time.Second), Program: buildVersion()}
	if _, d.Catalog, err = catalog.MakeDump(ctx, conn); err != nil {
		return nil, err
	}
	if len(conf.Shards) == 1 {
		return d, nil
	}
	m, _, err := metadata.Load(ctx, conn)
	switch {
	case errors.Is(err, metadata.ErrNotInitialised):
		fmt.Fprintln(warnings, "warning: there is no slot map yet (see shardproxy init): the dump has none")
	case err != nil:
		return nil, err
	default:
		d.Slots = dumpSlots(m)
	}
	return d, nil
}

func closeConn(ctx context.Context, conn *pgx.Conn) { _ = conn.Close(ctx) }

// openDump reads a dump of the database.
func openDump(path, database string) (*databaseDump, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := &databaseDump{}
	if err := json.Unmarshal(b, d); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case d.Catalog == nil:
		return nil, fmt.Errorf("%s: it is no dump of a catalog", path)
	case d.Database != database:
		return nil, fmt.Errorf("%s: it is a dump of database %q, not of %q", path, d.Database, database)
	}
	return d, nil
}
