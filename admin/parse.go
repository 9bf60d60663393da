package admin

import (
	"slices"
	"strings"
	"time"

	"shardproxy/wire"
)

// request is one parsed command. The zero request is the empty one.
type request struct {
	verb string // lower case: show, set, pause, ...; "" for an empty text
	// name is what SHOW shows and what SET and RESET set, in lower case.
	name string
	// arg is the database, the value or the mode, as written.
	arg    string
	hasArg bool
	force  bool // TWOPC ... FORCE
	in     string
	hasIn  bool          // MOVE ... IN database
	term   time.Duration // BLOCK ... FOR interval; 0: none
	plan   *PlanOrder    // MOVE PLAN and MOVE START; without its database
	// rows says which rows of a SHOW, and in which order; nil: all.
	rows *selection
}

// parse reads one command: words in any case, names that may be quoted,
// comments, and any number of semicolons at the end. It knows the forms, not
// which SHOW or which database there is.
func parse(sql string) (request, *wire.Error) {
	tokens, err := scan(sql)
	if err != nil {
		return request{}, err
	}
	for len(tokens) > 0 && tokens[len(tokens)-1].kind == tokenSemicolon {
		tokens = tokens[:len(tokens)-1]
	}
	for _, t := range tokens {
		if t.kind == tokenSemicolon {
			return request{}, wire.Errorf("42601", "one command at a time").
				WithHint("Send each command as a statement of its own.")
		}
	}
	if len(tokens) == 0 {
		return request{}, nil
	}
	p := &parser{sql: sql, rest: tokens}
	r, ok := p.command()
	if p.err != nil {
		return request{}, p.err
	}
	if !ok || len(p.rest) > 0 {
		return request{}, invalidCommand(sql)
	}
	return r, nil
}

// invalidCommand is PgBouncer's answer, word for word: tools look for it.
func invalidCommand(sql string) *wire.Error {
	const most = 200
	sql = strings.ToValidUTF8(sql, "?")
	if len(sql) > most {
		sql = strings.ToValidUTF8(sql[:most], "") + "..."
	}
	return wire.Errorf("42601", "invalid command '%s', use SHOW HELP;", sql).
		WithHint("SHOW HELP lists the commands.")
}

type parser struct {
	sql  string
	rest []token
	err  *wire.Error // what is wrong behind SHOW and a name
}

func (p *parser) next() (token, bool) {
	if len(p.rest) == 0 {
		return token{}, false
	}
	t := p.rest[0]
	p.rest = p.rest[1:]
	return t, true
}

// accept takes the next token if it is one of the words, which are in lower case.
func (p *parser) accept(words ...string) bool {
	if len(p.rest) == 0 {
		return false
	}
	for _, w := range words {
		if p.rest[0].is(w) {
			p.rest = p.rest[1:]
			return true
		}
	}
	return false
}

// command parses what begins with a verb; what it leaves is an error.
func (p *parser) command() (request, bool) {
	t, _ := p.next()
	if t.kind != tokenWord {
		return request{}, false
	}
	r := request{verb: strings.ToLower(t.text)}
	switch r.verb {
	case "show", "select":
		r.verb = "show"
		return p.show(r)
	case "set":
		return p.set(r)
	case "reset":
		for _, what := range []string{"queries", "cache"} {
			if p.accept(what) {
				r.verb = "reset " + what
				return p.within(r)
			}
		}
		return p.name(r)
	case "pause", "resume", "kill", "reconnect", "shutdown", "disable", "enable", "kill_client", "wait_close", "drain":
		return p.optional(r)
	case "reload", "suspend":
		return r, true
	case "move":
		return p.move(r)
	case "twopc":
		return p.twoPC(r)
	case "explain":
		return p.explain(r)
	case "ban", "unban":
		t, ok := token{}, p.accept("node")
		if ok {
			t, ok = p.next()
		}
		if !ok || !t.named() {
			return r, false
		}
		r.arg, r.hasArg = t.text, true
		return p.within(r)
	case "block", "unblock":
		return p.block(r)
	case "begin", "commit", "end", "rollback", "abort":
		p.accept("transaction", "work")
		if r.verb == "begin" {
			p.rest = nil // isolation and access modes mean nothing here
		}
		return r, true
	case "start":
		r.verb = "begin"
		ok := p.accept("transaction")
		p.rest = nil
		return r, ok
	case "discard":
		return r, p.accept("all")
	case "deallocate":
		p.accept("prepare")
		r, ok := p.optional(r)
		return r, ok && r.hasArg
	}
	return request{}, false
}

