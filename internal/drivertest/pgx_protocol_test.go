package drivertest

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// pipeline uses pgconn's pipeline mode: many Syncs and Flushes in flight.
func (c pgxClient) pipeline(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	defer conn.Close(ctx)
	execute(ctx, conn, "CREATE TABLE pl (id int PRIMARY KEY)")
	p := conn.PgConn().StartPipeline(ctx)
	const insert = "INSERT INTO pl VALUES ($1)"
	number := func(i int) [][]byte { return [][]byte{fmt.Append(nil, i)} }
	p.SendPrepare("ins", insert, nil)
	check(p.Sync())
	for i := range 300 {
		p.SendQueryPrepared("ins", number(i), nil, nil)
		if i%10 == 9 {
			check(p.Sync())
		}
	}
	p.SendQueryPrepared("ins", number(1000), nil, nil)
	p.SendQueryPrepared("ins", number(1), nil, nil) // a duplicate
	p.SendQueryPrepared("ins", number(1001), nil, nil)
	check(p.Sync())
	p.SendQueryParams("BEGIN", nil, nil, nil, nil)
	p.SendQueryPrepared("ins", number(2000), nil, nil)
	check(p.Sync())
	p.SendQueryParams("SELECT 1/0", nil, nil, nil, nil)
	check(p.Sync())
	p.SendQueryParams("COMMIT", nil, nil, nil, nil)
	check(p.Sync())
	p.SendQueryParams("SELECT count(*)::text, max(id)::text FROM pl", nil, nil, nil, nil)
	p.SendDeallocate("ins")
	p.SendFlushRequest()
	check(p.Flush())
	answers(w, p, 1+30+4)
	// The answer to what was flushed, while no Sync was sent.
	pipelineAnswer(w, p)
	pipelineAnswer(w, p)
	check(p.Sync())
	answers(w, p, 1)
	check(p.Close())
	ask(ctx, w, conn, "SELECT count(*) FROM pl")
	return nil
}

// answers writes all results up to the n-th Sync.
func answers(w *teller, p *pgconn.Pipeline, syncs int) {
	for syncs > 0 {
		if pipelineAnswer(w, p) {
			syncs--
		}
	}
}

// pipelineAnswer writes one result and says whether it was a Sync's.
func pipelineAnswer(w *teller, p *pgconn.Pipeline) bool {
	results, err := p.GetResults()
	if err != nil {
		w.refused("pipeline", err)
		return false
	}
	switch r := results.(type) {
	case *pgconn.ResultReader:
		read := r.Read()
		if read.Err != nil {
			w.refused("result", read.Err)
		} else {
			w.say("%s %s", read.CommandTag, read.Rows)
		}
	case *pgconn.StatementDescription:
		w.say("described %v", r.ParamOIDs)
	case *pgconn.CloseComplete:
		w.say("closed")
	case *pgconn.PipelineSync:
		w.say("sync")
		return true
	default:
		check(fmt.Errorf("unknown answer %T", results))
	}
	return false
}

