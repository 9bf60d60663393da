package proxy

import (
	"errors"
	"io"
	"net/netip"
	"sync/atomic"
	"time"
	"unique"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/twopc"
	"shardproxy/wire"
)

// highWater is how many bytes, besides the last piece, may wait for one side before the
// other side is no longer read. It bounds what a stalled peer costs, and is small: what
// waits here was copied, and the kernel's own buffers keep a peer busy meanwhile.
const highWater = 16 << 10

// aheadMax is how many bytes of a client may wait to be looked at, unless one frame has
// more. It must be more than scan reads ahead.
const aheadMax = 256 << 10

// phase says what a session does, for timeouts and for SHOW CLIENTS.
type phase uint32

const (
	phaseIdle     phase = iota // no lease, or pinned and idle outside a transaction
	phaseActive                // replies are owed
	phaseWaiting               // waits for a server connection
	phaseHeld                  // waits at the gate
	phaseIdleInTx              // idle in a transaction
	phaseEnded
)

// Control flags, set by other goroutines.
const (
	controlCancel   = 1 << iota // a cancel request arrived
	controlKill                 // end now
	controlDrain                // end as soon as no transaction is open
	controlTimeout              // the sweeper found a limit passed
	controlNode                 // the node of the lease in abandoned is down
	controlAudit                // the catalog has come: what was kept until then is looked at again
	controlDeadlock             // the statement in doomed is to be cancelled
)

