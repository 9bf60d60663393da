package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/metadata"
	"shardproxy/rebalance"
	"shardproxy/router"
	"shardproxy/shardmap"
)

// noneElsewhere fails when there is no slot map yet, and by the one that is to be made some rows would not be where they are: nobody would find them.
func noneElsewhere(ctx context.Context, conf *config.Database, o metadata.Options) error {
	_, err := metadata.Check(ctx, o)
	if !errors.Is(err, metadata.ErrNotInitialised) {
		return nil // what else is wrong is said by who makes it
	}
	first, err := o.FirstMap()
	if err != nil {
		return err
	}
	for _, s := range o.Shards {
		conn, err := s.Connect(ctx)
		if err != nil {
			return nil // as above
		}
		defer endConn(conn)
		table, err := rowElsewhere(ctx, conn, conf, first, s.Name)
		if err != nil {
			return fmt.Errorf("shard %s: %w", s.Name, err)
		}
		if table != "" {
			return fmt.Errorf("shard %s: table %s has rows already that would lie on another shard: \"shardproxy init --grow\" leaves all rows on shard %s, from where slots can be moved to the others",
				s.Name, table, o.Shards[0].Name)
		}
	}
	return nil
}

// rowElsewhere returns the name of a table of which a shard has a row that by the map is another's, "" when there is none.
func rowElsewhere(ctx context.Context, conn *pgx.Conn, conf *config.Database, m *shardmap.Map, shard string) (string, error) {
	c, err := catalog.LoadTables(ctx, conn)
	if err != nil {
		return "", err
	}
	own := rebalance.NewSet(m.SlotsOf(shard), m.Slots())
	if len(own.Slots()) == m.Slots() {
		return "", nil
	}
	for _, t := range router.SlottedTables(conf, c).Tables {
		slot := slotSQL(t, m.Slots())
		if slot == "" {
			continue // no proxy serves it; that is told elsewhere
		}
		if has, err := hasRow(ctx, conn, t.Table, "NOT coalesce("+own.HasSQL(slot)+", true)"); err != nil || has {
			return sqlName(t.Table), err
		}
	}
	return "", nil
}

// hasRow reports whether a table itself, without those that inherit from it, has a row of which a condition holds.
func hasRow(ctx context.Context, conn *pgx.Conn, t *catalog.Table, where string) (has bool, err error) {
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM ONLY "+sqlName(t)+" WHERE "+where+")").Scan(&has)
	return has, err
}

// slotSQL returns the slot of a row of the table as an SQL expression, "" when the table has no key that could be one.
func slotSQL(t router.SlottedTable, slots int) string {
	var types []shardmap.KeyType
	var columns []string
	for _, name := range t.Key {
		c := t.Table.Column(name)
		if c == nil {
			return ""
		}
		k, err := shardmap.KeyTypeOf(c.Base, c.Collation == nil || c.Collation.Deterministic)
		if err != nil {
			return ""
		}
		types, columns = append(types, k), append(columns, pgx.Identifier{name}.Sanitize())
	}
	return shardmap.SlotSQL(types, columns, slots)
}
