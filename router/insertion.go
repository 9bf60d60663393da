package router

import (
	"slices"
	"strconv"
	"strings"

	"shardproxy/catalog"
	"shardproxy/query"
	"shardproxy/shardmap"
)

// An INSERT whose rows a query gives, and that no shard can run on the rows that it has: the query
// is answered as any other, and what it gives is inserted row by row where it belongs. What is
// inserted is a text of its own, which is proven as one that lists its rows.

// Insertion is such an INSERT. It is immutable.
type Insertion struct {
	// Query gives the rows. It has the client's parameters.
	Query string
	// Columns are those that it gives, in its order.
	Columns []InsertionColumn
	// Draws are the columns behind them whose values are drawn.
	Draws []Draw
	// Keys are the columns that place a row; none when that is the draws' or nobody's.
	Keys []InsertionKey
	// Everywhere is set when all shards get all rows, Home when the home shard gets them.
	Everywhere, Home bool
	// Omits is set when RETURNING may leave rows out; Ordered when the query has an order.
	Omits, Ordered bool
	// Moment is set when what is inserted has the time of the transaction.
	Moment bool

	head, override, tail string
	group                Group // its parameters are those of Keys, in their order
}

// InsertionColumn is a column that is inserted.
type InsertionColumn struct {
	// Name is its name as SQL.
	Name string
	// Literal is set for what has no type in the query, a string or NULL: a server takes it for
	// text there, and here it is read as the type As, as SQL; "" for text.
	Literal bool
	As      string
}

// InsertionKey is a column of the key.
type InsertionKey struct {
	// Column is its place in Columns.
	Column int
	// Type is its type, with what modifies it, as SQL.
	Type string

	key    shardmap.KeyType
	typmod int32
}

// Plain reports whether values of a type are placed as they are: any other is first what the
// column's type makes of it.
func (k *InsertionKey) Plain(oid uint32) bool {
	t, err := shardmap.KeyTypeOf(oid, true)
	return err == nil && t.Colocates(k.key) && k.typmod < 0
}

// Shard returns the shard of one row. The parameters of v are the values of Keys, of their
// types; drawn are those of Draws, as texts.
func (i *Insertion) Shard(o *Owners, v *Values, drawn [][]byte) (int, error) {
	if i.Home {
		return 0, nil
	}
	v.drawn = drawn
	l := locator{owners: o, values: v, shard: AnyShard}
	err := l.group(&i.group)
	return max(l.shard, 0), err
}

// Text is the INSERT of rows that a query gives; rows is that query, in which the values of Columns
// and then those of Draws stand.
func (i *Insertion) Text(rows, moment string) string {
	names := make([]string, 0, len(i.Columns)+len(i.Draws))
	for _, c := range i.Columns {
		names = append(names, c.Name)
	}
	for _, d := range i.Draws {
		names = append(names, query.QuoteName(d.Column))
	}
	text := i.head + " (" + strings.Join(names, ", ") + ")" + i.override + " " + rows
	tail := i.tail
	if moment != "" {
		replaced, _ := query.ReplaceMoment(nil, []byte(tail), moment)
		tail = string(replaced)
	}
	return text + " " + tail
}

// Default is the expression of a draw that is made of the time of the transaction.
func (d *Draw) Default(moment string) string {
	out, _ := query.ReplaceMoment([]byte("("), []byte(d.moment), moment)
	return string(append(out, ')'))
}

// inserted finds the way of an INSERT of a query's rows.
func (g *gatherer) inserted(sql string) (*Scatter, *Refusal) {
	into, refusal := g.insertion(sql)
	if refusal != nil {
		return nil, refusal
	}
	if into == nil {
		return nil, &Refusal{Reason: reasonUnknown, Why: "the text is not understood"}
	}
	of := &gatherer{r: g.r, ctx: g.ctx, rel: g.rel, o: g.o}
	s, refusal := of.scatter(into.Query)
	if refusal == nil {
		s.Into = into
	}
	return s, refusal
}

