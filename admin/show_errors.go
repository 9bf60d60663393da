package admin

import (
	"slices"
	"strings"

	"shardproxy/query"
	"shardproxy/router"
)

func errorColumns() []column {
	return []column{
		textColumn("database", "The database."),
		textColumn("sqlstate", "The SQLSTATE; NULL for all together that came after 500 kinds."),
		textColumn("origin", "proxy: the error is one of ours ([errors](errors.md)); server: a server made it."),
		int8Column("count", "How many clients were told of, since the process started."),
		textColumn("last_at", "When the last one was, in UTC."),
		textColumn("message", "The last text, without what stood in quotes; NULL for errors of servers, whose texts may hold data."),
	}
}

// showErrors shows the errors that there were most of first.
func showErrors(c *Console) (rows [][]any) {
	for _, d := range c.opt.Source.Databases() {
		for _, e := range byCount(d.Errors) {
			rows = append(rows, []any{d.Name, orNull(e.Code), origin(e), e.Count, timestamp(e.Last), orNull(e.Message)})
		}
	}
	return rows
}

func planColumns() []column {
	return []column{
		textColumn("database", "The database."),
		textColumn("fingerprint", "That of SHOW QUERIES; NULL when limits.statements is 0."),
		textColumn("way", "Where it runs. one: the database has one shard; keyed: on the shard of its key; home; any: on whatever shard; all: on each; fan-out: on each, for the rows that it has; split: each row of an INSERT on its shard; scatter: a query answered from several shards; refused."),
		textColumn("reason", "Why it is refused, as shardproxy_refusals_total has it; NULL when it is not."),
		int4Column("reads", "1 when it is proven to read only, and may run on a replica, else 0."),
		int4Column("exact", "1 for a plan of one text with its values, 0 for one that texts with other values share."),
		int4Column("current", "0 when the definitions have changed since: it is judged anew when it comes again."),
		int8Column("calls", "Statements of the fingerprint that have ended, by whatever plan, since RESET QUERIES."),
		int8Column("bytes", "About what it takes of limits.plan_cache."),
		textColumn("search_path", "The search_path that it is for; NULL for the servers' own."),
		textColumn("role", "The role that it is for; NULL where that does not count."),
		textColumn("query", "The text without its values, as in SHOW QUERIES."),
	}
}

// showPlans shows the plans of the statements called most first.
func showPlans(c *Console) (rows [][]any) {
	for _, d := range c.opt.Source.Databases() {
		if d.Plans == nil {
			continue
		}
		all := d.Plans()
		slices.SortStableFunc(all, func(a, b router.PlanKept) int {
			if a.Calls != b.Calls {
				return compare(b.Calls, a.Calls)
			}
			return strings.Compare(a.Text, b.Text)
		})
		for i := range all {
			p := &all[i]
			var fingerprint any
			if p.Fingerprint != 0 {
				fingerprint = query.FingerprintName(p.Fingerprint)
			}
			rows = append(rows, []any{d.Name, fingerprint, p.Way, orNull(p.Why), bit(p.Reads), bit(p.Exact), bit(p.Current), p.Calls, p.Bytes, orNull(p.Path), orNull(p.Role), orNull(p.Text)})
		}
	}
	return rows
}
