package proxy

import (
	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
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
	// inCopy is set for a Sync sent while the server may have been in copy-in mode;
	// afterData if copy data was sent between the request and it.
	inCopy, afterData bool
	// unnamed is set for the client's Parse of the unnamed statement, restores
	// for ours that brings it back.
	unnamed, restores bool
	// ask is what the request is that a Query or Sync of the client's ends.
	ask ask
	// done counts the commands of a simple query that are complete.
	done int
	// about is the named statement that the request uses, for error texts.
	about *preparedStatement
	// shape is that of the statement that a Describe asks about, nil when it is
	// not kept.
	shape *shape
	token uint64 // that of shape then
	// supplied is how many parameters of the statement that a Describe asks about the
	// client does not know.
	supplied uint16
	// again is a statement that was parsed once more because a DEALLOCATE ALL
	// ahead of it takes it away.
	again *pool.Statement
	// injected is the server statement that a swallowed Parse makes.
	injected *pool.Statement
	// tag replaces the command tag of the server's answer; for a Parse it is the
	// whole answer, for the client sent a PREPARE.
	tag string
	// instead is what the client is told when the server refuses the request,
	// which was sent such that it must.
	instead *wire.Error
	// shift is how many characters the client's text has more than what was sent
	// ahead of the place where they differ.
	shift int
	// above is a row of our own that the client gets ahead of the first of the answer.
	above string
	// limit is that of an Execute.
	limit int64
	// spliced is set for a text of several commands that was not sent as it came.
	spliced *splicedText
}

// purpose distinguishes the queries that the session itself sends.
type purpose uint8

const (
	forClient purpose = iota
	forSettings
	forReset
	forAudit
	forSequences
	forPrivate
	forOwn
	forShape // see compare
	forBegin // see enlist
	forMark  // see marksAgain
	forRetry // the rest of an answer that is not wanted any more
)

// expects is the queue of replies owed, first in first out. It keeps its
// storage, so that a steady session allocates nothing.
type expects struct {
	items []expect
	head  int
	// barriers counts the entries whose outcome decides what later requests mean:
	// the next request waits for them.
	barriers int
	// unnamed counts the Parses of the unnamed statement.
	unnamed int
	// pushed counts all entries there ever were; flushed is its value when a Flush
	// was sent because the next frame depends on the outcome.
	pushed, flushed uint64
	// altering counts the entries behind which texts may mean something else.
	altering int
}

func (q *expects) empty() bool { return q.head == len(q.items) }

func (q *expects) len() int { return len(q.items) - q.head }

func (q *expects) push(e expect) {
	if q.head > 64 && q.head > len(q.items)/2 {
		// Never empty, it would grow for ever.
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, e)
	q.pushed++
	if e.decides() {
		q.barriers++
	}
	if e.unnamed {
		q.unnamed++
	}
	if e.alters() {
		q.altering++
	}
}

// drop takes the i-th item out of the counts and clears it.
func (q *expects) drop(i int) expect {
	e := q.items[i]
	q.items[i] = expect{}
	if e.decides() {
		q.barriers--
	}
	if e.unnamed {
		q.unnamed--
	}
	if e.alters() {
		q.altering--
	}
	return e
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
		e := q.drop(i)
		f(&e)
	}
	q.items, q.head = q.items[:0], 0
}

// failSegment removes the entries before the next Sync, newest first, calling f
// for each: a server skips all of them after an error in the extended protocol,
// queries and function calls too. It reports whether there is such a Sync.
func (q *expects) failSegment(f func(*expect)) bool {
	end := q.head
	for end < len(q.items) && q.items[end].kind != expectSync {
		end++
	}
	for i := end - 1; i >= q.head; i-- {
		e := q.drop(i)
		f(&e)
	}
	q.head = end
	if end < len(q.items) {
		return true
	}
	q.items, q.head = q.items[:0], 0
	return false
}

// failRequest removes the entries that a failure of the front one takes with it:
// of a query or function call none, of others what failSegment removes.
func (q *expects) failRequest(f func(*expect)) bool {
	return q.front().ends() || q.failSegment(f)
}

// failsWith has the client told e by the next EXECUTE of a statement of its own.
func (q *expects) failsWith(e *wire.Error) {
	for i := q.head; i < len(q.items); i++ {
		if x := &q.items[i]; x.kind == expectQuery && x.about != nil {
			x.instead = e
			return
		}
	}
}

// anyEnds reports whether a ReadyForQuery is owed.
func (q *expects) anyEnds() bool {
	for i := q.head; i < len(q.items); i++ {
		if q.items[i].ends() {
			return true
		}
	}
	return false
}