// insertion takes an INSERT of a query's rows apart; nil without a refusal for any other text.
func (g *gatherer) insertion(sql string) (*Insertion, *Refusal) {
	st, shapes := query.AnalyzeShapes(sql, g.opts)
	if st.Opaque || len(shapes) != 1 || shapes[0].Kind != query.ShapeQuery || shapes[0].Scope.Kind != query.ScopeInsert {
		return nil, nil
	}
	s := shapes[0].Scope
	in, src := s.Insert, s.Insert.Source
	if text := selected(sql, src); text != "" {
		of := *g
		return of.insertion(text)
	}
	if src == nil || src.Kind != query.ScopeSelect && src.Kind != query.ScopeSet {
		return nil, nil
	}
	for _, c := range s.With {
		if c.Writes {
			return nil, &Refusal{Reason: reasonCommand, Why: "a WITH query writes, and rows of several shards are read"}
		}
	}
	i := &Insertion{Omits: in.Conflict != nil, Ordered: src.Select != nil && len(src.Select.OrderBy) > 0}
	if !i.cut(sql, s, int(st.Commands[0].End)) {
		return nil, &Refusal{Reason: reasonUnknown, Why: "where its parts stand in the text is not certain"}
	}
	if refusal := g.insertedColumns(i, s); refusal != nil {
		return nil, refusal
	}
	return i, g.placedRows(i, sql)
}

// selected returns the text of an INSERT with its one row of VALUES as a SELECT of the same values, which gives them the
// same types; "" for any other. The key of the row is computed: what it is a server knows.
func selected(sql string, src *query.Scope) string {
	if src == nil || src.Kind != query.ScopeValues || len(src.Rows) != 1 || src.Select != nil || len(src.With) > 0 {
		return ""
	}
	row := src.Rows[0]
	if !src.Span.Located() || !row.Span.Located() || row.Span.Start+2 > row.Span.End || int(row.Span.End) > len(sql) ||
		slices.ContainsFunc(row.Values, func(v query.Value) bool { return v.Kind == query.ValueDefault }) {
		return ""
	}
	return sql[:src.Span.Start] + "SELECT " + sql[row.Span.Start+1:row.Span.End-1] + sql[src.Span.End:]
}

// cut cuts the text into the query, and what is before and behind it.
func (i *Insertion) cut(sql string, s *query.Scope, end int) bool {
	in := s.Insert
	src := in.Source.Span
	if !in.TargetSpan.Located() || !src.Located() || !s.Span.Located() || end > len(sql) || int(src.End) > end {
		return false
	}
	before := strings.TrimRight(sql[:in.TargetSpan.Start], " \t\r\n")
	into := strings.TrimRight(cutWord(before, "into"), " \t\r\n")
	insert := cutWord(into, "insert")
	at := in.TargetSpan.End
	if in.HasColumns {
		at = in.ColumnsSpan.End
	}
	if insert == "" && len(into) != len("insert") || int(at) > int(src.Start) || at == 0 {
		return false
	}
	if len(s.With) > 0 {
		i.Query = insert[s.Span.Start:]
		if len(in.Source.With) > 0 {
			return false
		}
	}
	i.Query += sql[src.Start:src.End]
	i.head = "INSERT INTO " + sql[in.TargetSpan.Start:in.TargetSpan.End]
	i.tail = strings.TrimSpace(sql[src.End:end])
	for range strings.Count(sql[at:src.Start], "(") {
		rest, ok := strings.CutPrefix(i.tail, ")")
		if !ok {
			return false
		}
		i.tail = strings.TrimSpace(rest)
	}
	switch in.Overriding {
	case "user":
		return false
	case "system":
		i.override = " OVERRIDING SYSTEM VALUE"
	}
	return true
}

// cutWord returns what stands before a word that ends a text; "" when it does not.
func cutWord(text, word string) string {
	at := len(text) - len(word)
	if at < 0 || !strings.EqualFold(text[at:], word) {
		return ""
	}
	return text[:at]
}

