package proxy

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"shardproxy/auth"
	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// place is where a session gets its server connections: the pools of one shard.
type place struct {
	shard *Shard
	index int // of the shard in the database
	user  *pool.User
	mark  uint64 // the last commit of the session there
}

// settleIn finds the session's pools on every shard.
func (s *session) settleIn(id auth.Identity, pol pool.Policy) {
	at := func(i int) place {
		sh := s.db.Shards[i]
		return place{shard: sh, index: i, user: sh.Pools.For(id.User, id.ServerUser, id.ServerPassword.Reveal(), pol)}
	}
	s.place = at(0)
	if len(s.db.Shards) == 1 {
		return
	}
	s.places = make([]place, len(s.db.Shards))
	for i := range s.places {
		s.places[i] = at(i)
	}
}

// moveTo makes a shard the one that the next lease is of. It stays where it is when
// any will do.
func (s *session) moveTo(shard int) {
	if s.places == nil || shard == router.AnyShard || shard == s.index {
		return
	}
	s.places[s.index] = s.place
	s.place = s.places[shard]
}

// moveToOpen makes a shard the one that the next lease is of where nothing has to wait for a primary. It stays
// where it is when there is none.
func (s *session) moveToOpen() {
	for _, i := range s.allShards() {
		if !s.db.Shards[i].Gate.Closed() {
			s.moveTo(i)
			return
		}
	}
}

// locate finds the shard of one statement of the request at hand. rest is the text
// with the types behind it, as in Parse; bind what stands in Bind behind the names.
func (s *session) locate(n *need, p *router.Plan, text, rest, bind []byte) {
	if s.places == nil || n.err != nil || n.batch {
		return
	}
	n.bound++
	if n.err = s.unrecalled(p, text); n.err != nil {
		return
	}
	if p.Where == router.All && s.holdsBack(p, nil) {
		n.err = errHeld
		return
	}
	if p.Where == router.All && s.db.Owners() == nil {
		n.err = errNoOwners()
		return
	}
	if p.Where == router.All && s.othersNow() {
		n.err = errMoved
		return
	}
	if p.Where == router.All || p.MustDraw() {
		n.batch, n.all = n.bound > 1, true
		return
	}
	shard, err := s.locates(p, text, rest, bind)
	if err == nil && shard == router.AnyShard && s.strayed() {
		shard = 0 // where it is has left, and hears of nothing
	}
	switch {
	case (err == errSplit || err == nil && shard == 0 && s.strayed()) && s.othersNow():
		n.err = errMoved
	case err == errSplit:
		n.batch, n.all = n.bound > 1, true
	case err != nil && n.bound > 1 && err != errHeld && !router.IsLoading(wire.AsError(err)):
		n.batch = true // what is ahead of it runs, and is answered first
	case err != nil:
		n.err = wire.AsError(err)
	case n.all:
		n.batch = true
	case shard == router.AnyShard || shard == n.shard:
	case n.shard == router.AnyShard:
		n.shard = shard
	default:
		n.batch = true
	}
}

// shardOf returns the shard on which a statement runs with its values; errHeld when it has to wait.
func (s *session) shardOf(p *router.Plan, text, rest, bind []byte) (int, error) {
	s.values.Held = false
	shard, err := s.placeOf(p, text, rest, bind)
	if s.holdsBack(p, err) {
		return shard, errHeld
	}
	return shard, err
}

// placeOf is shardOf whether it has to wait or not.
func (s *session) placeOf(p *router.Plan, text, rest, bind []byte) (int, error) {
	switch p.Where {
	case router.Keyed:
	case router.FanOut:
		return router.AnyShard, errSplit
	default:
		return p.Shard(nil, nil)
	}
	owners := s.db.Owners()
	if owners == nil {
		return router.AnyShard, errNoOwners()
	}
	v := &s.values
	v.Text, v.Literals, v.Types = text, nil, v.Types[:0]
	v.OtherEncoding, v.Standard, v.Described = !s.serverEncoding(), !s.nonStandard, s.ahead.described
	if p.Literals() {
		n := s.scanner()
		n.Scan(text)
		v.Literals = n.Literals
	}
	if bind == nil {
		v.Bind(nil)
	} else if v.Bind(bind) {
		v.Types = appendTypes(v.Types, rest)
	}
	if p.Moves() {
		return movesOn(p, owners, v)
	}
	if !p.Splits() {
		shard, err := p.Shard(owners, v)
		if (p.FansOut() || p.Scatters()) && router.OnSeveral(err) {
			err = errSplit
		}
		if err == nil && s.ownedOtherwise(p, v, shard) {
			err = errMoved
		}
		return shard, err
	}
	rows, err := p.Rows(owners, v)
	if err != nil {
		return router.AnyShard, err
	}
	for _, shard := range rows {
		if shard != rows[0] {
			return router.AnyShard, errSplit
		}
	}
	return rows[0], nil
}

