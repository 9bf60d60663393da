package faultproxy

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"shardproxy/wire"
)

// Rule says at which message what happens. Matches are counted over all
// connections, from the moment the rule is added.
type Rule struct {
	From  Direction // who sends the message
	Kind  byte      // its type byte, or Startup, ...; Any (0) for every one
	Text  string    // when set: the body's first 64 KiB hold this text
	Conn  int       // when set: on the n-th accepted connection only, from 1
	Nth   int       // the n-th match fires; 0 means 1
	Every bool      // and all matches after it
	After bool      // pass the message on first, then act
	Do    Action    // the zero value passes the message on: only notice it
}

// Action is what happens at a message.
type Action struct {
	what   deed
	length int
	err    *wire.Error
	call   func()
	text   string
}

type deed int

const (
	deedPass deed = iota
	deedKill
	deedClose
	deedHold
	deedTruncate
	deedDrop
	deedAnswer
	deedCall
	deedReplace
)

// Kill resets both connections (RST), as when a machine dies.
func Kill() Action { return Action{what: deedKill} }

// CloseConn ends both connections politely (FIN), as when a process exits.
func CloseConn() Action { return Action{what: deedClose} }

// Hold keeps the message, and all after it in its direction, until
// Trigger.Release.
func Hold() Action { return Action{what: deedHold} }

// Truncate passes the first n bytes of the frame on, type and length word
// included, and then ends both connections politely.
func Truncate(n int) Action { return Action{what: deedTruncate, length: n} }

// Drop swallows the message.
func Drop() Action { return Action{what: deedDrop} }

// Call runs f and then goes on with the message. While f runs nothing more
// goes in the message's direction on its connection.
func Call(f func()) Action { return Action{what: deedCall, call: f} }

// Replace passes the message on with another text in the place of the rule's Text, wherever
// that stands in its first 64 KiB: a side that lies.
func Replace(text string) Action { return Action{what: deedReplace, text: text} }

// Answer puts an error in the message's place. A message of the server is
// replaced by the error. A message of the client never reaches the server: the
// client gets the error when the server has answered everything before it,
// the rest up to Sync is swallowed as a server does after an error, and the
// server, which saw no error, says in its ReadyForQuery what it holds for
// true. A fatal error also ends the connections. For the client's direction
// the rule's Kind must be Startup or one of Q, F, P, B, D, E, C.
func Answer(err *wire.Error) Action { return Action{what: deedAnswer, err: err} }

// answerable are the client's messages that a server answers.
const answerable = "QFPBDEC"

// check refuses rules that cannot be carried out.
func (r Rule) check() error {
	if r.Do.what == deedAnswer {
		if r.Do.err == nil {
			return fmt.Errorf("faultproxy: Answer without an error")
		}
		if r.From == FromClient && r.Kind != Startup && (r.Kind == Any || !strings.ContainsRune(answerable, rune(r.Kind))) {
			return fmt.Errorf("faultproxy: %s of the client cannot be answered with an error", kindName(r.Kind))
		}
		if r.After {
			return fmt.Errorf("faultproxy: Answer takes the message's place: After makes no sense")
		}
	}
	if r.Do.what == deedReplace && (r.Text == "" || r.After) {
		return fmt.Errorf("faultproxy: Replace is of a Text, in a message that is not passed on yet")
	}
	if r.After && (r.Do.what == deedDrop || r.Do.what == deedTruncate) {
		return fmt.Errorf("faultproxy: Drop and Truncate come before the message is passed on: After makes no sense")
	}
	return nil
}

// Trigger is a rule at work.
type Trigger struct {
	rule  Rule
	fired chan struct{} // closed at the first firing
	free  chan struct{} // closed by Release

	mu      sync.Mutex
	matches int
	removed bool
}

// Fired is closed when the rule has fired for the first time, before its
// action begins.
func (t *Trigger) Fired() <-chan struct{} { return t.fired }

// Release lets held messages go on, and those that would be held later pass.
// It may be called again.
func (t *Trigger) Release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.free:
	default:
		close(t.free)
	}
}

// Matches returns how many messages the rule has matched until now, fired or
// not.
func (t *Trigger) Matches() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.matches
}

// Remove takes the rule out of work and releases what it holds.
func (t *Trigger) Remove() {
	t.mu.Lock()
	t.removed = true
	t.mu.Unlock()
	t.Release()
}

// fires counts a message and says whether the rule fires at it.
func (t *Trigger) fires(from Direction, conn int, m message) bool {
	r := t.rule
	if r.From != from || (r.Kind != Any && r.Kind != m.kind) || (r.Conn != 0 && r.Conn != conn) {
		return false
	}
	if r.Text != "" && !bytes.Contains(m.body, []byte(r.Text)) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed {
		return false
	}
	t.matches++
	nth := max(r.Nth, 1)
	if t.matches < nth || (t.matches > nth && !r.Every) {
		return false
	}
	if t.matches == nth {
		close(t.fired)
	}
	return true
}