// protocol speaks the extended protocol message by message: portals that are
// suspended, several at a time, Flush without Sync, function calls.
func (c pgxClient) protocol(ctx context.Context, w *teller) error {
	hijacked, err := c.connect(ctx, w).PgConn().Hijack()
	check(err)
	defer hijacked.Conn.Close()
	f := hijacked.Frontend
	send := func(messages ...pgproto3.FrontendMessage) {
		for _, m := range messages {
			f.Send(m)
		}
		check(f.Flush())
	}
	// until writes all messages up to one of the given type.
	until := func(last pgproto3.BackendMessage) {
		for {
			m := must(f.Receive())
			w.say("%s", describe(m))
			if fmt.Sprintf("%T", m) == fmt.Sprintf("%T", last) {
				return
			}
		}
	}
	ready, suspended, complete := &pgproto3.ReadyForQuery{}, &pgproto3.PortalSuspended{}, &pgproto3.CommandComplete{}
	flush, sync := &pgproto3.Flush{}, &pgproto3.Sync{}
	w.say("-- two portals by turns, by Flush only")
	send(&pgproto3.Parse{Name: "s", Query: "SELECT i, $1::text FROM generate_series(1, 7) i"},
		&pgproto3.Describe{ObjectType: 'S', Name: "s"},
		&pgproto3.Bind{PreparedStatement: "s", DestinationPortal: "a", Parameters: [][]byte{[]byte("A")}},
		&pgproto3.Bind{PreparedStatement: "s", DestinationPortal: "b", Parameters: [][]byte{nil}},
		&pgproto3.Describe{ObjectType: 'P', Name: "b"},
		&pgproto3.Execute{Portal: "a", MaxRows: 3}, flush)
	until(suspended)
	send(&pgproto3.Execute{Portal: "b", MaxRows: 5}, flush)
	until(suspended)
	send(&pgproto3.Execute{Portal: "a", MaxRows: 3}, flush)
	until(suspended)
	send(&pgproto3.Execute{Portal: "a", MaxRows: 3}, flush)
	until(complete)
	send(&pgproto3.Execute{Portal: "b"}, flush)
	until(complete)
	send(&pgproto3.Close{ObjectType: 'P', Name: "b"}, sync)
	until(ready)
	w.say("-- a portal ends with its transaction")
	send(&pgproto3.Bind{PreparedStatement: "s", DestinationPortal: "a", Parameters: [][]byte{[]byte("A")}}, &pgproto3.Execute{Portal: "a", MaxRows: 1}, sync)
	until(ready)
	send(&pgproto3.Execute{Portal: "a", MaxRows: 1}, sync)
	until(ready)
	w.say("-- and lives on inside one")
	send(&pgproto3.Query{String: "BEGIN"})
	until(ready)
	send(&pgproto3.Bind{PreparedStatement: "s", DestinationPortal: "a", Parameters: [][]byte{[]byte("A")}}, &pgproto3.Execute{Portal: "a", MaxRows: 2}, sync)
	until(ready)
	send(&pgproto3.Query{String: "SELECT 'between'"})
	until(ready)
	send(&pgproto3.Execute{Portal: "a", MaxRows: 2}, sync)
	until(ready)
	send(&pgproto3.Query{String: "FETCH 1 FROM a"})
	until(ready)
	send(&pgproto3.Query{String: "COMMIT"})
	until(ready)
	w.say("-- mistakes, and what follows them up to the Sync")
	send(&pgproto3.Parse{Name: "s", Query: "SELECT 1"}, &pgproto3.Execute{}, sync, &pgproto3.Query{String: "SELECT 1"})
	until(ready)
	until(ready)
	send(&pgproto3.Bind{PreparedStatement: "missing"}, sync, &pgproto3.Execute{Portal: "missing"}, sync, &pgproto3.Describe{ObjectType: 'P', Name: "missing"}, sync)
	until(ready)
	until(ready)
	until(ready)
	send(&pgproto3.Bind{PreparedStatement: "s"}, sync, &pgproto3.Bind{PreparedStatement: "s", Parameters: [][]byte{nil}, ResultFormatCodes: []int16{1, 1, 1}}, sync)
	until(ready)
	until(ready)
	send(&pgproto3.Close{ObjectType: 'S', Name: "missing"}, &pgproto3.Close{ObjectType: 'S', Name: "s"}, &pgproto3.Describe{ObjectType: 'S', Name: "s"}, sync)
	until(ready)
	w.say("-- empty, nothing, several")
	send(&pgproto3.Query{String: ""}, &pgproto3.Query{String: ";;"}, &pgproto3.Query{String: "SELECT 1; SELECT 2; SELECT 1/0; SELECT 3"}, sync, sync)
	for range 5 {
		until(ready)
	}
	send(&pgproto3.Parse{Query: ""}, &pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, sync)
	until(ready)
	send(&pgproto3.Parse{Query: "SELECT 1; SELECT 2"}, sync)
	until(ready)
	w.say("-- a function call, by its OID, and one of a function that is not there")
	send(&pgproto3.FunctionCall{Function: 1598 /* random */, ResultFormatCode: 1}, &pgproto3.FunctionCall{Function: 177, /* int4pl */
		ArgFormatCodes: []uint16{0}, Arguments: [][]byte{[]byte("40"), []byte("2")}}, &pgproto3.FunctionCall{Function: 4294967295})
	until(ready)
	until(ready)
	until(ready)
	send(&pgproto3.Terminate{})
	_, err = f.Receive()
	w.say("ended: %v", err != nil)
	return nil
}

