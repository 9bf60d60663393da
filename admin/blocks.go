package admin

import (
	"context"
	"strings"
	"time"

	"shardproxy/config"
	"shardproxy/proxy"
	"shardproxy/query"
	"shardproxy/wire"
)

// What BLOCK and UNBLOCK name a statement by.
const (
	byText        = "statement"
	byFingerprint = "fingerprint"
	allBlocks     = "all"
)

// block parses BLOCK {'statement' | FINGERPRINT 'x'} [IN database] [FOR interval], and
// UNBLOCK {'statement' | FINGERPRINT 'x' | ALL} [IN database].
func (p *parser) block(r request) (request, bool) {
	t, ok := p.next()
	r.name = byText
	switch {
	case ok && t.is("fingerprint"):
		r.name = byFingerprint
		t, ok = p.next()
	case ok && t.is("all") && r.verb == "unblock":
		r.name = allBlocks
		return p.within(r)
	}
	if !ok || t.kind != tokenString {
		return r, false
	}
	r.arg, r.hasArg = t.text, true
	if r, ok = p.within(r); !ok || r.verb == "unblock" || !p.accept("for") {
		return r, ok
	}
	if t, ok = p.next(); !ok || !t.named() {
		return r, false
	}
	term, err := config.ParseDuration(t.text)
	if err != nil || term <= 0 || term > longestBlock {
		p.err = wire.Errorf("42601", "%q is not for how long a statement can be blocked", t.text).
			WithHint("A number with its unit, such as 30s, 10m, 1h or 7d; at most 365d.")
		return r, false
	}
	r.term = term
	return r, true
}

// longestBlock bounds the interval of BLOCK.
const longestBlock = 365 * 24 * time.Hour

// statement is what BLOCK and UNBLOCK are about.
func (r request) statement() (proxy.Block, *wire.Error) {
	if r.name == byFingerprint {
		f, ok := proxy.ParseFingerprint(strings.ToLower(r.arg))
		if !ok {
			return proxy.Block{}, wire.Errorf("22023", "%q is no fingerprint", r.arg).WithHint("A fingerprint has 16 digits, base 16.")
		}
		return proxy.Block{Fingerprint: f}, nil
	}
	b, err := proxy.Blockable(r.arg)
	if err != nil {
		return b, wire.AsError(err)
	}
	return b, nil
}

// shownStatement is the statement as the log has it: without what stands in its constants.
func (r request) shownStatement() string {
	b, e := r.statement()
	if e != nil {
		return r.name
	}
	return byFingerprint + " '" + query.FingerprintName(b.Fingerprint) + "'"
}

// blocking are the commands that keep statements from running.
func blocking() []*command {
	return []*command{
		{name: "BLOCK", usage: "BLOCK {'statement' | FINGERPRINT 'fingerprint'} [IN database] [FOR interval]", needs: maySteer, run: runBlock,
			columns: []column{textColumn("fingerprint", "The statement's fingerprint.")},
			doc:     "Refuses a statement, whatever its constants are and in whatever way it comes, in all databases or in one (42501), and returns its fingerprint. It ends with UNBLOCK, with the interval (such as 30m), or with a restart; RELOAD keeps it. What runs already goes on, and so does what is read from an open cursor: see KILL_CLIENT. Each proxy has its own list. See databases.<name>.blocks for one that lasts."},
		{name: "UNBLOCK", usage: "UNBLOCK {'statement' | FINGERPRINT 'fingerprint' | ALL} [IN database]", needs: maySteer, run: runUnblock,
			doc: "Undoes BLOCK. What the configuration blocks stays blocked."},
	}
}

func runBlock(_ context.Context, s *session, r request) (result, *wire.Error) {
	b, e := r.statement()
	if e != nil {
		return result{}, e
	}
	all, e := s.targets(request{verb: r.verb, arg: r.in, hasArg: r.hasIn})
	if e != nil {
		return result{}, e
	}
	b.By, b.Since = s.id.User, s.console.opt.Clock()
	if r.term > 0 {
		b.Until = b.Since.Add(r.term)
	}
	e = s.each(request{hasArg: r.hasIn}, all, func(d Database) error { return s.console.opt.Steerer.Block(d.Name, b) })
	if e != nil {
		return result{}, e
	}
	s.notes("statement blocked", "fingerprint", query.FingerprintName(b.Fingerprint), "database", r.in, "statement", b.Text, "until", timestamp(b.Until))
	return result{tag: "BLOCK", rows: [][]any{{query.FingerprintName(b.Fingerprint)}}}, nil
}

func runUnblock(_ context.Context, s *session, r request) (result, *wire.Error) {
	all, e := s.targets(request{verb: r.verb, arg: r.in, hasArg: r.hasIn})
	if e != nil {
		return result{}, e
	}
	var b proxy.Block
	if r.name != allBlocks {
		if b, e = r.statement(); e != nil {
			return result{}, e
		}
	}
	found, fixed := 0, false
	for _, d := range all {
		for _, have := range d.Blocks {
			switch {
			case r.name != allBlocks && have.Fingerprint != b.Fingerprint:
			case have.By == "":
				fixed = true
			default:
				gone, err := s.console.opt.Steerer.Unblock(d.Name, have.Fingerprint)
				if err != nil {
					return result{}, steerError(err, d.Name)
				}
				if gone {
					found++
				}
			}
		}
	}
	switch {
	case found > 0 || r.name == allBlocks:
		s.notes("statements unblocked", "count", found)
		return result{tag: "UNBLOCK"}, nil
	case fixed:
		return result{}, wire.Errorf("55000", "the statement is blocked by the configuration").
			WithHint("Change databases.<name>.blocks, then RELOAD.")
	}
	return result{}, wire.Errorf("42704", "the statement is not blocked").WithHint("SHOW BLOCKS has those that are.")
}

func blockColumns() []column {
	return []column{
		textColumn("database", "The database."),
		textColumn("fingerprint", "The statement's fingerprint."),
		textColumn("statement", "Its text without the values of constants; NULL where only the fingerprint was given."),
		textColumn("blocked_by", "The user of the console who blocked it; NULL for the configuration."),
		textColumn("since", "Since when, in UTC."),
		textColumn("until", "Until when, in UTC; NULL: until UNBLOCK, or until the configuration changes."),
		int8Column("refused", "Requests that were refused for it."),
	}
}

func showBlocks(c *Console) (rows [][]any) {
	for _, d := range c.opt.Source.Databases() {
		for _, b := range d.Blocks {
			rows = append(rows, []any{d.Name, query.FingerprintName(b.Fingerprint), orNull(b.Text), orNull(b.By), timestamp(b.Since), timestamp(b.Until), b.Refused})
		}
	}
	return rows
}