// insertedColumns finds out which columns the query's are for.
func (g *gatherer) insertedColumns(i *Insertion, s *query.Scope) *Refusal {
	in := s.Insert
	t, res := g.rel.catalog.Table(s.Target.Schema, s.Target.Name, g.rel.path)
	if res != catalog.Resolved || s.Target.Catalog != "" {
		return &Refusal{Reason: reasonUnknown, Why: "the columns of " + s.Target.Name + " are not known"}
	}
	p := &prover{relations: g.rel, withs: map[*query.CTE]*with{}, params: map[int32]paramUse{}, sql: g.sql}
	b := p.build(s, nil, &text{})
	width := len(in.Columns)
	switch {
	case p.refusal != nil:
		return p.refusal
	case in.HasColumns:
	case b.right == nil || !b.right.sure:
		return &Refusal{Reason: reasonUnknown, Why: "how many columns the query gives is not known", Hint: "Name the columns that are inserted."}
	default:
		width = len(b.right.outputs)
	}
	if width == 0 || !in.HasColumns && width > len(t.Columns) {
		return &Refusal{Reason: reasonUnknown, Why: "the columns that are inserted are not known"}
	}
	for at := range width {
		c := InsertionColumn{}
		name := ""
		if in.HasColumns {
			if name = in.Columns[at].Name; in.Columns[at].Part {
				return &Refusal{Reason: reasonCommand, Why: "it inserts a part of column " + name}
			}
		} else {
			name = t.Columns[at].Name
		}
		c.Name = query.QuoteName(name)
		column := t.Column(name)
		if column == nil {
			return &Refusal{Reason: reasonUnknown, Why: s.Target.Name + " has no column " + name}
		}
		if c.Literal = g.literalOutput(in.Source, at, width); c.Literal && !ofText(column.Base) {
			if c.As = bareType(column.TypeName); column.Type != column.Base {
				return &Refusal{Reason: reasonUnknown, Why: "column " + name + " is of a domain, and gets a literal that has no type", Hint: "Cast the literal to the column's type."}
			}
		}
		i.Columns = append(i.Columns, c)
	}
	return nil
}

// literalOutput reports whether an output of a query may be a string or NULL without a type.
// width is the number of outputs.
func (g *gatherer) literalOutput(s *query.Scope, at, width int) bool {
	if s.Kind != query.ScopeSelect {
		return false // the branches of a set operation give it one
	}
	stars := 0
	for j := range s.Outputs {
		if s.Outputs[j].Star {
			stars++
		}
	}
	var o *query.Output
	switch star := slices.IndexFunc(s.Outputs, func(o query.Output) bool { return o.Star }); {
	case stars == 0 && at < len(s.Outputs):
		o = &s.Outputs[at]
	case stars > 0 && at < star:
		o = &s.Outputs[at]
	case stars == 1 && len(s.Outputs)-(width-at) > star:
		o = &s.Outputs[len(s.Outputs)-(width-at)]
	case stars > 1:
		return slices.ContainsFunc(s.Outputs, func(o query.Output) bool { return !o.Star && g.untypedValue(&o.Value) })
	default:
		return false
	}
	return g.untypedValue(&o.Value)
}

// untypedValue reports whether a value is a string or NULL without a type.
func (g *gatherer) untypedValue(v *query.Value) bool {
	return g.untyped(&query.Scope{Outputs: []query.Output{{Value: *v}}})
}

// ofText reports whether text is stored in a type as it is: text, varchar, bpchar.
func ofText(oid uint32) bool { return oid == oidText || oid == oidVarchar || oid == 1042 }

// bareType is a type's name without what modifies it.
func bareType(name string) string {
	var b strings.Builder
	depth, quoted := 0, false
	for _, c := range name {
		switch {
		case c == '"':
			quoted = !quoted
		case c == '(' && !quoted:
			depth++
		}
		if depth == 0 {
			b.WriteRune(c)
		}
		if c == ')' && !quoted {
			depth--
		}
	}
	base, array, is := strings.Cut(b.String(), "[]")
	switch base {
	case "character":
		base = "pg_catalog.bpchar"
	case "bit":
		base = `pg_catalog."bit"`
	}
	if is {
		base += "[]" + array
	}
	return base
}

