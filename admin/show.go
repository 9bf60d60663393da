package admin

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"shardproxy/proxy"
	"shardproxy/wire"
)

// view is one SHOW that prints a table.
type view struct {
	name    string
	doc     string
	columns []column
	rows    func(c *Console) [][]any
	// await, where it is set, is done first; what it returns is told beside the rows.
	await func(ctx context.Context, c *Console) *wire.Error
}

// views are the SHOW commands with a table, in the order of the manual.
func views() []view {
	return []view{
		{"POOLS", "One row for each database and user that has, or had, a server connection, or has clients.", poolColumns(), showPools, nil},
		{"CLIENTS", "One row for each client, sessions of the console included.", clientColumns(), showClients, nil},
		{"SERVERS", "One row for each server connection.", serverColumns(), showServers, nil},
		{"NODES", "One row for each PostgreSQL server. PgBouncer has no such command.", nodeColumns(), showNodes, nil},
		{"SHARDS", "One row for each shard of each database. PgBouncer has no such command.", shardColumns(), showShards, awaitReadings},
		{"SLOTS", "One row for each run of neighbouring slots that have one owner, of each database of several shards: the slot map that this proxy works by. PgBouncer has no such command.", slotColumns(), showSlots, nil},
		{"MOVES", "One row for each move of slots, or of a shard that joins or leaves, that has not ended, as the home shard has it. PgBouncer has no such command.", moveColumns(), showMoves, awaitReadings},
		{"MOVE_HISTORY", "One row for each move that has ended, of the last 100. PgBouncer has no such command.", moveColumns(), showMoveHistory, awaitReadings},
		{"PROXIES", "One row for each proxy that serves a database of several shards, as the home shard has it. PgBouncer has no such command.", proxyColumns(), showProxies, awaitReadings},
		{"TABLES", "One row for each table of each database of several shards, partitions left out: where its rows are. PgBouncer has no such command.", tableColumns(), showTables, nil},
		{"TWOPC", "One row for each prepared part of a transaction over several shards that is in doubt, at most 100 of each shard, as this proxy last saw them. PgBouncer has no such command.", doubtColumns(), showTwoPC, nil},
		{"DATABASES", "One row for each database of the configuration.", databaseColumns(), showDatabases, nil},
		{"STATE", "Whether the proxy works.", stateColumns(), showState, nil},
		{"VERSION", "The version.", versionColumns(), showVersion, nil},
		{"CONFIG", "The settings in force: first those that PgBouncer's tools read, under PgBouncer's names, then all, as the file has them. Secrets are shown as ***.", configColumns(), showConfig, nil},
		{"LISTS", "How many there are of each kind.", listColumns(), showLists, nil},
		{"STATS_TOTALS", "What each database has done since the process started.", totalsColumns(), showStatsTotals, nil},
		{"TOTALS", "The sums of SHOW STATS_TOTALS over all databases.", sumColumns(), showTotals, nil},
	}
}

func (v view) command() *command {
	name := "SHOW " + v.name
	return &command{name: name, usage: name, doc: v.doc, columns: v.columns, waits: v.await != nil,
		run: func(ctx context.Context, s *session, _ request) (result, *wire.Error) {
			var notice *wire.Error
			if v.await != nil {
				if notice = v.await(ctx, s.console); ctx.Err() != nil {
					return result{}, steerError(ctx.Err(), "")
				}
			}
			return result{tag: "SHOW", rows: v.rows(s.console), notice: notice}, nil
		}}
}

func stateColumns() []column {
	return []column{
		textColumn("key", "active: no shutdown has begun and not every database is paused; paused: every database is; suspended: always no, there is no SUSPEND; draining: a shutdown has begun; listening: new clients are accepted."),
		textColumn("value", "yes or no."),
	}
}

func showState(c *Console) [][]any {
	p, all := c.opt.Source.Process(), c.opt.Source.Databases()
	paused := len(all) > 0 && !slices.ContainsFunc(all, func(d Database) bool { return !d.Paused })
	return [][]any{
		{"active", yesNo(!paused && !p.Draining)},
		{"paused", yesNo(paused)},
		{"suspended", "no"},
		{"draining", yesNo(p.Draining)},
		{"listening", yesNo(p.Listening)},
	}
}

func versionColumns() []column {
	return []column{textColumn("version", "The PgBouncer whose console this one follows, then our own version: tools look for the first number.")}
}

func showVersion(c *Console) [][]any {
	return [][]any{{"PgBouncer " + bouncerVersion + " console of shardproxy " + c.opt.Version}}
}

func configColumns() []column {
	return []column{
		textColumn("key", "The setting: a name of PgBouncer's, or the path in the file."),
		textColumn("value", "Its value."),
		textColumn("default", "Its value when the file does not give it; NULL when it has none."),
		textColumn("changeable", "yes when RELOAD can change it, no when that takes a restart."),
	}
}

// showConfig puts PgBouncer's names first: its exporters look for the two that
// are numbers.
func showConfig(c *Console) [][]any {
	settings := c.opt.Configuration.Settings()
	named := map[string]string{
		"limits.max_clients": "max_client_conn", "limits.max_clients_per_user": "max_user_client_connections",
		"limits.max_clients_per_database": "max_db_client_connections",
	}
	// No setting bounds a user's server connections over all databases.
	rows := [][]any{{"max_user_connections", "0", "0", "no"}}
	for _, s := range settings {
		if name := named[s.Path]; name != "" {
			rows = append(rows, []any{name, s.Value, orNull(s.Default), yesNo(!s.Restart)})
		}
	}
	for _, s := range settings {
		rows = append(rows, []any{s.Path, s.Value, orNull(s.Default), yesNo(!s.Restart)})
	}
	return rows
}

