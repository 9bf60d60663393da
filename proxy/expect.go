package proxy

import (
	"shardproxy/pool"
	"shardproxy/router"
)

// expectKind says which request a reply answers.
type expectKind uint8

const (
	expectParse expectKind = iota
	expectBind
	expectClose
	expectDescribe
	expectExecute
	expectSync
	expectQuery
	expectFunction
	// expectCopyEnd is no reply: it marks where a CopyDone or CopyFail was sent
	// before the server had asked for the data.
	expectCopyEnd
)

// expectMode says what happens to the reply.
type expectMode uint8

const (
	// relay: the client gets the server's reply.
	relay expectMode = iota
	// swallow: the request was ours; the client must not see the reply.
	swallow
	// local: nothing was sent to the server; we answer in its place and turn.
	local
)

// expect is one reply that is owed, in the order of the requests.
type expect struct {
	kind expectKind
	mode expectMode
	// purpose says what an internal query was for.
	purpose purpose
	// plan is what a Query or Execute runs, nil when unknown.
	plan *router.Plan
	// statement is what a Parse made or a Close removed under name; prev is
	// what the name meant before. When the request turns out to have been
	// skipped or refused, the name gets its old meaning back.
	statement *preparedStatement
	prev      *preparedStatement
	name      string
	// injected is the server statement that a swallowed Parse makes.
	injected *pool.Statement
	// tag replaces the command tag of the server's answer.
	tag string
}

// purpose distinguishes the queries that the session itself sends.
type purpose uint8

const (
	forClient purpose = iota
	forSettings
	forAudit
	forRetry // the rest of an answer that is not wanted any more
)

// expects is the queue of replies owed, first in first out. It keeps its
// storage, so that a steady session allocates nothing.
type expects struct {
	items []expect
	head  int
	syncs int // expectSync, expectQuery and expectFunction entries
}

func (q *expects) empty() bool { return q.head == len(q.items) }

func (q *expects) push(e expect) {
	if q.head > 0 && q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	q.items = append(q.items, e)
	if e.ends() {
		q.syncs++
	}
}

// front returns the entry whose reply comes next, nil when nothing is owed.
func (q *expects) front() *expect {
	if q.empty() {
		return nil
	}
	return &q.items[q.head]
}

// clear forgets everything that is owed, newest first, calling f for each.
func (q *expects) clear(f func(*expect)) {
	for i := len(q.items) - 1; i >= q.head; i-- {
		f(&q.items[i])
		q.items[i] = expect{}
	}
	q.items, q.head, q.syncs = q.items[:0], 0, 0
}

// failSegment removes the entries before the next one that ends a request,
// newest first, calling f for each. It reports whether there is such an end.
func (q *expects) failSegment(f func(*expect)) bool {
	end := q.head
	for end < len(q.items) && !q.items[end].ends() {
		end++
	}
	for i := end - 1; i >= q.head; i-- {
		f(&q.items[i])
		q.items[i] = expect{}
	}
	q.head = end
	if end < len(q.items) {
		return true
	}
	q.items, q.head = q.items[:0], 0
	return false
}

// last returns the newest entry.
func (q *expects) last() *expect {
	if q.empty() {
		return nil
	}
	return &q.items[len(q.items)-1]
}

func (q *expects) pop() expect {
	e := q.items[q.head]
	q.items[q.head] = expect{}
	q.head++
	if e.ends() {
		q.syncs--
	}
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > 1024 {
			q.items = nil
		}
	}
	return e
}

// enterCopy removes the Syncs behind the front entry that a server in copy-in
// mode ignores. It reports whether the end of the data has been sent already;
// then only the Syncs ahead of that end go, and its mark.
func (q *expects) enterCopy() (ended bool) {
	at := q.head + 1
	n := at
	for n < len(q.items) && q.items[n].kind == expectSync {
		n++
	}
	q.syncs -= n - at
	if n < len(q.items) && q.items[n].kind == expectCopyEnd {
		ended = true
		n++
	}
	q.items = append(q.items[:at], q.items[n:]...)
	return ended
}

// ends reports whether the reply is a ReadyForQuery in the end.
func (e *expect) ends() bool {
	return e.kind == expectSync || e.kind == expectQuery || e.kind == expectFunction
}
