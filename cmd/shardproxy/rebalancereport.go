package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/rebalance"
	"shardproxy/shardmap"
)

// planReport is what rebalance plan --json prints.
type planReport struct {
	Database  string  `json:"database"`
	Epoch     int64   `json:"epoch"`
	By        string  `json:"by"`
	Given     bool    `json:"given"` // only slots that were named move
	Threshold float64 `json:"threshold"`
	Counted   bool    `json:"counted"` // rows are no estimates
	Blocked   bool    `json:"blocked"`
	Limited   bool    `json:"limited"` // --max-slots or --max-bytes has cut it short
	Moving    bool    `json:"moving"`  // slots are moving already
	// Before and After are how far the shard is from its share that is farthest.
	Before           float64        `json:"imbalance_before"`
	After            float64        `json:"imbalance_after"`
	Shards           []plannedShard `json:"shards"`
	Moves            []plannedMove  `json:"moves"`
	Moved            plannedAmount  `json:"moved"`
	Rate             int64          `json:"rate"`
	EstimatedSeconds int64          `json:"estimated_seconds"`
	Tenants          []planTenant   `json:"tenants,omitempty"`
	Tables           []plannedTable `json:"tables"`
	Staying          []stayingTable `json:"staying"`
	Blockers         []planBlocker  `json:"blockers"`
	Notes            []planNote     `json:"notes"`
	Add              []plannedNodes `json:"add_to_configuration,omitempty"`
	// Join are those of the configuration that join.
	Join   []string `json:"join,omitempty"`
	Remove []string `json:"remove_from_configuration,omitempty"`
	home   string
	starts bool // it is not only looked at
}

// plannedAmount is how much lies in slots.
type plannedAmount struct {
	Slots int   `json:"slots"`
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"`
}

type plannedShard struct {
	Name       string        `json:"name"`
	Weight     int           `json:"weight"`
	State      string        `json:"state"` // stays, joins or leaves
	Now        plannedAmount `json:"now"`
	Then       plannedAmount `json:"afterwards"`
	ShareNow   float64       `json:"share_now"`
	ShareThen  float64       `json:"share_afterwards"`
	ShareByAll float64       `json:"share_by_weight"`
}

type plannedMove struct {
	From  string          `json:"from"`
	To    string          `json:"to"`
	Slots []shardmap.Slot `json:"slots"`
	Rows  int64           `json:"rows"`
	Bytes int64           `json:"bytes"`

	ranges string
}

type planTenant struct {
	Key   string        `json:"key"`
	Slot  shardmap.Slot `json:"slot"`
	Shard string        `json:"shard"`
}

type plannedTable struct {
	Table string   `json:"table"`
	Key   []string `json:"key"`
	Rows  int64    `json:"rows"`
	Bytes int64    `json:"bytes"`
}

// stayingTable is a table, or a schema, that does not move with slots.
type stayingTable struct {
	Table  string   `json:"table,omitempty"`
	Schema string   `json:"schema,omitempty"`
	By     string   `json:"by"` // list, range, schema or hash of the schema's name
	Shards []string `json:"shards"`
	Slot   *int     `json:"slot,omitempty"`
}

type planBlocker struct {
	Shard  string `json:"shard,omitempty"`
	Table  string `json:"table,omitempty"`
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
}

type planNote struct {
	Shard string `json:"shard"`
	Table string `json:"table"`
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
}

type plannedNodes struct {
	Shard string   `json:"shard"`
	Nodes []string `json:"nodes"`
}

// sqlName is a table's qualified name as SQL.
func sqlName(t *catalog.Table) string { return pgx.Identifier{t.Schema, t.Name}.Sanitize() }

func amountOf(a rebalance.Amount) plannedAmount { return plannedAmount(a) }

// report is the plan as it is printed.
func (p *planned) report() *planReport {
	r := &planReport{
		Database: p.conf.Name, Epoch: p.current.Epoch(), By: string(p.plan.By), Given: p.f.to != "", Threshold: float64(p.f.threshold), Counted: p.f.exact,
		Blocked: p.blocked(), Limited: p.plan.Limited, Moving: p.current.Guarded(), Before: p.plan.Before, After: p.plan.After, Rate: int64(p.f.rate), Remove: p.f.remove,
		Moves: []plannedMove{}, Tables: []plannedTable{}, Staying: []stayingTable{}, Blockers: []planBlocker{}, Notes: []planNote{}, home: p.conf.Shards[0].Name,
	}
	for i := range p.plan.Shards {
		s := &p.plan.Shards[i]
		state := "stays"
		switch {
		case s.Leaves:
			state = "leaves"
		case s.New:
			state = "joins"
		}
		r.Shards = append(r.Shards, plannedShard{s.Name, s.Weight, state, amountOf(s.Before), amountOf(s.After), s.ShareBefore, s.ShareAfter, s.Fair})
	}
	var sum rebalance.Amount
	for i := range p.plan.Moves {
		m := &p.plan.Moves[i]
		r.Moves = append(r.Moves, plannedMove{m.From, m.To, m.Slots, m.Amount.Rows, m.Amount.Bytes, m.Ranges()})
		sum.Slots, sum.Rows, sum.Bytes = sum.Slots+m.Amount.Slots, sum.Rows+m.Amount.Rows, sum.Bytes+m.Amount.Bytes
	}
	r.Moved = amountOf(sum)
	r.EstimatedSeconds = int64(math.Ceil(float64(sum.Bytes) / float64(p.f.rate)))
	for i, t := range p.tenants {
		r.Tenants = append(r.Tenants, planTenant{t.text, p.at[i], p.current.Owner(p.at[i])})
	}
	for _, s := range p.added {
		if p.configured(s.Name) {
			r.Join = append(r.Join, s.Name)
			continue
		}
		r.Add = append(r.Add, plannedNodes{s.Name, s.Nodes})
	}
	p.reportTables(r)
	for _, b := range slices.Concat(p.plan.Blockers, p.held, p.blockers) {
		r.Blockers = append(r.Blockers, planBlocker{b.Shard, b.Table, b.Reason, b.Hint})
	}
	for _, l := range p.loads {
		for _, n := range l.Notes {
			r.Notes = append(r.Notes, planNote{n.Shard, n.Table, n.Text, n.Hint})
		}
	}
	return r
}