// queryDecides reports whether a simple query is owed at or before which the
// outcome of something decides what later requests mean.
func (q *expects) queryDecides() bool {
	decides := false
	for i := q.head; i < len(q.items); i++ {
		e := &q.items[i]
		decides = decides || e.decides()
		if decides && (e.kind == expectQuery || e.kind == expectFunction) {
			return true
		}
	}
	return false
}

// dropInCopy removes the Syncs that a server in copy-in mode has ignored.
func (q *expects) dropInCopy() {
	kept := q.items[:q.head]
	for i := q.head; i < len(q.items); i++ {
		if !q.items[i].inCopy {
			kept = append(kept, q.items[i])
		}
	}
	clear(q.items[len(kept):])
	q.items = kept
}

// last returns the newest entry.
func (q *expects) last() *expect {
	if q.empty() {
		return nil
	}
	return &q.items[len(q.items)-1]
}

func (q *expects) pop() expect {
	e := q.drop(q.head)
	q.head++
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
// then only the Syncs ahead of that end go, and its mark. Of Syncs behind data
// nothing is known before the data's fate is: kept counts them.
func (q *expects) enterCopy() (ended bool, kept int) {
	out := q.items[:q.head+1]
	i := len(out)
	for i < len(q.items) && q.items[i].kind == expectSync {
		e := q.items[i]
		i++
		if kept > 0 || e.afterData {
			e.inCopy = true
			kept++
			out = append(out, e)
		}
	}
	if i < len(q.items) && q.items[i].kind == expectCopyEnd {
		ended = true
		i++
	}
	n := len(out) + copy(q.items[len(out):], q.items[i:])
	clear(q.items[n:])
	q.items = q.items[:n]
	return ended, kept
}

// decides reports whether requests behind this one's Sync must wait for its
// outcome: it makes or removes a statement, or changes the session's state.
func (e *expect) decides() bool {
	if e.statement != nil || e.prev != nil || e.injected != nil || e.purpose != forClient {
		return true
	}
	return e.plan != nil && !e.plan.Simple && changesSession(e.plan)
}

// alters reports whether texts behind the request may mean something else than
// before it: other settings are in force, or other objects there.
func (e *expect) alters() bool {
	switch {
	case e.kind != expectExecute && e.kind != expectQuery && e.kind != expectFunction || e.purpose != forClient || e.mode != relay:
		return false
	case e.plan == nil:
		return true
	}
	return !e.plan.Simple && e.plan.Effects&altersMeaning != 0
}

// altersMeaning are the effects of what may change the meaning of texts.
const altersMeaning = query.EffectSetting | query.EffectCatalog | query.EffectTemp | query.EffectUnknown

// changesSession reports whether running the plan may change what the session
// must carry to its next server connection.
func changesSession(p *router.Plan) bool {
	if p.Effects&(query.EffectSetting|query.EffectPrepared) != 0 {
		return true
	}
	c := p.Single
	return c == nil || c.Kind == query.KindDiscard || c.Kind == query.KindRollbackTo || c.Kind == query.KindRelease ||
		c.Kind == query.KindSavepoint
}

// command returns the command whose CommandComplete has come, nil when it is
// not known, and goes on to the next.
func (e *expect) command() *query.Command {
	if e.plan.Single != nil {
		return e.plan.Single
	}
	all := e.plan.Statement.Commands
	if e.done >= len(all) {
		return nil
	}
	e.done++
	return &all[e.done-1]
}

// replacedBy returns the tag that the client gets for the i-th command, "" when
// it gets the server's.
func (e *expect) replacedBy(i int) string {
	if e.spliced != nil && i < len(e.spliced.tags) {
		return e.spliced.tags[i]
	}
	return e.tag
}

// writes reports whether the request is one of the client's that may have written.
func (e *expect) writes() bool {
	switch e.kind {
	case expectQuery, expectExecute, expectFunction:
		return e.mode == relay && (e.plan == nil || e.plan.MayWrite)
	}
	return false
}

// acts reports whether the request is one of the client's that runs something.
func (e *expect) acts() bool {
	return e.mode == relay && (e.kind == expectQuery || e.kind == expectExecute || e.kind == expectFunction)
}

// ends reports whether the reply is a ReadyForQuery in the end.
func (e *expect) ends() bool {
	return e.kind == expectSync || e.kind == expectQuery || e.kind == expectFunction
}

// hasRows reports whether rows or copy data may answer the request.
func (e *expect) hasRows() bool { return e.kind == expectQuery || e.kind == expectExecute }

// streams reports whether a frame of the kind, one of those that are relayed as
// they come, may answer the request.
func (e *expect) streams(kind byte) bool {
	switch kind {
	case wire.MsgRowDescription:
		return e.kind == expectQuery || e.kind == expectDescribe
	case wire.MsgParameterDescription:
		return e.kind == expectDescribe
	case wire.MsgFunctionCallResponse:
		return e.kind == expectFunction
	}
	return e.hasRows()
}
