package proxy

import (
	"fmt"
	"slices"
	"strings"

	"shardproxy/pool"
	"shardproxy/wire"
)

// explained answers EXPLAIN of a query over several shards: how it is answered, and what each
// shard says of each query that it gets. What finishes the query is shown and not planned:
// there are no rows to plan it for.
func (c *scattering) explained() {
	if c.moment(); c.err != nil || !c.describeSource() {
		return
	}
	owners := c.s.db.Owners()
	var plans []shardPlan
	if m := c.way.Merge; m != nil {
		if m.Claims && strings.Contains(strings.ToLower(c.explain), "analy") {
			c.fail(wire.Errorf("0A000", "EXPLAIN ANALYZE cannot run a statement that locks rows of several shards up to a LIMIT: each shard would lock as many"), nil, -1)
			return
		}
		limit, offset, ok := c.bounds(m)
		if !ok {
			return
		}
		shards, err := c.shardsOf(m.Plan, m.Proof, owners)
		if err != nil {
			c.fail(wire.AsError(err), nil, -1)
			return
		}
		plans = c.plansOf(plans, 0, shards, mergedText(m, limit, offset))
	}
	for i := range c.way.Inputs {
		in := &c.way.Inputs[i]
		shards, err := c.shardsOf(in.Plan, in.Proof, owners)
		if err != nil {
			c.fail(wire.AsError(err), nil, -1)
			return
		}
		plans = c.plansOf(plans, i+1, shards, in.Text)
	}
	if c.err != nil {
		return
	}
	lines := c.planLines(plans)
	if c.format != "" {
		if lines = c.planDocument(plans); c.err != nil {
			return
		}
	}
	out := c.head(c.s.client.Output(), columnsFor(planColumn(c.format.oid()), 1, c.asks.formats))
	for _, line := range lines {
		out = appendTextRow(out, line)
	}
	c.s.client.SetOutput(out)
}

// planLines are the rows of the answer in text format.
func (c *scattering) planLines(plans []shardPlan) []string {
	lines := []string{"Fan-out: " + c.wayText()}
	reads, last := c.way.Explain().Reads, 0
	for _, p := range plans {
		if p.read != last {
			lines = append(lines, spaced(fmt.Sprintf("Read %d: %s%s", p.read, reads[p.read-1].Text, reads[p.read-1].After())))
			last = p.read
		}
		lines = append(lines, "  Shard "+p.shard+":")
		for _, l := range p.lines {
			lines = append(lines, "    "+l)
		}
	}
	for _, step := range c.finishes() {
		lines = append(lines, spaced(step.what+" "+step.where+": "+step.text))
	}
	return lines
}

// describeSource is describeClient for the whole of the client's text, of which an INSERT's query is a part.
func (c *scattering) describeSource() bool {
	text := c.text
	c.text = c.source
	defer func() { c.text = text }()
	return c.describeClient()
}

// finalStep is something that is done with what was read, where, and the text for it.
type finalStep struct{ what, where, text string }

// finishes says what is done with what was read.
func (c *scattering) finishes() (steps []finalStep) {
	x := c.way.Explain()
	var all []string
	for _, i := range c.s.allShards() {
		all = append(all, c.s.db.Shards[i].Name)
	}
	switch w := c.way.Write; {
	case w != nil && w.Home:
		return []finalStep{{"Write", "on " + all[0], x.Finish}}
	case w != nil:
		return []finalStep{{"Write", "on " + strings.Join(all, ", "), x.Finish}}
	case x.Finish != "":
		steps = append(steps, finalStep{"Finish", "on " + c.s.db.Shards[c.shards[0].index].Name, x.Finish})
	}
	switch i := c.way.Into; {
	case i == nil:
	case i.Home:
		steps = append(steps, finalStep{"Insert", "on " + all[0], x.Insert})
	case i.Everywhere:
		steps = append(steps, finalStep{"Insert", "all rows on each of " + strings.Join(all, ", "), x.Insert})
	default:
		steps = append(steps, finalStep{"Insert", "each row on the shard of its key", x.Insert})
	}
	return steps
}

// wayText says how the query is answered.
func (c *scattering) wayText() string {
	x := c.way.Explain()
	text := map[string]string{
		"each": "each shard writes the rows that it has", "merge": "the shards' rows are merged", "rank": "the shards' rows are put in order by a server",
		"groups": "the shards' groups are put together by a server", "gather": "what is read on the shards is finished by a server",
	}[x.Way]
	if c.way.Write != nil {
		text = "what is read on the shards is gathered, and they write with it"
	}
	if m := c.way.Merge; m != nil && len(m.Keys) > 0 {
		text += fmt.Sprintf(", in order of %d keys", len(m.Keys))
	}
	if m := c.way.Merge; m != nil && m.Claims {
		text += ", and locked one after the other"
	}
	return text
}

// spaced is a text on one line.
func spaced(text string) string { return strings.Join(strings.Fields(text), " ") }

// shardPlan is what a shard says of a text: of a merge, or of the read with a number.
type shardPlan struct {
	read  int
	shard string
	lines []string
}

// plansOf appends what the shards say of a text.
func (c *scattering) plansOf(plans []shardPlan, read int, shards []int, text string) []shardPlan {
	if len(shards) == 0 {
		shards = []int{c.shards[0].index}
	}
	part, ok := c.part(c.explain + text)
	if !ok {
		return plans
	}
	part.Bind = append(part.Bind, 0, 0)
	frames := partFrames(&part, true, wire.AppendEmpty(wire.AppendFrame(nil, wire.MsgExecute, make([]byte, 5)), wire.MsgSync))
	for i, shard := range c.shards {
		if c.err != nil || !slices.Contains(shards, shard.index) {
			continue
		}
		a, err := shard.lease.Run(c.s.server.ctx, frames, pool.RunOptions{Keep: answerMax, Cancelled: c.unwanted.Load})
		if err != nil {
			shard.answer, shard.err = a, err
			c.fail(wire.AsError(err), c.told(shard), i)
			return plans
		}
		p := shardPlan{read: read, shard: c.s.db.Shards[shard.index].Name}
		_, rows, _ := cutRows(a.Frames)
		for _, row := range rows {
			if f := rowFields(row[5:]); len(f) == 1 {
				p.lines = append(p.lines, string(f[0]))
			}
		}
		plans = append(plans, p)
	}
	return plans
}
