package router

import (
	"slices"
	"strings"

	"shardproxy/catalog"
	"shardproxy/query"
)

// ALTER TABLE evaluates what it fills columns with on each shard. What would be another value there is
// refused, but for the time of the transaction: the text that runs has one time for all, and behind it
// what gives an added column the default that the client wrote.

// fillsColumn says why ALTER TABLE would give the rows that are there other values than one
// server would.
func (p *prover) fillsColumn(sh *query.Shape, c *query.Command) string {
	const instead = ": add the column without it, give the rows their values, and set the default then"
	if sh.Definition == nil {
		return ""
	}
	timed := false
	for i := range sh.Definition.Fills {
		f := &sh.Definition.Fills[i]
		if f.Draws {
			return "the rows of each shard would get values of its own sequence" + instead
		}
		if f.Added && !f.Given && !p.relations.steadyDefault(f.Type) {
			return "the rows of each shard would get other values of the default of the type " + f.Type.Name + instead
		}
		if name := p.fillsOtherwise(f); name != "" {
			if !f.Added {
				return "the rows of each shard would get other values of " + name
			}
			return "the rows of each shard would get other values of " + name + instead
		}
		timed = timed || slices.ContainsFunc(f.Functions, query.StandsForMoment)
	}
	sql := p.sql[c.Start:c.End]
	if !timed && !query.HasMoment([]byte(sql)) {
		return ""
	}
	texts, ok := query.FillTexts(sql)
	if !ok || len(texts) != len(sh.Definition.Fills) {
		return "what the rows would get is not understood" + instead
	}
	moments, lenient, there := 0, 0, 0
	var behind strings.Builder
	for i := range sh.Definition.Fills {
		f := &sh.Definition.Fills[i]
		_, found := query.ReplaceMoment(nil, []byte(texts[i]), "")
		if f.Lenient {
			lenient++
			if p.hasColumn(sh.Definition.Table, f.Column) {
				there++
			}
		}
		if moments += found.Count; found.Count > 0 && f.Added {
			behind.WriteString(", ALTER COLUMN " + query.QuoteName(f.Column) + " SET DEFAULT " + texts[i])
		}
	}
	if moments == 0 {
		return ""
	}
	if _, found := query.ReplaceMoment(nil, []byte(sql), ""); found.Count != moments {
		return "it has the time of the transaction in other places besides: send what the rows get alone"
	}
	p.fills = &filling{text: sql, behind: behind.String()}
	switch {
	case lenient == 0:
	case there == 0:
		if p.fills.text, ok = query.AddsColumns(sql); !ok {
			return "where IF NOT EXISTS stands is not certain, and the rows of each shard would get another time" + instead
		}
	case there == len(sh.Definition.Fills):
		text, _ := query.ReplaceMoment(nil, []byte(sql), notThere)
		p.fills = &filling{text: string(text)}
	default:
		return "some of the columns are there, and the rows of each shard would get another time" + instead
	}
	p.moment = true
	p.exact = true // it has literals of the text
	return ""
}

// notThere stands for the time where all columns are there that would be added IF NOT EXISTS: a server reads it only
// for a column that is not, which is an error then.
const notThere = "the column is gone: try again"

// hasColumn reports whether a table has a column, as far as is known: what is sent must not rely on it.
func (p *prover) hasColumn(table query.Name, column string) bool {
	r := p.relations.find(table.Schema, table.Name)
	return r != nil && slices.ContainsFunc(r.columns, func(c relationColumn) bool { return c.name == column })
}

// filling is what becomes of an ALTER TABLE that gives the rows the time of the transaction: the command
// with that in its place, and behind it what leaves the defaults as they are. What is added IF NOT EXISTS, and is not there as far as is
// known, is added without it: where it is there after all, that is an error, and its default is not changed.
type filling struct {
	text, behind string
}

// fillsOtherwise names a function whose values would be others than on one server; "" for none.
func (p *prover) fillsOtherwise(f *query.Fill) string {
	reference := p.uses[kindReference] != "" || p.allReference
	for _, fn := range f.Functions {
		switch {
		case query.StandsForMoment(fn) && p.relations.builtin(fn.Name):
		case p.relations.immutable(fn), ofSettings(fn), !reference && ofEachRow(fn):
		default:
			return fn.Name
		}
	}
	return ""
}

// Fills reports whether the plan's text is one for Filled.
func (p *Plan) Fills() bool { return p.fills != nil }

// Filled is the text that runs on all shards with one time for all.
func (p *Plan) Filled(moment string) []byte {
	out, _ := query.ReplaceMoment(nil, []byte(p.fills.text), moment)
	return append(append(out, '\n'), p.fills.behind...) // a comment may be the last of it
}

// steadyDefault implements relations.
func (s schema) steadyDefault(n query.Name) bool {
	t, res := s.catalog.TypeOf(n.Schema, n.Name, s.path)
	if res != catalog.Resolved {
		return true // the server knows it better, or says that it is not there
	}
	switch t.Default.Kind {
	case catalog.NoDefault, catalog.DefaultConstant:
		return true
	case catalog.DefaultExpression:
		return t.Default.Volatility == catalog.Immutable
	}
	return false
}