// session is one logged-in client.
type session struct {
	server             *Server
	db                 *Database
	place                      // where the lease is, or the last one was
	places             []place // on each shard; nil in a database of one
	userName           string
	statementMax       int   // bytes of a statement or its parameters; 0: no limit
	resultMax          int64 // bytes of a result; 0: no limit
	mode               Mode
	id                 uint64
	key                wire.CancelKey
	appName            atomic.Pointer[string]
	addr               string
	address            netip.Addr               // not valid on a Unix-domain socket
	throttle           atomic.Pointer[throttle] // nil when nothing bounds it
	keeping            *keeping                 // nil until its database keeps results
	trail              *trail                   // nil but in checked builds
	permits            *heldPermits             // nil when it has none
	started            time.Time
	localAddr, tlsName unique.Handle[string]
	protocol           uint32

	task task
	wake func() // the task's, made once
	// near serves the session's sockets; nil when a goroutine drives it.
	near    *wire.Poller
	resting bool // holds no lease and has nothing to do
	again   bool // the turn ended only to let others have theirs
	more    bool // pumpClient did
	// timer wakes the session when a wait has an end; nil before the first such wait.
	timer     *time.Timer
	watchAll  atomic.Bool // set by the sweeper when the session has waited for long: both sides are watched until there is progress
	control   atomic.Uint32
	abandoned atomic.Uint64 // ID of the lease whose node is down
	phase     atomic.Uint32
	waitEnd   atomic.Int64                 // when a wait in the queue is too long, Unix nanoseconds; 0: none runs
	epochs    epochs                       // of the slot map that it works by
	txMark    atomic.Uint32                // of the transaction that runs on several shards; 0: none does
	doomed    atomic.Pointer[twopc.Victim] // what may be cancelled to end a deadlock
	victim    atomic.Pointer[victim]       // what is, until it has ended
	overtime  atomic.Bool                  // what runs on several shards is cancelled for its time
	asking    asking
	counted   struct{ received, sent uint64 } // of the client's bytes, what its database has counted
	since     atomic.Int64                    // coarse clock at the last change of phase, Unix nanoseconds

	client *wire.Conn
	lease  *pool.Server
	leased atomic.Pointer[pool.Server] // the lease, for SHOW

	// steps counts what was consumed or produced: a turn of the loop that
	// leaves it as it was has nothing to do but park.
	steps uint64

	// Requests.
	open        bool        // frames were forwarded since the last Sync or Query
	replica     bool        // the lease is on a replica
	lostErr     *wire.Error // what to tell of a transaction lost while idle
	uploadVoid  bool        // they are dropped instead
	uploadLarge bool        // they are a text that is not parsed: see lookInto
	uploadErr   error       // why that must not run
	deaf        error       // why the server takes no more, nil while it does: see hearOut
	swallowing  bool        // they are dropped instead
	forgetting  bool        // a DEALLOCATE ALL is ahead in this request
	tellParams  bool        // the next settings applied change what the client was told
	discarded   bool        // DISCARD ALL is complete in the request at hand
	readyOwed   bool        // and the end of its command waits for them
	skipping    bool        // an error was sent; everything up to Sync is dropped
	copyIn      bool        // the server expects CopyData
	breach      bool        // it got something else
	queried     bool        // a simple query was sent within the open request
	// alteredAhead is set when one of segment changes what those behind it mean.
	alteredAhead bool
	tx           byte // transaction status the client knows: 'I', 'T' or 'E'
	lost         bool // the transaction's server is gone; 'E' until the client ends it
	read         bool // the lease serves one proven read, whose request is held
	fresh        bool // the lease has not been used yet
	settling     bool // the session's settings are being applied
	enlisting    bool // the transaction is being begun on the lease
	delivered    bool // a byte of its answer has reached the client
	noReplica    bool // the read failed on a replica: the primary decides
	wrote        bool // something that may write was answered since the last idle
	acted        bool // anything of the client's was
	failed       bool // the request at hand has met an error
	held         bool // the bytes of the request can be brought back
	cancelled    bool
	timedOut     bool
	clientLeft   bool        // it has closed its side behind a Terminate
	unsure       bool        // something ran on the lease that may have left what no audit finds
	auditAgain   atomic.Bool // when the catalog is loaded: until then names may be missing
	setsUnknown  bool        // set_config was called for who knows which setting: keeps its connection
	explained    bool        // it has prepared a statement that asks for a route
	asked        bool        // a Flush was sent because too many replies are owed
	dataAhead    bool        // copy data was sent before the server asked for it
	copyUnsure   bool        // data was sent behind a Sync in a copy

	// Session state.
	base           *pool.Settings // of the start-up packet
	settings       *pool.Settings // in force when the transaction commits
	txBase         *pool.Settings // in force when it rolls back
	catalogChanged bool           // DDL ran in the transaction
	setsSequences  bool           // something in it may have set a sequence; of a database of several shards
	catalogMade    bool           // and surely not on temporary objects alone
	newsSent       bool           // other proxies will be told of it when it commits
	hasTemp        bool           // the last audit found temporary objects
	route          query.Route
	searchPath     string
	role, setPath  string            // in force, "" when it is not known, with several shards; setPath: by SET LOCAL for all of the transaction
	identityGoes   bool              // the request takes away the role that is set: it is not applied first
	dateStyle      string            // as the client was told
	toldOfRole     map[string]string // parameters that a change of role changed
	recall         *recall           // what was drawn for it; nil until anything was, or was asked for
	drewThere      bool              // servers may have drawn for it from any sequence; of a database of several shards
	lastThere      bool              // from some sequence
	usesSequences  bool              // has asked for currval or lastval: keeps its connection
	sequencesOn    uint64            // the connection on which it may last have drawn from a sequence
	statements     map[string]*preparedStatement
	private        bool   // servers know the statements by the session's names: see goPrivate
	scope          string // what besides its text makes a statement what it is: see setScope
	scopeAt        uint64 // the database's schema then
	statementBytes int
	portals        map[string]*router.Plan
	cursors        map[string]*openQuery // over several shards, portals too
	routing        *routing              // the request at hand asks for routes
	portal         *router.Plan          // of the unnamed portal
	unnamed        []byte                // what Parse made the unnamed statement, behind the name
	unnamedAs      *router.Plan
	unnamedShape   *shape                 // nil until it was asked for
	portalShape    *shape                 // of what the unnamed portal runs, nil when it is not kept
	unnamedTok     uint64                 // 0: there is none
	begun          *begunTx               // answered, and to be sent ahead of the first statement
	spread         *spreadTx              // the open transaction, in a database of several shards
	script         *script                // the text at hand that runs command by command
	unnamedOther   bool                   // servers run another text than the client's
	unnamedLarge   bool                   // its text is not kept: it ties the session to the lease
	serializable   bool                   // default_transaction_isolation is, or may be, serializable
	nonStandard    bool                   // standard_conforming_strings is off
	unsafeEncoding bool                   // of the client: see router.Context
	localMeaning   bool                   // SET LOCAL changed what texts mean, until the transaction ends
	localConstants bool                   // and not only where names are found
	suspect        query.Effect           // effects since the last audit that it must look at
	left           bool                   // of these, what the client was told of may be on the lease
	pinned         string                 // why the lease is kept, "" when it is not
	pinnedWhy      atomic.Pointer[string] // pinned, for SHOW
	crossShard     CrossShard
	snapshots      Snapshots
	isolation      string // of transactions that do not say it, "" while it is not known
	timeouts       Timeouts
	cancels        cancelWaiters
	cancelling     atomic.Int32      // requests under way to servers
	cancelledOn    uint64            // the connection that the last of them is for
	greeted        *welcome          // what the client was told at login
	learning       map[string]string // what a server reports while the first of its kind logs in
	takenBack      []byte            // what a server reported when it rolled back
	toldLater      map[string]string // the parameters that the client was told of since; of a database of several shards

	*work
}

