package admin

import (
	"strconv"

	"shardproxy/failover"
)

func nodeColumns() []column {
	return []column{
		textColumn("database", "The database."),
		textColumn("shard", "The shard."),
		textColumn("node", "The server's address, as configured."),
		textColumn("role", "What the node last said it is: primary, replica or unknown."),
		textColumn("health", "up: it is used; lagging: a replica further behind than reads.max_lag; refused: it answers and is not used; down: it does not answer; unknown: not asked yet."),
		textColumn("reason", "Why it is not used; NULL when it is."),
		int4Column("takes_writes", "1 for the node that writes go to, else 0."),
		textColumn("since", "When role or health last changed, in UTC."),
		int8Column("lag_bytes", "WAL that the primary has on disk and the replica has not replayed; NULL when not known and for a primary."),
		int8Column("lag_ms", "How old the replica's data may be, in milliseconds; NULL as above."),
		int8Column("timeline", "Its timeline; NULL before the first answer."),
		textColumn("lsn", "Its position in the WAL: written by a primary, replayed by a replica; NULL before the first answer."),
		textColumn("system_identifier", "Of its cluster; NULL before the first answer."),
		int4Column("read_only", "1 when default_transaction_read_only is on, else 0."),
		int8Column("probe_us", "Microseconds that the last answered probe took."),
		textColumn("last_error", "What the last failed probe met, kept after the node has recovered; NULL for nothing."),
		textColumn("last_error_at", "When, in UTC."),
		int4Column("sv_active", "Server connections on loan."),
		int4Column("sv_idle", "Server connections that nobody uses."),
		int4Column("sv_tested", "Those being reset, or waiting for a cancel request to land."),
		int4Column("sv_login", "Those being opened."),
		int4Column("cl_waiting", "Clients that wait for a connection to it."),
		int4Column("banned", "1 while BAN NODE keeps reads away from it, else 0."),
	}
}

// nodeKey names a node.
type nodeKey struct{ database, shard, address string }

func showNodes(c *Console) (rows [][]any) {
	type sums struct{ lent, idle, parked, dialling, waiting int64 }
	pools := map[nodeKey]sums{}
	for _, p := range c.opt.Source.Pools() {
		k := nodeKey{p.Database, p.Shard, p.Address}
		s := pools[k]
		s.lent += int64(p.Lent)
		s.idle += int64(p.Idle)
		s.parked += int64(p.Parked)
		s.dialling += int64(p.Dialling)
		s.waiting += int64(p.Waiting)
		pools[k] = s
	}
	for _, d := range c.opt.Source.Databases() {
		for _, sh := range d.Shards {
			for i := range sh.Nodes.Nodes {
				n := &sh.Nodes.Nodes[i]
				s := pools[nodeKey{d.Name, sh.Name, n.Address}]
				row := append(nodeRow(n, sh.Primary() == n), s.lent, s.idle, s.parked, s.dialling, s.waiting, bit(sh.Banned>>i&1 == 1))
				rows = append(rows, append([]any{d.Name, sh.Name}, row...))
			}
		}
	}
	return rows
}

// nodeRow returns the columns from node to last_error_at.
func nodeRow(n *failover.NodeStatus, primary bool) []any {
	var lagBytes, lagMillis, timeline, lsn, system any
	if n.Lag.Known {
		lagBytes, lagMillis = int64(n.Lag.Bytes), n.Lag.Time.Milliseconds()
	}
	if n.Timeline != 0 {
		timeline, lsn = int64(n.Timeline), n.LSN.String()
	}
	if n.SystemID != 0 {
		system = strconv.FormatUint(n.SystemID, 10)
	}
	return []any{
		n.Address, n.Role.String(), n.Health.String(), orNull(n.Reason), bit(primary), timestamp(n.Since),
		lagBytes, lagMillis, timeline, lsn, system, bit(n.ReadOnly), n.ProbeLatency.Microseconds(),
		orNull(n.LastError), timestamp(n.LastErrorAt),
	}
}
