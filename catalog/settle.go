package catalog

import (
	"cmp"
	"slices"
)

// settle makes each node as bad as the worst of what it uses, until nothing
// changes. Circles are fine: verdicts only grow. What a node uses and the
// catalog does not show (a relation of another kind) adds nothing.
func (g *graph) settle() {
	users, mentioners := make(map[nodeID][]nodeID, len(g.nodes)), map[nodeID][]nodeID{}
	var work []nodeID
	for id, n := range g.nodes {
		for _, u := range n.uses {
			users[u] = append(users[u], id)
		}
		for _, u := range n.mentions {
			mentioners[u] = append(mentioners[u], id)
		}
		if n.verdict.Fitness > Anywhere || n.verdict.Asks != 0 {
			work = append(work, id)
		}
	}
	// The order decides which of several equal reasons is told.
	slices.SortFunc(work, func(a, b nodeID) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.oid, b.oid))
	})
	for len(work) > 0 {
		used := g.nodes[work[0]]
		for _, id := range users[work[0]] {
			n := g.nodes[id]
			if n.asksToo(used) {
				work = append(work, id)
			}
			if n.verdict.Fitness < used.verdict.Fitness {
				n.judge(used.verdict.Fitness, reason(n.what, used.verdict.Why))
				work = append(work, id)
			}
		}
		for _, id := range mentioners[work[0]] {
			if g.nodes[id].asksToo(used) {
				work = append(work, id)
			}
		}
		work = work[1:]
	}
}

// asksToo adds what is asked by something that n uses; false when that is nothing new.
func (n *node) asksToo(used *node) bool {
	before := n.verdict.Asks
	n.verdict.Asks |= used.verdict.Asks
	return n.verdict.Asks != before
}

// reason chains two reasons, short enough for a log line.
func reason(what, why string) string {
	const most = 160
	s := what + ", which " + why
	if len(s) > most {
		return what + ", which is not safe there"
	}
	return s
}

// fill condenses the settled graph into the snapshot.
func (g *graph) fill(c *Catalog) {
	c.functions = make(map[string][]function)
	c.operators = make(map[string][]object)
	c.relations = make(map[string][]relation)
	c.types = make(map[string][]object)
	c.attributes = make(map[string]Verdict)
	c.command = g.nodes[commandNode].verdict
	for id, n := range g.nodes {
		switch id.kind {
		case nodeFunction:
			g.fillFunction(c, id, n)
		case nodeOperator:
			c.operators[n.name] = mergeObject(c.operators[n.name], object{n.schema, n.verdict, g.unsteadyOperator(n)})
		case nodeType:
			if n.verdict.Fitness > Anywhere {
				c.types[n.name] = mergeObject(c.types[n.name], object{schema: n.schema, verdict: n.verdict})
			}
		case nodeRead:
			c.relations[n.name] = append(c.relations[n.name], relation{
				schema: n.schema, read: n.verdict, write: g.nodes[nodeID{nodeWrite, id.oid}].verdict,
				reads: g.readsOf(id), writes: g.writesOf(nodeID{nodeWrite, id.oid}),
			})
		}
	}
	slices.Sort(c.unsteadyAttributes)
}

func (g *graph) fillFunction(c *Catalog, id nodeID, n *node) {
	f := function{object{n.schema, n.verdict, n.unsteady}, n.minArgs, n.maxArgs, g.writesOf(id)}
	if n.direct != nil {
		f.verdict = *n.direct
	}
	if n.attribute && f.verdict.Fitness > Anywhere {
		c.attributes[n.name] = c.attributes[n.name].worse(f.verdict)
	}
	if n.attribute && n.unsteady {
		c.unsteadyAttributes = append(c.unsteadyAttributes, n.name)
	}
	list := c.functions[n.name]
	for i, o := range list {
		if o.schema == f.schema && o.minArgs == f.minArgs && o.maxArgs == f.maxArgs {
			list[i].verdict = o.verdict.worse(f.verdict)
			list[i].unsteady, list[i].writes = o.unsteady || f.unsteady, o.writes.With(f.writes)
			return
		}
	}
	c.functions[n.name] = append(list, f)
}

func mergeObject(list []object, o object) []object {
	for i := range list {
		if list[i].schema == o.schema {
			list[i].verdict = list[i].verdict.worse(o.verdict)
			list[i].unsteady = list[i].unsteady || o.unsteady
			return list
		}
	}
	return append(list, o)
}
