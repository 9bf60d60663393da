package proxy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"shardproxy/wire"
)

// The answer to EXPLAIN in JSON, YAML or XML is one document of PostgreSQL's shape, for tools that read it: its plan is
// that of the proxy, as a custom scan, below which stand the shards' own. What these say beside their plans (times,
// settings, triggers) is put into them. Costs, rows and times of the whole are sums, for the shards are asked one after the other; of
// what finishes the query they know nothing.

// totals are the costs, rows and times of the whole, as far as all plans have them. It begins when the first does, and is as wide as the widest.
func (c *scattering) totals(plans []serverPlan) (out []planEntry) {
	for _, name := range []string{"Startup Cost", "Total Cost", "Plan Rows", "Plan Width", "Actual Startup Time", "Actual Total Time", "Actual Rows"} {
		values := c.numbers(name, plans, func(p *serverPlan) []string { return p.plan })
		if len(values) == 0 {
			continue
		}
		switch name {
		case "Startup Cost", "Actual Startup Time":
			values = values[:1]
		case "Plan Width":
			values = []string{slices.MaxFunc(values, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) })}
		}
		if total, ok := sum(values); ok {
			out = append(out, c.format.scalar(name, total))
		}
		if name == "Actual Rows" {
			out = append(out, c.format.scalar("Actual Loops", "1"))
		}
	}
	return out
}

// numbers returns what all plans say of a number, none when one does not.
func (c *scattering) numbers(name string, plans []serverPlan, of func(*serverPlan) []string) (all []string) {
	for i := range plans {
		if lines := of(&plans[i]); len(lines) > 0 {
			if v, ok := c.format.number(lines, name); ok {
				all = append(all, v)
			}
		}
	}
	if len(all) < len(plans) {
		return nil
	}
	return all
}

// planDocument is the one row of the answer; an error is in c.err.
func (c *scattering) planDocument(of []shardPlan) []string {
	f := c.format
	plans, below := make([]serverPlan, len(of)), make([]planEntry, len(of))
	for i, p := range of {
		var ok bool
		if plans[i], ok = f.read(strings.Join(p.lines, "\n")); !ok {
			c.fail(wire.Errorf("XX000", "shard %s does not give its plan as PostgreSQL writes one in format %s", p.shard, strings.ToUpper(string(f))), nil, -1)
			return nil
		}
		below[i] = f.below(p, &plans[i])
	}
	plan := []planEntry{f.text("Node Type", "Custom Scan"), f.scalar("Parallel Aware", "false"), f.scalar("Async Capable", "false"), f.text("Custom Plan Provider", "shardproxy")}
	plan = append(append(plan, c.totals(plans)...), c.described()...)
	if c.err != nil {
		return nil
	}
	all := []planEntry{f.object("Plan", append(plan, f.list("Plans", below))...)}
	beside := func(p *serverPlan) []string { return p.beside }
	if total, ok := sum(c.numbers("Planning Time", plans, beside)); ok {
		all = append(all, f.scalar("Planning Time", total))
	}
	if total, ok := sum(c.numbers("Execution Time", plans, beside)); ok {
		all = append(all, f.list("Triggers", nil), f.scalar("Execution Time", total))
	}
	return []string{f.document(all...)}
}

// below is a shard's plan as one of those of the whole.
func (f planFormat) below(p shardPlan, d *serverPlan) planEntry {
	in := []planEntry{f.text("Shard", p.shard), f.text("Parent Relationship", "Member")}
	if p.read > 0 {
		in = append(in, f.scalar("Read", strconv.Itoa(p.read)))
	}
	in = append(in, f.spliced(d.plan))
	if len(d.beside) > 0 {
		in = append(in, f.spliced(d.beside))
	}
	if f == planXML {
		return f.object("Plan", in...)
	}
	return f.object("", in...)
}

// described says how the query is answered; an error is in c.err.
func (c *scattering) described() []planEntry {
	f, x := c.format, c.way.Explain()
	out := []planEntry{f.text("Way", x.Way), f.text("Fan Out", c.wayText())}
	var reads []string
	for _, r := range x.Reads {
		reads = append(reads, r.Text+r.After())
	}
	out = append(out, f.texts("Reads", reads))
	steps := c.finishes()
	for _, step := range steps {
		out = append(out, f.text(step.what, step.text), f.text(step.what+" On", strings.TrimPrefix(step.where, "on ")))
		reads = append(reads, step.text)
	}
	// A character may end in a byte that means something in the document; in encodings of servers none does.
	if !c.s.serverEncoding() && slices.ContainsFunc(reads, func(t string) bool { return strings.ContainsFunc(t, func(r rune) bool { return r > 0x7f }) }) {
		c.fail(wire.Errorf("0A000", "a document of plans cannot hold a statement with other characters than ASCII in this client_encoding").
			WithHint("EXPLAIN it in text format, or SET client_encoding to that of the server."), nil, -1)
	}
	return out
}
