package router

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"shardproxy/config"
	"shardproxy/query"
	"shardproxy/shardmap"
)

// fakeRelations is a schema of the tests' own.
type fakeRelations map[string]*relation

func (f fakeRelations) find(schema, name string) *relation {
	if schema != "" && schema != "public" {
		name = schema + "." + name
	}
	return f[name]
}

func (f fakeRelations) indexed(schema, name string) *relation { return nil }

func (f fakeRelations) keyType(t *query.Type) shardmap.KeyType {
	if len(t.Modifiers) > 0 || t.Dimensions > 0 || t.Odd {
		return 0
	}
	return map[string]shardmap.KeyType{"int2": shardmap.Int2, "int4": shardmap.Int4, "int8": shardmap.Int8, "text": shardmap.Text,
		"varchar": shardmap.Text, "uuid": shardmap.UUID, "date": shardmap.Date, "bool": shardmap.Bool,
		"numeric": shardmap.Numeric, "ctext": shardmap.Text, "timestamptz": shardmap.Timestamptz}[t.Name.Name]
}

func (f fakeRelations) equal(op query.Name, left, right shardmap.KeyType) bool {
	return op.Name == "=" && (op.Schema == "" || op.Schema == "pg_catalog") && left.Colocates(right)
}

func (f fakeRelations) orders(op query.Name, k shardmap.KeyType) bool {
	return slices.Contains([]string{"<", "<=", ">", ">="}, op.Name) && (op.Schema == "" || op.Schema == "pg_catalog")
}

func (f fakeRelations) returnsSet(n query.Name) bool {
	return n.Name == "unnest" || n.Name == "generate_series"
}

func (f fakeRelations) aggregate(n query.Name) bool {
	return n.Name == "count" || n.Name == "sum" || n.Name == "max"
}

func (f fakeRelations) immutable(n query.Name) bool { return n.Name == "lower" || n.Name == "abs" }

func (f fakeRelations) builtin(name string) bool { return name == "now" }

func (f fakeRelations) placesSchemas() bool                             { return false }
func (f fakeRelations) sequence(*query.SequenceRead) (*Placement, bool) { return nil, false }
func (f fakeRelations) sequenceNamed(*query.SequenceRead) string        { return "" }
func (f fakeRelations) keyed(*query.Definition) bool                    { return false }
func (f fakeRelations) forbidden(*query.Definition) *Refusal            { return nil }
func (f fakeRelations) steadyDefault(n query.Name) bool                 { return n.Name != "chance" }
func (f fakeRelations) displaced(*query.Definition) string              { return "" }
func (f fakeRelations) placed(n query.Name) *config.Function {
	if n.Name == "f_placed" {
		return &config.Function{Name: "f_placed", Arguments: []int{2}, Table: "orders"}
	}
	return nil
}

func (f fakeRelations) reaches(n query.Name) string {
	if strings.HasPrefix(n.Name, "f_") {
		return "function " + n.Name + " may read any table"
	}
	return ""
}

// testSchema reads lines such as "orders sharded id:int8 customer_id:int8*". The rows of a
// table that is ranged, not sharded, are placed by ranges of its key; ctext is text that is ordered by bytes.
func testSchema(t *testing.T, text string) fakeRelations {
	f := fakeRelations{}
	kinds := map[string]kind{"single": kindSingle, "system": kindSystem, "reference": kindReference, "sharded": kindSharded, "view": kindView}
	kinds["ranged"] = kindSharded
	shared := &Placement{types: []shardmap.KeyType{shardmap.Int8}}
	for line := range strings.Lines(strings.TrimSpace(text)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		word, rest, _ := strings.Cut(rest, " ")
		r := &relation{kind: kinds[word], schema: "public", name: name}
		if r.kind == kindView {
			names, sql, _ := strings.Cut(rest, " AS ")
			for n := range strings.FieldsSeq(names) {
				r.columns = append(r.columns, relationColumn{name: n})
			}
			var n query.Normal
			if !n.Scan([]byte(sql)) {
				t.Fatal(sql)
			}
			_, shapes := n.AnalyzeShapes(sql, query.Options{})
			r.query, r.view = shapes[0].Scope, &viewText{[]byte(sql), slices.Clone(n.Literals), ""}
			f[name] = r
			continue
		}
		for c := range strings.FieldsSeq(rest) {
			name, typ, _ := strings.Cut(c, ":")
			if strings.HasSuffix(typ, "*") {
				r.key = append(r.key, len(r.columns))
				typ = strings.TrimSuffix(typ, "*")
			}
			col := relationColumn{name: name, typmod: -1, bytewise: strings.HasPrefix(typ, "ctext")}
			// id:int8+ is a serial, id:int8! always an identity, id:uuid~ random.
			if bare := strings.TrimRight(typ, "+!~"); bare != typ {
				col.draw, col.drawn = &Draw{Schema: "public", Table: r.name, Column: name, always: typ[len(bare)] == '!'}, typ[len(bare)] != '~'
				if col.drawn {
					col.draw.Sequence = "public." + r.name + "_" + name + "_seq"
				}
				typ = bare
			}
			col.key = f.keyType(&query.Type{Name: query.Name{Name: typ}})
			r.columns = append(r.columns, col)
		}
		r.placement = shared
		if r.kind == kindSharded && (len(r.key) != 1 || r.columns[r.key[0]].key != shardmap.Int8) {
			r.placement = &Placement{}
			for _, k := range r.key {
				r.placement.types = append(r.placement.types, r.columns[k].key)
			}
		}
		if word == "ranged" {
			r.placement = &Placement{types: []shardmap.KeyType{r.columns[r.key[0]].key}, ranges: &shardmap.Ranges{}}
		}
		f[name] = r
	}
	return f
}

