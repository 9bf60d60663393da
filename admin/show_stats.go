package admin

import "time"

func totalsColumns() []column {
	return []column{
		textColumn("database", "The database."),
		numericColumn("server_assignment_count", "Times a server connection was lent to a client."),
		numericColumn("xact_count", "Transactions; a statement outside a block is one."),
		numericColumn("query_count", "Statements."),
		numericColumn("bytes_received", "Bytes received from clients."),
		numericColumn("bytes_sent", "Bytes sent to clients."),
		numericColumn("xact_time", "Microseconds that transactions took, from their first statement to their end. One in eight is measured, and counts eightfold."),
		numericColumn("query_time", "Microseconds that requests took, from their first byte to their last answer. One in eight is measured, and counts eightfold."),
		numericColumn("wait_time", "Microseconds that clients waited for a server connection."),
		numericColumn("client_parse_count", "Prepared statements with a name that clients have made."),
		numericColumn("server_parse_count", "Those that were made on servers for them."),
		numericColumn("bind_count", "Times that clients have bound one."),
		numericColumn("read_count", "Ours: statements proven to read."),
		numericColumn("replica_read_count", "Ours: those of them that ran on a replica."),
		numericColumn("error_count", "Ours: errors that clients were told of."),
		numericColumn("retry_count", "Ours: statements tried again on another node without the client seeing it."),
	}
}

// averageColumns are those of SHOW STATS_AVERAGES; names are PgBouncer's, which has a prefix for some.
func averageColumns() []column {
	return []column{
		textColumn("database", "The database."),
		numericColumn("server_assignment_count", "Times in a second that a server connection was lent to a client."),
		numericColumn("xact_count", "Transactions in a second."),
		numericColumn("query_count", "Statements in a second."),
		numericColumn("bytes_received", "Bytes received from clients in a second."),
		numericColumn("bytes_sent", "Bytes sent to clients in a second."),
		numericColumn("xact_time", "Microseconds that a transaction took."),
		numericColumn("query_time", "Microseconds that a statement took."),
		numericColumn("wait_time", "Microseconds that a client waited for a server connection, each time that it was lent one."),
		numericColumn("avg_client_parse_count", "Prepared statements with a name that clients have made in a second."),
		numericColumn("avg_server_parse_count", "Those that were made on servers for them in a second."),
		numericColumn("avg_bind_count", "Times in a second that clients have bound one."),
	}
}

// statsColumns are PgBouncer's: all totals, then all averages.
func statsColumns() []column {
	names := map[string]string{"total_bytes_received": "total_received", "total_bytes_sent": "total_sent", "avg_bytes_received": "avg_recv", "avg_bytes_sent": "avg_sent"}
	columns := []column{textColumn("database", "The database.")}
	add := func(prefix string, from []column) {
		for _, c := range from {
			if len(c.name) < len(prefix) || c.name[:len(prefix)] != prefix {
				c.name = prefix + c.name
			}
			if n := names[c.name]; n != "" {
				c.name = n
			}
			columns = append(columns, c)
		}
	}
	add("total_", totalsColumns()[1:1+bouncerTotals])
	add("avg_", averageColumns()[1:])
	return columns
}

// totalsOf returns the figures of the columns behind database; nil is NULL.
func totalsOf(d *Database) []any {
	t, p := d.Totals, d.PoolTotals
	return []any{p.Assigned, t.Transactions, t.Statements, t.Received, t.Sent, t.TransactionTime.Microseconds(), t.QueryTime.Microseconds(),
		p.WaitNanos / int64(time.Microsecond), t.ClientParses, t.ServerParses, t.Binds,
		t.Reads, t.ReplicaReads, t.Errors, t.Retries}
}

func showStatsTotals(c *Console) (rows [][]any) {
	for _, d := range c.opt.Source.Databases() {
		rows = append(rows, append([]any{d.Name}, totalsOf(&d)...))
	}
	return rows
}

func showStatsAverages(c *Console) (rows [][]any) {
	from := c.since()
	for _, d := range c.opt.Source.Databases() {
		rows = append(rows, append([]any{d.Name}, c.average(&d, from)...))
	}
	return rows
}

func showStats(c *Console) (rows [][]any) {
	from := c.since()
	for _, d := range c.opt.Source.Databases() {
		rows = append(rows, append(append([]any{d.Name}, totalsOf(&d)[:bouncerTotals]...), c.average(&d, from)...))
	}
	return rows
}

func sumColumns() []column {
	return []column{
		textColumn("name", "total_ or avg_ and the name of a column of SHOW STATS_TOTALS; bytes_received and bytes_sent are called client_bytes and server_bytes, and the counts of parse and bind begin with ps_, as in PgBouncer. Behind the averages stand the totals that are ours."),
		numericColumn("value", "The sum, or the average over all databases."),
	}
}

// showTotals has PgBouncer's totals, its averages, and our totals.
func showTotals(c *Console) (rows [][]any) {
	names := map[string]string{
		"bytes_received": "client_bytes", "bytes_sent": "server_bytes", "client_parse_count": "ps_client_parse_count",
		"server_parse_count": "ps_server_parse_count", "bind_count": "ps_bind_count",
	}
	from := c.since()
	var now, then []any
	databases := c.opt.Source.Databases()
	for i := range databases {
		is, was := totalsOf(&databases[i]), from.of[databases[i].Name]
		if fell(is, was) {
			was = nil
		}
		now, then = plus(now, is), plus(then, was)
	}
	if now == nil {
		now = totalsOf(&Database{})
	}
	row := func(prefix string, i int, value any) {
		name := totalsColumns()[1+i].name
		if n := names[name]; n != "" {
			name = n
		}
		rows = append(rows, []any{prefix + name, value})
	}
	for i := range bouncerTotals {
		row("total_", i, now[i])
	}
	for i, v := range averagesOf(now, then, c.opt.Clock().Sub(from.at)) {
		row("avg_", i, v)
	}
	for i := bouncerTotals; i < len(now); i++ {
		row("total_", i, now[i])
	}
	return rows
}

// plus adds up figures; NULL stays NULL.
func plus(a, b []any) []any {
	if len(a) == 0 || len(b) == 0 {
		return append(append([]any{}, a...), b...)
	}
	sum := make([]any, len(a))
	for i := range a {
		x, known := a[i].(int64)
		y, also := b[i].(int64)
		if known && also {
			sum[i] = x + y
		}
	}
	return sum
}
