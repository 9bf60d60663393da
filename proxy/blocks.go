package proxy

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// Block is a statement that a database does not run, whoever sends it.
type Block struct {
	// Fingerprint is the hash of query.FingerprintOf.
	Fingerprint uint64
	// Text is the normalised text; "" when only the fingerprint was given.
	Text string
	// By names who wants it so, "" for the configuration.
	By string
	// Since is when it was blocked, Until when that ends; zero: never.
	Since, Until time.Time
	// Refused counts the requests that were refused for it.
	Refused int64
}

// block is one entry of the list. All but refused is read-only.
type block struct {
	Block
	why     *wire.Error
	refused atomic.Int64
}

// blocks are the blocked statements of a database. Sessions read the map that byPrint
// points to, which never changes; it is nil while nothing is blocked, so that a
// statement pays one load then.
type blocks struct {
	byPrint atomic.Pointer[map[uint64]*block]

	mu                  sync.Mutex
	ordered, configured map[uint64]*block
}

// blockMax bounds the statements that operators can block in a database.
const blockMax = 1000

// errBlockMax is what an operator is told who blocks too many.
var errBlockMax = wire.Errorf("54000", "too many statements are blocked").WithDetail("The limit is %d for each database.", blockMax)

// Block refuses the statement from now on, in this process; one that is blocked by an
// order already gets the new bounds. The error is a *wire.Error.
func (d *Database) Block(b Block) error {
	d.blocks.mu.Lock()
	defer d.blocks.mu.Unlock()
	old := d.blocks.ordered[b.Fingerprint]
	if old == nil && len(d.blocks.ordered) >= blockMax {
		return errBlockMax
	}
	next := newBlock(b)
	if old != nil {
		next.refused.Store(old.refused.Load())
	}
	if d.blocks.ordered == nil {
		d.blocks.ordered = map[uint64]*block{}
	}
	d.blocks.ordered[b.Fingerprint] = next
	d.blocks.publishLocked()
	return nil
}

// Unblock takes back what Block did; found is false when it did nothing. What the
// configuration blocks stays blocked.
func (d *Database) Unblock(f uint64) (found bool) {
	d.blocks.mu.Lock()
	defer d.blocks.mu.Unlock()
	_, found = d.blocks.ordered[f]
	delete(d.blocks.ordered, f)
	d.blocks.publishLocked()
	return found
}

// SetBlocks replaces what the configuration blocks. What operators have blocked stays.
func (d *Database) SetBlocks(all []Block) {
	d.blocks.mu.Lock()
	defer d.blocks.mu.Unlock()
	now := make(map[uint64]*block, len(all))
	for _, b := range all {
		if now[b.Fingerprint] = newBlock(b); d.blocks.configured[b.Fingerprint] != nil {
			now[b.Fingerprint] = d.blocks.configured[b.Fingerprint]
		}
	}
	d.blocks.configured = now
	d.blocks.publishLocked()
}

// Blocks lists the blocked statements, those of the configuration first, each by age.
func (d *Database) Blocks() (all []Block) {
	d.blocks.mu.Lock()
	defer d.blocks.mu.Unlock()
	for _, of := range []map[uint64]*block{d.blocks.configured, d.blocks.ordered} {
		from := len(all)
		for _, b := range of {
			one := b.Block
			one.Refused = b.refused.Load()
			all = append(all, one)
		}
		slices.SortFunc(all[from:], func(a, b Block) int {
			return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Fingerprint, b.Fingerprint))
		})
	}
	return all
}

// expire lets statements run again whose time is over.
func (b *blocks) expire(now time.Time) {
	if b.byPrint.Load() == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	before := len(b.ordered)
	maps.DeleteFunc(b.ordered, func(_ uint64, one *block) bool { return !one.Until.IsZero() && !now.Before(one.Until) })
	if len(b.ordered) != before {
		b.publishLocked()
	}
}

// publishLocked shows sessions the list as it is now. An order stands before the
// configuration: it says who and until when.
func (b *blocks) publishLocked() {
	if len(b.ordered)+len(b.configured) == 0 {
		b.byPrint.Store(nil)
		return
	}
	all := maps.Clone(b.configured)
	if all == nil {
		all = map[uint64]*block{}
	}
	maps.Copy(all, b.ordered)
	b.byPrint.Store(&all)
}

// newBlock returns an entry with what clients are told.
func newBlock(b Block) *block {
	e := &block{Block: b}
	why := wire.Errorf("42501", "the statement is blocked by an operator")
	stamp := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }
	switch {
	case b.By == "":
		why = why.WithDetail("Fingerprint %s, blocked by the configuration since %s.", query.FingerprintName(b.Fingerprint), stamp(b.Since)).
			WithHint("The operator lets it run again by a change of databases.<name>.blocks and RELOAD.")
	case b.Until.IsZero():
		why = why.WithDetail("Fingerprint %s, blocked by %s since %s, until UNBLOCK.", query.FingerprintName(b.Fingerprint), b.By, stamp(b.Since)).
			WithHint("Ask the operator; UNBLOCK FINGERPRINT '%s' on the console lets it run again.", query.FingerprintName(b.Fingerprint))
	default:
		why = why.WithDetail("Fingerprint %s, blocked by %s since %s, until %s.", query.FingerprintName(b.Fingerprint), b.By, stamp(b.Since), stamp(b.Until)).
			WithHint("Try again after %s, or ask the operator.", stamp(b.Until))
	}
	e.why = why.WithCause(blockedError{e})
	return e
}

// blockedError carries the entry of the list in the cause of an error.
type blockedError struct{ of *block }

func (e blockedError) Error() string { return "blocked " + query.FingerprintName(e.of.Fingerprint) }