// work is what a session needs while it is not at rest. Sessions of a loop lend it
// to each other: see loopTask.lend.
type work struct {
	owed        expects
	upload      int // bytes of a client frame still to be forwarded
	download    int // bytes of a server frame still to be relayed
	segment     []*router.Plan
	executes    []*router.Plan // what the request runs, prepared by it or before
	segmentRead int            // plans of segment already used
	exclude     uint64
	syncsInCopy int
	tries       int // how often the request at hand was tried in vain
	triedSince  time.Time
	settingsErr *wire.Error
	leaseBase   *pool.Settings // what the lease has set when it rolls back
	savepoints  []savepoint
	waiting     waiting
	located     bool // scan has found the shard of what is sent
	ahead       ahead
	values      router.Values
	normal      *query.Normal  // nil until scanner made it
	sample      *router.Sample // nil until one was taken
	settlingTo  *pool.Settings // what applying makes of the settings of the lease
	audit       auditAnswer
	scratch     []byte
	largeTail   []byte // the end of what lookInto has seen
	answerHead  []byte // of a held read, kept back until the first row
	tallying    tallying
	result      resultCut
}

// keptEntries and keptBytes bound what an unused work keeps of its storage.
const (
	keptEntries = 64
	keptBytes   = 4 << 10
)

// unused reports whether nothing of w is needed while its session is at rest.
func (w *work) unused() bool {
	return w.owed.empty() && len(w.savepoints) == 0 && len(w.answerHead) == 0 && w.upload == 0 && w.download == 0 &&
		w.syncsInCopy == 0 && !w.audit.running && !w.waiting.queued
}

// reset makes w as good as new, but for the storage it keeps.
func (w *work) reset() {
	items, segment, executes := w.owed.items, w.segment, w.executes
	clear(segment[:cap(segment)])
	clear(executes[:cap(executes)])
	normal, values, ticket, slow := w.normal, w.values, w.waiting.ticket, w.tallying.slow
	if normal != nil && (cap(normal.Key) > keptBytes || cap(normal.Literals) > keptEntries) {
		normal = nil
	}
	values.Forget(keptBytes)
	*w = work{scratch: kept(w.scratch), answerHead: kept(w.answerHead), savepoints: w.savepoints[:0], values: values, normal: normal, sample: w.sample}
	w.waiting.ticket, w.tallying.slow = ticket, slow
	if cap(items) <= keptEntries {
		clear(items[:cap(items)])
		w.owed.items = items[:0]
	}
	if cap(segment) <= keptEntries {
		w.segment = segment[:0]
	}
	if cap(executes) <= keptEntries {
		w.executes = executes[:0]
	}
}

