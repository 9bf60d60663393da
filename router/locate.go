package router

import (
	"errors"
	"slices"

	"shardproxy/query"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// AnyShard is in the place of a shard's number when any will do.
const AnyShard = -1

// Shard returns the shard on which the plan runs with these values: its place in the
// configuration, or AnyShard. The error is a *wire.Error: the statement is refused, or
// a value is one that PostgreSQL refuses. It allocates only to say no.
func (p *Plan) Shard(o *Owners, v *Values) (int, error) {
	switch p.Where {
	case Anywhere:
		return AnyShard, nil
	case Home, All:
		return 0, nil
	case Refused:
		return AnyShard, p.Refusal.Error()
	case FanOut:
		return AnyShard, (&Refusal{Reason: reasonSeveral, Why: "its rows lie on all of them"}).Error()
	}
	l := locator{owners: o, values: v, shard: AnyShard}
	for i := range p.groups {
		if err := l.group(&p.groups[i]); err != nil {
			if p.kept != "" && OnSeveral(err) {
				return AnyShard, (&Refusal{Reason: reasonKeyChange, Why: "rows would move to another shard, and " + p.kept}).Error()
			}
			return AnyShard, err
		}
	}
	return l.shard, nil
}

// Error returns what the client is told.
func (r *Refusal) Error() *wire.Error {
	if r.told != nil {
		return r.told
	}
	hint := r.Hint
	if hint == "" {
		hint = r.Reason.hint()
	}
	if r.Reason == reasonLoading {
		return wire.Errorf("57P03", "the tables of the shards are not known yet").
			WithHint("The statement was not executed and may be tried again.").WithCause(because(r.Reason))
	}
	if r.Syntax != nil {
		e := wire.Errorf("42601", "%s", r.Syntax.Message).WithCause(because(r.Reason))
		e.Position = r.Syntax.Position
		return e
	}
	e := wire.Errorf("0A000", "this statement cannot be run over several shards: %s", r.Why).WithCause(because(r.Reason))
	if hint != "" {
		e = e.WithHint("%s", hint)
	}
	return e
}

// locator finds the one shard that all groups lie on.
type locator struct {
	owners *Owners
	values *Values
	shard  int
	first  *Group // that was found there
	combos int
	// within is the span whose keys values.keys has.
	within *span
	// trace takes all that is found, nil to find the one shard; see Plan.Route.
	trace *trace
	// all takes all shards that are found, nil to find the one.
	all *gather
}

// maxCombinations bounds the keys of one group that are made from lists of values for
// several columns.
const maxCombinations = 100_000

func (l *locator) group(g *Group) error {
	if len(g.columns) == 0 {
		if g.placement.fixed != "" {
			return l.fixed(g, g.placement.fixed)
		}
		return l.found(g, l.owners.Of(g.placement.schema))
	}
	l.combos, l.within = 0, nil
	return l.column(g, 0, 0)
}

// column goes through the values of one column of the key, those before it given.
func (l *locator) column(g *Group, i int, row shardmap.RowHash) error {
	for j := range g.columns[i] {
		err := l.term(g, i, row, &g.columns[i][j])
		if err != nil && hasSpan(g.columns[i]) && !OnSeveral(err) {
			return l.anywhere(g)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// term goes through one of the values of a column.
func (l *locator) term(g *Group, i int, row shardmap.RowHash, val *value) error {
	if val.source == fromSpan {
		return l.span(g, val.within)
	}
	if val.within != nil {
		l.bind(g, val.within)
	}
	r, err := l.values.read(val)
	switch {
	case err != nil:
		return err
	case r.null && val.assigned:
		return errNullKey(g)
	case r.null:
		return nil
	case val.array:
		return l.elements(g, i, row, val, r)
	}
	return l.value(g, i, row, val, r)
}

func errNullKey(g *Group) *wire.Error {
	return wire.Errorf("23502", "the key of table %s is NULL", g.table).
		WithHint("A row is placed by its key, which must have a value.").WithCause(because(reasonValue))
}

// value goes on with one value of one column.
func (l *locator) value(g *Group, i int, row shardmap.RowHash, val *value, r read) error {
	if l.combos++; l.combos > maxCombinations {
		return unproven("there are too many values")
	}
	if err := l.values.check(val, &r); err != nil {
		return keyError(err)
	}
	k := g.placement.types[i]
	v := shardmap.Value{Type: r.typed, Data: r.data, Format: r.f}
	if g.placement.list != nil || g.placement.ranges != nil {
		return l.placed(g, val, v)
	}
	h, err := v.HashFor(k)
	if err != nil {
		return valueError(val, v.Type, err)
	}
	if len(g.columns) > 1 {
		row = row.Add(h)
		if i+1 < len(g.columns) {
			return l.column(g, i+1, row)
		}
		h = row.Sum()
	}
	if l.trace != nil {
		l.trace.slot(l.owners, h)
	}
	if l.values.Sample != nil {
		l.values.Sample.note(l.owners.slots.SlotOf(h), l.owners.slots.Slots(), v, len(g.columns))
	}
	if l.owners.slots.Holding() && l.owners.slots.Held(l.owners.slots.SlotOf(h)) {
		l.values.Held = true
	}
	return l.found(g, l.owners.Of(h))
}

// placed looks a value up in a list or in ranges.
func (l *locator) placed(g *Group, val *value, v shardmap.Value) error {
	if val.within != nil && l.outside(g.placement.types[0], v) {
		return nil
	}
	var shard string
	var err error
	if g.placement.list != nil {
		shard, err = g.placement.list.Place(v)
	} else {
		shard, err = g.placement.ranges.Place(v)
	}
	if err != nil {
		return valueError(val, v.Type, err)
	}
	return l.fixed(g, shard)
}

// fixed notes a shard that the configuration names. It may have none of the cluster's rows yet, or no more.
func (l *locator) fixed(g *Group, name string) error {
	shard := l.owners.named(name)
	if l.trace == nil && !slices.Contains(l.owners.all, shard) {
		return wire.Errorf("55000", "shard %s, where the configuration places rows of %s, is no shard of the cluster", name, g.table).
			WithHint("It joins by \"shardproxy rebalance start --add %s\".", name)
	}
	return l.found(g, shard)
}

// found notes a shard that the group needs.
func (l *locator) found(g *Group, shard int) error {
	if l.trace != nil {
		l.trace.shard(shard)
		return nil
	}
	if l.all != nil {
		l.all.add(shard)
		return nil
	}
	if l.shard == AnyShard {
		l.shard, l.first = shard, g
		return nil
	}
	if l.shard == shard {
		return nil
	}
	r := Refusal{Reason: reasonSeveral, Why: "its keys lie on several shards, of " + l.first.table}
	if g.table != l.first.table {
		r.Why += " and " + g.table
	}
	return r.Error()
}

// valueError is keyError for a value that was read as a type. A number written in
// the text is no text of that type for PostgreSQL: it is converted where it is
// assigned, and compared as what it is where it is not.
func valueError(val *value, as shardmap.KeyType, err error) error {
	e := new(shardmap.ValueError)
	if val.source != fromLiteral || val.literal != query.LiteralInt || !errors.As(err, &e) {
		return keyError(err)
	}
	if !val.assigned {
		return unproven("the number is beyond the key's type")
	}
	return wire.Errorf(e.Code, "%s out of range", as)
}

// keyError turns the error of a value into what the client is told.
func keyError(err error) error {
	if e := new(shardmap.ValueError); errors.As(err, &e) {
		return wire.Errorf(e.Code, "%s", e.Message)
	}
	if e := new(shardmap.UnplacedError); errors.As(err, &e) {
		return wire.Errorf("0A000", "%s", e.Error()).WithHint("Name the value, or a default, in the table's rule.").WithCause(because(reasonValue))
	}
	if errors.Is(err, shardmap.ErrUnproven) {
		return unproven("what it means depends on settings or on rules of its own")
	}
	return err
}

// Literals reports whether Shard looks at the literals of the text.
func (p *Plan) Literals() bool { return p.literals }

// IsLoading reports whether a statement was refused for now, because the catalog is not
// loaded yet.
func IsLoading(e *wire.Error) bool { return e.Code == "57P03" && ReasonOf(e) == reasonLoading }
