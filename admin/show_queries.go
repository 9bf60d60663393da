package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"shardproxy/query"
	"shardproxy/tally"
	"shardproxy/wire"
)

func queryColumns() []column {
	return []column{
		textColumn("database", "The database."),
		textColumn("fingerprint", "What the statement is known by: 16 hexadecimal digits, the same in every proxy. NULL for all statements together that were not understood, as those over limits.parsed_statement."),
		int8Column("calls", "How many have ended, with an error or without. An Execute that reads a piece of a portal is one."),
		int8Column("errors", "How many of them with an error."),
		int8Column("refused", "How many of these were sent nowhere: they cannot be run over several shards, or waited for too long."),
		int8Column("retries", "How often one was begun anew, unseen by its client."),
		int8Column("rows", "Rows that they returned or changed, by the command tags."),
		int8Column("bytes", "Bytes that clients were answered."),
		int8Column("total_us", "Microseconds that all took together: the mean of those that were timed, by the calls."),
		int8Column("timed", "How many were timed: those that were the only one in one of eight requests of each session, or, with log.slow_statement, in any: servers answer the statements of a pipeline together. The times that follow are theirs: from the request's first byte to the statement's last, waits included. NULL when none were."),
		int8Column("mean_us", "Their mean, in microseconds."),
		int8Column("min_us", "The shortest."),
		int8Column("max_us", "The longest."),
		int8Column("p50_us", "The time that half of them did not exceed, to within a fifth."),
		int8Column("p95_us", "That 95 of 100 did not exceed."),
		int8Column("p99_us", "That 99 of 100 did not exceed."),
		int8Column("several", "Calls that ran on several shards."),
		int4Column("fan_out_percent", "How many of 100 calls did; NULL in a database of one shard."),
		int8Column("several_shards", "On how many shards these ran, added up: by several, the mean."),
		textColumn("by_shard", "Calls by shard, as name=calls; NULL in a database of one shard."),
		textColumn("query", "The text without its values: each constant is $n, numbered behind the parameters; lists of constants, and rows of VALUES, are cut to their first with .... At most 2048 bytes."),
	}
}

// showQueries shows the statements that have taken the most time first.
func showQueries(c *Console) (rows [][]any) {
	for _, d := range c.opt.Source.Databases() {
		if d.Statements == nil {
			continue
		}
		all, _ := d.Statements()
		byTime(all)
		for i := range all {
			rows = append(rows, queryRow(&d, &all[i]))
		}
	}
	return rows
}

// byTime sorts statements by the time that they took, the most first.
func byTime(all []tally.Statement) {
	slices.SortFunc(all, func(a, b tally.Statement) int {
		switch x, y := a.Estimated(), b.Estimated(); {
		case x != y:
			return compare(y, x)
		case a.Calls != b.Calls:
			return compare(b.Calls, a.Calls)
		}
		return compare(a.Fingerprint, b.Fingerprint)
	})
}

func compare[T time.Duration | int64 | uint64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func queryRow(d *Database, s *tally.Statement) []any {
	us := func(t time.Duration) any {
		if s.Timed == 0 {
			return nil
		}
		return t.Microseconds()
	}
	var fingerprint, fanOut any
	if s.Fingerprint != 0 {
		fingerprint = query.FingerprintName(s.Fingerprint)
	}
	if s.ByShard != nil {
		fanOut = s.Several * 100 / max(s.Calls, 1)
	}
	return []any{
		d.Name, fingerprint, s.Calls, s.Errors, s.Refused, s.Retries, s.Rows, s.Bytes, us(s.Estimated()), s.Timed,
		us(s.Mean()), us(s.Min), us(s.Max), us(s.P50), us(s.P95), us(s.P99), s.Several, fanOut, s.Shards, orNull(byShard(d, s)), orNull(s.Text),
	}
}

// byShard names the shards that have run a statement.
func byShard(d *Database, s *tally.Statement) string {
	var all []string
	for i, n := range s.ByShard {
		if n > 0 && i < len(d.Shards) {
			all = append(all, fmt.Sprintf("%s=%d", d.Shards[i].Name, n))
		}
	}
	return strings.Join(all, " ")
}

func resetQueries() *command {
	return &command{name: "RESET QUERIES", usage: "RESET QUERIES [IN database]", needs: maySteer,
		doc: "Makes the counters of SHOW QUERIES 0, in all databases or in one.",
		run: func(_ context.Context, s *session, r request) (result, *wire.Error) {
			return s.resets(r, s.console.opt.Steerer.ResetQueries)
		}}
}