// errSplit says that the rows of a write lie on several shards, each of which gets its own.
var errSplit = wire.Errorf("0A000", "the rows of this statement belong to several shards").
	WithHint("Send it alone, whole and up to its Sync.")

func errNoOwners() *wire.Error {
	return wire.Errorf("57P03", "it is not known yet which shard owns which slot").
		WithHint("The statement was not executed and may be tried again.")
}

// serverEncoding reports whether texts reach the server as the client writes them.
func (s *session) serverEncoding() bool {
	return s.greeted != nil && s.encoding() == s.greeted.values["server_encoding"]
}

// appendTypes appends the parameter types that stand behind the text of a Parse.
func appendTypes(dst []uint32, rest []byte) []uint32 {
	i := bytes.IndexByte(rest, 0)
	if i < 0 || len(rest) < i+3 {
		return dst
	}
	b := rest[i+1:]
	count := int(binary.BigEndian.Uint16(b))
	for b = b[2:]; count > 0 && len(b) >= 4; count-- {
		dst = append(dst, binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	return dst
}

// ahead are the texts of the request that scan looks at.
type ahead struct {
	unnamed   []byte       // what Parse gives, behind the name
	named     []aheadText  // in their order
	few       [2]aheadText // where named begins
	described []uint32     // the parameters' types of what is bound, if they are known
}

// aheadText is what the request makes of a statement's name: plan is nil when it closes it.
type aheadText struct {
	name, rest []byte
	plan       *router.Plan
}

// names notes what the request makes of a name.
func (a *ahead) names(t aheadText) {
	if a.named == nil {
		a.named = a.few[:0]
	}
	a.named = append(a.named, t)
}

// latest returns what became of a name last, nil when nothing did.
func latest(named []aheadText, name []byte) *aheadText {
	for i := len(named) - 1; i >= 0; i-- {
		if bytes.Equal(named[i].name, name) {
			return &named[i]
		}
	}
	return nil
}

// parsed notes a Parse of the request that is looked ahead at.
func (s *session) parsed(n *need, p *router.Plan, name, rest []byte) {
	if len(name) > 0 {
		s.ahead.names(aheadText{name: name, rest: rest, plan: p})
	}
	if s.places == nil {
		return
	}
	if len(name) == 0 {
		s.ahead.unnamed = rest
	}
	if n.err == nil && (p.Where == router.Home || p.Where == router.FanOut && p.Scatters()) && n.shard == router.AnyShard {
		n.shard = 0 // only there can it be described; of what scatters a part may be there alone
	}
	if n.err == nil {
		n.err = s.unrecalled(p, cut(rest)) // or the session would be tied to what it asks
	}
	if p.Where != router.Refused || n.err != nil {
		return
	}
	if !p.Refusal.Describable() && n.bound > 0 && !router.IsLoading(p.Refusal.Error()) {
		n.batch = true // what is ahead of it runs, and is answered first
	} else if !p.Refusal.Describable() {
		n.err = p.Refusal.Error()
	} else if n.shard == router.AnyShard {
		n.shard = 0 // drivers ask for the columns of tables in this way; Bind is refused
	}
}

// bindsTo finds the shard of what a Bind runs; after is its body behind the portal.
func (s *session) bindsTo(n *need, p *router.Plan, name, after []byte) {
	if s.places == nil || p == nil {
		return
	}
	rest := s.unnamed
	s.ahead.described = s.describedTypes(name)
	at := latest(s.ahead.named, name)
	switch {
	case len(name) == 0 && s.ahead.unnamed != nil:
		rest = s.ahead.unnamed
	case len(name) == 0:
	case at != nil:
		rest = at.rest
	default:
		st := s.statements[string(name)]
		if st == nil || st.shared == nil {
			return // the server says what it is
		}
		rest = st.shared.Rest
	}
	s.locate(n, p, cut(rest), rest, after[len(name)+1:])
}

// describedTypes returns the types of a statement's parameters as a server described
// them, nil when the request itself prepares it.
func (s *session) describedTypes(name []byte) []uint32 {
	if len(name) == 0 {
		if sh := s.unnamedShape; sh != nil && sh.token == s.unnamedTok && s.ahead.unnamed == nil {
			return sh.params
		}
		return nil
	}
	if st := s.statements[string(name)]; st != nil && latest(s.ahead.named, name) == nil {
		return st.shape.params
	}
	return nil
}

// unread is what is known of a request that is not read to its end.
func (s *session) unread(n need) need {
	n = need{opaque: true, shard: n.shard, err: n.err}
	if s.places == nil || n.err != nil {
		return n
	}
	switch b := s.client.Buffered(); b[0] {
	case wire.MsgFunctionCall:
		n.err = wire.Errorf("0A000", "functions cannot be called by number in a database of several shards").
			WithHint("Use SELECT.")
	case wire.MsgQuery, wire.MsgParse:
		if frameSize(b) > s.db.Policy().ParsedMax {
			n.err = errTooLong()
		}
	}
	return n
}

func errTooLong() *wire.Error {
	return wire.Errorf("54000", "the statement is too long to be understood, as it must be in a database of several shards").
		WithHint("limits.parsed_statement bounds the length.")
}

// verdict says what happens to a request that comes while there is a lease.
type verdict uint8

const (
	goesOn verdict = iota
	waits
	isRefused
)

// staysHere finds out whether the request that begins may run on the lease.
func (s *session) staysHere(kind byte) (verdict, error) {
	n, ok := s.scan()
	if !ok {
		return waits, nil
	}
	if n.err == errHeld && s.tx != 'E' {
		if !s.owed.empty() {
			s.forgetPlans()
			return waits, nil
		}
		if ok, err := s.awaitSlots(&n); !ok || err != nil {
			return waits, err
		}
	}
	if n.err == errMoved && s.tx != 'E' {
		if !s.owed.empty() {
			s.forgetPlans()
			return waits, nil
		}
		s.sinceMoved(&n)
	}
	size := frameSize(s.client.Buffered()) // see supply
	if n.script {
		if !s.owed.empty() {
			s.forgetPlans()
			return waits, nil
		}
		s.startScript(size)
		return isRefused, nil
	}
	if n.pieces && s.tx != 'I' {
		if v, err := s.readsPieces(kind, size); v != goesOn || err != nil {
			return v, err
		}
	}
	e := n.err
	if s.spreads() && n.opaque && e == nil {
		e = errAlone() // what of it is not read may end the transaction
	}
	if s.owed.empty() && (e == nil || s.tx == 'E') {
		if done, err := s.forAll(kind, size, &n); done || err != nil {
			return isRefused, err
		}
	}
	if n.batch && e == nil && s.tx != 'E' {
		if !s.owed.empty() || s.tx == 'I' && s.pinned == "" {
			s.forgetPlans()
			return waits, nil
		}
		return isRefused, s.runBatch()
	}
	if n.all && e == nil && s.tx != 'E' {
		if !s.owed.empty() || s.tx == 'I' && s.pinned == "" {
			s.forgetPlans()
			return waits, nil
		}
		return isRefused, s.runAll(kind, size)
	}
	if s.tx == 'E' && s.owed.empty() && (s.leavesFailure(&n) || s.spreads() && (n.opaque || n.batch)) {
		return isRefused, s.refuseHere(kind, size, errAlone()) // what of it is not read may end the failure
	}
	switch free := s.tx == 'I' && s.pinned == "" && s.mode != ModeSession; {
	case e == nil && free && !s.owed.empty() && len(s.executes) > 0 && begins(s.executes[0]):
		s.forgetPlans()
		return waits, nil // for where it goes is known when the next statement is
	case s.spreads() && !s.owed.empty() && slices.ContainsFunc(s.executes, controlsTransaction):
		s.forgetPlans()
		return waits, nil // for all that goes before it must be known
	case s.tx == 'E' && s.owed.empty(), // where all fails
		e == nil && (n.shard == router.AnyShard || n.shard == s.index):
		s.located = !n.opaque && !n.batch
		return goesOn, nil
	case !s.owed.empty():
		s.forgetPlans()
		return waits, nil // it may be free to go elsewhere then
	case e == nil && s.dividesElsewhere():
		e = errAlone() // the other shard alone would hear of it
	case e == nil:
		if e = s.extend(n.shard); e == nil {
			return waits, nil // for what the new lease needs first
		}
	}
	return isRefused, s.refuseHere(kind, size, e)
}

// dividesElsewhere reports whether the request, which is for another shard, ends or divides
// the transaction besides.
func (s *session) dividesElsewhere() bool {
	return slices.ContainsFunc(s.executes, func(p *router.Plan) bool {
		if p.Single == nil || len(s.executes) > 1 {
			return controlsTransaction(p)
		}
		return p.Single.Kind == query.KindPrepareTx
	})
}

// leavesFailure reports whether a request in a failed transaction ends the failure and
// goes on with what is for other shards, or not known to be for this one.
func (s *session) leavesFailure(n *need) bool {
	if len(s.executes) < 2 || n.err == nil && !n.all && !n.batch && (n.shard == router.AnyShard || n.shard == s.index) {
		return false
	}
	return slices.ContainsFunc(s.executes, leavesFailed)
}

// refuseHere makes the request fail on the lease, and with it a transaction that is
// open there.
func (s *session) refuseHere(kind byte, size int, e *wire.Error) error {
	if e.IsFatal() {
		return e
	}
	s.forgetPlans()
	s.fresh = false // the lease may have been taken for this request; the next one is looked at
	if kind == wire.MsgQuery || kind == wire.MsgFunctionCall {
		s.sendRefusal(size, e)
		return nil
	}
	s.open = true
	s.lease.SetOutput(wire.AppendFrame(s.lease.Output(), wire.MsgBind, []byte("\x00"+noStatement+"\x00"), make([]byte, 6)))
	s.owed.push(expect{kind: expectBind, instead: e})
	s.steps++
	return nil
}

// tiedTo is what a statement is told that belongs to another shard than the lease.
func (s *session) tiedTo(shard int) *wire.Error {
	if shard == s.index {
		return wire.Errorf("0A000", "the session is tied to its server connection, and this statement runs on several shards").
			WithDetail("What ties it: %s.", s.pinned).
			WithHint("SHOW CLIENTS says what ties a session to a server connection.")
	}
	e := wire.Errorf("0A000", "the transaction runs on another shard than this statement").
		WithDetail("Shards %s and %s.", s.shard.Name, s.db.Shards[shard].Name).
		WithHint("What the transaction has done before keeps it where it is.")
	if s.tx == 'I' {
		e = wire.Errorf("0A000", "the session is tied to another shard than that of this statement").
			WithDetail("Shards %s and %s; what ties it: %s.", s.shard.Name, s.db.Shards[shard].Name, s.pinned).
			WithHint("SHOW CLIENTS says what ties a session to a server connection.")
	}
	return e
}

// misplaced returns why a statement that scan has not seen must not run on the lease.
func (s *session) misplaced(p *router.Plan, text, rest, bind []byte) *wire.Error {
	if s.places == nil || s.located || p == nil {
		return nil
	}
	if p.Where == router.All || p.MustDraw() {
		return errOneOnly()
	}
	if e := s.unrecalled(p, text); e != nil {
		return e
	}
	shard, err := s.shardOf(p, text, rest, bind)
	switch {
	case err != nil:
		return wire.AsError(err)
	case shard != router.AnyShard && shard != s.index:
		return s.tiedTo(shard)
	}
	return nil
}

// misplacedBind is misplaced for a Bind; after is its body behind the portal.
func (s *session) misplacedBind(p *router.Plan, name, after []byte) *wire.Error {
	if s.places == nil || s.located || p == nil {
		return nil
	}
	if s.needsValues(0) {
		return errOneOnly()
	}
	rest := s.unnamed
	s.ahead.described = s.describedTypes(name)
	if len(name) > 0 {
		st := s.statements[string(name)]
		if st == nil || st.shared == nil {
			return nil
		}
		rest = st.shared.Rest
	}
	return s.misplaced(p, cut(rest), rest, after[len(name)+1:])
}

func begins(p *router.Plan) bool { return p.Single != nil && p.Single.Kind == query.KindBegin }

// awaitTables waits, within loadingWait, for the tables of the shards that the request
// at the head of the buffer needs, and looks at it anew. ok is as of scan then. An error ends the session.
func (s *session) awaitTables(n *need) (ok bool, err error) {
	ok = true
	for end := time.Now().Add(loadingWait); ok && n.err != nil && router.IsLoading(n.err) && time.Now().Before(end); {
		if err := s.pause(20*time.Millisecond, phaseHeld); err != nil {
			if e := wire.AsError(err); e.IsFatal() || err == errEnded {
				return false, err
			}
			return true, nil
		}
		*n, ok = s.scan()
	}
	return ok, nil
}
