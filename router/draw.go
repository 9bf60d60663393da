package router

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"shardproxy/catalog"
	"shardproxy/query"
)

// Draw is a column whose values do not come from the client: a sequence gives them,
// or chance. Each shard would draw values of its own, which the others have too; so
// whoever runs the INSERT draws them for all shards, and writes them into the text.
type Draw struct {
	// Schema, Table and Column say what the values are for, unquoted.
	Schema, Table, Column string
	// Sequence is the sequence as SQL names it, quoted and with its schema; "" for a
	// random UUID. SequenceName is its bare name.
	Sequence, SequenceName string
	// Type is the OID of the column's type, or of what its domain is made of.
	Type uint32
	// Text is set for a random UUID that is stored as text.
	Text bool
	// Identity is set when PostgreSQL asks for no privilege on the sequence.
	Identity bool
	// Ascending is set when each value is larger than all before it.
	Ascending bool
	// Unique is set for an id that shardproxy.unique_id() would give; Sequence is "" then.
	Unique bool
	// moment is set instead for a default that is made of the time of the transaction.
	moment string
	// always is set when the text must say that values are given all the same.
	always bool
	// missing is set when no row has the column.
	missing bool
	// number is the column's place in its table.
	number int
}

// OfChance reports whether the values are random UUIDs.
func (d *Draw) OfChance() bool { return d.Sequence == "" && !d.Unique && d.moment == "" }

// drawOf returns what an INSERT that leaves the column out draws; nil for nothing
// that is understood.
func drawOf(t *catalog.Table, c *catalog.Column) *Draw {
	d := &Draw{Schema: t.Schema, Table: t.Name, Column: c.Name, Type: c.Base}
	switch c.Default.Kind {
	case catalog.DefaultSequence, catalog.DefaultIdentity:
		of := c.Default.Sequence
		if of == nil || of.Sequence == nil {
			return nil
		}
		d.Sequence = sequenceKey(of)
		d.SequenceName = of.Name
		d.Identity = c.Default.Kind == catalog.DefaultIdentity
		d.Ascending = of.Sequence.Increment > 0 && !of.Sequence.Cycle
		d.always = c.Default.Always
		return d
	case catalog.DefaultExpression:
		switch withoutCast(c) {
		case "gen_random_uuid()", "uuidv4()":
			d.Text = c.Base != oidUUID
			return d
		case uniqueCall:
			d.Unique = true
			return d
		}
	}
	return nil
}

// uuidSize is the length of a UUID as text, in characters.
const uuidSize = 36

// withoutCast returns a column's default, without the cast of a UUID to text that is stored as it is.
func withoutCast(c *catalog.Column) string {
	expression := c.Default.Expression
	call, cast, is := strings.Cut(expression, ")::")
	if !is || !strings.HasPrefix(call, "(") || c.Base != oidText && c.Base != oidVarchar || c.Modifier >= 0 && c.Modifier < uuidSize+4 {
		return expression
	}
	switch cast {
	case "text", "character varying", "character varying(" + strconv.Itoa(uuidSize) + ")":
		return call[1:]
	}
	return expression
}

// uniqueCall is the call that gives an id which no other call gives, as the catalog prints it.
const uniqueCall = "shardproxy.unique_id()"

// unique returns what is drawn for a column of which rows have that call; nil when none has, or when others leave the column
// to a default that is something else.
func (p *prover) unique(in *query.Insert, c *relationColumn, at int) *Draw {
	if c.draw != nil && !c.draw.Unique || at < 0 || in.Source == nil {
		return nil
	}
	calls := false
	for i := range in.Source.Rows {
		values := in.Source.Rows[i].Values
		if at >= len(values) || c.draw == nil && values[at].Kind == query.ValueDefault {
			return nil
		}
		calls = calls || p.isUnique(&values[at])
	}
	if !calls {
		return nil
	}
	return &Draw{Column: c.name, Unique: true}
}

