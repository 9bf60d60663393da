package router

import (
	"slices"

	"shardproxy/query"
)

// copyOut finds the way of a COPY TO STDOUT: of a table, or of a query whose shards' rows are
// parts of the answer, in no order. is is false for any other text.
func (g *gatherer) copyOut(sql string) (s *Scatter, refusal *Refusal, is bool) {
	st, shapes := query.AnalyzeShapes(sql, g.opts)
	if st.Opaque || len(shapes) != 1 || shapes[0].Kind != query.ShapeCopy || shapes[0].Copy.From {
		return nil, nil, false
	}
	c := shapes[0].Copy
	out := &Scatter{Copy: &CopyOut{}, Merge: &Merge{Before: sql}}
	for _, o := range c.Options {
		switch {
		case o.Name == "format" && o.Value == "binary":
			out.Copy.Binary = true
		case o.Name == "header":
			out.Copy.Header = !o.HasValue || slices.Contains([]string{"true", "on", "1"}, o.Value)
		}
	}
	inner := ""
	switch {
	case c.Table != nil:
		r := g.rel.find(c.Table.Schema, c.Table.Name)
		if r == nil || r.kind != kindSharded {
			return nil, &Refusal{Reason: reasonCommand, Why: "COPY of what is no sharded table"}, true
		}
		name := quoteName(r.schema) + "." + quoteName(r.name)
		inner = "SELECT 1 FROM ONLY " + name
	case c.Query != nil && c.Query.Span.Located():
		inner = sql[c.Query.Span.Start:c.Query.Span.End]
		if sel := c.Query.Select; sel != nil && len(sel.OrderBy) > 0 {
			return nil, &Refusal{Reason: reasonCommand, Why: "COPY of a query over several shards gives its rows in no order", Hint: "Leave out ORDER BY, or send the query itself."}, true
		}
	default:
		return nil, &Refusal{Reason: reasonUnknown, Why: "the query of COPY cannot be located"}, true
	}
	a, ok := g.prove(inner, false)
	switch {
	case !ok:
		return nil, &Refusal{Reason: reasonUnknown, Why: "the text is not understood"}, true
	case a.found.refusal != nil && a.found.refusal.Reason != reasonUnbound:
		return nil, a.found.refusal, true
	case !a.divides():
		return nil, &Refusal{Reason: reasonUnbound, Why: "COPY of a query in which rows of several shards meet", Hint: "Send the query itself."}, true
	}
	if refusal := forbidden(a.shape.Scope); refusal != nil {
		return nil, refusal, true
	}
	out.Merge.Proof, out.Merge.Plan = inner, a.plan
	return out, nil, true
}
