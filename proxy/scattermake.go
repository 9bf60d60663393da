package proxy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// A table that is made of the rows of a query over several shards is made without rows first, by
// PostgreSQL and of the client's text, so that names and types are its own. Then it is known where the
// rows belong, and they go the way of those that a query inserts.

// making is such a table.
type making struct {
	i  *inserting
	of *router.Making
	// at is its name as SQL, with its schema, which is named schema.
	at, schema string
	// made are its columns.
	made []router.MadeColumn
	// done is set when nothing is to be inserted: the answer is there.
	done bool
}

// make makes the table, and finds out where its rows belong. It reports whether they are to be read;
// what failed is in the query's error.
func (m *making) make() bool {
	c := m.i.c
	v := &c.values
	moment := v.Moment
	v.Moment = "" // for no value counts
	defer func() { v.Moment = moment }()
	d := c.describe(router.Part{Text: []byte(c.source), Types: v.Types}) // so errors have the places of the client's text
	if c.err != nil {
		return false
	}
	c.describedAs, m.i.returns = d[0], d[0]
	if !c.takesParams() || !m.names() {
		return false
	}
	there, ok := m.isThere()
	switch {
	case !ok:
		return false
	case there:
		m.run(0, m.of.Skip)
		m.ends()
		return false
	}
	if !m.run(0, m.of.Create) {
		return false
	}
	columns, ok := m.columns(0)
	if !ok || !m.placed(columns) {
		return false
	}
	if !m.i.of.Home && !m.elsewhere(columns) {
		return false
	}
	if m.of.NoData {
		m.ends()
		return false
	}
	if len(columns) == 0 {
		c.fail(wire.Errorf("0A000", "this statement cannot be run over several shards: its query gives no columns"), nil, -1)
	}
	return c.err == nil
}

// ends ends the statement without rows.
func (m *making) ends() {
	m.done = true
	m.i.answer = wire.AppendCommandComplete(writeHead(&m.i.c.asks, &m.i.returns), "CREATE TABLE AS")
}

// names finds out in which schema the table is to be.
func (m *making) names() bool {
	if m.schema = m.of.Schema; m.schema == "" {
		row, ok := m.ask(0, "SELECT pg_catalog.current_schema()::pg_catalog.text")
		if !ok {
			return false
		}
		if len(row) == 1 && len(row[0]) == 1 {
			m.schema = string(row[0][0])
		}
	}
	m.at = m.of.Table
	if m.schema != "" { // else the server says that there is none
		m.at = query.QuoteName(m.schema) + "." + query.QuoteName(m.of.Name)
	}
	return true
}

// isThere reports whether the table need not be made, where the text says so.
func (m *making) isThere() (there, ok bool) {
	if m.of.Skip == "" {
		return false, true
	}
	rows, ok := m.ask(0, "SELECT pg_catalog.to_regclass("+quoteText(m.at)+") IS NOT NULL")
	return ok && len(rows) == 1 && string(rows[0][0]) == "t", ok
}

// quoteText is a text as an SQL literal, whatever standard_conforming_strings says.
func quoteText(text string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(text) + "'"
}

// ask has one of the shards answer a query of ours.
func (m *making) ask(shard int, sql string) (rows [][][]byte, ok bool) {
	a, ok := m.send(shard, wire.AppendQuery(nil, sql))
	if !ok {
		return nil, false
	}
	_, found, _ := cutRows(a.Frames)
	for _, row := range found {
		rows = append(rows, rowFields(row[5:]))
	}
	return rows, true
}

// run has one of the shards make the table.
func (m *making) run(shard int, text string) bool {
	c := m.i.c
	part, ok := c.part(text)
	if !ok {
		return false
	}
	part.Bind = append(part.Bind, 0, 0)
	a, ok := m.send(shard, partFrames(&part, true, executeSync()))
	if ok {
		head, _, _ := cutRows(a.Frames)
		c.notices = append(c.notices, newNotices(head, c.notices)...)
	}
	return ok
}

// send runs frames on one of the shards, by its place among the query's.
func (m *making) send(at int, frames []byte) (pool.Answer, bool) {
	c := m.i.c
	shard := c.shards[at]
	a, err := shard.lease.Run(c.s.server.ctx, frames, pool.RunOptions{Keep: answerMax, Cancelled: c.unwanted.Load})
	if err != nil {
		shard.answer, shard.err = a, err
		if a.Error != nil {
			a.Error = withoutPosition(a.Error)
		}
		c.fail(wire.AsError(err), a.Error, at)
	}
	return a, err == nil
}

