package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"shardproxy/wire"
)

// PlanOrder is what moves are to be planned, or begun, for.
type PlanOrder struct {
	Database string
	// Options are those of PlanOptions, in any order.
	Options []PlanOption
	// Plan is the ID of the plan that is to be begun and no other; "" begins
	// what is planned now. A plan that is only looked at ignores it.
	Plan string
}

// PlanOption is an option of a plan: a name of PlanOptions, and its value as
// shardproxy rebalance plan takes it.
type PlanOption struct{ Name, Value string }

// Plan is which moves there would be, or are. It never changes.
type Plan struct {
	// ID is what tells this plan from another one: the slot map and the moves.
	ID       string `json:"plan" doc:"what tells it from another plan; empty when there is nothing to begin"`
	Database string `json:"database" doc:"whose slots"`
	Epoch    int64  `json:"epoch" doc:"of the slot map that it is for"`
	Blocked  bool   `json:"blocked" doc:"something is in the way: it cannot be begun"`
	Started  bool   `json:"started" doc:"its moves were stored, and are carried out"`

	Shards   []PlannedShard `json:"shards" doc:"now and afterwards"`
	Moves    []PlannedMove  `json:"moves" doc:"in their order"`
	Blockers []PlanBlocker  `json:"blockers" doc:"what is in the way"`
	Slots    int            `json:"slots" doc:"as many would move"`
	Rows     int64          `json:"rows" doc:"that lie in them, about"`
	Bytes    int64          `json:"bytes" doc:"of these, about"`
	Seconds  int64          `json:"estimated_seconds" doc:"to carry them, about"`
	// Text is all of it in words, a line each.
	Text string `json:"text" doc:"all of it in words, as shardproxy rebalance plan prints it"`
}

// PlannedShard is one shard of a plan.
type PlannedShard struct {
	Name      string `json:"name" doc:"the shard"`
	State     string `json:"state" doc:"stays, joins or leaves"`
	SlotsNow  int    `json:"slots_now" doc:"as many does it own"`
	SlotsThen int    `json:"slots_afterwards" doc:"as many would it own"`
	BytesNow  int64  `json:"bytes_now" doc:"of its rows, about"`
	BytesThen int64  `json:"bytes_afterwards" doc:"of its rows, about"`
}

// PlannedMove is one move of a plan.
type PlannedMove struct {
	Kind   string `json:"kind" doc:"slots, join (a shard joins) or leave"`
	Source string `json:"source" doc:"the shard that has the slots"`
	Target string `json:"target" doc:"the shard that gets them"`
	Slots  int    `json:"slots" doc:"how many"`
	Rows   int64  `json:"rows" doc:"that lie in them, about"`
}

// PlanBlocker is what is in the way of a plan.
type PlanBlocker struct {
	Shard  string `json:"shard" doc:"where; empty where it is no shard's"`
	Table  string `json:"table" doc:"of which table; may be empty"`
	Reason string `json:"reason" doc:"what"`
	Hint   string `json:"hint" doc:"what may help; may be empty"`
}

// said is the plan in a few words.
func (p *Plan) said() string {
	return fmt.Sprintf("plan %s: %d moves, %d slots, about %d rows", p.ID, len(p.Moves), p.Slots, p.Rows)
}

// planOption is how an option is written on the console.
type planOption struct {
	name     string
	values   valuesKind
	describe string // in the usage
}

type valuesKind uint8

const (
	valueNone   valuesKind = iota
	valueOne               // one word or string
	valueList              // several, each of them an option
	valueJoined            // several, which are one value
)

// planOptions are those of shardproxy rebalance plan that the console and the
// dashboard take, and that of start.
func planOptions() []planOption {
	return []planOption{
		{"add", valueList, "ADD shard, ..."}, {"remove", valueList, "REMOVE shard, ..."}, {"weight", valueList, "WEIGHT 'shard=2', ..."},
		{"tenant", valueList, "TENANT 'table.key=value', ..."}, {"slots", valueJoined, "SLOTS 17, '20-30', ..."}, {"to", valueOne, "TO shard"},
		{"by", valueOne, "BY {SLOTS | ROWS | BYTES}"}, {"threshold", valueOne, "THRESHOLD '5%'"},
		{"max_slots", valueOne, "MAX_SLOTS n"}, {"max_bytes", valueOne, "MAX_BYTES '10GiB'"}, {"step_slots", valueOne, "STEP_SLOTS n"}, {"step_bytes", valueOne, "STEP_BYTES '1GiB'"},
		{"exact", valueNone, "EXACT"}, {"reversible", valueNone, "REVERSIBLE"},
	}
}