func (p *planned) reportTables(r *planReport) {
	for _, t := range p.tables {
		if t.table != nil {
			r.Tables = append(r.Tables, plannedTable{sqlName(t.of.Table), t.of.Key, t.rows, t.bytes})
		}
	}
	for _, t := range p.slotted.Fixed {
		r.Staying = append(r.Staying, stayingTable{Table: sqlName(t.Table), By: t.By, Shards: t.On})
	}
	for _, s := range p.slotted.Schemas {
		if s.Shard != "" {
			r.Staying = append(r.Staying, stayingTable{Schema: s.Name, By: "schema", Shards: []string{s.Shard}})
			continue
		}
		slot := p.current.SlotOf(s.Hash)
		n := int(slot)
		r.Staying = append(r.Staying, stayingTable{Schema: s.Name, By: config.SchemaByHash, Shards: []string{p.current.Owner(slot)}, Slot: &n})
	}
}

// text is the plan in words.
func (r *planReport) text() string {
	var b strings.Builder
	r.head(&b)
	r.shardTable(&b)
	r.moveTable(&b)
	r.tableList(&b)
	r.configuration(&b)
	title := "in the way:\n"
	if !r.Blocked {
		title = "would be in the way of a move:\n"
	}
	for _, x := range r.Blockers {
		b.WriteString(title)
		title = ""
		fmt.Fprintf(&b, "  %s\n", (&rebalance.Blocker{Table: x.Table, Shard: x.Shard, Reason: x.Reason}).Error())
		if x.Hint != "" {
			fmt.Fprintf(&b, "    %s\n", x.Hint)
		}
	}
	title = "to know of the figures:\n"
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "%s  %s, %s: %s\n", title, n.Shard, n.Table, n.Text)
		title = ""
		if n.Hint != "" {
			fmt.Fprintf(&b, "    %s\n", n.Hint)
		}
	}
	switch {
	case r.starts && !r.Blocked:
	case r.Blocked:
		b.WriteString("a plan that cannot be done: something is in the way; nothing was changed\n")
	case len(r.Moves) == 0:
		b.WriteString("nothing to do; nothing was changed\n")
	default:
		b.WriteString("a plan, and nothing was changed\n")
	}
	return b.String()
}

func (r *planReport) head(b *strings.Builder) {
	how := "estimated from statistics"
	if r.Counted {
		how = "rows counted, bytes shared out by their widths"
	}
	if r.Given {
		fmt.Fprintf(b, "database %s, epoch %d: given slots move (%s)\n", r.Database, r.Epoch, how)
	} else {
		fmt.Fprintf(b, "database %s, epoch %d: shards get equal shares of %s, within %s (%s)\n", r.Database, r.Epoch, r.By, percent(r.Threshold), how)
	}
	if r.Moving {
		b.WriteString("slots are moving at this time: sizes, and rows that are not counted, have what lies on two shards twice\n")
	}
	for _, t := range r.Tenants {
		fmt.Fprintf(b, "%s lies in slot %d on %s, with all other keys of this slot\n", t.Key, t.Slot, t.Shard)
	}
}

func (r *planReport) shardTable(b *strings.Builder) {
	b.WriteString("shards now, and afterwards:\n")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  SHARD\tWEIGHT\tSLOTS\tROWS\tSIZE\tSHARE\t\tSLOTS\tROWS\tSIZE\tSHARE\tBY WEIGHT")
	for _, s := range r.Shards {
		name, weight := s.Name, strconv.Itoa(s.Weight)
		switch {
		case s.State != "stays":
			name += " (" + s.State + ")"
		case s.Name == r.home:
			name += " (home)"
		}
		if s.Weight == 0 {
			weight = "-"
		}
		fmt.Fprintf(t, "  %s\t%s\t%d\t%d\t%s\t%s\t->\t%d\t%d\t%s\t%s\t%s\n", name, weight, s.Now.Slots, s.Now.Rows, prettySize(s.Now.Bytes), percent(s.ShareNow),
			s.Then.Slots, s.Then.Rows, prettySize(s.Then.Bytes), percent(s.ShareThen), percent(s.ShareByAll))
	}
	_ = t.Flush() // a strings.Builder takes all
	fmt.Fprintf(b, "shares are of %s; the shard farthest from its share is off by %s of it, and by %s afterwards\n", r.By, percent(r.Before), percent(r.After))
}

