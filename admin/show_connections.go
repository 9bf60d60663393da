package admin

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// connectionColumns are the columns that clients and servers share; words fills
// in what differs.
func connectionColumns(typ, state, addr, local, request, link, pid string) []column {
	return []column{
		textColumn("type", typ),
		textColumn("user", "The client user."),
		textColumn("database", "The database."),
		textColumn("replication", "Always none: replication connections are refused."),
		textColumn("state", state),
		textColumn("addr", addr),
		int4Column("port", "Its port; 0 for a Unix-domain socket."),
		textColumn("local_addr", local),
		int4Column("local_port", "The port of local_addr."),
		textColumn("connect_time", "When the connection was made, in UTC; now for one that is being opened."),
		textColumn("request_time", request),
		int4Column("wait", "Whole seconds that its statement has waited for a server; 0 when it does not wait."),
		int4Column("wait_us", "The microseconds beyond wait."),
		int4Column("close_needed", "1 for a server connection that is closed as soon as nobody holds it: RECONNECT, or its node has changed; else 0."),
		textColumn("ptr", "A name for the connection: c or s, and the id."),
		textColumn("link", link),
		int4Column("remote_pid", pid),
		textColumn("tls", "TLS version and cipher suite; empty without TLS."),
		textColumn("application_name", "The application_name of the client."),
		int4Column("prepared_statements", "Prepared statements that the connection holds."),
		int8Column("id", "Its number, which no other connection of its kind gets until the process ends."),
	}
}

func clientColumns() []column {
	return append(connectionColumns("C.",
		"active: it holds a server connection; waiting: for one; idle: neither.",
		"The client's address, or unix.", "The proxy's address that it connected to; NULL when not known.",
		"When the present state began, within a tenth of a second, in UTC.",
		"ptr of the server connection it holds; empty for none.",
		"Always 0: the client's process is not asked for."),
		textColumn("detail", "Ours: idle, active, waiting (for a server connection), held (at the gate, for a safe node) or idle_in_transaction."),
		textColumn("pinned", "Ours: why it keeps its server connection between transactions; NULL when it does not."),
		int8Column("pid", "Ours: the process number it was given, which pg_backend_pid does not know."),
	)
}

func serverColumns() []column {
	return append(connectionColumns("S.",
		"active: on loan; idle; tested: being reset, or waiting for a cancel request to land; new: being opened, without a number yet.",
		"The node's host, as configured.", "The proxy's end; NULL when not known.",
		"When it was last lent or given back, in UTC.",
		"ptr of the client that holds it; empty for none.",
		"The process on the server that serves it."),
		textColumn("node", "Ours: the node, as configured."),
	)
}

// bouncerState is the client's state in PgBouncer's words.
func bouncerState(cl *Client) string {
	switch cl.State {
	case ClientWaiting, ClientHeld:
		return "waiting"
	case ClientActive, ClientIdleInTx:
		return "active"
	}
	if cl.Server != 0 {
		return "active"
	}
	return "idle"
}

func showClients(c *Console) (rows [][]any) {
	now := c.opt.Clock()
	clients := c.opt.Source.Clients()
	slices.SortFunc(clients, func(a, b Client) int { return cmp.Compare(a.ID, b.ID) })
	for _, cl := range clients {
		rows = append(rows, clientRow(&cl, "c", now))
	}
	for _, cl := range c.clients() {
		rows = append(rows, clientRow(&cl, "console", now))
	}
	return rows
}

func clientRow(cl *Client, kind string, now time.Time) []any {
	addr, port := hostPort(cl.Addr)
	local, localPort := hostPort(cl.LocalAddr)
	s, us := splitWait(waitOf(cl, now))
	return []any{
		"C", cl.User, cl.Database, "none", bouncerState(cl), addr, port, local, localPort,
		timestamp(cl.Connected), timestamp(cl.Since), s, us, int64(0),
		name(kind, cl.ID), name("s", cl.Server), int64(0), cl.TLS, cl.ApplicationName,
		int64(cl.Prepared), int64(cl.ID), cl.State.String(), orNull(cl.Pinned), int64(cl.PID),
	}
}

// name names a connection; none is the empty text.
func name(kind string, id uint64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("%s%d", kind, id)
}

func showServers(c *Console) (rows [][]any) {
	words := map[ServerState]string{ServerIdle: "idle", ServerActive: "active", ServerParked: "tested", ServerLogin: "new"}
	servers := c.opt.Source.Servers()
	slices.SortFunc(servers, func(a, b ServerConn) int { return cmp.Compare(a.ID, b.ID) })
	for _, sv := range servers {
		addr, port := hostPort(sv.Node)
		local, localPort := hostPort(sv.LocalAddr)
		if sv.Created.IsZero() { // tools take it for a time always
			sv.Created = c.opt.Clock()
		}
		if sv.Used.IsZero() {
			sv.Used = sv.Created
		}
		rows = append(rows, []any{
			"S", sv.User, sv.Database, "none", words[sv.State], addr, port, local, localPort,
			timestamp(sv.Created), timestamp(sv.Used), int64(0), int64(0), bit(sv.Closing),
			name("s", sv.ID), name("c", sv.Client), int64(sv.PID), sv.TLS, sv.ApplicationName,
			int64(sv.Prepared), int64(sv.ID), sv.Node,
		})
	}
	return rows
}
