package router

import (
	"slices"
	"strings"

	"shardproxy/catalog"
	"shardproxy/query"
)

// A table that is made of the rows of a query, by CREATE TABLE AS or SELECT INTO, where the query needs
// several shards, or the table belongs on several: the table is made without rows, the query is answered
// as any other, and what it gives is inserted where the rules of the table say. What its columns are is
// known when it has been made, so where its rows belong is found out then.

// Making is such a table. It is immutable.
type Making struct {
	// Create makes the table without rows, and fails when it is there. Skip, if it is not "", does
	// nothing then, and says so.
	Create, Skip string
	// Query gives the rows. NoData is set when there are to be none.
	Query  string
	NoData bool
	// Table is its name as the text has it, Schema the schema there, "" for none, and Name what is left.
	Table, Schema, Name string
	// Spread is set when the table may have to be on several shards.
	Spread bool

	bound *bound
}

// MadeColumn is a column of a table that has been made.
type MadeColumn struct {
	Name string
	// Type is its type, Base what a domain is made of in the end, and TypeName the type as SQL.
	Type, Base uint32
	TypeName   string
	// Modifier is its typmod, -1 without one.
	Modifier int32
	// Unequal is set when its collation takes different strings for equal.
	Unequal bool
}

// makes finds the way of a text that makes a table; is is false for any other text.
func (g *gatherer) makes(sql string) (s *Scatter, refusal *Refusal, is bool) {
	if lower := strings.ToLower(sql); !strings.Contains(lower, "create") && !strings.Contains(lower, "into") {
		return nil, nil, false
	}
	c, ok := query.ReadCreateAs(sql, g.opts)
	if !ok {
		return nil, nil, false
	}
	if c.Catalog {
		return nil, &Refusal{Reason: reasonUnknown, Why: "its table is named with a database"}, true
	}
	m := &Making{Create: c.Create, Skip: c.Skip, Query: c.Query, NoData: c.NoData, Table: c.Table, Schema: c.Schema, Name: c.Name, Spread: g.rel.maySpread(c), bound: g.rel.bound}
	of := &gatherer{r: g.r, ctx: g.ctx, rel: g.rel, o: g.o}
	if s, refusal = of.scatter(c.Query); refusal != nil {
		return nil, refusal, true
	}
	if refusal = g.namesItself(c); refusal != nil {
		return nil, refusal, true
	}
	s.Make = m
	return s, nil, true
}

// maySpread reports whether a table may belong on several shards when it has been made.
func (s schema) maySpread(c *query.CreateAs) bool {
	in := []string{c.Schema}
	if c.Schema == "" {
		in = s.names
	}
	return len(s.rules.Keys) > 0 || slices.ContainsFunc(in, func(schema string) bool {
		rule := s.rules.TableRule(schema, c.Name)
		return s.rules.SchemaRule(schema) != nil || rule != nil && !rule.Single
	})
}

// namesItself refuses a query that reads another table of the same name: that would be found no more
// once the new one is there.
func (g *gatherer) namesItself(c *query.CreateAs) *Refusal {
	st := query.Analyze(c.Query, g.opts)
	if st.Opaque || len(st.Commands) != 1 {
		return &Refusal{Reason: reasonUnknown, Why: "the text is not understood"}
	}
	if slices.ContainsFunc(st.Commands[0].Relations, func(n query.Name) bool { return n.Schema == "" && n.Name == c.Name }) {
		return &Refusal{Reason: reasonUnknown, Why: "it reads a table of the name of the one that it makes", Hint: "Name the schemas of both."}
	}
	return nil
}

// Place says where the rows of the table belong, which was made in a schema with these columns; at is its name
// as SQL. The error is a *wire.Error.
func (m *Making) Place(schema, at string, columns []MadeColumn) (*Insertion, error) {
	t := &catalog.Table{Schema: schema, Name: m.Name, Kind: catalog.KindTable}
	i := &Insertion{head: "INSERT INTO " + at}
	for n := range columns {
		c := &columns[n]
		t.Columns = append(t.Columns, catalog.Column{Name: c.Name, Number: int16(n + 1), Type: c.Type, Base: c.Base, TypeName: c.TypeName,
			Modifier: c.Modifier, Collation: &catalog.Collation{Deterministic: !c.Unequal}})
		i.Columns = append(i.Columns, InsertionColumn{Name: query.QuoteName(c.Name)})
	}
	r := &relation{schema: schema, name: m.Name}
	for n := range t.Columns {
		r.columns = append(r.columns, m.bound.bindColumn(t, &t.Columns[n]))
	}
	m.bound.placeOnly(r, t)
	switch r.kind {
	case kindSingle:
		i.Home = true
	case kindReference:
		i.Everywhere = true
	case kindSharded:
		i.group = Group{table: r.String(), placement: r.placement}
		for n, k := range r.key {
			c := &r.columns[k]
			i.Keys = append(i.Keys, InsertionKey{Column: k, Type: columns[k].TypeName, key: c.key, typmod: c.typmod})
			i.group.columns = append(i.group.columns, []value{{source: fromParam, index: int32(n + 1), as: c.key, assigned: true, typmod: c.typmod, sure: true}})
		}
	default:
		return nil, (&Refusal{Reason: reasonUnknown, Why: r.String() + " " + r.why}).Error()
	}
	return i, nil
}

// scatterMaking is scatter for what makes a table of a query. One that may belong on several shards is made
// so even if the home shard has all that its query reads.
func (r *Router) scatterMaking(p *Plan, m *miss, sql string, found *routed) {
	g := &gatherer{r: r, ctx: m.ctx, rel: newSchema(r.boundTo(m.catalog), m.ctx), opts: r.options(m.sql, m.ctx)}
	temporary := p.Effects&query.EffectTemp != 0
	if found.where != Refused {
		c, ok := query.ReadCreateAs(sql, g.opts)
		if temporary || ok && !g.rel.maySpread(c) || !ok && len(g.rel.rules.Keys) == 0 {
			return
		}
		found.where, found.refusal = Refused, &Refusal{Reason: reasonUnknown, Why: "where its table belongs is not certain"}
	}
	if m.ctx.Altered {
		found.refusal = &Refusal{Reason: reasonCommand, Why: "definitions were changed in this transaction, and what a query over several shards must know of them is known when it is committed",
			Hint: "Make the table in a transaction of its own."}
		return
	}
	if temporary {
		found.refusal = &Refusal{Reason: reasonCommand, Why: "a temporary table is on one server, and rows of several shards are read for it",
			Hint: "Make a table that is not temporary."}
		return
	}
	switch _, refusal, is := g.makes(sql); {
	case !is:
	case refusal != nil:
		found.refusal = refusal
	default:
		found.where, found.refusal, p.scatters = FanOut, nil, true
	}
}

// materialised says more of why a materialised view is not made, or not refreshed.
func (found *routed) materialised() {
	if found.where != Refused {
		return
	}
	switch found.refusal.Reason {
	case reasonUnbound, reasonMixed:
		found.refusal = &Refusal{Reason: reasonCommand, Why: "one server would fill the materialised view, and its query reads rows of several"}
	case reasonCommand, reasonUnknown, reasonReference:
		found.refusal = &Refusal{Reason: found.refusal.Reason, Why: found.refusal.Why, Hint: found.refusal.Hint}
	default:
		return
	}
	if found.refusal.Hint == "" {
		found.refusal.Hint = "Make a table of the query's rows by CREATE TABLE AS, and renew it by DELETE and INSERT ... SELECT in one transaction."
	}
}