func listColumns() []column {
	return []column{
		textColumn("list", "databases, users (of the file), pools (rows of SHOW POOLS), used_clients (logged in), login_clients (logging in), used_servers (server connections). Always 0, for there are none: peers, peer_pools, free_clients, free_servers, dns_names, dns_zones, dns_queries, dns_pending."),
		int4Column("items", "How many."),
	}
}

func showLists(c *Console) [][]any {
	users := 0
	for _, s := range c.opt.Configuration.Settings() {
		if strings.HasPrefix(s.Path, "users[") && strings.HasSuffix(s.Path, "].name") {
			users++
		}
	}
	p := c.opt.Source.Process()
	clients, servers := 0, 0
	databases := c.opt.Source.Databases()
	for _, d := range databases {
		clients += d.Clients
	}
	for _, p := range c.opt.Source.Pools() {
		servers += p.Total
	}
	return [][]any{
		{"databases", int64(len(databases))}, {"users", int64(users)}, {"peers", int64(0)},
		{"pools", int64(len(showPools(c)))}, {"peer_pools", int64(0)},
		{"free_clients", int64(0)}, {"used_clients", int64(clients)}, {"login_clients", int64(p.LoggingIn)},
		{"free_servers", int64(0)}, {"used_servers", int64(servers)},
		{"dns_names", int64(0)}, {"dns_zones", int64(0)}, {"dns_queries", int64(0)}, {"dns_pending", int64(0)},
	}
}

func totalsColumns() []column {
	return []column{
		textColumn("database", "The database."),
		numericColumn("server_assignment_count", "Times a server connection was lent to a client."),
		numericColumn("xact_count", "Transactions; a statement outside a block is one."),
		numericColumn("query_count", "Statements."),
		numericColumn("bytes_received", "Bytes received from clients."),
		numericColumn("bytes_sent", "Bytes sent to clients."),
		numericColumn("xact_time", "Always NULL: not measured."),
		numericColumn("query_time", "Always NULL: not measured."),
		numericColumn("wait_time", "Microseconds that clients waited for a server connection."),
		numericColumn("client_parse_count", "Always NULL: not counted."),
		numericColumn("server_parse_count", "Always NULL: not counted."),
		numericColumn("bind_count", "Always NULL: not counted."),
		numericColumn("read_count", "Ours: statements proven to read."),
		numericColumn("replica_read_count", "Ours: those of them that ran on a replica."),
		numericColumn("error_count", "Ours: errors that clients were told of."),
		numericColumn("retry_count", "Ours: statements tried again on another node without the client seeing it."),
	}
}

// totalsOf returns the figures of the columns behind database; nil is NULL.
func totalsOf(d *Database) []any {
	t, p := d.Totals, d.PoolTotals
	return []any{p.Assigned, t.Transactions, t.Statements, t.Received, t.Sent, nil, nil,
		p.WaitNanos / int64(time.Microsecond), nil, nil, nil,
		t.Reads, t.ReplicaReads, t.Errors, t.Retries}
}

func showStatsTotals(c *Console) (rows [][]any) {
	for _, d := range c.opt.Source.Databases() {
		rows = append(rows, append([]any{d.Name}, totalsOf(&d)...))
	}
	return rows
}

func sumColumns() []column {
	return []column{
		textColumn("name", "total_ and the name of a column of SHOW STATS_TOTALS; bytes_received and bytes_sent are called client_bytes and server_bytes, and the counts of parse and bind begin with ps_, as in PgBouncer. Averages are left out: derive them from two readings."),
		numericColumn("value", "The sum; NULL for what is NULL there."),
	}
}

func showTotals(c *Console) (rows [][]any) {
	names := map[string]string{
		"bytes_received": "client_bytes", "bytes_sent": "server_bytes", "client_parse_count": "ps_client_parse_count",
		"server_parse_count": "ps_server_parse_count", "bind_count": "ps_bind_count",
	}
	databases := c.opt.Source.Databases()
	for i, col := range totalsColumns()[1:] {
		var sum any = int64(0)
		for _, d := range databases {
			v, known := totalsOf(&d)[i].(int64)
			if !known {
				sum = nil
				break
			}
			sum = sum.(int64) + v
		}
		name := col.name
		if n := names[name]; n != "" {
			name = n
		}
		rows = append(rows, []any{"total_" + name, sum})
	}
	return rows
}

// hostPort splits an address for the columns addr and port; what has no port
// is a Unix-domain socket.
func hostPort(addr string) (host, port any) {
	h, p, err := net.SplitHostPort(addr)
	if err != nil {
		if addr == "" {
			return nil, nil
		}
		return addr, int64(0)
	}
	n, err := strconv.ParseInt(p, 10, 32)
	if err != nil {
		return h, nil
	}
	return h, n
}

// waitOf returns how long a client has waited, zero when it does not.
func waitOf(cl *Client, now time.Time) time.Duration {
	if cl.State != ClientWaiting && cl.State != ClientHeld {
		return 0
	}
	return max(now.Sub(cl.Since), 0)
}

// Interface of the proxy that Console serves.
var _ proxy.Console = (*Console)(nil)