// placedRows proves what is inserted as an INSERT that lists its rows.
func (g *gatherer) placedRows(i *Insertion, sql string) *Refusal {
	first := query.Params([]byte(sql))
	row := make([]string, len(i.Columns))
	for j := range row {
		row[j] = "$" + strconv.Itoa(first+1+j)
	}
	list := "(" + strings.Join(row, ", ") + ")"
	proof := i.Text("VALUES "+list+", "+list, "")
	var n query.Normal
	st, shapes := n.AnalyzeShapes(proof, g.opts)
	if st.Opaque || len(shapes) != 1 || shapes[0].Kind != query.ShapeQuery || shapes[0].Scope.Kind != query.ScopeInsert {
		return &Refusal{Reason: reasonUnknown, Why: "what is inserted is not understood"}
	}
	s := shapes[0].Scope
	found := route(g.rel, st, shapes, proof, n.Literals)
	_, moments := query.ReplaceMoment(nil, []byte(i.tail), "")
	switch {
	case found.refusal != nil:
		return found.refusal
	case len(s.Sublinks) > 0:
		return &Refusal{Reason: reasonUnbound, Why: "RETURNING, or ON CONFLICT, holds a query beside one of several shards"}
	case query.SystemColumn(i.tail) != "":
		return &Refusal{Reason: reasonUnbound, Why: "rows go to several shards, and rows of several may have the same " + query.SystemColumn(i.tail)}
	case moments.Returned || strings.Contains(strings.ToLower(i.tail), "statement_timestamp"):
		return &Refusal{Reason: reasonFunction, Why: "it has the time of the transaction where that cannot be given to all shards alike", Hint: "Give the time itself."}
	}
	i.Moment = moments.Count > 0
	switch found.where {
	case Home:
		i.Home = true
		return nil
	case All:
		i.Everywhere = true
	case Keyed:
		if found.split == nil && len(found.groups) > 0 && len(found.groups[0].columns) > 0 {
			return &Refusal{Reason: reasonFunction, Why: "a default may be another on each shard"}
		}
	default:
		return &Refusal{Reason: reasonUnknown, Why: "where its rows belong is not certain"}
	}
	if found.split != nil {
		i.Draws = found.split.draws
		if found.split.override {
			i.override = " OVERRIDING SYSTEM VALUE"
		}
	}
	i.Moment = i.Moment || slices.ContainsFunc(i.Draws, func(d Draw) bool { return d.moment != "" })
	if i.Everywhere {
		return nil
	}
	return g.placedBy(i, s, found.groups, first)
}

// placedBy notes which columns place the rows.
func (g *gatherer) placedBy(i *Insertion, s *query.Scope, groups []Group, first int) *Refusal {
	if len(groups) != 1 {
		return &Refusal{Reason: reasonUnbound, Why: "what it inserts needs rows of several keys"}
	}
	t, res := g.rel.catalog.Table(s.Target.Schema, s.Target.Name, g.rel.path)
	if res != catalog.Resolved {
		return &Refusal{Reason: reasonUnknown, Why: "the columns of " + s.Target.Name + " are not known"}
	}
	i.group = Group{table: groups[0].table, placement: groups[0].placement}
	for k, values := range groups[0].columns {
		if len(values) != 1 || values[0].source != fromParam && values[0].source != fromDraw {
			return &Refusal{Reason: reasonUnknown, Why: "where its rows belong is not certain"}
		}
		v := values[0]
		if v.source == fromParam {
			at := int(v.index) - first - 1
			c := t.Column(groups[0].placement.names[k])
			if at < 0 || at >= len(i.Columns) || c == nil {
				return &Refusal{Reason: reasonUnknown, Why: "where its rows belong is not certain"}
			}
			i.Keys = append(i.Keys, InsertionKey{Column: at, Type: c.TypeName, key: v.as, typmod: v.typmod})
			v.index, v.sure = int32(len(i.Keys)), true
		}
		i.group.columns = append(i.group.columns, []value{v})
	}
	return nil
}