// countBlock counts an error that a client is told of, if a block is its cause.
func countBlock(e *wire.Error) {
	if be := (blockedError{}); errors.As(e, &be) {
		be.of.refused.Add(1)
	}
}

// plan plans one text under the session's state. It may wait when the text is
// long and new; the text must not move meanwhile.
func (s *session) plan(text []byte) *router.Plan {
	p := s.planned(text)
	s.writesBy(p)
	if all := s.db.blocks.byPrint.Load(); all != nil {
		return s.unlessBlocked(*all, p, text)
	}
	return p
}

// unlessBlocked returns the plan, or one that is refused when a command of its text is
// blocked, a PREPARE of what is, or an EXECUTE of the session's statement whose text is.
func (s *session) unlessBlocked(all map[uint64]*block, p *router.Plan, text []byte) *router.Plan {
	if by := s.blockOf(all, text); by != nil && !endsOnly(p) {
		return p.Blocked(by.why)
	}
	if p.Statement == nil {
		return p
	}
	for i := range p.Statement.Commands {
		c := &p.Statement.Commands[i]
		switch c.Kind {
		case query.KindExecute:
			if st := s.statements[c.Target]; st != nil && st.shared != nil {
				if by := s.blockOf(all, st.shared.Text()); by != nil {
					return p.Blocked(by.why)
				}
			}
		case query.KindPrepare:
			if by := s.blockPrepared(all, text); by != nil {
				return p.Blocked(by.why)
			}
		}
	}
	return p
}

// blockPrepared returns what blocks a statement that a PREPARE of the text carries, nil for nothing. Not all that is prepared so
// is known when it is executed: in a text of several commands it is not there yet, and one of unknown types only the server knows.
func (s *session) blockPrepared(all map[uint64]*block, text []byte) *block {
	// The plan may be that of another text with other values: its places are not those of this one.
	st := query.Analyze(string(text), s.textOptions())
	for i := range st.Commands {
		c := &st.Commands[i]
		if c.Kind != query.KindPrepare || c.BodyEnd <= c.BodyStart {
			continue
		}
		if by := s.blockOf(all, text[c.BodyStart:c.BodyEnd]); by != nil {
			return by
		}
	}
	return nil
}

// blockedAhead refuses a request whose first statement is blocked before it waits for a
// server.
func (s *session) blockedAhead(n *need, p *router.Plan) {
	if e := p.BlockedBy(); e != nil && n.err == nil {
		n.err = e
	}
}

// expireBlocks lets statements run again whose time is over.
func (srv *Server) expireBlocks(now time.Time) {
	for _, db := range srv.settings.Load().Databases {
		db.blocks.expire(now)
	}
}

// endsOnly reports whether a text holds nothing but commands without which clients get stuck: their fingerprints
// may be on the list, for they say nothing of what they are of.
func endsOnly(p *router.Plan) bool {
	if p.Statement == nil || p.Statement.Opaque || len(p.Statement.Commands) == 0 {
		return false
	}
	return !slices.ContainsFunc(p.Statement.Commands, func(c query.Command) bool {
		switch c.Kind {
		case query.KindBegin, query.KindCommit, query.KindRollback, query.KindSavepoint, query.KindRelease, query.KindRollbackTo, query.KindPrepareTx,
			query.KindDeallocate, query.KindDiscard, query.KindClose, query.KindUnlisten:
			return false
		}
		return true
	})
}

// blockOf returns what blocks a text, nil for nothing.
func (s *session) blockOf(all map[uint64]*block, text []byte) *block {
	o := s.textOptions()
	// A text of several commands has a fingerprint of its own, too, by which SHOW QUERIES lists it.
	if by := all[query.FingerprintOf(text, o).Hash]; by != nil || bytes.IndexByte(text, ';') < 0 {
		return by
	}
	for _, span := range query.Split(text) {
		if by := all[query.FingerprintOf(text[span.Start:span.End], o).Hash]; by != nil {
			return by
		}
	}
	return nil
}

// Blockable returns the statement that an operator names by its text or, when it is one,
// its fingerprint: a Block without By and times. The error, a *wire.Error, says why it cannot be blocked.
func Blockable(statement string) (Block, error) {
	if f, ok := ParseFingerprint(statement); ok {
		return Block{Fingerprint: f}, nil
	}
	spans := query.Split([]byte(statement))
	switch len(spans) {
	case 0:
		return Block{}, wire.Errorf("42601", "there is no statement to block")
	case 1:
	default:
		return Block{}, wire.Errorf("42601", "statements are blocked one by one").WithHint("A text of several commands is refused when one of them is blocked.")
	}
	f := query.FingerprintOf([]byte(statement[spans[0].Start:spans[0].End]), query.Options{})
	word, _, _ := strings.Cut(f.Text, " ")
	switch {
	case strings.HasPrefix(f.Text, "("), strings.Contains(f.Text, "(not understood)"):
		return Block{}, wire.Errorf("42601", "the statement is not understood").WithHint("Its fingerprint would be that of others, too.")
	case slices.Contains(endless, word):
		return Block{}, wire.Errorf("0A000", "%s cannot be blocked", strings.ToUpper(word)).WithHint("Clients could not end their transactions, or what they have prepared.")
	}
	return Block{Fingerprint: f.Hash, Text: f.Text}, nil
}

// ParseFingerprint reads a fingerprint as operators see it; ok is false for any other text.
func ParseFingerprint(text string) (hash uint64, ok bool) {
	hash, err := strconv.ParseUint(text, 16, 64)
	return hash, err == nil && len(text) == 16 && text[0] != '+'
}

// endless are the commands without which clients get stuck.
var endless = []string{"begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "prepare", "deallocate", "discard", "close", "unlisten"}