// isUnique reports whether a value is that call and nothing else.
func (p *prover) isUnique(v *query.Value) bool {
	e := v.Expr()
	if e == nil || !v.Span.Located() || len(e.Calls) != 1 || e.Calls[0].Name.Schema != "shardproxy" || e.Calls[0].Name.Name != "unique_id" {
		return false
	}
	return strings.EqualFold(strings.Join(strings.Fields(p.sql[v.Span.Start:v.Span.End]), ""), uniqueCall)
}

// nextvals reports whether rows of an INSERT call nextval of the very sequence that the column would draw from.
func (p *prover) nextvals(in *query.Insert, c *relationColumn, at int) (calls bool) {
	if c.draw == nil || at < 0 || in.Source == nil {
		return false
	}
	for i := range in.Source.Rows {
		values := in.Source.Rows[i].Values
		if at >= len(values) {
			return false
		}
		calls = calls || p.isNextval(&values[at], c.draw)
	}
	return calls
}

// isNextval reports whether a value is nextval of the sequence that is drawn from, and nothing else. The plan then holds for the very
// text: another literal may name another sequence.
func (p *prover) isNextval(v *query.Value, d *Draw) bool {
	e := v.Expr()
	if d.Sequence == "" || d.always || e == nil || !v.Span.Located() || int(v.Span.End) > len(p.sql) || len(e.Calls) != 1 {
		return false
	}
	call := &e.Calls[0]
	if call.Name.Name != "nextval" || call.Name.Schema != "" && call.Name.Schema != "pg_catalog" || len(call.Args) != 1 || !call.Args[0].Span.Located() {
		return false
	}
	at := call.Args[0].Span
	before := strings.ToLower(strings.Join(strings.Fields(p.sql[v.Span.Start:at.Start]), ""))
	if before != "nextval(" && before != "pg_catalog.nextval(" || strings.TrimSpace(p.sql[at.End:v.Span.End]) != ")" {
		return false
	}
	p.exact = true
	read := p.namedSequence(&call.Args[0])
	return read != nil && p.relations.sequenceNamed(read) == d.Sequence
}

// isDrawn reports whether a value stands for what is drawn for its column.
func (p *prover) isDrawn(v *query.Value, d *Draw) bool {
	return v.Kind == query.ValueDefault || d.Unique && p.isUnique(v) || p.isNextval(v, d)
}

// uniqueDrawn reports whether no shard calls shardproxy.unique_id() for a command: all its calls are drawn.
func (p *prover) uniqueDrawn(c *query.Command) bool { return p.allDrawn(c, "unique_id") }

// allDrawn reports whether no shard calls a function for a command: all its calls are drawn.
func (p *prover) allDrawn(c *query.Command, function string) bool {
	sp := p.split
	text := strings.ToLower(p.sql[c.Start:c.End])
	if sp == nil || strings.Contains(text, "u&") {
		return false
	}
	left := strings.Count(text, function)
	for _, s := range sp.replaced {
		if s.Located() {
			left -= min(1, strings.Count(strings.ToLower(p.sql[s.Start:s.End]), function))
		}
	}
	return left == 0
}

// drawn finds the columns that an INSERT of rows leaves to be drawn, and where their
// values go in its text. ok is false when that is not known.
func (p *prover) drawn(r *relation, in *query.Insert, sp *split) (ok bool) {
	names := in.Columns
	width := len(r.columns)
	if !in.HasColumns {
		width = 0
		if in.Source != nil && len(in.Source.Rows) > 0 {
			width = len(in.Source.Rows[0].Values)
		}
	}
	for i := range r.columns {
		c := &r.columns[i]
		at := i
		if in.HasColumns {
			at = slices.IndexFunc(names, func(t query.TargetColumn) bool { return t.Name == c.name && !t.Part })
		}
		unique := p.unique(in, c, at)
		if unique == nil && !p.nextvals(in, c, at) && (c.draw == nil && c.moment == "" || given(in, i, c.name)) {
			continue
		}
		if in.Overriding == "user" {
			return false
		}
		d := Draw{Column: c.name, moment: c.moment}
		switch {
		case unique != nil && c.draw == nil:
			d = *unique
		case c.draw != nil:
			d = *c.draw
		}
		d.number = i
		d.missing = at < 0 || !in.HasColumns && at >= width
		if d.always && in.Overriding == "" {
			sp.override = true
		}
		sp.draws = append(sp.draws, d)
		sp.drawnAt = append(sp.drawnAt, at)
	}
	if len(sp.draws) == 0 {
		return true
	}
	if in.Source != nil && slices.ContainsFunc(in.Source.Rows, p.makesRows) {
		return false
	}
	sp.sort()
	return p.place(sp, r, in, width)
}