func (r *planReport) moveTable(b *strings.Builder) {
	if len(r.Moves) == 0 {
		b.WriteString("moves: none\n")
		return
	}
	b.WriteString("moves, in this order; it is safe to stop behind any:\n")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  NO\tFROM\tTO\tSLOTS\tROWS\tSIZE\tWHICH")
	for i, m := range r.Moves {
		fmt.Fprintf(t, "  %d\t%s\t%s\t%d\t%d\t%s\t%s\n", i+1, m.From, m.To, len(m.Slots), m.Rows, prettySize(m.Bytes), shortRanges(m.ranges))
	}
	_ = t.Flush() // a strings.Builder takes all
	fmt.Fprintf(b, "in all %d slots, %d rows, %s\n", r.Moved.Slots, r.Moved.Rows, prettySize(r.Moved.Bytes))
	if r.Limited {
		b.WriteString("cut short by --max-slots or --max-bytes: the rest stays where it is\n")
	}
	fmt.Fprintf(b, "time to carry the rows: about %v, an estimate at %s/s (--rate)\n", time.Duration(r.EstimatedSeconds)*time.Second, config.Size(r.Rate))
	gets := map[string]int64{}
	for _, m := range r.Moves {
		gets[m.To] += m.Bytes
	}
	for _, s := range r.Shards {
		if n, is := gets[s.Name]; is {
			fmt.Fprintf(b, "free disk on %s is not known: it gets %s\n", s.Name, prettySize(n))
		}
	}
}

func (r *planReport) tableList(b *strings.Builder) {
	title := "tables that move with their slots:\n"
	for _, t := range r.Tables {
		fmt.Fprintf(b, "%s  %s by %s: %d rows, %s\n", title, t.Table, strings.Join(t.Key, ", "), t.Rows, prettySize(t.Bytes))
		title = ""
	}
	title = "what does not move with slots:\n"
	for _, t := range r.Staying {
		b.WriteString(title)
		title = ""
		switch {
		case t.Slot != nil:
			fmt.Fprintf(b, "  schema %s lies in slot %d on %s as a whole: the slot stays\n", t.Schema, *t.Slot, t.Shards[0])
		case t.Schema != "":
			fmt.Fprintf(b, "  schema %s, on %s by its rule\n", t.Schema, t.Shards[0])
		default:
			fmt.Fprintf(b, "  %s by %s, on %s\n", t.Table, t.By, strings.Join(t.Shards, ", "))
		}
	}
}

func (r *planReport) configuration(b *strings.Builder) {
	for _, name := range r.Join {
		fmt.Fprintf(b, "shard %s is in the configuration; start gives it the schema and the rows of reference tables first\n", name)
	}
	if len(r.Add) > 0 {
		fmt.Fprintf(b, "to be added to databases.%s.shards of the configuration:\n", r.Database)
	}
	for _, s := range r.Add {
		nodes := make([]string, len(s.Nodes))
		for i, n := range s.Nodes {
			nodes[i] = strconv.Quote(n)
		}
		fmt.Fprintf(b, "  - {name: %s, nodes: [%s]}\n    its server was not asked; it needs the schema, and the rows of reference tables\n", s.Shard, strings.Join(nodes, ", "))
	}
	for _, name := range r.Remove {
		for _, s := range r.Shards {
			if s.Name != name || s.Name == r.home {
				continue
			}
			if s.Then.Slots > 0 {
				fmt.Fprintf(b, "%s still owns %d slots afterwards, and stays in the configuration\n", name, s.Then.Slots)
			} else {
				fmt.Fprintf(b, "to be taken out of the configuration when it has left: %s\n", name)
			}
		}
	}
}

// shortRanges is the first ranges of slots, and how many there are more.
func shortRanges(ranges string) string {
	const most = 8
	list := strings.Split(ranges, ", ")
	if len(list) <= most+1 {
		return ranges
	}
	return fmt.Sprintf("%s and %d more ranges (--json)", strings.Join(list[:most], ", "), len(list)-most)
}

// percent is a part in percent.
func percent(part float64) string {
	return strconv.FormatFloat(math.Round(part*1000)/10, 'f', -1, 64) + " %"
}

// prettySize is a size as pg_size_pretty prints it.
func prettySize(n int64) string {
	const limit = 10 * 1024
	if n < limit {
		return strconv.FormatInt(n, 10) + " bytes"
	}
	size := float64(n)
	for _, unit := range []string{"kB", "MB", "GB", "TB", "PB"} {
		size /= 1024
		if size < limit || unit == "PB" {
			return strconv.FormatFloat(math.Round(size), 'f', 0, 64) + " " + unit
		}
	}
	return ""
}
