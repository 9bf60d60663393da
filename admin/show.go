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
		{"GATES", "One row for each place where statements wait: that of each shard, for a primary, and that of each database of several shards, for slots that are held. PgBouncer has no such command.", gateColumns(), showGates, nil},
		{"EVENTS", "The last 1,000 things that happened to the proxy and its servers, the oldest first, as they were logged: failovers, reloads, moves, pauses, what operators ordered. What concerns one client or its connection alone is in the log only, unless it is an error of the proxy. PgBouncer has no such command.", eventColumns(), showEvents, nil},
		{"SETTINGS", "One row for each setting in force, as the file has it. Secrets are shown as ***. PgBouncer has no such command.", settingColumns(), showSettings, nil},
		{"QUERIES", "One row for each statement that clients have sent, known by its text without its values, of each database: what it costs. Those that took the most time are first. At most limits.statements of each database; those used least give way. PgBouncer has no such command.", queryColumns(), showQueries, nil},
		{"CACHE", "What is kept of results, of each database that keeps some: see databases.<name>.cache. PgBouncer has no such command.", cacheColumns(), showCache, nil},
		{"HOT", "The slots that statements ask for most, of each database of several shards, at most 100, by a sample: which keys make the load. PgBouncer has no such command.", hotColumns(), showHot, nil},
		{"PLANS", "One row for each entry of the plan cache, of each database: where the statement runs. Those called most are first. PgBouncer has no such command.", planColumns(), showPlans, nil},
		{"ERRORS", "One row for each kind of error that clients of a database were told of after their login, those there were most of first. PgBouncer has no such command.", errorColumns(), showErrors, nil},
		{"BLOCKS", "One row for each statement that is blocked in a database, by BLOCK or by the configuration. PgBouncer has no such command.", blockColumns(), showBlocks, nil},
		{"TABLES", "One row for each table of each database of several shards, partitions left out: where its rows are. PgBouncer has no such command.", tableColumns(), showTables, nil},
		{"TWOPC", "One row for each prepared part of a transaction over several shards that is in doubt, at most 100 of each shard, as this proxy last saw them. PgBouncer has no such command.", doubtColumns(), showTwoPC, nil},
		{"DATABASES", "One row for each database of the configuration.", databaseColumns(), showDatabases, nil},
		{"STATE", "Whether the proxy works.", stateColumns(), showState, nil},
		{"VERSION", "The version.", versionColumns(), showVersion, nil},
		{"CONFIG", "The settings in force: first those that PgBouncer's tools read, under PgBouncer's names, then all, as the file has them. Secrets are shown as ***.", configColumns(), showConfig, nil},
		{"LISTS", "How many there are of each kind.", listColumns(), showLists, nil},
		{"STATS_TOTALS", "What each database has done since the process started.", totalsColumns(), showStatsTotals, nil},
		{"STATS_AVERAGES", "What each database has done in a second, and how long waits were, over the last minute that is over and what is of the present one.", averageColumns(), showStatsAverages, nil},
		{"STATS", "Both of these in one row.", statsColumns(), showStats, nil},
		{"TOTALS", "The sums of SHOW STATS_TOTALS over all databases, and the averages.", sumColumns(), showTotals, nil},
		{"USERS", "One row for each user of the file, and for others who have clients or server connections.", userColumns(), showUsers, nil},
		{"SOCKETS", "One row for each client and each server connection, sessions of the console included.", socketColumns(), showSockets, nil},
		{"ACTIVE_SOCKETS", "Those of SHOW SOCKETS whose client has a statement that runs or waits, and the server connections that clients hold.", socketColumns(), showActiveSockets, nil},
		{"MEM", "The memory of the process, as the Go runtime counts it.", memoryColumns(), showMemory, nil},
		{"DNS_HOSTS", "Nothing: there is no cache of names.", hostColumns(), noRows, nil},
		{"DNS_ZONES", "Nothing: there is no cache of names.", zoneColumns(), noRows, nil},
		{"PEERS", "The other processes of this machine that cancel requests are passed on to (`listen.peer_directory`). SHOW PROXIES has the proxies of a cluster.", peerColumns(), showPeers, nil},
		{"PEER_POOLS", "Nothing: a cancel request is passed on by a connection of its own.", peerPoolColumns(), noRows, nil},
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
		textColumn("key", "active: no shutdown has begun and not every database is paused; paused: every database is; suspended: always no, there is no SUSPEND; draining: a shutdown has begun; listening: new clients are accepted; drained: DRAIN is in force."),
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
		{"drained", yesNo(p.Drained)},
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
		textColumn("list", "databases, users (of the file), pools (rows of SHOW POOLS), used_clients (logged in), login_clients (logging in), used_servers (server connections), peers (rows of SHOW PEERS). Always 0, for there are none: peer_pools, free_clients, free_servers, dns_names, dns_zones, dns_queries, dns_pending."),
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
		{"databases", int64(len(databases))}, {"users", int64(users)}, {"peers", int64(len(p.Peers))},
		{"pools", int64(len(showPools(c)))}, {"peer_pools", int64(0)},
		{"free_clients", int64(0)}, {"used_clients", int64(clients)}, {"login_clients", int64(p.LoggingIn)},
		{"free_servers", int64(0)}, {"used_servers", int64(servers)},
		{"dns_names", int64(0)}, {"dns_zones", int64(0)}, {"dns_queries", int64(0)}, {"dns_pending", int64(0)},
	}
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