// sort puts the draws in the order of their places in a row, those without one last.
func (sp *split) sort() {
	order := make([]int, len(sp.draws))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if sp.draws[a].missing != sp.draws[b].missing {
			return map[bool]int{true: 1, false: -1}[sp.draws[a].missing]
		}
		return cmp.Compare(sp.drawnAt[a], sp.drawnAt[b])
	})
	draws, at := slices.Clone(sp.draws), slices.Clone(sp.drawnAt)
	for i, from := range order {
		sp.draws[i], sp.drawnAt[i] = draws[from], at[from]
	}
}

// place finds where the names and the values of drawn columns go.
func (p *prover) place(sp *split, r *relation, in *query.Insert, width int) bool {
	sp.list, sp.behind = in.ColumnsSpan, in.TargetSpan
	if in.HasColumns && !sp.list.Located() || !in.HasColumns && !sp.behind.Located() {
		return false
	}
	var names []string
	if !in.HasColumns {
		if width > len(r.columns) {
			return false
		}
		for i := range width {
			names = append(names, query.QuoteName(r.columns[i].name))
		}
	}
	for i := range sp.draws {
		if sp.draws[i].missing {
			names = append(names, query.QuoteName(sp.draws[i].Column))
		}
	}
	sp.names = strings.Join(names, ", ")
	if in.Source == nil {
		sp.defaults, sp.rows = true, []query.Span{in.DefaultSpan}
		return in.DefaultSpan.Located()
	}
	for i := range in.Source.Rows {
		row := &in.Source.Rows[i]
		for j, at := range sp.drawnAt {
			var span query.Span
			switch {
			case sp.draws[j].missing:
			case at >= len(row.Values):
				return false // PostgreSQL refuses it
			case p.isDrawn(&row.Values[at], &sp.draws[j]):
				if span = row.Values[at].Span; !span.Located() {
					return false
				}
			case sp.override:
				return false // a value that must not be given there
			}
			sp.replaced = append(sp.replaced, span)
		}
		sp.rows = append(sp.rows, row.Span)
	}
	return true
}

// Draws returns the columns whose values are written into the rows of an INSERT, none for
// most. The caller must not change them. See Values.Drawn.
func (p *Plan) Draws() []Draw {
	if p.split == nil {
		return nil
	}
	return p.split.draws
}

// MustDraw reports whether the plan cannot run on one shard as its text stands.
func (p *Plan) MustDraw() bool {
	return slices.ContainsFunc(p.Draws(), func(d Draw) bool { return d.moment == "" })
}

// OfMoment reports whether the column's value is made of Values.Moment, and nothing drawn.
func (d *Draw) OfMoment() bool { return d.moment != "" }

// RowCount returns how many rows the text of a plan with a split lists.
func (p *Plan) RowCount() int { return len(p.split.rows) }

// makesRows reports whether a row of VALUES may be several: a single one may call
// functions that return sets.
func (p *prover) makesRows(row query.Row) bool {
	return slices.ContainsFunc(row.Values, func(v query.Value) bool {
		e := v.Expr()
		return e != nil && slices.ContainsFunc(e.Calls, func(c query.Call) bool { return p.relations.returnsSet(c.Name) })
	})
}

// drawsNothing reports whether a column's volatile default is surely one that takes
// its value from chance or from the clock.
func drawsNothing(c *catalog.Column) bool {
	name, _ := strings.CutPrefix(withoutCast(c), "public.")
	switch name {
	case "gen_random_uuid()", "uuidv4()", "uuidv7()", "uuid_generate_v1()", "uuid_generate_v1mc()", "uuid_generate_v4()",
		"random()", "clock_timestamp()", "timeofday()", uniqueCall:
		return true
	}
	return false
}
