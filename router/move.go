package router

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"shardproxy/catalog"
	"shardproxy/query"
)

// An UPDATE that gives the key another value moves rows: it runs where they are, and rows
// whose new key belongs to another shard are then taken from there and inserted where they belong.
// That the key gets one constant for all rows says where.

// move is what is known of an UPDATE that may move rows. It is immutable.
type move struct {
	to      Group // the new key
	values  []query.Span
	table   string   // as SQL names it
	keys    []string // the key's columns
	columns []string // that are stored and not computed
}

// movesTo notes the new key of an UPDATE's rows. false: it does not give all of the key's
// columns a constant or a parameter.
func (p *prover) movesTo(b *block, r *relation, set []query.Assignment) bool {
	m := &move{to: Group{table: r.String(), placement: r.placement}, table: query.QuoteName(r.schema) + "." + query.QuoteName(r.name)}
	for _, a := range set {
		if a.Value.Kind == query.ValueDefault {
			p.keepsDefault(r, a.Column.Name)
		}
	}
	for _, k := range r.key {
		c := r.columns[k]
		at := slices.IndexFunc(set, func(a query.Assignment) bool { return a.Column.Name == c.name })
		if at < 0 || set[at].Column.Part || set[at].Value.Kind != query.ValueLiteral && set[at].Value.Kind != query.ValueParam || !set[at].Value.Span.Located() {
			return false
		}
		v, ok := p.value(b, &set[at].Value, c.key)
		if !ok {
			return false
		}
		v.assigned, v.typmod = true, c.typmod
		m.to.columns = append(m.to.columns, []value{v})
		m.values, m.keys = append(m.values, set[at].Value.Span), append(m.keys, query.QuoteName(c.name))
	}
	for _, c := range r.columns {
		if !c.generated {
			m.columns = append(m.columns, query.QuoteName(c.name))
		}
	}
	p.move = m
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

// Moves reports whether the plan's statement may have to move rows to the shard of
// their new key; see Plan.Shards for where they are.
func (p *Plan) Moves() bool { return p.move != nil }

// Destination returns the shard of the new key. The errors are those of Shard.
func (p *Plan) Destination(o *Owners, v *Values) (int, error) {
	l := locator{owners: o, values: v, shard: AnyShard}
	if err := l.group(&p.move.to); err != nil {
		return AnyShard, err
	}
	return max(l.shard, 0), nil
}

// Taken is the statement that takes the moved rows from a shard, as Parse and Bind have it:
// its rows are what Put inserts, in binary format. text is the client's, n a scanner of the
// caller's. ok is false when the text is not the plan's.
func (p *Plan) Taken(text []byte, n *query.Normal, v *Values) (part Part, ok bool) {
	m := p.move
	spans := slices.Clone(m.values)
	places := make([]*query.Span, len(spans))
	for i := range spans {
		places[i] = &spans[i]
	}
	if !n.Locate(text, places) {
		return part, false
	}
	r := renumberer{seen: map[int]int{}}
	part.Text = append(part.Text, "DELETE FROM "+m.table+" WHERE "...)
	for i, s := range spans {
		if int(s.End) > len(text) {
			return part, false
		}
		if i > 0 {
			part.Text = append(part.Text, " AND "...)
		}
		part.Text = append(part.Text, m.keys[i]+" OPERATOR(pg_catalog.=) "...)
		part.Text = r.append(part.Text, text[s.Start:s.End])
	}
	// Nothing is taken, and the statement fails, when the table is no longer what the plan knows.
	of := " = " + "'" + strings.ReplaceAll(m.table, "'", "''") + "'" + "::pg_catalog.regclass"
	part.Text = append(part.Text, " AND (SELECT count(*) FROM pg_catalog.pg_attribute WHERE attrelid"+of+
		" AND attnum > 0 AND NOT attisdropped AND attgenerated = '') OPERATOR(pg_catalog.=) "+strconv.Itoa(len(m.columns))+
		" AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid"+of+" AND NOT tgisinternal AND tgenabled IN ('O', 'A'))"...)
	part.Text = append(part.Text, " RETURNING "+strings.Join(m.columns, ", ")...)
	part.Bind = []byte{0, 0, 0, 0}
	if v.params != nil {
		for _, old := range r.old {
			part.Types = append(part.Types, v.declared(old))
		}
		if part.Bind, ok = v.pickOnly(r.old); !ok {
			return part, false
		}
	} else if len(r.old) > 0 {
		return part, false
	}
	part.Bind = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(part.Bind, 1), 1)
	return part, true
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
