package main

import (
	"context"
	"slices"
	"time"

	"shardproxy/audit"
	"shardproxy/config"
	"shardproxy/tally"
)

// auditLinger bounds how long what waits is still written down when the program ends.
const auditLinger = 3 * time.Second

// auditOf is what a configuration has written down.
func auditOf(cfg *config.Config) audit.Options {
	a := &cfg.Audit
	o := audit.Options{To: a.File, Logins: a.Logins, Orders: a.Orders, Texts: a.Texts, Memory: int(a.Memory)}
	for i, word := range tally.DoesWords() {
		if slices.Contains(a.Statements, word) {
			o.Statements |= 1 << i
		}
	}
	return o
}

// closeAudit has what waits written down, within bounds.
func (p *program) closeAudit() {
	ctx, cancel := context.WithTimeout(context.Background(), auditLinger)
	defer cancel()
	p.audit.Close(ctx)
}

// begins writes down what a signal orders, or the program's own start.
func (p *program) begins(by, what string) {
	p.audit.Order(&audit.Order{By: by, Text: what, Outcome: audit.Begun})
}

// ordered does what a signal orders, and writes that down before and after.
func (p *program) ordered(what string, do func() error) {
	p.begins("signal", what)
	began := time.Now()
	err := do()
	line := audit.Order{By: "signal", Text: what, Outcome: audit.Done, Took: time.Since(began)}
	if err != nil {
		line.Outcome, line.Reason = audit.Failed, err.Error()
	}
	p.audit.Order(&line)
}
