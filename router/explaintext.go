package router

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Lines returns the route as text, one line for each thing that there is to say. The
// first begins with "Route: ".
func (r *Route) Lines() []string {
	lines := []string{"Route: " + r.head()}
	if e := r.Refusal; e != nil {
		lines = append(lines, "  "+e.Message)
		if e.Hint != "" {
			lines = append(lines, "  Hint: "+e.Hint)
		}
	}
	for i := range r.Tables {
		lines = append(lines, "  "+r.Tables[i].line())
	}
	if r.Omitted > 0 {
		lines = append(lines, fmt.Sprintf("  and %d more", r.Omitted))
	}
	if r.Scatter != nil {
		lines = append(lines, r.Scatter.lines()...)
	}
	if r.Moves {
		lines = append(lines, "  rows move to the shard of their new key")
	}
	if len(r.Drawn) > 0 {
		lines = append(lines, oneLine("  values drawn for: "+strings.Join(r.Drawn, ", ")))
	}
	switch {
	case r.Refusal != nil:
	case r.Node == "any":
		lines = append(lines, "Node: primary or replica")
	case r.Why != "":
		lines = append(lines, "Node: primary ("+oneLine(r.Why)+")")
	default:
		lines = append(lines, "Node: primary")
	}
	return lines
}

// head is the route in one line.
func (r *Route) head() string {
	switch r.Where {
	case "only":
		return "shard " + r.Shards[0] + ", the only one"
	case "any":
		return "any shard"
	case "home":
		return "home shard " + r.Shards[0]
	case "all":
		return "all shards: " + strings.Join(r.Shards, ", ")
	case "rows":
		if len(r.Shards) == 0 || r.unknown() {
			return "each row on the shard of its key"
		}
		return "rows by their keys: " + strings.Join(r.Shards, ", ")
	case "fan-out":
		if len(r.Shards) == 0 || r.unknown() {
			return "its rows on the shards of " + r.origins()
		}
		return "its rows on each of: " + strings.Join(r.Shards, ", ")
	case "refused":
		if r.Refusal.Reason == "" {
			return "refused (" + r.Refusal.SQLState + ")"
		}
		return fmt.Sprintf("refused (%s, %s)", r.Refusal.SQLState, r.Refusal.Reason)
	}
	switch {
	case r.unknown():
		return "the shard of " + r.origins()
	case len(r.Shards) == 0:
		return "any shard: no row has such a key"
	}
	return "shard " + r.Shards[0]
}

// unknown reports whether a table's shard depends on what is not given.
func (r *Route) unknown() bool {
	return slices.ContainsFunc(r.Tables, func(t RouteTable) bool {
		return !t.Known && t.Error == "" && !slices.ContainsFunc(t.Key, func(k RouteKey) bool { return k.void() })
	})
}

// void reports whether a column is NULL and nothing else.
func (k RouteKey) void() bool {
	return !slices.ContainsFunc(k.Values, func(v RouteValue) bool {
		return v.Source != "null" && !(v.Source == "parameter" && v.Text != nil && *v.Text == "NULL")
	})
}

// origins names what decides on the shard.
func (r *Route) origins() string {
	var all []string
	for _, t := range r.Tables {
		for _, k := range t.Key {
			for _, v := range k.Values {
				for _, s := range v.origins() {
					if !slices.Contains(all, s) {
						all = append(all, s)
					}
				}
			}
		}
	}
	switch {
	case len(all) == 0:
		return "its schema"
	case len(all) > maxRouteValues:
		all = append(all[:maxRouteValues], "...")
	}
	return strings.Join(all, ", ")
}

