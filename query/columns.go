package query

// EachColumn calls f for every column that the scope's own expressions name, not those
// of the scopes inside it.
func (s *Scope) EachColumn(f func(*Column)) {
	values := func(list []Value) {
		for i := range list {
			list[i].eachColumn(f)
		}
	}
	for i := range s.Outputs {
		s.Outputs[i].Value.eachColumn(f)
	}
	if s.Update != nil {
		for i := range s.Update.Set {
			s.Update.Set[i].Value.eachColumn(f)
		}
	}
	s.Where.eachColumn(f)
	s.Having.eachColumn(f)
	for _, r := range s.From {
		r.eachColumn(f)
	}
	if p := s.Select; p != nil {
		values(p.DistinctOn)
		values(p.GroupBy)
		values(p.WindowKeys)
		for i := range p.OrderBy {
			p.OrderBy[i].Value.eachColumn(f)
		}
		for _, v := range [...]*Value{p.Limit, p.Offset} {
			if v != nil {
				v.eachColumn(f)
			}
		}
	}
	for i := range s.Rows {
		values(s.Rows[i].Values)
	}
	for _, l := range s.Sublinks {
		values(l.Test)
	}
	s.Other.eachColumn(f)
}

func (c *Condition) eachColumn(f func(*Column)) {
	if c == nil {
		return
	}
	for i := range c.Facts {
		c.Facts[i].eachColumn(f)
	}
}

func (r *Reference) eachColumn(f func(*Column)) {
	r.Sample.eachColumn(f)
	r.Function.eachColumn(f)
	if r.Join != nil {
		r.Join.Left.eachColumn(f)
		r.Join.Right.eachColumn(f)
		r.Join.On.eachColumn(f)
	}
}

func (x *Fact) eachColumn(f func(*Column)) {
	if x.Column != nil {
		f(x.Column)
	}
	x.Value.eachColumn(f)
	for i := range x.Values {
		x.Values[i].eachColumn(f)
	}
	for i := range x.Columns {
		f(&x.Columns[i])
	}
	for _, list := range x.Tuples {
		for i := range list {
			list[i].eachColumn(f)
		}
	}
	for _, branch := range x.Branches {
		for i := range branch {
			branch[i].eachColumn(f)
		}
	}
	x.Expr.eachColumn(f)
}

func (v *Value) eachColumn(f func(*Column)) {
	if v.Column != nil {
		f(v.Column)
	}
	if v.Detail == nil {
		return
	}
	for i := range v.Detail.Elements {
		v.Detail.Elements[i].eachColumn(f)
	}
	for _, t := range v.Detail.Casts {
		for i := range t.Modifiers {
			t.Modifiers[i].eachColumn(f)
		}
	}
	v.Detail.Expr.eachColumn(f)
}

func (e *Expr) eachColumn(f func(*Column)) {
	if e == nil {
		return
	}
	for i := range e.Columns {
		f(&e.Columns[i])
	}
}

// EachCall calls f for every call in the value, not those in sublinks.
func (v *Value) EachCall(f func(*Call)) {
	if v.Detail == nil {
		return
	}
	for i := range v.Detail.Elements {
		v.Detail.Elements[i].EachCall(f)
	}
	if e := v.Detail.Expr; e != nil {
		for i := range e.Calls {
			f(&e.Calls[i])
		}
	}
}

// EachCall calls f for every call in a condition, not those in sublinks.
func (c *Condition) EachCall(f func(*Call)) {
	if c == nil {
		return
	}
	for i := range c.Facts {
		c.Facts[i].eachCall(f)
	}
}

func (x *Fact) eachCall(f func(*Call)) {
	x.Value.EachCall(f)
	for i := range x.Values {
		x.Values[i].EachCall(f)
	}
	for _, branch := range x.Branches {
		for i := range branch {
			branch[i].eachCall(f)
		}
	}
	if x.Expr != nil {
		for i := range x.Expr.Calls {
			f(&x.Expr.Calls[i])
		}
	}
}
