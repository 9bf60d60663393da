package query

// Conjunct is one of the conditions that a clause ANDs.
type Conjunct struct {
	// Text is the condition as it stands in the text.
	Text string
	// Columns are those that it names.
	Columns []Column
	// Plain is set when it holds no subquery and nothing that was not understood: Columns are all.
	Plain bool
}

// Conjuncts takes a condition apart. One that has an OR outside of parentheses is one
// conjunct.
func Conjuncts(condition string, opts Options) []Conjunct {
	var n Normal
	n.Scan([]byte(condition))
	t := newShapeText([]byte(condition), n.Literals)
	all := t.conjuncts(region{0, len(t.toks)})
	out := make([]Conjunct, 0, len(all))
	for _, r := range all {
		p := t.place(r)
		c := Conjunct{Text: p.In(condition)}
		_, shapes := AnalyzeShapes("SELECT 1 WHERE "+c.Text, opts)
		if len(shapes) == 1 && shapes[0].Scope != nil && shapes[0].Scope.Where != nil {
			s := shapes[0].Scope
			c.Plain = len(s.Sublinks) == 0 && len(s.Unknown) == 0 && s.Select == nil && len(s.From) == 0
			for i := range s.Where.Facts {
				s.Where.Facts[i].eachColumn(func(col *Column) { c.Columns = append(c.Columns, *col) })
			}
		}
		out = append(out, c)
	}
	return out
}

// conjuncts cuts r at each AND of its own level.
func (t *shapeText) conjuncts(r region) []region {
	r = t.bare(r)
	var out []region
	lo, cases, between := r.lo, 0, false
	for i := r.lo; i < r.hi; i = t.skip(i) {
		if t.label(i) {
			continue
		}
		switch {
		case t.is(i, "case"):
			cases++
		case t.is(i, "end"):
			cases--
		case cases > 0:
		case t.is(i, "or"):
			return []region{r}
		case t.is(i, "between"):
			between = true
		case t.is(i, "and") && between:
			between = false
		case t.is(i, "and"):
			out = append(out, region{lo, i})
			lo = i + 1
		}
	}
	return append(out, region{lo, r.hi})
}
