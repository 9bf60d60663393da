package admin

import (
	"cmp"
	"context"
	"maps"
	"runtime/metrics"
	"slices"
	"strconv"

	"shardproxy/wire"
)

func userColumns() []column {
	return []column{
		textColumn("name", "The user: those of the file, in its order, and then those who have clients or server connections and were let in otherwise."),
		textColumn("pool_size", "Its own pool_size; empty when databases say it."),
		textColumn("reserve_pool_size", "Always empty: databases say it."),
		textColumn("pool_mode", "Its own pool mode; NULL when databases say it."),
		int4Column("max_user_connections", "Server connections allowed in each database; 0 is no bound of the user's own."),
		int4Column("current_connections", "Server connections there are of it, in all databases."),
		int4Column("max_user_client_connections", "Clients allowed; 0 is no bound."),
		int4Column("current_client_connections", "Clients there are."),
	}
}

func showUsers(c *Console) (rows [][]any) {
	clients, servers, others := map[string]int64{}, map[string]int64{}, map[string]bool{}
	for _, cl := range c.opt.Source.Clients() {
		clients[cl.User]++
		others[cl.User] = true
	}
	for _, p := range c.opt.Source.Pools() {
		servers[p.User] += int64(p.Total)
		others[p.User] = true
	}
	users := c.opt.Source.Users()
	for _, u := range users {
		delete(others, u.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		users = append(users, User{Name: name, MaxClients: c.opt.Source.Process().MaxClientsPerUser})
	}
	for _, u := range users {
		size := ""
		if u.PoolSize > 0 {
			size = strconv.Itoa(u.PoolSize)
		}
		rows = append(rows, []any{u.Name, size, "", orNull(u.Mode), int64(u.MaxServers), servers[u.Name], int64(u.MaxClients), clients[u.Name]})
	}
	return rows
}

// socketColumns are those of clients and servers together, and PgBouncer's for its buffers.
func socketColumns() []column {
	columns := connectionColumns("C for a client, S for a server connection.",
		"cl_active, cl_waiting (for a server connection, or at the gate), sv_active, sv_idle, sv_tested (being reset, or waiting for a cancel request to land), sv_login (being opened).",
		"The other end's address, or unix.", "The proxy's address; NULL when not known.",
		"When a client's state began, within a tenth of a second, or when a server connection was last lent or given back, in UTC.",
		"ptr of what it is linked to; empty for nothing.",
		"Of a server connection the process on the server that serves it; of a client 0.")
	for _, name := range []string{"recv_pos", "pkt_pos", "pkt_remain", "send_pos", "send_remain", "pkt_avail", "send_avail"} {
		columns = append(columns, int4Column(name, "Always NULL: a place in a buffer of PgBouncer."))
	}
	return columns
}

// The places in connectionColumns of the state and of the link, and how many there are.
const (
	stateAt         = 4
	linkAt          = 15
	connectionWidth = 21
)

func showSockets(c *Console) [][]any { return socketRows(c, false) }

// showActiveSockets leaves out clients without a statement, and servers without a client.
func showActiveSockets(c *Console) [][]any { return socketRows(c, true) }

func socketRows(c *Console, busyOnly bool) (rows [][]any) {
	now := c.opt.Clock()
	add := func(busy bool, row []any) {
		if busy || !busyOnly {
			rows = append(rows, append(slices.Clone(row[:connectionWidth]), make([]any, 7)...))
		}
	}
	clients := c.opt.Source.Clients()
	slices.SortFunc(clients, func(a, b Client) int { return cmp.Compare(a.ID, b.ID) })
	for i, cl := range append(clients, c.clients()...) {
		kind := "c"
		if i >= len(clients) {
			kind = "console"
		}
		row := clientRow(&cl, kind, now)
		row[stateAt] = "cl_active"
		if cl.State == ClientWaiting || cl.State == ClientHeld {
			row[stateAt] = "cl_waiting"
		}
		add(cl.State != ClientIdle && cl.State != ClientIdleInTx, row)
	}
	for _, row := range showServers(c) {
		state := row[stateAt].(string)
		if row[stateAt] = "sv_" + state; state == "new" {
			row[stateAt] = "sv_login"
		}
		add(state == "active" && row[linkAt] != "", row)
	}
	return rows
}

func memoryColumns() []column {
	return []column{
		textColumn("name", "heap_objects: what is in use, dead and alive; heap_free: kept for more of it, or about to be given back to the system; stacks; other: the Go runtime's own; total: their sum. PgBouncer's caches of structures do not exist."),
		int4Column("size", "Always NULL: there are no structures of one size."),
		int4Column("used", "Always NULL, as above."),
		int4Column("free", "Always NULL, as above."),
		int8Column("memtotal", "Bytes. PgBouncer has int4 here."),
	}
}

func showMemory(*Console) (rows [][]any) {
	names := []string{"/memory/classes/total:bytes", "/memory/classes/heap/released:bytes", "/memory/classes/heap/objects:bytes", "/memory/classes/heap/free:bytes",
		"/memory/classes/heap/unused:bytes", "/memory/classes/heap/stacks:bytes", "/memory/classes/os-stacks:bytes"}
	samples := make([]metrics.Sample, len(names))
	for i, n := range names {
		samples[i].Name = n
	}
	metrics.Read(samples)
	of := map[string]int64{}
	for i, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 { // else this Go does not tell
			of[names[i]] = int64(s.Value.Uint64())
		}
	}
	total := of[names[0]] - of[names[1]] // what was given back to the system is not the process's
	objects, free, stacks := of[names[2]], of[names[3]]+of[names[4]], of[names[5]]+of[names[6]]
	row := func(name string, n int64) { rows = append(rows, []any{name, nil, nil, nil, n}) }
	row("heap_objects", objects)
	row("heap_free", free)
	row("stacks", stacks)
	row("other", total-objects-free-stacks)
	row("total", total)
	return rows
}