// line is a table in one line.
func (t *RouteTable) line() string {
	var keys []string
	for _, k := range t.Key {
		if len(k.Values) == 1 && k.Values[0].Source == "range" {
			keys = append(keys, k.Column+" "+k.Values[0].bounds())
			continue
		}
		keys = append(keys, k.Column+" = "+k.list())
	}
	s := t.Table
	if len(keys) > 0 {
		s += ": " + strings.Join(keys, ", ")
	}
	var at []string
	if t.Placement != "hash" {
		at = append(at, "by "+t.Placement)
	}
	if len(t.Slots) > 0 {
		at = append(at, plural("slot", len(t.Slots))+" "+strings.Trim(fmt.Sprint(t.Slots), "[]"))
	}
	if len(t.Shards) > 0 {
		at = append(at, plural("shard", len(t.Shards))+" "+strings.Join(t.Shards, " "))
	}
	if t.Error != "" {
		at = append(at, t.Error)
	}
	if len(at) > 0 {
		s += " (" + strings.Join(at, ", ") + ")"
	}
	return oneLine(s)
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

func (k RouteKey) list() string {
	var all []string
	for _, v := range k.Values {
		all = append(all, v.String())
	}
	if len(all) == 1 {
		return all[0]
	}
	return "one of " + strings.Join(all, ", ")
}

// bounds are those of a range, as one would write them behind the column.
func (v RouteValue) bounds() string {
	var all []string
	for _, b := range v.Bounds {
		all = append(all, b.Operator+" "+b.String())
	}
	return strings.Join(all, " and ")
}

// origins names what the value is, or the bounds of a range are.
func (v RouteValue) origins() (all []string) {
	if v.Source != "range" {
		all = append(all, v.bare())
	}
	for _, b := range v.Bounds {
		all = append(all, b.bare())
	}
	return all
}

// String is the value as it would be written, or where it comes from.
func (v RouteValue) String() string {
	switch {
	case v.Source == "range":
		return "(" + v.bounds() + ")"
	case len(v.Bounds) > 0:
		return v.bare() + " if " + v.bounds()
	}
	return v.bare()
}

// bare is the value without its bounds.
func (v RouteValue) bare() string {
	var s string
	switch {
	case v.Source == "null":
		return "NULL"
	case v.Parameter > 0 && v.Text != nil:
		s = fmt.Sprintf("$%d (%s)", v.Parameter, *v.Text)
	case v.Parameter > 0:
		s = fmt.Sprintf("$%d", v.Parameter)
	case v.Text != nil:
		s = "'" + strings.ReplaceAll(*v.Text, "'", "''") + "'"
	case v.Source == "drawn":
		s = "a drawn value"
	default:
		s = "a " + v.Source
	}
	if v.Array {
		s = "any of " + s
	}
	return s
}

// oneLine keeps what a client wrote from beginning a line of its own.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, s)
}

// Above is what stands above PostgreSQL's own EXPLAIN of a plan that runs on a shard.
func (p *Plan) Above(shard string) string {
	switch p.Where {
	case Home:
		return "Route: home shard " + shard
	case Keyed:
		var uses []string
		for i := range p.groups {
			g := &p.groups[i]
			use := g.table
			if len(g.placement.names) > 0 {
				use += ": " + strings.Join(g.placement.names, ", ")
			}
			if !slices.Contains(uses, use) {
				uses = append(uses, use)
			}
		}
		return oneLine("Route: shard " + shard + " (" + strings.Join(uses, "; ") + ")")
	}
	return "Route: any shard, here " + shard
}

// reasonError carries a refusal's reason in an error's cause.
type reasonError Reason

func (e reasonError) Error() string { return "reason " + string(e) }

func because(r Reason) error { return reasonError(r) }

// ReasonOf returns why a plan refused, "" for other errors.
func ReasonOf(err error) Reason {
	var r reasonError
	if errors.As(err, &r) {
		return Reason(r)
	}
	return ""
}

// Reasons returns all reasons that there are, in a slice of the caller's.
func Reasons() []Reason {
	return []Reason{reasonUnbound, reasonSeveral, reasonMixed, reasonNoKey, reasonKeyChange, reasonValue, reasonReference,
		reasonFunction, reasonConstraint, reasonSequence, reasonView, reasonCommand, reasonUnknown, reasonLoading, reasonBlocked}
}