// move parses MOVE {PLAN | START} and what follows them, and MOVE {PAUSE | RESUME | ABORT | ROLLBACK [id, ...] | COMPLETE [id, ...]} [IN database].
func (p *parser) move(r request) (request, bool) {
	t, _ := p.next()
	if r.name = strings.ToLower(t.text); t.kind == tokenWord && (r.name == "plan" || r.name == "start") {
		return p.plan(r)
	}
	if t.kind != tokenWord || !slices.Contains([]string{"pause", "resume", "abort", "rollback", "complete"}, r.name) {
		return r, false
	}
	if r.name == "rollback" || r.name == "complete" {
		if len(p.rest) > 0 && !p.rest[0].is("in") {
			var ok bool
			if r, ok = p.value(r); !ok {
				return r, false
			}
		}
	}
	return p.within(r)
}

// explain parses EXPLAIN ROUTE 'statement' [IN database].
func (p *parser) explain(r request) (request, bool) {
	if !p.accept("route") {
		return r, false
	}
	t, ok := p.next()
	if !ok || t.kind != tokenString {
		return r, false
	}
	r.name, r.arg, r.hasArg = "route", t.text, true
	return p.within(r)
}

// within takes IN and a database, or nothing.
func (p *parser) within(r request) (request, bool) {
	if !p.accept("in") {
		return r, true
	}
	t, ok := p.next()
	if !ok || !t.named() {
		return r, false
	}
	r.in, r.hasIn = t.text, true
	return r, true
}

// twoPC parses TWOPC {COMMIT | ROLLBACK} 'name' [FORCE].
func (p *parser) twoPC(r request) (request, bool) {
	if r.name = "commit"; !p.accept("commit") {
		if r.name = "rollback"; !p.accept("rollback") {
			return r, false
		}
	}
	t, ok := p.next()
	if !ok || t.kind != tokenString {
		return r, false
	}
	r.arg, r.hasArg = t.text, true
	r.force = p.accept("force")
	return r, true
}

// name takes one name, which is folded to lower case as PostgreSQL folds it.
func (p *parser) name(r request) (request, bool) {
	t, ok := p.next()
	if !ok || t.kind != tokenWord && t.kind != tokenQuoted {
		return r, false
	}
	r.name = t.text
	if t.kind == tokenWord {
		r.name = strings.ToLower(r.name)
	}
	return r, true
}

func (p *parser) show(r request) (request, bool) {
	switch {
	case p.accept("transaction"):
		r.name = "transaction_isolation"
		return r, p.accept("isolation") && p.accept("level")
	case p.accept("time"):
		r.name = "timezone"
		return r, p.accept("zone")
	}
	r, ok := p.name(r)
	if !ok || len(p.rest) == 0 || !p.selects() {
		return r, ok
	}
	r.rows, p.err = p.selection()
	return r, p.err == nil
}

// selects reports whether a word follows that begins a selection; what else is there makes no command.
func (p *parser) selects() bool {
	return slices.ContainsFunc([]string{"where", "order", "limit", "offset"}, p.rest[0].is)
}

// set parses SET [SESSION | LOCAL] name {= | TO} value and SET TIME ZONE value.
func (p *parser) set(r request) (request, bool) {
	if !p.accept("session") {
		p.accept("local")
	}
	if p.accept("time") {
		if !p.accept("zone") {
			return r, false
		}
		r.name = "timezone"
		return p.value(r)
	}
	r, ok := p.name(r)
	if !ok {
		return r, false
	}
	if t, more := p.next(); !more || t.kind != tokenEquals && !t.is("to") {
		return r, false
	}
	return p.value(r)
}

// value takes a list of values, kept as one text.
func (p *parser) value(r request) (request, bool) {
	var parts []string
	for {
		t, ok := p.next()
		if !ok || !t.named() {
			return r, false
		}
		parts = append(parts, t.text)
		if len(p.rest) == 0 || p.rest[0].kind != tokenComma {
			break
		}
		p.rest = p.rest[1:]
	}
	r.arg, r.hasArg = strings.Join(parts, ", "), true
	return r, true
}

// optional takes one name as it is written, or none: databases are told apart
// by case, and PgBouncer folds nothing.
func (p *parser) optional(r request) (request, bool) {
	t, ok := p.next()
	if !ok {
		return r, true
	}
	if !t.named() {
		return r, false
	}
	r.arg, r.hasArg = t.text, true
	return r, true
}
