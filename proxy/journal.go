package proxy

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"shardproxy/pool"
	"shardproxy/wire"
)

// Journal notes statements that PostgreSQL runs in several transactions of its own
// before they run, and what came of them on each shard; ddl.Journal does.
type Journal interface {
	// Begin notes a statement that is about to run. The error is a *wire.Error:
	// nothing is to be run then.
	Begin(ctx context.Context, st JournalStatement) (JournalRun, error)
}

// JournalStatement is a statement and what its meaning depends on.
type JournalStatement struct {
	Text             string
	Role, SearchPath string
	// Settings are those of JournalSettings.
	Settings map[string]string
}

// JournalRun is a statement that is under way. Its methods may not be called at once.
type JournalRun interface {
	// ID is the statement's number in the journal.
	ID() int64
	// Text is what is to be run: the statement, with a name for its index.
	Text() string
	// Shards are the places of the shards where it is to be run, in this order.
	Shards() []int
	// Start notes that a shard is sent the statement; without it nothing may be.
	Start(ctx context.Context, shard int) error
	// End notes what came of it: e is nil when it was done, lost is set when nobody
	// knows. left reports whether something is left to be done or undone.
	End(ctx context.Context, shard int, e *wire.Error, lost bool) (left bool, err error)
	// Close ends the run, finished or not.
	Close()
}

// JournalSettings returns the settings by which the text of a definition is read.
func JournalSettings() []string {
	return []string{"DateStyle", "IntervalStyle", "TimeZone", "lc_monetary", "standard_conforming_strings", "array_nulls",
		"transform_null_equals", "xmloption", "default_tablespace"}
}

// journalled is the course of one statement.
type journalled struct {
	s    *session
	r    *allRequest
	tied bool
	run  JournalRun
	done []string // the shards that have done it
}

// runJournalled runs a command with CONCURRENTLY on one shard after the other, and
// notes in the journal how far it came. The first failure ends it: what is left is to
// be taken up by hand. A session that is tied to its connection to the home shard keeps
// that.
func (s *session) runJournalled(kind byte, size int, r *allRequest) error {
	s.db.stats.statements.Add(1)
	s.noteAsk(nil, scopeSeveral)
	s.tallyBegins(r.plan, nil)
	s.client.Release()
	s.held = false
	j := &journalled{s: s, r: r, tied: s.pinned != ""}
	answer, e, err := j.all(kind)
	if j.run != nil {
		s.task.aside(j.run.Close)
	}
	if err != nil {
		return err
	}
	if j.run != nil { // an index that is not valid changes the catalog, too
		s.catalogChanged, s.catalogMade = true, true
		s.spreadDDL()
	}
	s.forgetPlans()
	return s.answerAll(kind, *r, answer, e)
}

// all begins the statement and runs it on its shards. It returns the first one's answer
// and what the client is told instead, or the error that ends the session.
func (j *journalled) all(kind byte) (first pool.Answer, e *wire.Error, err error) {
	if e, err = j.begin(); e != nil || err != nil {
		return first, e, err
	}
	frames := j.frames(kind)
	for n, shard := range j.run.Shards() {
		a, e, err := j.one(shard, frames)
		if e != nil || err != nil {
			return pool.Answer{}, e, err
		}
		if j.done = append(j.done, j.s.db.Shards[shard].Name); n == 0 {
			first = a
		}
	}
	return first, nil, nil
}

// begin asks the home shard what the text depends on, and notes the statement.
func (j *journalled) begin() (*wire.Error, error) {
	s := j.s
	text := string(s.values.Text)
	if s.db.Journal == nil {
		return wire.Errorf("0A000", "CONCURRENTLY needs a journal, and there is none"), nil
	}
	if !isUTF8(s.encoding()) && strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) || strings.ContainsRune(text, 0) {
		return wire.Errorf("0A000", "a command with CONCURRENTLY is journalled, and this text is neither ASCII nor UTF-8").
			WithHint("Set client_encoding to UTF8."), nil
	}
	a, lost, err := j.on(0, wire.AppendQuery(nil, journalSQL()))
	switch {
	case lost && j.tied:
		return nil, s.serverLost(err)
	case lost:
		return wire.Errorf("08006", "the connection to a server was lost").WithDetail("Shard %s.", s.db.Shards[0].Name).WithCause(err), nil
	case err != nil:
		return j.ends(err)
	}
	values := firstRow(a.Frames)
	names := JournalSettings()
	if len(values) != 2+len(names) {
		return wire.Errorf("XX000", "the server did not say which settings it has"), nil
	}
	st := JournalStatement{Text: text, Role: values[0], SearchPath: values[1], Settings: map[string]string{}}
	for i, name := range names {
		st.Settings[name] = values[2+i]
	}
	s.task.aside(func() { j.run, err = s.db.Journal.Begin(s.server.ctx, st) })
	if err != nil {
		return wire.AsError(err), nil
	}
	return nil, nil
}

// isUTF8 reports whether a name of an encoding is one of UTF-8's.
func isUTF8(name string) bool {
	plain := strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
	return plain == "utf8" || plain == "unicode"
}