// scanner returns what finds the literals of a text. It is no part of work itself,
// whose storage is cleared with each statement: it takes 16 KiB.
func (w *work) scanner() *query.Normal {
	if w.normal == nil {
		w.normal = new(query.Normal)
	}
	return w.normal
}

func kept(b []byte) []byte {
	if cap(b) > keptBytes {
		return nil
	}
	return b[:0]
}

type savepoint struct {
	name             string
	settings, leased *pool.Settings
}

// errEnded ends a session without a word to the client.
var errEnded = errors.New("proxy: session ended")

// run drives the session by the goroutine that calls it and returns why it
// ends; it never returns nil.
func (s *session) run() error {
	client, server := true, false
	for {
		c, sv, err := s.turn(client, server)
		if err != nil {
			return err
		}
		if !s.again {
			client, server = s.task.await(c, sv)
		} else {
			client, server = false, false
		}
	}
}

// turnRounds bounds what one turn does.
const turnRounds = 4

// turn goes on with the session until it has nothing to do but to wait, and
// returns for what. client and server tell which side is worth a read. With
// again set, it has not come to an end, and only gives way to other sessions.
func (s *session) turn(client, server bool) (c, sv interest, err error) {
	s.again = false
	if t := s.throttle.Load(); t != nil && s.slowed(t) {
		return interest{socket: s.client.Socket(), write: s.client.Pending() > 0}, sv, nil
	}
	client = client || s.resting && s.client.More()
	for range turnRounds {
		if s.resting {
			if err := s.rest(client); err != nil {
				return c, sv, err
			}
			if s.resting {
				return interest{socket: s.client.Socket(), read: true, write: s.client.Pending() > 0}, sv, nil
			}
		} else if err := s.fill(client, server); err != nil {
			return c, sv, err
		}
		s.resting, err = s.exchange()
		if err != nil {
			return c, sv, err
		}
		if s.resting {
			// A poller will tell; otherwise to look is cheaper than to wait.
			client, server = s.near == nil || s.client.More(), false
			continue
		}
		if !s.again {
			c, sv = s.interests()
			client, server = c.read && s.client.More(), sv.read && s.lease.More()
		}
		if s.again || !client && !server {
			return c, sv, nil
		}
	}
	s.again = true
	return c, sv, nil
}

// rest is what a session does that holds no lease and has nothing to do: it
// looks for the client's next bytes if there may be some.
func (s *session) rest(look bool) error {
	if s.permits != nil && (s.tx == 'I' || s.lost) {
		s.endPermits()
	}
	s.keepsAnswer()
	s.setPhase(s.restingPhase())
	if err := s.obeyIdle(); err != nil {
		return err
	}
	if s.client.Pending() > 0 {
		if err := s.client.Flush(); err != nil {
			return s.clientError(err)
		}
	}
	if !look {
		return nil
	}
	err := s.client.Fill(0)
	if err == nil {
		s.resting = false
		return nil
	}
	if errors.Is(err, wire.ErrWouldBlock) {
		return nil
	}
	return s.clientError(err)
}

// restingPhase is the phase of a session that holds no lease.
func (s *session) restingPhase() phase {
	if s.begun != nil {
		return phaseIdleInTx
	}
	return phaseIdle
}

// exchange moves requests and replies until that is all there is to move. It
// reports whether the session then holds no lease and has nothing more to do. It
// sets again when others must have their turn first.
func (s *session) exchange() (rest bool, err error) {
	for rounds := 0; ; rounds++ {
		if rounds == exchangeRounds || s.more {
			s.again, s.more = true, false
			return false, nil
		}
		before := s.steps
		if err := s.pumpClient(); err != nil {
			return false, err
		}
		if s.lease != nil {
			if err := s.pumpServer(); err != nil {
				return false, err
			}
		}
		if err := s.flush(); err != nil {
			return false, err
		}
		if s.settled() && s.cancelsAway() {
			s.setPhase(phaseWaiting) // what comes next has its own time
		} else if s.settled() {
			if err := s.settle(); err != nil {
				return false, err
			}
			if s.lease == nil {
				if s.idleReady() {
					return true, nil
				}
				continue
			}
		}
		if s.steps != before {
			continue
		}
		if s.waiting.queued {
			return false, nil
		}
		if s.lease == nil {
			s.setPhase(s.restingPhase()) // a piece of a frame is all there is
			if err := s.obeyIdle(); err != nil {
				return false, err
			}
		} else if err := s.obey(); err != nil {
			return false, err
		}
		if s.steps == before {
			return false, nil
		}
	}
}

