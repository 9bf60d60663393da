package router

import (
	"cmp"
	"slices"

	"shardproxy/catalog"
	"shardproxy/query"
)

// sequenceKey names a sequence as SQL does, quoted and with its schema.
func sequenceKey(of *catalog.Table) string {
	return query.QuoteName(of.Schema) + "." + query.QuoteName(of.Name)
}

// sequenceNamed implements relations.
func (s schema) sequenceNamed(read *query.SequenceRead) string {
	t := s.sequenceRead(read)
	if t == nil || t.Kind != catalog.KindSequence {
		return ""
	}
	return sequenceKey(t)
}

// LastDrawn calls f with the last value that each draw from a sequence gave a row, in
// the order in which PostgreSQL would have drawn them. value is one of v.Drawn.
func (p *Plan) LastDrawn(v *Values, f func(d *Draw, value []byte)) {
	sp := p.split
	if sp == nil || len(sp.draws) == 0 || len(v.Drawn) < len(sp.rows)*len(sp.draws) {
		return
	}
	type last struct{ row, behind, place, draw int }
	var all []last
	for j := range sp.draws {
		d := &sp.draws[j]
		if d.Sequence == "" {
			continue
		}
		l := last{row: len(sp.rows) - 1, place: d.number, draw: j}
		for l.row >= 0 && !d.missing && !sp.replaced[l.row*len(sp.draws)+j].Located() {
			l.row--
		}
		if len(sp.rows) > 1 {
			// What the lists leave out is computed when their rows are.
			if l.behind = 1; !d.missing {
				l.behind, l.place = 0, sp.drawnAt[j]
			}
		}
		if l.row >= 0 {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b last) int {
		return cmp.Or(cmp.Compare(a.row, b.row), cmp.Compare(a.behind, b.behind), cmp.Compare(a.place, b.place))
	})
	for _, l := range all {
		f(&sp.draws[l.draw], v.Drawn[l.row*len(sp.draws)+l.draw])
	}
}

// SequenceUse is what a call of currval or lastval asks for.
type SequenceUse struct {
	// Key names the sequence as Draw.Sequence does, Name is its bare name; "" for lastval.
	Key, Name string
	// Drawn is set when all columns that draw from it are of tables on several shards: no
	// server draws on its own. Of lastval nothing is said.
	Drawn bool
}

// SequenceUse finds what a call asks for. ok is false unless it is certain which sequence
// is meant, who draws from it, and that the function is PostgreSQL's own.
func (r *Router) SequenceUse(read *query.SequenceRead, ctx Context) (u SequenceUse, ok bool) {
	c := r.opts.Catalog()
	if c == nil || !c.HasTables() || r.opts.Rules == nil || ctx.SearchPath == "" || ctx.Altered {
		return u, false
	}
	b := r.boundTo(c)
	s := newSchema(b, ctx)
	for _, f := range c.Callables("", read.Function(), -1, s.path) {
		if f.Schema != "pg_catalog" {
			return u, false
		}
	}
	if read.Last() {
		return u, true
	}
	t := s.sequenceRead(read)
	if t == nil {
		return u, false
	}
	u = SequenceUse{Key: sequenceKey(t), Name: t.Name}
	u.Drawn, ok = b.drawsFrom(t)
	return u, ok
}

// sequenceRead returns what a call asks for, nil when that is not certain.
func (s schema) sequenceRead(read *query.SequenceRead) *catalog.Table {
	named := read.Sequence
	if named == "" {
		named = read.Table
	}
	in, name, ok := catalog.QualifiedName(named)
	if !ok {
		return nil
	}
	t, res := s.catalog.Table(in, name, s.path)
	if res != catalog.Resolved {
		return nil
	}
	if read.Table == "" {
		return t
	}
	c := t.Column(read.Column)
	if c == nil || c.Default.Sequence == nil || c.Default.Sequence.Sequence == nil {
		return nil
	}
	owned := c.Default.Sequence
	if owned.Sequence.Owner != t || owned.Sequence.OwnerColumn != c.Number {
		return nil
	}
	return owned
}

// drawsFrom reports whether proxies draw from a sequence, by the defaults of columns. ok
// is false when servers do so too.
func (b *bound) drawsFrom(sequence *catalog.Table) (proxies, ok bool) {
	servers := false
	for _, t := range b.catalog.Tables() {
		if !slices.ContainsFunc(t.Columns, func(c catalog.Column) bool { return c.Default.Sequence == sequence }) {
			continue
		}
		rel := b.relation(t)
		several := rel.kind == kindSharded && len(rel.key) > 0 || rel.kind == kindReference
		proxies, servers = proxies || several, servers || !several
	}
	return proxies, sequence.Sequence != nil && !(proxies && servers)
}

// boundTo returns the rules as they hold under a catalog.
func (r *Router) boundTo(c *catalog.Catalog) *bound {
	over := r.over.Load()
	b := r.bound.Load()
	if b == nil || b.catalog != c || b.over != over {
		b = newBound(r.opts.Rules, c)
		if b.over = over; over.differs() {
			b.cluster = newBound(over.rules, c)
		}
		r.bound.Store(b)
	}
	return b
}
