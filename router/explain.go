package router

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"shardproxy/query"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// Route is where a plan goes, in words and figures for people and programs.
type Route struct {
	// Where is "only" in a database of one shard, "any", "home", "keyed" (the shard of
	// the keys), "rows" (each row of an INSERT on the shard of its key), "fan-out" (on several
	// shards, each with the rows that it has), "all" or "refused".
	Where string `json:"where"`
	// Shards are the names of those where it runs, as far as the values that were given
	// tell; empty for any.
	Shards []string `json:"shards,omitempty"`
	// Node is "primary", or "any" for what is proven to read only; Why says what
	// makes it the primary.
	Node string `json:"node"`
	Why  string `json:"why,omitempty"`
	// Epoch is that of the slot map, 0 when none was looked at.
	Epoch int64 `json:"epoch,omitempty"`
	// Tables are the uses of sharded tables, at most MaxRouteTables; Omitted counts those
	// that are left out.
	Tables  []RouteTable `json:"tables,omitempty"`
	Omitted int          `json:"omitted,omitempty"`
	// Moves is set for an UPDATE that moves rows to the shard of their new key.
	Moves bool `json:"moves,omitempty"`
	// Drawn names the columns whose values the proxy draws and writes into the rows.
	Drawn []string `json:"drawn,omitempty"`
	// Scatter is how a query is answered that needs several shards.
	Scatter *RouteScatter `json:"scatter,omitempty"`
	// Refusal is set when Where is "refused".
	Refusal *RouteRefusal `json:"refusal,omitempty"`
}

// MaxRouteTables bounds the uses of tables, or rows of an INSERT, that a Route lists.
const MaxRouteTables = 100

// maxRouteValues bounds the values, slots and shards that are listed of each.
const maxRouteValues = 20

// RouteTable is one use of a sharded table, or one row of an INSERT.
type RouteTable struct {
	Table string `json:"table"`
	// Placement is "hash", "list", "range" or "schema".
	Placement string `json:"placement"`
	// Key tells, by column, what the key is found to be.
	Key []RouteKey `json:"key,omitempty"`
	// Slots and Shards are those of the values; both are empty when parameters are not given.
	Slots  []int    `json:"slots,omitempty"`
	Shards []string `json:"shards,omitempty"`
	// Error is why a value has no shard.
	Error string `json:"error,omitempty"`

	// Known is set when Shards are those of all values, though they be none.
	Known bool `json:"-"`
}

// RouteKey is one column of a key, and the values of which it is one.
type RouteKey struct {
	Column string       `json:"column"`
	Values []RouteValue `json:"values"`
}

// RouteValue is where a value comes from, and what it is when that is known.
type RouteValue struct {
	// Source is "literal", "parameter", "constant" (of a view, or a keyword), "drawn" (by
	// the proxy, when the statement is run), "null" or "range": all values within Bounds.
	Source string `json:"source"`
	// Parameter is its number.
	Parameter int `json:"parameter,omitempty"`
	// Array is set for an array, of which each element counts.
	Array bool `json:"array,omitempty"`
	// Text is nil when the value is not known, or cannot be shown as text.
	Text *string `json:"value,omitempty"`
	// Bounds are those outside of which the value does not count.
	Bounds []RouteBound `json:"bounds,omitempty"`
}

// RouteBound is a bound of a range of keys.
type RouteBound struct {
	// Operator is <, <=, > or >=, with the key on its left.
	Operator string `json:"operator"`
	RouteValue
}

