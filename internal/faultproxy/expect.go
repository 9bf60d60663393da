package faultproxy

import (
	"slices"
	"sync"
)

// expectations follows what the server still has to answer on a connection,
// so that an error of ours can be put at its right place in the answers.
type expectations struct {
	mu       sync.Mutex
	changed  sync.Cond // signalled when the queue shrinks or ends
	queue    []byte    // one entry per answer owed; see the constants
	skipping bool      // the server ignores everything up to Sync
	status   byte      // of the last ReadyForQuery
	ended    bool
}

// Entries of the queue are the client's type bytes P, B, C, D, E, S; readyOwed
// stands for messages that ReadyForQuery alone completes.
const readyOwed = 'Z'

func newExpectations() *expectations {
	e := &expectations{status: 'I'}
	e.changed.L = &e.mu
	return e
}

// sent notes a message that goes to the server.
func (e *expectations) sent(kind byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.skipping && kind != 'S' {
		return
	}
	switch kind {
	case Startup, 'Q', 'F':
		e.queue = append(e.queue, readyOwed)
	case 'P', 'B', 'C', 'D', 'E':
		e.queue = append(e.queue, kind)
	case 'S':
		e.skipping = false
		e.queue = append(e.queue, 'S')
	}
}

// completes says which entry a message of the server answers.
func completes(kind byte) string {
	switch kind {
	case '1':
		return "P"
	case '2':
		return "B"
	case '3':
		return "C"
	case 'T', 'n':
		return "D"
	case 'C', 'I', 's':
		return "E"
	case 'Z':
		return "ZS"
	}
	return ""
}

// received notes a message that came from the server.
func (e *expectations) received(m message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.changed.Broadcast()
	if m.kind == 'Z' && len(m.body) == 1 {
		e.status = m.body[0]
	}
	if len(e.queue) == 0 {
		return
	}
	head := e.queue[0]
	switch {
	case slices.Contains([]byte(completes(m.kind)), head):
		e.queue = e.queue[1:]
	case m.kind == 'E' && head != readyOwed && head != 'S':
		// An error in a batch: nothing more is answered up to its Sync.
		if sync := slices.Index(e.queue, 'S'); sync >= 0 {
			e.queue = e.queue[sync:]
		} else {
			e.queue, e.skipping = nil, true
		}
	}
}

// owed reports whether the server still has to answer something.
func (e *expectations) owed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.queue) > 0
}

// waitQuiet waits until the server has answered everything. It returns the
// status of the last ReadyForQuery, whether the server ignores what comes up
// to Sync, and false when the connection ended.
func (e *expectations) waitQuiet() (status byte, skipping, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.queue) > 0 && !e.ended {
		e.changed.Wait()
	}
	return e.status, e.skipping, !e.ended
}

// end wakes who waits: the connection is over.
func (e *expectations) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	e.changed.Broadcast()
}
