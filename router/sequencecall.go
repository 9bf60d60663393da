package router

import (
	"strings"

	"shardproxy/catalog"
	"shardproxy/query"
)

// A sequence in a schema that has a shard counts there: its tables draw from it where they are. What a call is about is
// then a matter of the name that it is given.

// ofSequence lists PostgreSQL's functions about one sequence, by its name.
func ofSequence(name string) bool {
	switch name {
	case "nextval", "currval", "setval", "pg_sequence_last_value":
		return true
	}
	return false
}

// sequenceCall places a call that is about a sequence; done is false when the home shard is the place. The plan holds for
// the very text: another literal may name another sequence.
func (p *prover) sequenceCall(c *query.Command, f query.Name) (done bool) {
	if !ofSequence(f.Name) || !p.relations.placesSchemas() {
		return false
	}
	p.exact = true
	call := p.calls.once(f, p.sql[c.Start:c.End])
	var read *query.SequenceRead
	if call != nil && len(call.Args) > 0 {
		read = p.namedSequence(&call.Args[0])
	}
	if read == nil {
		p.refuse(reasonFunction, "which sequence "+f.Name+" is about is not certain, and those of some schemas are on their own shards")
		if p.refusal.Hint == "" {
			p.refusal.Hint = "Call it once, in the list of columns, in FROM or in VALUES, with the name as a constant."
		}
		return true
	}
	placement, known := p.relations.sequence(read)
	switch {
	case !known:
		p.refuse(reasonFunction, "which sequence "+f.Name+" is about is not certain, and those of some schemas are on their own shards")
		return true
	case placement == nil:
		return false
	}
	p.uses[kindSharded] = "the sequence of " + f.Name
	p.add(Group{table: p.uses[kindSharded], placement: placement})
	return true
}

// namedSequence reads the argument of a call: a name, or pg_get_serial_sequence of names, as those of currval are read.
func (p *prover) namedSequence(v *query.Value) *query.SequenceRead {
	if !v.Span.Located() || int(v.Span.End) > len(p.sql) {
		return nil
	}
	reads, ok := query.SequenceReads([]byte("SELECT currval(" + p.sql[v.Span.Start:v.Span.End] + ")"))
	if !ok || len(reads) != 1 || reads[0].Last() {
		return nil
	}
	return &reads[0]
}

// once returns the call of a function when it is surely the only one in the command, wherever it is looked for.
func (k *routedCalls) once(f query.Name, sql string) (found *query.Call) {
	lower := strings.ToLower(sql)
	sh := k.shape
	for sh.Kind == query.ShapeExplain && sh.Inner != nil {
		sh = sh.Inner
	}
	s := sh.Scope
	if sh.Kind != query.ShapeQuery || strings.Count(lower, f.Name) != 1 || strings.Contains(lower, "u&") {
		return nil
	}
	note := func(c *query.Call) {
		if c.Name == f {
			found = c
		}
	}
	for i := range s.Outputs {
		s.Outputs[i].Value.EachCall(note)
	}
	for _, r := range s.From {
		if r.Function != nil {
			for i := range r.Function.Calls {
				note(&r.Function.Calls[i])
			}
		}
	}
	rows := s.Rows
	if s.Insert != nil && s.Insert.Source != nil {
		rows = s.Insert.Source.Rows
	}
	for i := range rows {
		for j := range rows[i].Values {
			rows[i].Values[j].EachCall(note)
		}
	}
	return found
}

// placesSchemas implements relations.
func (s schema) placesSchemas() bool { return len(s.rules.Schemas) > 0 }

// sequence implements relations.
func (s schema) sequence(read *query.SequenceRead) (*Placement, bool) {
	t := s.sequenceRead(read)
	if t == nil || t.Kind != catalog.KindSequence {
		return nil, false
	}
	return s.relation(t).placement, true
}

// drawsElsewhere says why the server of a table that its schema places must not draw for it; "" when it may. columns are
// those that are given.
func drawsElsewhere(r *relation, given func(i int, name string) bool) string {
	for i, c := range r.columns {
		if !c.drawn || given(i, c.name) {
			continue
		}
		if c.draw == nil || !strings.HasPrefix(c.draw.Sequence, query.QuoteName(r.schema)+".") {
			return "column " + c.name + " of " + r.String() + " may draw from a sequence that is not its schema's, of which each shard has its own"
		}
	}
	return ""
}

// DrawsThere reports whether the server may draw values for rows of the statement, from sequences that are nowhere else.
func (p *Plan) DrawsThere() bool { return p.drawsThere }