// RouteRefusal is what a client would be told, and the reason as metrics count it.
type RouteRefusal struct {
	SQLState string `json:"sqlstate"`
	Reason   Reason `json:"reason,omitempty"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
}

// RouteInput is what a plan is explained with.
type RouteInput struct {
	// Shards are the names of the database's, in order.
	Shards []string
	// Owners is nil when it is not known who owns which slot: no shard is named then.
	Owners *Owners
	// Scatter is how the text is answered when it needs several shards; nil when it is not known.
	Scatter *Scatter
	// Replicas is set when the session has such a query read on replicas.
	Replicas bool
	// Values holds the text that the plan is of, its literals and, if there are any,
	// the parameters.
	Values *Values
}

// all names the shards of the cluster: where the owners are not known, those of the configuration.
func (in *RouteInput) all() (names []string) {
	if in.Owners == nil {
		return in.Shards
	}
	for _, i := range in.Owners.All() {
		names = append(names, in.Shards[i])
	}
	return names
}

// Route says where the plan goes. It changes nothing but the buffers of in.Values.
func (p *Plan) Route(in RouteInput) *Route {
	r := &Route{Where: p.Where.String(), Node: "any"}
	if p.Intent != Read {
		r.Node, r.Why = "primary", p.Why
	}
	for _, d := range p.Draws() {
		if !d.OfMoment() {
			r.Drawn = append(r.Drawn, d.Column)
		}
	}
	r.Moves = p.Moves() && len(in.Shards) > 1
	switch {
	case len(in.Shards) == 1:
		r.Where, r.Shards = "only", in.Shards
	case p.Where == Refused:
		r.refuse(p.Refusal.Error())
	case p.Where == Home:
		r.Shards = in.Shards[:1]
	case (p.Where == All || p.Where == FanOut) && !in.Values.SteadyValues():
		r.refuse(wire.Errorf("0A000", "a value that stands for the time of the moment may differ from shard to shard").
			WithHint("Give the time itself."))
	case p.Where == All || p.Where == FanOut:
		r.Shards = in.all()
	case p.Where == Keyed:
		p.keyed(r, in)
	}
	if in.Scatter != nil && r.Where == FanOut.String() {
		r.Scatter = in.Scatter.Explain()
		if !in.Replicas || p.Intent != Read {
			r.Node, r.Why = "primary", "rows of several shards are read"
		}
	}
	return r
}

// refuse makes the route one that leads nowhere.
func (r *Route) refuse(e *wire.Error) {
	r.Where, r.Shards, r.Drawn = "refused", nil, nil
	r.Refusal = &RouteRefusal{SQLState: e.Code, Reason: ReasonOf(e), Message: e.Message, Hint: e.Hint}
}

// keyed adds the uses of sharded tables, and the shards on which they lie.
func (p *Plan) keyed(r *Route, in RouteInput) {
	if in.Owners != nil {
		r.Epoch = in.Owners.Epoch()
	}
	several := p.split != nil && len(p.split.rows) > 1
	if several {
		r.Where = "rows"
	}
	all := locator{owners: in.Owners, values: in.Values, shard: AnyShard}
	for i := range p.groups {
		g := &p.groups[i]
		t := g.describe(in.Values)
		if in.Owners != nil && in.Values.gives(g) {
			tr := trace{table: &t, names: in.Shards, all: r}
			one := locator{owners: in.Owners, values: in.Values, shard: AnyShard, trace: &tr}
			err := one.group(g)
			t.Known = err == nil
			if err != nil {
				t.Error = wire.AsError(err).Message
			} else if !several {
				err = all.group(g)
			}
			if (p.fansOut || p.scatters) && OnSeveral(err) {
				r.Where, err = FanOut.String(), nil
			}
			if err != nil && r.Refusal == nil {
				r.refuse(wire.AsError(err))
			}
		}
		if len(r.Tables) < MaxRouteTables {
			r.Tables = append(r.Tables, t)
		} else {
			r.Omitted++
		}
	}
	if r.Refusal != nil {
		r.Shards = nil
	} else if (p.fansOut || p.scatters) && r.unknown() {
		r.Where = FanOut.String()
	}
}

// trace takes what a locator finds of one group.
type trace struct {
	table *RouteTable
	names []string
	all   *Route
}

func (t *trace) slot(o *Owners, hash uint64) {
	s := int(o.slots.SlotOf(hash))
	if len(t.table.Slots) < maxRouteValues && !slices.Contains(t.table.Slots, s) {
		t.table.Slots = append(t.table.Slots, s)
	}
}

func (t *trace) shard(i int) {
	if i < 0 || i >= len(t.names) {
		return
	}
	for _, list := range [...]*[]string{&t.table.Shards, &t.all.Shards} {
		if !slices.Contains(*list, t.names[i]) {
			*list = append(*list, t.names[i])
		}
	}
}

// gives reports whether all values of a group are known.
func (v *Values) gives(g *Group) bool {
	return !slices.ContainsFunc(g.columns, func(c []value) bool {
		return slices.ContainsFunc(c, func(val value) bool {
			return val.some(func(of *value) bool { return of.source == fromDraw || of.source == fromParam && v.count == 0 })
		})
	})
}

// describe says how a group's key is found.
func (g *Group) describe(v *Values) RouteTable {
	t := RouteTable{Table: g.table, Placement: "hash"}
	switch {
	case g.placement.list != nil:
		t.Placement = "list"
	case g.placement.ranges != nil:
		t.Placement = "range"
	case len(g.columns) == 0:
		t.Placement = "schema"
	}
	for i, column := range g.columns {
		k := RouteKey{Column: "key"}
		if i < len(g.placement.names) {
			k.Column = g.placement.names[i]
		}
		for j := range column[:min(len(column), maxRouteValues)] {
			k.Values = append(k.Values, v.describe(&column[j]))
		}
		t.Key = append(t.Key, k)
	}
	return t
}

// describe says where a value comes from and what it is.
func (v *Values) describe(val *value) RouteValue {
	out := RouteValue{Array: val.array}
	if val.within != nil {
		for i := range val.within.limits[:min(len(val.within.limits), maxRouteValues)] {
			b := &val.within.limits[i]
			out.Bounds = append(out.Bounds, RouteBound{b.operator(), v.describe(&b.of)})
		}
	}
	switch val.source {
	case fromSpan:
		out.Source = "range"
		return out
	case fromNull:
		out.Source = "null"
		return out
	case fromDraw:
		out.Source = "drawn"
		return out
	case fromPlan:
		out.Source = "constant"
	case fromLiteral:
		out.Source = "literal"
	case fromParam:
		out.Source, out.Parameter = "parameter", int(val.index)
		if v.count == 0 {
			return out
		}
	}
	if r, err := v.read(val); err == nil && !r.null {
		out.Text = r.text(val)
	} else if err == nil {
		null := "NULL"
		out.Text = &null
	}
	return out
}

// text is a value as people read it, nil when it cannot be told.
func (r *read) text(val *value) *string {
	var s string
	b := r.data
	switch {
	case r.f == shardmap.TextFormat || r.typed == shardmap.Text && !val.array:
		s = string(b)
	case val.array:
		return nil
	case r.typed == shardmap.Int2 && len(b) == 2:
		s = strconv.Itoa(int(int16(binary.BigEndian.Uint16(b))))
	case r.typed == shardmap.Int4 && len(b) == 4:
		s = strconv.Itoa(int(int32(binary.BigEndian.Uint32(b))))
	case r.typed == shardmap.Int8 && len(b) == 8:
		s = strconv.FormatInt(int64(binary.BigEndian.Uint64(b)), 10)
	case r.typed == shardmap.Bool && len(b) == 1:
		s = strconv.FormatBool(b[0] != 0)
	case r.typed == shardmap.UUID && len(b) == 16:
		s = fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	case r.typed == shardmap.Bytea:
		s = `\x` + hex.EncodeToString(b)
	default:
		return nil
	}
	const long = 200
	if len(s) > long {
		s = s[:long] + "..."
	}
	s = strings.ToValidUTF8(s, "?")
	return &s
}

// Explain returns the options of an EXPLAIN, nil for other statements. One with the
// option ROUTE must reach no server.
func (p *Plan) Explain() *query.ExplainOptions { return p.explain }

// ParamType returns the type OID of a key column that the parameter is compared with or
// assigned to, 0 when there is none.
func (p *Plan) ParamType(n int) uint32 {
	for i := range p.groups {
		for _, column := range p.groups[i].columns {
			for j := range column {
				var oid uint32
				column[j].each(func(v *value) {
					if v.source == fromParam && int(v.index) == n && !v.array {
						oid = v.as.OID()
					}
				})
				if oid != 0 {
					return oid
				}
			}
		}
	}
	return 0
}

// ResultFormat returns the format that Bind asks for in the first column of the result.
func (v *Values) ResultFormat() (shardmap.Format, bool) {
	end, ok := v.end()
	if !ok || len(end) < 2 {
		return 0, false
	}
	if binary.BigEndian.Uint16(end) == 0 || len(end) < 4 {
		return shardmap.TextFormat, true
	}
	return shardmap.Format(binary.BigEndian.Uint16(end[2:])), true
}

// readExplain returns the options of an EXPLAIN, nil for other texts.
func readExplain(sql []byte) *query.ExplainOptions {
	if o, ok := query.ReadExplain(sql); ok {
		return &o
	}
	return nil
}

// explainsRoute is the plan of a text that the proxy answers itself.
func explainsRoute(size int) *Plan {
	p := &Plan{Statement: &query.Statement{Commands: []query.Command{{Kind: query.KindExplain, Reads: true, End: size}}},
		Intent: Read, Simple: true, Exact: true}
	p.Single = &p.Statement.Commands[0]
	return p
}
