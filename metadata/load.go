package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"shardproxy/shardmap"
)

// Load reads the slot map from the home shard's primary, in one snapshot. The
// order of the map's shards is that of their positions, the home shard first.
//
// The error is a *Problem: ErrNotInitialised, ErrVersion, ErrOtherCluster (the
// shard is not the home shard), ErrInconsistent (with what NewMap says),
// ErrPrivilege, ErrUnreachable. conn is as usable afterwards as pgx left it.
func Load(ctx context.Context, conn *pgx.Conn) (*shardmap.Map, *Cluster, error) {
	return load(ctx, conn, Version)
}

func load(ctx context.Context, conn *pgx.Conn, known int) (m *shardmap.Map, c *Cluster, err error) {
	err = within(ctx, conn, beginRead, func(tx pgx.Tx) (err error) {
		m, c, err = loadIn(ctx, tx, known)
		return err
	})
	if err != nil {
		return nil, nil, asked("", "read the slot map", err)
	}
	return m, c, nil
}

// loadIn is Load within a transaction.
func loadIn(ctx context.Context, tx pgx.Tx, known int) (*shardmap.Map, *Cluster, error) {
	c, err := readCluster(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	if c == nil {
		return nil, nil, notInitialised("", "the server has no shardproxy cluster")
	}
	if err := c.checkVersion(known); err != nil {
		return nil, nil, err
	}
	if c.Shard != c.Home {
		return nil, nil, &Problem{Shard: c.Shard, Kind: ErrOtherCluster, Reason: fmt.Sprintf("the slot map is on the home shard %q, not here", c.Home),
			Hint: fmt.Sprintf("list shard %q first", c.Home)}
	}
	epoch, err := readEpoch(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	names, err := readShards(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	rows, states, err := readSlots(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	if epoch == 0 && len(names) == 0 && len(rows) == 0 {
		return nil, nil, notInitialised(c.Shard, "the cluster's making was not finished: there is no slot map")
	}
	m, err := makeMap(c, epoch, names, rows, states)
	if err != nil || known < hiddenVersion {
		return m, c, err
	}
	var guarded, closed bool
	sql := "SELECT guarded, closed FROM shardproxy.epoch"
	if known < joinVersion {
		sql = "SELECT guarded, false FROM shardproxy.epoch"
	}
	if err := row(ctx, tx, sql).Scan(&guarded, &closed); err != nil {
		return nil, nil, err
	}
	if known >= rulesVersion {
		if c.Rules, err = readRules(ctx, tx); err != nil {
			return nil, nil, err
		}
	}
	return m.Guard(epoch, guarded).Close(epoch, closed), c, nil
}

func notInitialised(shard, reason string) *Problem {
	return &Problem{Shard: shard, Kind: ErrNotInitialised, Reason: reason, Hint: "run \"shardproxy init\""}
}

// makeMap judges the rows as a whole.
func makeMap(c *Cluster, epoch int64, names []string, rows []shardmap.Row, states []string) (*shardmap.Map, error) {
	var problems []string
	if epoch == 0 {
		problems = append(problems, "the table epoch has no row")
	}
	if len(names) > 0 && names[0] != c.Home {
		problems = append(problems, fmt.Sprintf("the first shard is %q, the home shard %q", names[0], c.Home))
	}
	for _, s := range states {
		if s != steady && s != held {
			problems = append(problems, fmt.Sprintf("state %q of a slot is not known", s))
		}
	}
	m, err := shardmap.NewMap(epoch, c.Slots, names, rows)
	var wrong *shardmap.MapError
	if errors.As(err, &wrong) {
		problems = append(problems, wrong.Problems...)
	} else if err != nil {
		return nil, err
	}
	if len(problems) == 0 {
		return m, nil
	}
	p := &Problem{Shard: c.Shard, Kind: ErrInconsistent, Reason: "the stored slot map makes no sense: " + strings.Join(problems, "; "),
		Hint: hintRestore}
	if wrong != nil {
		p.Cause = wrong
	}
	return nil, p
}

// readShards returns the names by position.
func readShards(ctx context.Context, tx pgx.Tx) ([]string, error) {
	rows, err := tx.Query(ctx, "SELECT name FROM shardproxy.shards ORDER BY position", pgx.QueryExecModeExec)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// readSlots returns the slots' owners and the states that occur. The map is read while writes wait for it: a row for each owner
// and state takes a small part of the time that one for each slot takes.
func readSlots(ctx context.Context, tx pgx.Tx) (all []shardmap.Row, states []string, err error) {
	rows, err := tx.Query(ctx, "SELECT string_agg(slot::text, ','), shard, state FROM shardproxy.slots GROUP BY shard, state", pgx.QueryExecModeExec)
	if err != nil {
		return nil, nil, err
	}
	var list, shard, state string
	_, err = pgx.ForEachRow(rows, []any{&list, &shard, &state}, func() error {
		for text := range strings.SplitSeq(list, ",") {
			slot, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return err
			}
			all = append(all, shardmap.Row{Slot: slot, Shard: shard, Held: state == held})
		}
		if !slices.Contains(states, state) {
			states = append(states, state)
		}
		return nil
	})
	slices.Sort(states)
	return all, states, err
}
