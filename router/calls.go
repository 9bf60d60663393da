package router

import (
	"strconv"
	"strings"

	"shardproxy/query"
)

// routedCalls is where calls of functions are looked for that a rule places.
type routedCalls struct {
	shape *query.Shape
	text  *text
}

// placedCall reports whether a rule says where a function runs. The call is then a use
// of sharded rows: those of the key that its arguments give. It must be the only one in
// the command, in the target list or in FROM.
func (p *prover) placedCall(c *query.Command, f query.Name) bool {
	rule := p.relations.placed(f)
	if rule == nil {
		return false
	}
	name := f.Name
	schema, table := rule.TableName()
	r := p.relations.find(schema, table)
	call := p.calls.only(f, p.sql[c.Start:c.End])
	switch {
	case r == nil || r.kind != kindSharded || len(r.key) != len(rule.Arguments):
		p.refuse(reasonFunction, "function "+name+" is placed by the key of "+rule.Table+", which is not known or has another key")
		return true
	case call == nil:
		p.refuse(reasonFunction, "function "+name+" is placed by its arguments: it can be called once in a statement, in the list of columns or in FROM, with all arguments by position")
		return true
	}
	g := Group{table: name, placement: r.placement}
	b := &block{text: p.calls.text}
	for i, n := range rule.Arguments {
		var v value
		ok := n <= len(call.Args)
		if ok {
			v, ok = p.value(b, &call.Args[n-1], r.columns[r.key[i]].key)
		}
		if !ok {
			p.refuse(reasonValue, "argument "+strconv.Itoa(n)+" of "+name+", which places the call, is not a constant or a parameter of the key's type")
			return true
		}
		g.columns = append(g.columns, []value{v})
	}
	p.uses[kindSharded] = name
	p.add(g)
	return true
}

// only returns the call of a function when it is surely the only one.
func (k *routedCalls) only(f query.Name, sql string) *query.Call {
	lower := strings.ToLower(sql)
	s := k.shape.Scope
	// A name that is written once is called once.
	if k.shape.Kind != query.ShapeQuery || s.Kind != query.ScopeSelect || strings.Count(lower, strings.ToLower(f.Name)) != 1 || strings.Contains(lower, "u&") {
		return nil
	}
	find := func(e *query.Expr) *query.Call {
		if e == nil {
			return nil
		}
		for i := range e.Calls {
			if e.Calls[i].Name == f {
				return &e.Calls[i]
			}
		}
		return nil
	}
	for i := range s.Outputs {
		if call := find(s.Outputs[i].Value.Expr()); call != nil {
			return call
		}
	}
	for _, r := range s.From {
		if call := find(r.Function); call != nil {
			return call
		}
	}
	return nil
}
