package router

import (
	"slices"
	"strconv"
	"strings"

	"shardproxy/catalog"
	"shardproxy/query"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// An UPDATE that gives the key another value moves rows: it runs where they are, and rows
// whose new key belongs to another shard are then taken from there and inserted where they belong.
// Which rows it changed, and in which slots they are now, it tells itself, in a column behind those that
// the client asked for.

// move is what is known of an UPDATE that may move rows. It is immutable.
type move struct {
	to        Group // the new key of all rows, unless each has its own
	each      bool
	placement *Placement
	// several is set when rows of several keys may get keys of their own: where these are compared with each other, and in
	// which order, decides then. See Telling.
	several bool
	compared
	name    string   // the table's
	table   string   // as SQL names it
	keys    []string // the key's columns
	columns []string // that are stored and not computed
}

// movesTo notes the new key of an UPDATE's rows. false: it cannot be said where they belong.
func (p *prover) movesTo(b *block, r *relation, set []query.Assignment) bool {
	if len(r.key) == 0 || !slices.ContainsFunc(set, func(a query.Assignment) bool { return r.isKey(a.Column.Name) }) {
		return false
	}
	m := &move{placement: r.placement, compared: r.compared, name: r.String(), table: query.QuoteName(r.schema) + "." + query.QuoteName(r.name)}
	for _, a := range set {
		if a.Value.Kind == query.ValueDefault {
			p.keepsDefault(r, a.Column.Name)
		}
	}
	if m.each = !p.oneKey(m, b, r, set); m.each && !r.placement.hashed() {
		return false
	}
	for _, c := range r.columns {
		if !c.generated {
			m.columns = append(m.columns, query.QuoteName(c.name))
		}
	}
	for _, k := range r.key {
		m.keys = append(m.keys, query.QuoteName(r.columns[k].name))
	}
	p.move = m
	return true
}

// oneKey notes the key that all rows get, each column of it a constant or a parameter. false: they may get
// others.
func (p *prover) oneKey(m *move, b *block, r *relation, set []query.Assignment) bool {
	to := Group{table: r.String(), placement: r.placement}
	for _, k := range r.key {
		c := r.columns[k]
		at := slices.IndexFunc(set, func(a query.Assignment) bool { return a.Column.Name == c.name })
		if at < 0 || set[at].Column.Part || set[at].Value.Kind != query.ValueLiteral && set[at].Value.Kind != query.ValueParam {
			return false
		}
		v, ok := p.value(b, &set[at].Value, c.key)
		if !ok {
			return false
		}
		v.assigned, v.typmod = true, c.typmod
		to.columns = append(to.columns, []value{v})
	}
	m.to = to
	return true
}

// unmovable says why rows of a table cannot be moved by deleting and inserting them, ""
// when they can.
func (b *bound) unmovable(t *catalog.Table) string {
	for _, fk := range t.ForeignKeys {
		if b.kindOnly(fk.References).kind != kindReference {
			return "its foreign key " + fk.Name + " refers to rows of the key's shard"
		}
	}
	if len(t.ReferencedBy) > 0 {
		return "foreign key " + t.ReferencedBy[0].Name + " refers to its rows"
	}
	for i := range t.Triggers {
		if e := t.Triggers[i].Enabled; e != 'D' && e != 'R' && !t.Triggers[i].Fence() {
			return "trigger " + t.Triggers[i].Name + " would see rows deleted and inserted"
		}
	}
	if t.RowSecurity {
		return "it has row security"
	}
	for i := range t.Columns {
		if c := &t.Columns[i]; ofOneServerType(c.Base) {
			return "column " + c.Name + " holds the number of an object, which each server gives anew"
		}
	}
	for _, c := range t.Children {
		if why := b.unmovable(c); why != "" {
			return why
		}
	}
	return ""
}

// compared says what compares rows of a table with each other as soon as they are written.
type compared struct {
	uniques [][]string // the columns of unique indexes, as SQL
	unknown string     // an index of which it is not known what it compares, "" for none
}

// comparedAtOnce returns what compares rows of a table.
func comparedAtOnce(t *catalog.Table) (c compared) {
	for i := range t.Indexes {
		x := &t.Indexes[i]
		if !x.Unique && !x.Exclusion || x.Deferrable {
			continue
		}
		var columns []string
		for _, n := range x.Keys {
			if at := slices.IndexFunc(t.Columns, func(c catalog.Column) bool { return c.Number == n }); at >= 0 && !withoutHash(t.Columns[at].Base) {
				columns = append(columns, query.QuoteName(t.Columns[at].Name))
			}
		}
		if x.Exclusion || len(columns) != len(x.Keys) {
			c.unknown = "index " + x.Name
		}
		c.uniques = append(c.uniques, columns)
	}
	for _, child := range t.Children {
		of := comparedAtOnce(child)
		if of.unknown != "" {
			c.unknown = of.unknown
		}
		if slices.ContainsFunc(of.uniques, func(u []string) bool {
			return !slices.ContainsFunc(c.uniques, func(v []string) bool { return slices.Equal(u, v) })
		}) {
			c.unknown = "an index of " + child.Name
		}
	}
	return c
}

// withoutHash reports whether values of a type have no hash: money, bit, varbit, tsvector, tsquery, and arrays of them.
func withoutHash(oid uint32) bool {
	switch oid {
	case 790, 791, 1560, 1561, 1562, 1563, 3614, 3615, 3643, 3645:
		return true
	}
	return false
}

// Moves reports whether the plan's statement may have to move rows to the shard of
// their new key; see Plan.Shards for where they are.
func (p *Plan) Moves() bool { return p.move != nil }

// MovesEach reports whether each row of a plan that moves has a new key of its own.
func (p *Plan) MovesEach() bool { return p.move.each }

// Destination returns the shard of the new key of all rows. The errors are those of Shard.
func (p *Plan) Destination(o *Owners, v *Values) (int, error) {
	l := locator{owners: o, values: v, shard: AnyShard}
	if err := l.group(&p.move.to); err != nil {
		return AnyShard, err
	}
	return max(l.shard, 0), nil
}

// Telling is how an UPDATE says which rows it changes. Rows are told as words with spaces between.
type Telling struct {
	// Text is the UPDATE with one more column behind those that it returns: of each row the number of its table (of the
	// partition), its place in it (ctid), the slot when the plan MovesEach ("-" when the key is NULL), and the hashes of what
	// unique indexes compare when Locks is set.
	Text string
	// Locks, when it is set, is a query to be run ahead of Text: it locks the rows, and tells of each the number of its table, its
	// place, and the hashes of what unique indexes compare. PostgreSQL compares the new row with those that are not
	// changed yet, in an order of its own. A new row that has what another row had whose turn is on another shard might be refused, or not.
	Locks string
}

// Telling says how the text of a plan that moves, made for ctx, tells which rows it changes, which lie in n slots. The error is a *wire.Error.
func (r *Router) Telling(sql string, p *Plan, n int, ctx Context) (t Telling, err error) {
	var names query.Normal
	st, shapes := names.AnalyzeShapes(sql, r.options([]byte(sql), ctx))
	if st.Opaque || len(shapes) != 1 || shapes[0].Kind != query.ShapeQuery || shapes[0].Scope.Kind != query.ScopeUpdate {
		return t, untold().Error()
	}
	s := shapes[0].Scope
	alias := s.Target.Alias
	if alias == "" {
		alias = s.Target.Name
	}
	alias = quoteName(alias)
	at, verb := s.ReturningSpan, ", "
	if len(s.Outputs) == 0 {
		at, verb = updateSpan(s), " RETURNING "
	}
	if !at.Located() || int(at.End) > len(sql) {
		return t, untold().Error()
	}
	t.Text = sql[:at.End] + verb + p.move.tells(alias, p.move.each, n) + " " + sql[at.End:]
	if p.move.several && len(p.move.uniques) > 0 {
		ok := false
		if t.Locks, ok = locks(sql, s, alias, p.move.tells(alias, false, n)); !ok {
			return t, untold().Error()
		}
	}
	return t, nil
}

// tells is the column that tells of a row.
func (m *move) tells(alias string, slot bool, n int) string {
	qualified := func(names []string) []string {
		out := make([]string, len(names))
		for i, name := range names {
			out[i] = alias + "." + name
		}
		return out
	}
	column := "pg_catalog.concat_ws(' ', " + alias + ".tableoid, " + alias + ".ctid"
	if slot {
		keys := qualified(m.keys)
		column += ", CASE WHEN " + strings.Join(keys, " IS NULL OR ") + " IS NULL THEN '-' ELSE (" + shardmap.SlotSQL(m.placement.types, keys, n) + ")::pg_catalog.text END"
	}
	if m.several {
		for _, u := range m.uniques {
			column += ", pg_catalog.hash_record_extended(ROW(" + strings.Join(qualified(u), ", ") + "), 0)"
		}
	}
	return column + ")"
}

// locks is a query that locks the rows which an UPDATE changes, and tells of them.
func locks(sql string, s *query.Scope, alias, column string) (string, bool) {
	target := s.Target.Span
	if !target.Located() || int(target.End) > len(sql) {
		return "", false
	}
	head := strings.TrimRight(sql[:target.Start], " \t\r\n")
	if len(head) < len("UPDATE") || !strings.EqualFold(head[len(head)-len("UPDATE"):], "UPDATE") {
		return "", false
	}
	out := head[:len(head)-len("UPDATE")] + "SELECT " + column + " FROM " + sql[target.Start:target.End]
	if n := len(s.From); n > 0 {
		first, last := s.From[0].Span, s.From[n-1].Span
		if !first.Located() || !last.Located() || int(last.End) > len(sql) {
			return "", false
		}
		out += ", " + sql[first.Start:last.End]
	}
	if s.Where != nil {
		if !s.WhereSpan.Located() || int(s.WhereSpan.End) > len(sql) {
			return "", false
		}
		out += " " + sql[s.WhereSpan.Start:s.WhereSpan.End]
	}
	return out + " FOR UPDATE OF " + alias, true
}

// NullKey is the error of a row whose new key is NULL.
func (p *Plan) NullKey() *wire.Error { return errNullKey(&Group{table: p.move.name}) }

// KeyTaken is the refusal of rows that get what unique indexes of another shard compare, of a row that gets something else
// by the same statement.
func KeyTaken() *wire.Error {
	return (&Refusal{Reason: reasonKeyChange, Why: "a row gets the unique key of one that gets another, and in which order they are changed is not known",
		Hint: "Change the rows of one key at a time."}).Error()
}

// updateSpan is the last clause of an UPDATE without RETURNING.
func updateSpan(s *query.Scope) query.Span {
	switch {
	case s.Where != nil:
		return s.WhereSpan
	case len(s.From) > 0:
		return s.From[len(s.From)-1].Span
	}
	return s.Update.SetSpan
}

func untold() *Refusal {
	return &Refusal{Reason: reasonKeyChange, Why: "where its clauses stand in the text is not certain"}
}

// Take is the statement that takes rows from the shard where they are: what it returns is what Put inserts. table is
// the number of the table, or of the partition, that they are in, places are their ctids there.
func (p *Plan) Take(table string, places []string) string {
	m := p.move
	// Nothing is taken, and the statement fails, when the table is no longer what the plan knows.
	of := " = " + literal(m.table) + "::pg_catalog.regclass"
	return "DELETE FROM " + m.table + " WHERE tableoid OPERATOR(pg_catalog.=) " + literal(table) + "::pg_catalog.oid AND ctid OPERATOR(pg_catalog.=) ANY ('{\"" + strings.Join(places, `","`) + "\"}'::pg_catalog.tid[])" +
		" AND (SELECT count(*) FROM pg_catalog.pg_attribute WHERE attrelid" + of +
		" AND attnum > 0 AND NOT attisdropped AND attgenerated = '') OPERATOR(pg_catalog.=) " + strconv.Itoa(len(m.columns)) +
		" AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid" + of + " AND NOT tgisinternal AND tgenabled IN ('O', 'A'))" +
		" RETURNING " + strings.Join(m.columns, ", ")
}

// Put is the statement that inserts one row that was taken, of which each column is a
// parameter.
func (p *Plan) Put() string {
	var b strings.Builder
	b.WriteString("INSERT INTO " + p.move.table + " (" + strings.Join(p.move.columns, ", ") + ") OVERRIDING SYSTEM VALUE VALUES (")
	for i := range p.move.columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("$" + strconv.Itoa(i+1))
	}
	return b.String() + ")"
}

// ofOneServerType reports whether values of a type are numbers of objects of one server:
// regproc, regprocedure, regoper, regoperator, regclass, regtype, regconfig, regdictionary,
// regnamespace, regrole, regcollation, and arrays of them.
func ofOneServerType(oid uint32) bool {
	switch oid {
	case 24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191,
		1008, 2207, 2208, 2209, 2210, 2211, 3735, 3770, 4090, 4097, 4192:
		return true
	}
	return false
}

// literal is a text as SQL has it, whatever standard_conforming_strings says: it has no backslashes, or they are doubled.
func literal(s string) string {
	s = strings.ReplaceAll(s, "'", "''")
	if strings.Contains(s, `\`) {
		return "E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}
