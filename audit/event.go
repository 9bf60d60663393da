package audit

import (
	"context"
	"log/slog"
	"time"

	"shardproxy/tally"
)

// The outcomes of what is told of.
const (
	Done    = "done"
	Failed  = "failed"
	Refused = "refused" // nothing has been tried
	Unknown = "unknown" // it was under way when its session, or its server, went
	Begun   = "begun"   // of orders: another line tells how it ended
)

// Session is whose doing an event is.
type Session struct {
	// Number is the session's, as SHOW CLIENTS has it; 0 for none.
	Number                 uint64
	User, Database, Client string
}

func (s *Session) attrs() []slog.Attr {
	all := make([]slog.Attr, 0, 16)
	if s.Number != 0 {
		all = append(all, slog.Uint64("session", s.Number))
	}
	return text(text(text(all, "user", s.User), "database", s.Database), "client", s.Client)
}

// Login is somebody's coming, or being turned away.
type Login struct {
	Session
	By       string // method of the rule; "" when none had been found
	TLS      string // version; "" for none
	App      string // application_name, as the client says
	Outcome  string // Done or Refused
	SQLState string
	Reason   string // why not
	Console  bool   // it is one of operators
}

// HasLogins reports whether logins are written down.
func (l *Log) HasLogins() bool { return l.has(logins) }

// Login writes a login down, if logins are.
func (l *Log) Login(e *Login) {
	if !l.has(logins) {
		return
	}
	a := text(text(text(e.attrs(), "method", e.By), "tls", e.TLS), "application", e.App)
	if e.Console {
		a = append(a, slog.Bool("console", true))
	}
	a = append(a, slog.String("outcome", e.Outcome))
	l.write(eventLogin, text(text(a, "sqlstate", e.SQLState), "reason", e.Reason))
}

// Logout writes the end of a session down that a Login has begun.
func (l *Log) Logout(s *Session, lasted time.Duration) {
	if l.has(logins) {
		l.write(eventLogout, append(s.attrs(), slog.Float64("lasted_s", lasted.Round(time.Millisecond).Seconds())))
	}
}

// Order is what an operator wants done, or what became of that.
type Order struct {
	Session
	By       string // console, http or signal
	Text     string // the command, without what is secret
	Outcome  string
	SQLState string
	Reason   string // why it was refused or has failed
	Said     string // what was answered
	Took     time.Duration
}

// Order writes an order down, if orders are.
func (l *Log) Order(e *Order) {
	if !l.has(orders) {
		return
	}
	a := append(text(e.attrs(), "by", e.By), slog.String("order", e.Text), slog.String("outcome", e.Outcome))
	a = text(text(text(a, "sqlstate", e.SQLState), "reason", e.Reason), "said", e.Said)
	if e.Outcome != Begun && e.Outcome != Refused {
		a = append(a, slog.Float64("took_ms", float64(e.Took.Microseconds())/1000))
	}
	l.write(eventOrder, a)
}

// Statement is a statement that is over.
type Statement struct {
	Session
	Does        tally.Does
	Text        string // without values; "" when it was not understood
	Fingerprint string
	Outcome     string
	SQLState    string
	Rows        int64
	Shards      string // their names, with commas between
	Kept        bool   // its answer was one that the proxy had kept
}

// Wants reports whether statements that do any of this are written down. A nil Log wants none.
func (l *Log) Wants(d tally.Does) bool {
	return l != nil && l.wanted.Load()>>statementBits&uint32(d) != 0
}

// Statement writes a statement down, if those that do what it does are.
func (l *Log) Statement(e *Statement) {
	if !l.Wants(e.Does) {
		return
	}
	a := append(e.attrs(), slog.Any("does", e.Does.Words()), slog.String("outcome", e.Outcome))
	a = text(a, "sqlstate", e.SQLState)
	if e.Outcome == Done {
		a = append(a, slog.Int64("rows", e.Rows))
	}
	a = text(a, "shards", e.Shards)
	if e.Kept {
		a = append(a, slog.Bool("kept", true))
	}
	a = text(a, "fingerprint", e.Fingerprint)
	if l.has(texts) {
		a = text(a, "statement", e.Text)
	}
	l.write(eventStatement, a)
}

// text adds an attribute unless it is empty.
func text(all []slog.Attr, key, value string) []slog.Attr {
	if value == "" {
		return all
	}
	return append(all, slog.String(key, value))
}

// event is what a line tells of.
type event uint8

const (
	eventLogin event = iota
	eventLogout
	eventOrder
	eventStatement
	eventMissing
)

// Events returns the words that "event" has in lines.
func Events() []string { return []string{"login", "logout", "order", "statement", "missing"} }

// write writes one line down.
func (l *Log) write(of event, attrs []slog.Attr) {
	r := slog.NewRecord(time.Now(), slog.LevelInfo, Events()[of], 0)
	r.AddAttrs(attrs...)
	if l.handler.Handle(context.Background(), r) == nil {
		l.counts[of].Add(1)
	}
}

// ownKeys makes a record's own attributes those of our lines.
func ownKeys(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.LevelKey:
		return slog.Attr{}
	case slog.MessageKey:
		a.Key = "event"
	case slog.TimeKey:
		if a.Value.Kind() == slog.KindTime {
			a.Value = slog.StringValue(a.Value.Time().UTC().Format("2006-01-02T15:04:05.000000Z"))
		}
	}
	return a
}