// statementNames uses statements prepared by messages from SQL and the other
// way round: both have the same names.
func (c pgxClient) statementNames(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	defer conn.Close(ctx)
	other := c.connect(ctx, w)
	defer other.Close(ctx)
	stir := func() { // lets another client use the server connection
		execute(ctx, other, "BEGIN")
		execute(ctx, other, "ROLLBACK")
	}
	raw := conn.PgConn()
	simple := func(sql string) {
		results, err := raw.Exec(ctx, sql).ReadAll()
		for _, result := range results {
			w.say("%s: %s %s", sql, result.CommandTag, result.Rows)
		}
		if err != nil {
			w.refused(sql, err)
		}
		stir()
	}
	must(raw.Prepare(ctx, "fresh", "SELECT 1", nil))
	stir()
	simple("DEALLOCATE fresh")
	simple("EXECUTE fresh")
	must(raw.Prepare(ctx, "by_message", "SELECT $1::int + 1", nil))
	simple("EXECUTE by_message(41)")
	simple("PREPARE by_message AS SELECT 1")
	simple("PREPARE by_sql (int) AS SELECT $1 * 2")
	for range 3 {
		result := raw.ExecPrepared(ctx, "by_sql", [][]byte{[]byte("21")}, nil, nil).Read()
		w.say("by_sql by message: %s %v", result.Rows, result.Err)
		stir()
	}
	w.refused("Parse of its name", must2(raw.Prepare(ctx, "by_sql", "SELECT 1", nil)))
	description := must(raw.Prepare(ctx, "another", "SELECT 1", nil))
	w.say("%d columns", len(description.Fields))
	simple("DEALLOCATE by_message")
	simple("DEALLOCATE by_message")
	simple("EXECUTE by_message(1)")
	w.refused("by message", raw.ExecPrepared(ctx, "by_message", [][]byte{[]byte("1")}, nil, nil).Read().Err)
	check(raw.Deallocate(ctx, "by_sql"))
	simple("EXECUTE by_sql(1)")
	must(raw.Prepare(ctx, "Odd Name", "SELECT 'odd'", nil))
	simple(`EXECUTE "Odd Name"`)
	simple(`DEALLOCATE PREPARE "Odd Name"`)
	simple("DEALLOCATE ALL")
	simple("EXECUTE another")
	return nil
}

// describe writes a message; values that differ by chance are left out.
func describe(m pgproto3.BackendMessage) string {
	switch m := m.(type) {
	case *pgproto3.ErrorResponse:
		return fmt.Sprintf("error %s %s %q", m.Severity, m.Code, m.Message)
	case *pgproto3.RowDescription:
		text := "columns"
		for _, f := range m.Fields {
			text += fmt.Sprintf(" %s:%d:%d", f.Name, f.DataTypeOID, f.Format)
		}
		return text
	case *pgproto3.DataRow:
		return fmt.Sprintf("row %q", m.Values)
	case *pgproto3.ParameterDescription:
		return fmt.Sprintf("parameters %v", m.ParameterOIDs)
	case *pgproto3.CommandComplete:
		return fmt.Sprintf("complete %s", m.CommandTag)
	case *pgproto3.ReadyForQuery:
		return fmt.Sprintf("ready %c", m.TxStatus)
	case *pgproto3.FunctionCallResponse:
		if len(m.Result) == 8 {
			return "function: 8 bytes"
		}
		return fmt.Sprintf("function %q", m.Result)
	default:
		return fmt.Sprintf("%T", m)[len("*pgproto3."):]
	}
}
