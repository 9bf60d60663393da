package admin

import (
	"cmp"
	"slices"
	"time"
)

func poolColumns() []column {
	return []column{
		textColumn("database", "The database."),
		textColumn("user", "The client user."),
		int4Column("cl_active", "Clients that hold a server connection, or have nothing to wait for."),
		int4Column("cl_waiting", "Clients whose statement waits for a server connection or, at the gate, for a safe node."),
		int4Column("cl_active_cancel_req", "Always 0: cancel requests are not counted as clients."),
		int4Column("cl_waiting_cancel_req", "Always 0, as above."),
		int4Column("sv_active", "Server connections on loan."),
		int4Column("sv_active_cancel", "Always 0: a cancel request uses a connection of its own that is not of the pool."),
		int4Column("sv_being_canceled", "Always 0: counted in sv_tested."),
		int4Column("sv_idle", "Server connections that nobody uses."),
		int4Column("sv_used", "Always 0: an idle connection needs no test before it is lent."),
		int4Column("sv_tested", "Server connections being reset, or waiting for a cancel request to land."),
		int4Column("sv_login", "Server connections being opened."),
		int4Column("maxwait", "Whole seconds that the first in the queue has waited."),
		int4Column("maxwait_us", "The microseconds beyond maxwait."),
		textColumn("pool_mode", "transaction, session or statement."),
		textColumn("load_balance_hosts", "Always NULL: reads are spread over replicas, not over hosts of one name."),
		int4Column("cl_held", "Ours: those of cl_waiting that wait at the gate."),
		int4Column("nodes", "Ours: the nodes that the pool has, or had, connections to."),
		int4Column("pool_size", "Ours: server connections allowed for each node."),
	}
}

// poolRow sums up what one user does with one database.
type poolRow struct {
	database, user, mode                      string
	active, waiting, held                     int64 // clients
	lent, idle, parked, dialling, nodes, size int64
	wait                                      time.Duration
}

// mergePools makes one of the pools that a user has to a node under several
// logins: elsewhere they would be doubles.
func mergePools(pools []Pool) []Pool {
	type key struct{ database, user, address string }
	at := map[key]int{}
	var merged []Pool
	for _, p := range pools {
		k := key{p.Database, p.User, p.Address}
		i, known := at[k]
		if !known {
			at[k] = len(merged)
			merged = append(merged, p)
			continue
		}
		m := &merged[i]
		m.Size = max(m.Size, p.Size)
		m.Total += p.Total
		m.Idle += p.Idle
		m.Lent += p.Lent
		m.Dialling += p.Dialling
		m.Parked += p.Parked
		m.Waiting += p.Waiting
		m.MaxWait = max(m.MaxWait, p.MaxWait)
	}
	return merged
}

// poolRows has one row for each database and user: more would be doubles to the
// tools that read them.
func poolRows(c *Console) []poolRow {
	rows := map[[2]string]*poolRow{}
	row := func(database, user string) *poolRow {
		k := [2]string{database, user}
		if rows[k] == nil {
			rows[k] = &poolRow{database: database, user: user}
		}
		return rows[k]
	}
	now := c.opt.Clock()
	for _, p := range mergePools(c.opt.Source.Pools()) {
		r := row(p.Database, p.User)
		r.mode, r.size = p.Mode, int64(p.Size)
		r.lent += int64(p.Lent)
		r.idle += int64(p.Idle)
		r.parked += int64(p.Parked)
		r.dialling += int64(p.Dialling)
		r.nodes++
		r.wait = max(r.wait, p.MaxWait)
	}
	for _, cl := range c.opt.Source.Clients() {
		r := row(cl.Database, cl.User)
		switch cl.State {
		case ClientHeld:
			r.held++
			r.waiting++
		case ClientWaiting:
			r.waiting++
		default:
			r.active++
		}
		r.wait = max(r.wait, waitOf(&cl, now))
	}
	all := make([]poolRow, 0, len(rows))
	for _, r := range rows {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b poolRow) int {
		return cmp.Or(cmp.Compare(a.database, b.database), cmp.Compare(a.user, b.user))
	})
	return all
}

func showPools(c *Console) (rows [][]any) {
	for _, r := range poolRows(c) {
		s, us := splitWait(r.wait)
		rows = append(rows, []any{
			r.database, r.user, r.active, r.waiting, int64(0), int64(0),
			r.lent, int64(0), int64(0), r.idle, int64(0), r.parked, r.dialling,
			s, us, orNull(r.mode), nil, r.held, r.nodes, r.size,
		})
	}
	return rows
}

func databaseColumns() []column {
	return []column{
		textColumn("name", "The database, as clients name it."),
		textColumn("host", "Host of the first shard's primary; NULL while it has none."),
		int4Column("port", "Its port."),
		textColumn("database", "The database's name on the servers."),
		textColumn("force_user", "The login for all clients on the servers; NULL when each has its own."),
		int4Column("pool_size", "Server connections allowed for each user and node."),
		int4Column("min_pool_size", "Those kept open."),
		int4Column("reserve_pool_size", "Those allowed beyond pool_size when somebody has waited long."),
		int4Column("server_lifetime", "Seconds after which a server connection is retired."),
		textColumn("pool_mode", "transaction, session or statement."),
		textColumn("load_balance_hosts", "Always NULL."),
		int4Column("max_connections", "Server connections allowed in all; 0 is no bound."),
		int4Column("current_connections", "Server connections there are, those being opened included."),
		int4Column("max_client_connections", "Clients allowed; 0 is no bound of the database's own."),
		int4Column("current_client_connections", "Clients there are."),
		int4Column("paused", "1 while PAUSE or KILL is in force, else 0."),
		int4Column("disabled", "1 while DISABLE is in force, else 0."),
		int4Column("shards", "Ours: its shards."),
		int4Column("shards_without_primary", "Ours: those of them that take no writes now."),
		int4Column("held", "Ours: statements that wait at the gates of its shards."),
		int8Column("held_max_ms", "Ours: milliseconds that the first of them has waited."),
		textColumn("why", "Ours: why a shard has no primary; NULL when all have one."),
	}
}

func showDatabases(c *Console) (rows [][]any) {
	servers := map[string]int64{}
	for _, p := range c.opt.Source.Pools() {
		servers[p.Database] += int64(p.Total)
	}
	now := c.opt.Clock()
	for _, d := range c.opt.Source.Databases() {
		var host, port, why any
		without, held, oldest := int64(0), int64(0), time.Duration(0)
		for i, sh := range d.Shards {
			if sh.Primary() == nil {
				without++
				why = sh.Name + ": " + sh.Nodes.NoPrimary
			} else if i == 0 {
				host, port = hostPort(sh.Primary().Address)
			}
			held += int64(sh.Gate.HeldNow)
			if t := sh.Gate.OldestSince; !t.IsZero() {
				oldest = max(oldest, now.Sub(t))
			}
		}
		rows = append(rows, []any{
			d.Name, host, port, d.ServerName, orNull(d.ServerUser),
			int64(d.Pool.Size), int64(d.Pool.Min), int64(d.Pool.Reserve), int64(d.Pool.LifeTime / time.Second),
			d.Mode, nil, int64(d.MaxServers), servers[d.Name], int64(d.MaxClients), int64(d.Clients), bit(d.Paused), bit(d.Disabled),
			int64(len(d.Shards)), without, held, oldest.Milliseconds(), why,
		})
	}
	return rows
}