// exchangeRounds bounds the work of one exchange: a few rounds, of which only the
// last may take pumpFrames frames of the client.
const exchangeRounds = 8

// idleReady reports whether nothing of a request is buffered that exchange could act on.
func (s *session) idleReady() bool {
	return len(s.client.Buffered()) == 0 && s.upload == 0 && s.script == nil
}

// interests says what the session waits for.
func (s *session) interests() (c, sv interest) {
	c = interest{socket: s.client.Socket(), write: s.client.Pending() > 0}
	c.read = s.wantClient() && (s.watchesAll() || !s.awaitsAnswer())
	alone := c.read && s.awaitsClient()
	if s.lease != nil {
		sv = interest{socket: s.lease.Socket(), write: s.lease.Pending() > 0, read: s.client.Pending() < highWater && !alone}
	}
	return c, sv
}

// park waits for either side.
func (s *session) park() error {
	c, sv := s.interests()
	client, server := c.read && s.client.More(), sv.read && s.lease.More()
	if !client && !server {
		client, server = s.task.await(c, sv)
	}
	return s.fill(client, server)
}

// fill reads from the sides that are worth it.
func (s *session) fill(client, server bool) error {
	if client {
		if err := s.fillClient(); err != nil {
			return err
		}
		// An error in the middle of the data, which nobody waits for then.
		server = server || s.copyIn && s.near == nil
	}
	if server && s.lease != nil {
		return s.fillServer()
	}
	return nil
}

// watchesAll reports whether both sides are waited for whoever is to move: a
// poller does so at no cost.
func (s *session) watchesAll() bool { return s.near != nil || s.watchAll.Load() }

// unwatch takes back that both sides are watched: something has moved.
func (s *session) unwatch() {
	if s.watchAll.Load() {
		s.watchAll.Store(false)
	}
}

// awaitsClient reports whether the next move is surely the client's: it is idle
// in a transaction, or sends copy data. As with awaitsAnswer, the other side is
// then watched only when that takes long.
func (s *session) awaitsClient() bool {
	if s.lease == nil || s.lease.Pending() > 0 || s.client.Pending() > 0 || s.watchesAll() {
		return false
	}
	return s.copyIn || s.owed.empty() && s.tx != 'I' && s.pinned == ""
}

// awaitsAnswer reports whether the next move is surely the server's. The client
// is then not watched: one thing to wait for costs half of two. The sweeper has
// a session whose statement takes long watch both, to find out that its client
// has gone.
func (s *session) awaitsAnswer() bool {
	if s.open || s.copyIn || s.breach || s.upload > 0 {
		return false // the server waits for more
	}
	return s.lease != nil && !s.owed.empty() && s.client.Pending() == 0
}

// wantClient reports whether more of the client's bytes are of use now.
func (s *session) wantClient() bool {
	if s.clientLeft || s.deaf != nil || s.lease != nil && s.lease.Pending() > highWater {
		return false
	}
	return len(s.client.Buffered()) < aheadMax || s.needMore()
}

// needMore reports whether the buffered frame is incomplete.
func (s *session) needMore() bool {
	_, size, ok, err := s.client.Header(s.db.Policy().MessageMax)
	return err == nil && (!ok || size > len(s.client.Buffered()))
}