// TestProof shows where statements run. Each must be right or refused.
func TestProof(t *testing.T) {
	datadriven.Walk(t, "testdata/proof", func(t *testing.T, path string) {
		var rel fakeRelations
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "schema" {
				rel = testSchema(t, d.Input)
				return ""
			}
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				line = strings.TrimRight(line, "\n")
				fmt.Fprintf(&out, "%s\n  %s\n", line, describeRoute(rel, line))
			}
			return out.String()
		})
	})
}

func describeRoute(rel relations, sql string) string {
	var n query.Normal
	n.Scan([]byte(sql))
	st, shapes := n.AnalyzeShapes(sql, query.Options{})
	r := route(rel, st, shapes, sql, n.Literals)
	if r.where == Refused {
		return fmt.Sprintf("refused %s: %s", r.refusal.Reason, r.refusal.Why)
	}
	var out strings.Builder
	out.WriteString(r.where.String())
	for i := range r.groups {
		fmt.Fprintf(&out, " %s", describeGroup(&r.groups[i], rel, sql, n.Literals))
	}
	if r.fansOut && r.where == Keyed {
		out.WriteString(", fan-out")
	}
	if r.move != nil {
		if r.move.each {
			return out.String() + " moves each"
		}
		fmt.Fprintf(&out, " moves to %s", describeGroup(&r.move.to, rel, sql, n.Literals))
	}
	if r.moment {
		out.WriteString(", at one time")
	}
	if r.fills != nil {
		fmt.Fprintf(&out, "\n  -> %s", (&Plan{fills: r.fills}).Filled("2026-11-22"))
	}
	if r.split != nil && len(r.split.draws) > 0 {
		fmt.Fprintf(&out, "\n  -> %s", drawnText(&Plan{split: r.split}, &n, sql))
	}
	return out.String()
}

// drawnText is the text with values drawn for it.
func drawnText(p *Plan, n *query.Normal, sql string) string {
	var v Values
	for i := range p.RowCount() * len(p.Draws()) {
		if p.Draws()[i%len(p.Draws())].Sequence == "" {
			v.Drawn = append(v.Drawn, fmt.Appendf(nil, "c0ffee00-0000-4000-8000-%012d", i+1))
		} else {
			v.Drawn = append(v.Drawn, fmt.Appendf(nil, "%d", 1001+i))
		}
	}
	// Parameters stay parameters, of which Part asks for the values.
	v.Bind(make([]byte, 4))
	v.params = make([]byte, 4*9+2)
	v.count = 9
	part, ok := p.Part([]byte(sql), n, &v, nil, 0)
	if !ok {
		return "cannot be written"
	}
	if st := query.Analyze(string(part.Text), query.Options{}); st.Opaque {
		return "is no SQL: " + string(part.Text)
	}
	return string(part.Text)
}

func describeGroup(g *Group, rel relations, sql string, literals []query.Literal) string {
	var columns []string
	r := rel.find("", strings.TrimPrefix(g.table, "public."))
	if r == nil { // a function
		r = &relation{name: g.table, key: []int{0}, columns: []relationColumn{{name: "argument"}}}
	}
	for i, column := range g.columns {
		var values []string
		for _, v := range column {
			values = append(values, describeValue(v, sql, literals))
		}
		columns = append(columns, r.columns[r.key[i]].name+": "+strings.Join(values, " "))
	}
	return r.name + "(" + strings.Join(columns, ", ") + ")"
}

func describeValue(v value, sql string, literals []query.Literal) string {
	s := map[source]string{fromNull: "NULL", fromParam: fmt.Sprintf("$%d", v.index), fromPlan: "=" + v.fixed,
		fromDraw: fmt.Sprintf("draw %d", v.index), fromSpan: "*"}[v.source]
	if v.source == fromLiteral {
		s = sql[literals[v.index].Start:literals[v.index].End]
	}
	if v.negative {
		s = "-" + s
	}
	if v.array {
		s = "any(" + s + ")"
	}
	if v.source == fromParam && !v.sure {
		s += "?"
	}
	if v.within != nil {
		s += "["
		for i, l := range v.within.limits {
			if i > 0 {
				s += " "
			}
			s += l.operator() + " " + describeValue(l.of, sql, literals)
		}
		s += "]"
	}
	return s
}