// journalSQL asks for the role and the settings.
func journalSQL() string {
	var b strings.Builder
	b.WriteString("SELECT current_user::pg_catalog.text, pg_catalog.current_setting('search_path')")
	for _, name := range JournalSettings() {
		fmt.Fprintf(&b, ", pg_catalog.current_setting('%s')", name)
	}
	return b.String()
}

// ends tells an error of the statement from one that ends the session.
func (j *journalled) ends(err error) (*wire.Error, error) {
	if err == errEnded || wire.AsError(err).IsFatal() {
		return nil, err
	}
	return wire.AsError(err), nil
}

// frames is the request with the text that is to be run.
func (j *journalled) frames(kind byte) []byte {
	text := j.run.Text()
	switch {
	case text == string(j.s.values.Text):
		return j.r.frames
	case kind == wire.MsgQuery:
		return wire.AppendQuery(nil, text)
	}
	parse := j.r.frames[:frameSize(j.r.frames)]
	_, rest, _ := wire.CString(parse[5:]) // the name
	_, types, _ := wire.CString(rest)
	out := wire.AppendParse(nil, "", append(append([]byte(text), 0), types...))
	return append(out, j.r.frames[len(parse):]...)
}

// one runs the statement on a shard, between two notes.
func (j *journalled) one(shard int, frames []byte) (pool.Answer, *wire.Error, error) {
	s := j.s
	var noted error
	s.task.aside(func() { noted = j.run.Start(s.server.ctx, shard) })
	if noted != nil {
		return pool.Answer{}, j.told(wire.AsError(noted), shard, true), nil
	}
	a, lost, err := j.on(shard, frames)
	var failed *wire.Error
	if err != nil {
		failed = wire.AsError(err)
	}
	var left bool
	s.task.aside(func() {
		// What is known is noted also when the program is about to end.
		left, noted = j.run.End(context.WithoutCancel(s.server.ctx), shard, failed, lost)
	})
	switch {
	case lost && j.tied && shard == s.index:
		e := wire.AsError(s.serverLost(err)) // the session goes with the connection
		return a, nil, j.told(e, shard, true)
	case lost:
		failed = wire.Errorf("08007", "the connection to the server was lost: it is not known whether the statement was executed").WithCause(err)
		return a, j.told(failed, shard, true), nil
	case err != nil:
		if failed, err = j.ends(err); err != nil {
			return a, nil, err
		}
		return a, j.told(failed, shard, left), nil
	case noted != nil:
		return a, j.told(wire.AsError(noted), shard, true), nil
	}
	return a, nil, nil
}

// told is what the client is told of a failure on a shard.
func (j *journalled) told(e *wire.Error, shard int, left bool) *wire.Error {
	told := *e
	told.Detail = strings.TrimSpace(told.Detail + " Shard " + j.s.db.Shards[shard].Name + "; done on: " + listed(j.done) + ".")
	if left {
		told.Hint = strings.TrimSpace(fmt.Sprintf("%s \"shardproxy ddl status\" shows what is done and what is left, \"shardproxy ddl resume %d\" goes on.",
			told.Hint, j.run.ID()))
	}
	return &told
}

// on runs frames on a shard outside of a transaction. lost is set, with the error, when
// they were sent and it is not known what came of them.
func (j *journalled) on(shard int, frames []byte) (a pool.Answer, lost bool, err error) {
	s := j.s
	if !j.tied {
		return j.away(shard, frames)
	}
	if shard == s.index {
		s.setPhase(phaseActive)
		a, err = s.runOn(s.lease, frames, answerMax)
		s.acted = true
		return a, isLost(err), err
	}
	home := s.parkLease()
	a, lost, err = j.away(shard, frames)
	s.spread = &spreadTx{tied: true} // unpark has one
	s.unpark(home)
	s.spread = nil
	return a, lost, err
}

// away does so on a connection that it gives back.
func (j *journalled) away(shard int, frames []byte) (a pool.Answer, lost bool, err error) {
	s := j.s
	if err := s.acquire(need{shard: shard, primary: true}); err != nil {
		return a, false, err
	}
	if e := s.awaitReplies(); e != nil {
		if s.lease != nil {
			s.giveBack(pool.Dead)
		}
		return a, false, e
	}
	s.setPhase(phaseActive)
	if a, err = s.runOn(s.lease, frames, answerMax); isLost(err) {
		s.shard.lost(s.lease.Node, err)
		s.giveBack(pool.Dead)
		return a, true, err
	}
	s.acted = true
	if !j.tied {
		s.transaction('I')
	}
	s.giveBack(pool.Clean)
	return a, false, err
}

// firstRow returns the columns, in text, of the first row of an answer.
func firstRow(frames []byte) (values []string) {
	for ; len(frames) > 0; frames = frames[frameSize(frames):] {
		if frames[0] != wire.MsgDataRow {
			continue
		}
		b := frames[7:frameSize(frames)]
		for len(b) >= 4 {
			n := int(int32(binary.BigEndian.Uint32(b)))
			if b = b[4:]; n < 0 {
				n = 0
			}
			values, b = append(values, string(b[:n])), b[n:]
		}
		return values
	}
	return nil
}