// columns asks one of the shards for the columns of the table.
func (m *making) columns(shard int) (columns []router.MadeColumn, ok bool) {
	rows, ok := m.ask(shard, `SELECT a.attname, a.atttypid::pg_catalog.int8,
(WITH RECURSIVE b AS (SELECT t.oid, t.typbasetype, t.typtype, 0 AS depth FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid
	UNION ALL SELECT t.oid, t.typbasetype, t.typtype, b.depth + 1 FROM pg_catalog.pg_type t JOIN b ON t.oid = b.typbasetype WHERE b.typtype = 'd')
	SELECT oid::pg_catalog.int8 FROM b ORDER BY depth DESC LIMIT 1),
pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypmod, coalesce(NOT l.collisdeterministic, false)
FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
WHERE a.attrelid = `+quoteText(m.at)+`::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`)
	for _, f := range rows {
		if len(f) != 6 || slices.ContainsFunc(f, func(b []byte) bool { return b == nil }) {
			m.i.c.fail(wire.Errorf("XX000", "a server does not describe the table that it has made"), nil, -1)
			return nil, false
		}
		number := func(n int) uint32 {
			v, _ := strconv.ParseUint(string(f[n]), 10, 32)
			return uint32(v)
		}
		modifier, _ := strconv.ParseInt(string(f[4]), 10, 32)
		columns = append(columns, router.MadeColumn{Name: string(f[0]), Type: number(1), Base: number(2), TypeName: string(f[3]),
			Modifier: int32(modifier), Unequal: string(f[5]) == "t"})
	}
	return columns, ok
}

// placed finds out where the rows belong.
func (m *making) placed(columns []router.MadeColumn) bool {
	c := m.i.c
	of, err := m.of.Place(m.schema, m.at, columns)
	if err == nil && !of.Home && !m.of.Spread {
		err = wire.Errorf("0A000", "this statement cannot be run over several shards: the table would be on several, which was not known").
			WithHint("Name its schema.")
	}
	if err != nil {
		c.fail(wire.AsError(err), nil, -1)
		return false
	}
	m.i.of, m.made = of, columns
	return true
}

// elsewhere makes the table on all other shards.
func (m *making) elsewhere(columns []router.MadeColumn) bool {
	c := m.i.c
	for at := 1; at < len(c.shards); at++ {
		have, ok := []router.MadeColumn(nil), m.run(at, m.of.Create)
		if ok {
			have, ok = m.columns(at)
		}
		if !ok {
			m.notThere()
			return false
		}
		if !slices.EqualFunc(have, columns, func(a, b router.MadeColumn) bool {
			return a.Name == b.Name && a.TypeName == b.TypeName && a.Unequal == b.Unequal
		}) {
			c.fail(wire.Errorf("55000", "shards gave different results: the columns of %s on %s are not those on %s", m.at, c.s.db.Shards[c.shards[at].index].Name,
				c.s.db.Shards[c.shards[0].index].Name).WithHint("What the query reads is not the same on all shards."), nil, -1)
			return false
		}
	}
	return true
}

// notThere turns the error of a shard that cannot make the table, as its query reads what is elsewhere, into a
// refusal: the home shard has made it.
func (m *making) notThere() {
	c := m.i.c
	if c.raw == nil || c.err.Code != "42P01" && c.err.Code != "42883" && c.err.Code != "42704" {
		return
	}
	c.err = wire.Errorf("0A000", "this statement cannot be run over several shards: the table belongs on all of them, and one cannot make it: %s", c.err.Message).
		WithDetail("Shard %s.", c.s.db.Shards[c.shards[c.failed].index].Name).WithHint("CREATE TABLE with its columns, and INSERT ... SELECT.")
	c.raw = nil
}

// gives checks that what the query gives has the types of the table's columns.
func (m *making) gives(columns []rowColumn) bool {
	if slices.EqualFunc(columns, m.made, func(a rowColumn, b router.MadeColumn) bool { return a.typ == b.Base }) {
		return true
	}
	m.i.c.fail(wire.Errorf("0A000", "this statement cannot be run over several shards: its columns would have other types"), nil, -1)
	return false
}

// makes reports whether the statement makes a table and inserts nothing.
func (i *inserting) makes() bool { return i.making != nil && i.making.done }

// mayMake notes that the shards on which a table may be made are written to.
func (i *inserting) mayMake() {
	if i.making == nil {
		return
	}
	i.making.done = false
	targets := i.c.withTargets(nil)
	i.c.s.tallyAlso(targets)
	for _, shard := range targets {
		_, wrote := i.c.s.partOn(shard)
		*wrote = true
	}
}

// tag is the command tag behind rows.
func (i *inserting) tag(rows int) string {
	if i.making != nil {
		return selectTag(int64(rows))
	}
	return fmt.Sprintf("INSERT 0 %d", rows)
}