// PlanOptions returns the names of the options; values says which take one.
func PlanOptions() (names []string, values map[string]bool) {
	values = map[string]bool{}
	for _, o := range planOptions() {
		names = append(names, o.name)
		values[o.name] = o.values != valueNone
	}
	return names, values
}

// planUsage is what MOVE PLAN and MOVE START take.
func planUsage() string {
	var all []string
	for _, o := range planOptions() {
		all = append(all, "["+o.describe+"]")
	}
	return strings.Join(all, " ")
}

// planOptionsMax bounds the options of one order.
const planOptionsMax = 1000

// plan parses what follows MOVE PLAN and MOVE START.
func (p *parser) plan(r request) (request, bool) {
	r.plan = &PlanOrder{}
	for len(p.rest) > 0 && !p.rest[0].is("in") {
		if r.name == "start" && p.accept("plan") {
			t, ok := p.next()
			if !ok || !t.named() || r.plan.Plan != "" {
				return r, false
			}
			r.plan.Plan = t.text
			continue
		}
		i := slices.IndexFunc(planOptions(), func(o planOption) bool { return p.rest[0].is(o.name) })
		if i < 0 || len(r.plan.Options) >= planOptionsMax || !p.planOption(r.plan, planOptions()[i]) {
			return r, false
		}
	}
	return p.within(r)
}

// planOption parses one option.
func (p *parser) planOption(into *PlanOrder, o planOption) bool {
	p.rest = p.rest[1:]
	if o.values == valueNone {
		into.Options = append(into.Options, PlanOption{Name: o.name})
		return true
	}
	var values []string
	for {
		t, ok := p.next()
		if !ok || !t.named() {
			return false
		}
		values = append(values, t.text)
		if o.values == valueOne || len(p.rest) == 0 || p.rest[0].kind != tokenComma {
			break
		}
		p.rest = p.rest[1:]
	}
	if o.values == valueJoined {
		values = []string{strings.Join(values, ",")}
	}
	for _, v := range values {
		into.Options = append(into.Options, PlanOption{o.name, v})
	}
	return true
}

// text is the order as the console takes it, but for its database.
func (o *PlanOrder) text() string {
	var b strings.Builder
	quote := func(s string) string { return " '" + strings.ReplaceAll(s, "'", "''") + "'" }
	_, values := PlanOptions()
	for _, of := range o.Options {
		b.WriteString(" " + of.Name)
		if values[of.Name] {
			b.WriteString(quote(of.Value))
		}
	}
	if o.Plan != "" {
		b.WriteString(" plan" + quote(o.Plan))
	}
	return b.String()
}

// planning are MOVE PLAN and MOVE START.
func planning() []*command {
	columns := []column{textColumn("plan", "One line of it.")}
	return []*command{
		{name: "MOVE PLAN", usage: "MOVE PLAN " + planUsage() + " [IN database]", needs: maySteer, run: plans(false), waits: true, columns: columns,
			doc: "Says which slots would move, in which order, how much lies in them, and what is in the way, as shardproxy rebalance plan does with the options of these names: it asks all shards and writes nothing. Without options shards get equal shares. SLOTS and TENANT need TO. EXACT counts rows, which reads all tables. The last line has the plan's name."},
		{name: "MOVE START", usage: "MOVE START " + planUsage() + " [PLAN 'name'] [IN database]", needs: maySteer, run: plans(true), waits: true, columns: columns,
			doc: "Plans as MOVE PLAN does with the same options, and stores the moves, which one of the proxies carries out, as shardproxy rebalance start does. With PLAN it is begun only while it is still the plan of this name (55000). Shards that join are given roles and the schema first, by pg_dump on this proxy's machine, which may take its time."},
	}
}

// plans returns what MOVE PLAN and MOVE START do.
func plans(start bool) func(context.Context, *session, request) (result, *wire.Error) {
	return func(ctx context.Context, s *session, r request) (result, *wire.Error) {
		o := *r.plan
		var werr *wire.Error
		if o.Database, werr = s.moving(r); werr != nil {
			return result{}, werr
		}
		p, err := s.console.opt.Steerer.PlanMoves(ctx, o, start)
		if err != nil {
			return result{}, steerError(err, o.Database)
		}
		if start && p.Started {
			s.notes("moves ordered", "database", o.Database, "wanted", "start", "said", p.said())
		}
		res := result{tag: "MOVE"}
		for line := range strings.Lines(p.Text) {
			res.rows = append(res.rows, []any{strings.TrimSuffix(line, "\n")})
		}
		if p.ID != "" {
			res.rows = append(res.rows, []any{"plan " + p.ID})
		}
		return res, nil
	}
}