func (s *session) fillClient() error {
	err := s.client.Fill(0)
	if err == nil {
		s.unwatch()
		return nil
	}
	if errors.Is(err, wire.ErrWouldBlock) {
		return nil
	}
	if errors.Is(err, io.EOF) && saysFarewell(s.client.Buffered()) {
		s.clientLeft = true // what it sent before its farewell still runs
		return nil
	}
	return s.clientError(err)
}

// saysFarewell reports whether whole frames up to a Terminate are in b.
func saysFarewell(b []byte) bool {
	for len(b) >= 5 {
		if b[0] == wire.MsgTerminate {
			return true
		}
		size := frameSize(b)
		if size < 5 || size > len(b) {
			return false
		}
		b = b[size:]
	}
	return false
}

// fillServer reads from the lease; its end is a lost connection.
func (s *session) fillServer() error {
	err := s.lease.Fill(0)
	if err == nil {
		s.unwatch()
		return nil
	}
	if errors.Is(err, wire.ErrWouldBlock) {
		return nil
	}
	return s.serverLost(err)
}

// flush offers what both sides have to send.
func (s *session) flush() error {
	if s.lease != nil && s.lease.Pending() > 0 {
		full := s.lease.Pending() > highWater
		if err := s.lease.Flush(); err != nil {
			s.hearOut(err)
		} else {
			s.makesRoom(full, s.lease)
		}
	}
	if s.deaf != nil {
		s.lease.DropOutput()
		if !wire.IsReset(s.deaf) {
			return s.serverLost(s.deaf)
		}
	}
	if s.client.Pending() > 0 {
		full := s.client.Pending() > highWater
		if err := s.client.Flush(); err != nil {
			return s.clientError(err)
		}
		s.makesRoom(full, s.client)
	}
	return nil
}

// hearOut notes that the server takes no more, and why. If it has closed its side, what
// it said first is still to be read: the answers to what it ran, the reason of its end.
// Its last word is the end of its stream, which then makes it lost.
func (s *session) hearOut(err error) {
	if s.deaf == nil {
		s.deaf = err
		s.steps++
	}
}

// makesRoom counts it as progress when a side is full no more: what is buffered of
// the other goes on, for which nothing more need come.
func (s *session) makesRoom(full bool, side interface{ Pending() int }) {
	if full && side.Pending() <= highWater {
		s.steps++
	}
}

// clientError turns a failed read or write of the client's socket into the
// session's end: there is nobody left to tell.
func (s *session) clientError(err error) error {
	s.server.opt.Logger.Debug("client gone", "session", s.id, "client", s.addr, "error", err)
	return errEnded
}

// farewell sends the error that ends the session, as far as the socket takes it.
func (s *session) farewell(err error) {
	e := wire.AsError(err)
	if !e.IsFatal() {
		c := *e
		c.Severity = "FATAL"
		e = &c
	}
	if e.Code == "XX000" {
		s.server.opt.Logger.Error("session failed", "session", s.id, "client", s.addr, "error", err)
	}
	if s.download > 0 {
		return // in the middle of a frame no error can be said
	}
	s.db.errs.note(e, !e.Foreign, s.server.clock.Load())
	if s.client.Queue(e.Append(nil)) == nil {
		_ = s.client.Flush() // the client may be gone; nothing more can be done
	}
}

// end gives everything back.
func (s *session) end() {
	s.setPhase(phaseEnded)
	s.auditsCut()
	s.endsKeeping()
	s.leaveQueue()
	s.dropBranches()
	if s.lease != nil {
		fate := pool.Dirty
		if !s.owed.empty() || s.upload > 0 || s.download > 0 || s.copyIn {
			s.lease.Cancel(nil) // nothing else runs there any more
			fate = pool.Dead
		}
		s.giveBack(fate)
	}
	s.owed.clear(func(e *expect) {
		if e.prev != nil {
			s.release(e.prev)
		}
	})
	for _, st := range s.statements {
		s.release(st)
	}
	s.statements = nil
	s.countBytes()
	s.client.Drop()
	_ = s.client.Close() // the peer may have closed first
	s.auditsLogout()
	s.server.forget(s)
}