// noRows is what shows things that do not exist here.
func noRows(*Console) [][]any { return nil }

func hostColumns() []column {
	return []column{
		textColumn("hostname", "There are no rows: names of nodes are looked up each time that a connection is opened."),
		int8Column("ttl", "As above."), textColumn("addrs", "As above."),
	}
}

func zoneColumns() []column {
	return []column{
		textColumn("zonename", "There are no rows: zones are not watched."), int8Column("serial", "As above."), int4Column("count", "As above."),
	}
}

func peerColumns() []column {
	return []column{
		int4Column("peer_id", "Its process ID."), textColumn("host", "The path of the socket that it is told by."),
		int4Column("port", "Always 0: there is none."), int4Column("pool_size", "Always 0: no connection is kept."),
	}
}

func showPeers(c *Console) (rows [][]any) {
	for _, p := range c.opt.Source.Process().Peers {
		rows = append(rows, []any{int64(p.PID), p.Path, int64(0), int64(0)})
	}
	return rows
}

func peerPoolColumns() []column {
	columns := []column{int4Column("peer_id", "There are no rows.")}
	for _, name := range []string{"cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active_cancel", "sv_login"} {
		columns = append(columns, int4Column(name, "As above."))
	}
	return columns
}

// showFDs is PgBouncer's command for a new process to take over the sockets of an old one, with cancel keys and passwords.
func showFDs() *command {
	return &command{name: "SHOW FDS", usage: "SHOW FDS", needs: maySteer,
		doc: "Refused (0A000). PgBouncer hands its sockets to another process by it, with the cancel keys and passwords of their sessions; here a new process takes over by SHUTDOWN WAIT_FOR_CLIENTS of the old one.",
		run: func(context.Context, *session, request) (result, *wire.Error) {
			return result{}, wire.Errorf("0A000", "SHOW FDS is not supported: sockets are not handed to another process").
				WithHint("SHOW SOCKETS lists them. End the old process with SHUTDOWN WAIT_FOR_CLIENTS, and let new clients come to another.")
		}}
}
