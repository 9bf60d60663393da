package proxy

import (
	"context"
	"slices"
	"strconv"
	"sync/atomic"

	"shardproxy/exec"
	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// A query whose rows lie on several shards runs on all of them at once, in the client's
// transaction or one of its own. Either the client gets the rows of the shards as they come,
// in order if there is one, or they are gathered and a statement on one of the shards finishes
// the query: see router.Scatter. While it streams the session is parked, and both its client
// and its server connections block: what the client does not take stays with the shards.

// scattering is such a query.
type scattering struct {
	owners   *router.Owners // by which its shards were found
	s        *session
	way      *router.Scatter
	options  router.ScatterOptions
	context  router.Context
	text     string        // the query
	source   string        // the client's text, of which the query may be a part
	into     *inserting    // what becomes of the rows, nil when the client gets them
	written  *writing      // for a text that writes
	merging  []int         // the shards of a merge
	explain  string        // what stands before text: EXPLAIN and its options
	format   planFormat    // of its answer; "" for text
	values   router.Values // of its own
	asks     clientAsks
	promised *string // the result that the client was told before
	shards   []*scatterShard
	// describedAs is what the first shard says of the text: the types of its parameters and the
	// columns of its rows.
	describedAs description
	types       map[uint32]typeOf // of the columns of the inputs
	// expected are the columns that every shard gives; cached is set when they were known, and not
	// asked for, stale when they turn out to be others, and asked when what is known does not count.
	expected             []rowColumn
	cached, stale, asked bool
	budget               *exec.Budget
	held                 int64 // of what is gathered, in bytes
	rows                 int64
	given                int64 // bytes of the answer that the client was given
	sentHead             bool
	flushed              bool        // the client may have got something
	headAt               int         // where the answer begins in what waits for the client, until then
	gone                 error       // why the client cannot be reached
	err                  *wire.Error // what the client is told, nil while all is well
	raw                  []byte      // the same as a server said it, nil when none did
	failed               int         // the shard that it failed on, -1 for none
	notices              []byte
	warning              []byte // what the client is told besides
	lost                 bool   // a connection
	unwanted             atomic.Bool
	wanted               context.Context // ends when it is not wanted any more
	cancelWanted         context.CancelCauseFunc
	inWindow             bool  // its parts begin in one window: see start
	oneSnapshot          bool  // so do all statements on a shard
	atOnce               bool  // inputs are read in one step
	gathering            bool  // the rows of inputs are read
	repeatable           bool  // they may run, and be run once more
	started              []int // the shards of the streams
	// squared are the pieces of variances, tooFine is set when their values are: see watchScales.
	squared []router.Piece
	tooFine bool
	// opening is set for a query that is read in pieces.
	opening *openQuery
	// parts are set when it may be read on replicas.
	parts *replicaParts
	partial
}

// clientAsks is what the client's request asks for.
type clientAsks struct {
	simple, parse, describe bool
	// formats are those of the result, as Bind has them: a count, and that many.
	formats []byte
}

// scatterShard is one shard's part.
type scatterShard struct {
	index  int
	lease  *pool.Server
	stream *pool.Stream
	answer pool.Answer
	err    error
	spent  bool // what became of its part is of no concern any more
}

// scatter makes the request one that is answered from several shards.
func (s *session) scatter(r *allRequest, bind, tail []byte) *wire.Error {
	owners := s.db.Owners()
	if owners == nil {
		return errNoOwners()
	}
	warn, e := s.mayScatter()
	if e != nil {
		return e
	}
	if e := s.unsteady(); e != nil {
		return e
	}
	c := &scattering{s: s, context: s.planContext(), text: string(s.values.Text), failed: -1, options: s.db.scatterOptions(), repeatable: !r.plan.MayWrite}
	if o := r.plan.Explain(); o != nil {
		c.options.Explains = true
		if c.explain, c.text = c.text[:o.Start], c.text[o.Start:]; o.Format != "text" {
			c.format = planFormat(o.Format)
		}
	}
	c.source = c.text
	c.values = router.Values{Text: []byte(c.text), Types: slices.Clone(s.values.Types), Described: s.values.Described, OtherEncoding: !s.serverEncoding(), Standard: !s.nonStandard}
	c.asks = clientAsks{simple: bind == nil, parse: !r.parse, formats: []byte{0, 0}}
	if bind != nil {
		executes := 0
		if r.opens != nil {
			executes, c.opening = 1, r.opens
		}
		for b := tail; len(b) > 0; b = b[frameSize(b):] {
			switch b[0] {
			case wire.MsgDescribe:
				c.asks.describe = true
			case wire.MsgExecute:
				if r.opens == nil {
					executes++
				}
			}
		}
		if executes != 1 {
			return errOneOnly()
		}
		ok := c.values.Bind(slices.Clone(bind))
		if ok {
			c.asks.formats, ok = c.values.ResultFormats()
		}
		if !ok {
			return wire.Errorf("08P01", "invalid message format")
		}
	}
	c.promised = r.told
	if r.limit > 0 && r.opens == nil && !declares(r.plan) && r.plan.Single.Kind != query.KindDML && r.plan.Single.Kind != query.KindDDL {
		return errLimited()
	}
	if c.opening != nil && (c.explain != "" || r.plan.Single != nil && r.plan.Single.Kind != query.KindSelect) {
		return wire.Errorf("0A000", "what is no query cannot be executed with a row limit, or by a named portal, over several shards")
	}
	if o, ok := declareOf(r.plan, c.values.Text); ok {
		if e := c.declare(r.plan.Single.Target, o); e != nil {
			return e
		}
		c.values.Text = []byte(c.text)
	}
	if c.opening != nil {
		if !r.plan.Single.Reads {
			return wire.Errorf("0A000", "rows that are locked on several shards cannot be read in pieces: more would be locked than have been read").
				WithHint("Read them all at once.")
		}
		c.opening.c = c
	}
	r.scatter = c
	c.mayLack(r.plan)
	c.seeksReplicas(r.plan)
	if err := c.plan(owners); err != nil {
		return wire.AsError(err)
	}
	if warn {
		c.warning = (&wire.Error{Severity: "WARNING", Code: "01000", Message: "this statement reads rows of several shards"}).WithDetail("Way: %s.", c.way.Because()).AppendNotice(nil)
		c.notices = slices.Clone(c.warning)
	}
	if c.way.Copy != nil && !c.asks.simple {
		return wire.Errorf("0A000", "COPY of rows on several shards must be sent as a simple query")
	}
	r.shards = nil
	for _, shard := range c.shards {
		r.shards = append(r.shards, shard.index)
	}
	r.shards = c.withTargets(r.shards)
	return nil
}

// plan finds the way, and the shards.
func (c *scattering) plan(owners *router.Owners) (err error) {
	c.owners = owners
	way, err := c.s.db.Planner.Scatter(c.source, c.context, c.options)
	if err != nil {
		return err // the way that did not do stays, for what ends the query
	}
	c.way = way
	if in := c.way.Into; in != nil {
		if c.text = in.Query; c.into == nil && c.explain == "" {
			c.into = &inserting{c: c, of: in, promised: c.promised}
		}
	}
	if m := c.way.Make; m != nil {
		if c.text = m.Query; c.into == nil {
			c.into = &inserting{c: c, of: &router.Insertion{Home: !m.Spread}, promised: c.promised}
			c.into.making = &making{i: c.into, of: m}
		}
	}
	var all []int
	if m := c.way.Merge; m != nil && len(m.Keys) > 0 {
		// What the rows are ordered by may turn out to be of a type that is not compared here.
		other, err := c.s.db.Planner.Scatter(c.text, c.context, router.ScatterOptions{NoMerge: true, NoGroups: c.options.NoGroups, Unlike: c.options.Unlike})
		if err == nil {
			if all, err = c.inputShards(other, owners); err != nil {
				return err
			}
		}
	}
	c.merging = nil
	if w := c.way.Write; w != nil && c.written == nil && c.explain == "" {
		c.written = &writing{c: c, of: w}
	}
	add := func(p *router.Plan, proof string) error {
		shards, err := c.shardsOf(p, proof, owners)
		c.merging = shards
		for _, i := range shards {
			if !slices.Contains(all, i) {
				all = append(all, i)
			}
		}
		return err
	}
	if m := c.way.Merge; m != nil {
		if err := add(m.Plan, m.Proof); err != nil {
			return err
		}
	}
	more, err := c.inputShards(c.way, owners)
	if err != nil {
		return err
	}
	for _, i := range more {
		if !slices.Contains(all, i) {
			all = append(all, i)
		}
	}
	if (c.way.Home || len(all) == 0 || c.into != nil || c.written != nil) && !slices.Contains(all, 0) {
		all = append(all, 0)
	}
	if c.written != nil || c.way.Make != nil {
		all = c.withTargets(all)
	}
	slices.Sort(all)
	c.all, c.partial.merging = all, c.merging
	if !c.places() {
		return c.missing[0].why
	}
	return nil
}

// inputShards returns the shards of all inputs.
func (c *scattering) inputShards(way *router.Scatter, owners *router.Owners) (all []int, err error) {
	for i := range way.Inputs {
		shards, err := c.shardsOf(way.Inputs[i].Plan, way.Inputs[i].Proof, owners)
		if err != nil {
			return nil, err
		}
		for _, i := range shards {
			if !slices.Contains(all, i) {
				all = append(all, i)
			}
		}
	}
	if way.Home && !slices.Contains(all, 0) {
		all = append(all, 0)
	}
	return all, nil
}

// shardsOf returns the shards of a plan that is of the text proof; none for any shard.
func (c *scattering) shardsOf(p *router.Plan, proof string, owners *router.Owners) ([]int, error) {
	if c.context.HiddenSlots > 0 && p.FansOut() && c.written == nil && c.into == nil {
		return c.s.allShards(), nil // which of them has the rows is said by what they hide, in their snapshots
	}
	if p.Where == router.Keyed || p.Where == router.FanOut {
		v := &c.values
		var n query.Normal
		v.Text = []byte(proof)
		n.Scan(v.Text)
		v.Literals = n.Literals
		if p.FansOut() {
			return p.Shards(owners, v)
		}
		shard, err := p.Shard(owners, v)
		if shard == router.AnyShard {
			return nil, err
		}
		return []int{shard}, err
	}
	if p.Where == router.Home {
		return []int{0}, nil
	}
	return nil, nil
}

// runScatter runs the query on the shards of the transaction, which end ends if it is the
// query's own: end gets what failed, nil for nothing, and returns what the client is told. With
// own it may run again when a connection is lost.
func (s *session) runScatter(r *allRequest, own bool, end func(*wire.Error) (*wire.Error, error)) error {
	c := r.scatter
	s.client.Release()
	s.held = false
	s.dropRequest()
	s.db.countScatter(c.way.Way())
	if n := s.tallying.slow; n != nil {
		n.way = c.way.Because()
	}
	if c.written != nil {
		c.written.own = own
	}
	c.countRead()
	err := c.execute(r.plan)
	for tries := 0; own && (c.again(err) || err == nil && (c.hindered() || c.unfit()) || err == nil && c.written != nil && c.conflicts()) && tries < scatterTries; tries++ {
		if e := c.anew(); e != nil {
			if e.IsFatal() {
				return e
			}
			return c.answer(e)
		}
		err = c.execute(r.plan)
	}
	if err != nil {
		return err
	}
	if (c.dropped || c.onReplicas()) && c.err == nil {
		end = func(*wire.Error) (*wire.Error, error) { return nil, s.finish(false) } // it has only read
	}
	e, err := end(c.err)
	if err != nil {
		return err
	}
	if e != nil && e.IsFatal() {
		return e
	}
	return c.answer(e)
}

// scatterTries bounds how often a query is run again whose rows nobody has had.
const scatterTries = 8

// again reports whether a query outside of transactions may run again after an error that would end
// the session: a connection was lost, and the client has been told nothing.
func (c *scattering) again(err error) bool {
	return err != nil && c.gone == nil && c.lost && !c.unwanted.Load() && c.untold()
}

// untold reports whether the client has got nothing of the answer. What still waits here for it is taken back, if the query leaves
// nothing behind.
func (c *scattering) untold() bool {
	if c.sentHead && c.plain && c.own && !c.flushed {
		client := c.s.client
		client.SetOutput(client.Output()[:c.headAt])
		c.sentHead = false
	}
	return !c.sentHead
}

// anew gives up what the query has of the shards and begins again. It may wait for a shard that has
// no primary.
func (c *scattering) anew() *wire.Error {
	s := c.s
	s.db.stats.retries.Add(1)
	s.tallyRetry()
	lost := c.lostShards()
	if c.conflicts() {
		c.written.waits = true
		if err := s.finish(false); err != nil {
			return wire.AsError(err)
		}
		if s.lease != nil {
			s.giveBack(pool.Clean)
		}
	} else {
		c.leaveAll()
	}
	s.spread, s.begun, s.tx = nil, nil, 'I'
	for _, i := range lost {
		c.readElsewhere(i)
	}
	c.leavesLost(lost)
	shards := make([]int, len(c.shards))
	for i, shard := range c.shards {
		shards[i] = shard.index
		c.shards[i] = &scatterShard{index: shard.index}
	}
	c.err, c.raw, c.failed, c.notices, c.rows, c.given, c.lost = nil, nil, -1, slices.Clone(c.warning), 0, 0, false
	if c.into != nil {
		c.into.drop()
	}
	return s.enlistScatter(c, true, c.withTargets(shards))
}

// leaveAll gives up the connections to all shards, of which one is lost.
func (c *scattering) leaveAll() {
	s := c.s
	fate := func(l *pool.Server) pool.Fate {
		if slices.ContainsFunc(c.shards, func(shard *scatterShard) bool { return shard.lease == l && isLost(shard.err) }) {
			return pool.Dead
		}
		return pool.Dirty
	}
	for _, b := range s.spread.branches {
		b.lease.Release(fate(b.lease))
	}
	s.giveBack(fate(s.lease))
}

// answer tells the client how the query ended.
func (c *scattering) answer(e *wire.Error) error {
	s := c.s
	s.forgetPlans()
	s.client.SetOutput(c.ending(s.client.Output(), e))
	if e != nil {
		s.tellsError(e)
		s.scriptFails()
	}
	s.steps++
	s.answerReady()
	return nil
}

// execute runs the query, and gives the client its rows; what failed is in c.err then. An error
// ends the session.
func (c *scattering) execute(p *router.Plan) error {
	s := c.s
	s.db.stats.statements.Add(1)
	s.noteAsk(p, scopeSeveral)
	s.tallyBegins(p, c.askedOn())
	if e := c.learnLevel(); e != nil {
		if e.IsFatal() {
			return e
		}
		if c.fail(e, nil, -1); s.tx == 'T' {
			c.failTransaction()
		}
		return nil
	}
	if c.into != nil {
		c.into.mayMake()
		defer c.into.release()
	}
	if err := c.on(c.perform); err != nil {
		return err
	}
	if c.err == nil && c.into != nil && !c.into.makes() {
		if err := c.into.put(p); err != nil {
			return err
		}
	} else if c.err == nil && c.written != nil {
		if err := c.written.put(p); err != nil {
			return err
		}
	}
	if c.err == nil || c.way.Make == nil { // a table that was not made changes nothing
		s.noteAll(p)
	}
	if c.opening != nil && c.err == nil {
		s.opens(c.opening)
	}
	return nil
}

// learnLevel finds out what hangs on the isolation level of the transaction.
func (c *scattering) learnLevel() *wire.Error {
	s := c.s
	c.inWindow, c.oneSnapshot = s.whole() && len(c.shards) > 1, c.way.Steps > 1
	locks := c.written != nil && (!c.written.own || c.written.waits)
	if !c.inWindow && !c.oneSnapshot && !locks {
		return nil
	}
	level, e := s.level()
	if e != nil {
		return e
	}
	each := level == readCommitted || level == "read uncommitted" // statement has its snapshot
	c.inWindow, c.oneSnapshot = c.inWindow && each, c.oneSnapshot && level == repeatableRead
	if locks {
		c.written.locks = each
	}
	return nil
}

// on runs f beside the session's loop, which has the connections to the query's shards; what failed is in c.err, and
// has failed the transaction. An error ends the session.
func (c *scattering) on(f func()) error {
	s := c.s
	s.setPhase(phaseActive)
	for _, shard := range c.shards {
		shard.lease, _ = s.partOn(shard.index)
		s.task.release(shard.lease.Socket())
	}
	s.task.aside(func() { c.run(f) })
	if c.gone != nil {
		return s.clientError(c.gone)
	}
	for _, shard := range c.shards {
		switch {
		case !isLost(shard.err):
		case c.isMissing(shard.index), shard.spent:
			c.dropped = true
			s.db.Shards[shard.index].lost(shard.lease.Node, shard.err)
		default:
			c.lost = true
			s.db.Shards[shard.index].lost(shard.lease.Node, shard.err)
			return wire.Fatal("08006", "the connection to a server was lost").
				WithDetail("Shard %s, node %s.", s.db.Shards[shard.index].Name, shard.lease.Address()).WithCause(shard.err)
		}
	}
	if c.err != nil && s.tx == 'T' {
		c.failTransaction()
	}
	return nil
}

// dropRequest takes the request, up to its end, from what the client has sent.
func (s *session) dropRequest() {
	for {
		b := s.client.Buffered()
		kind, size := b[0], frameSize(b)
		s.drop(size)
		if kind == wire.MsgQuery || kind == wire.MsgSync {
			return
		}
	}
}

// failTransaction makes the transaction fail where the client's next statement runs.
func (c *scattering) failTransaction() {
	s := c.s
	if c.failed >= 0 {
		s.goTo(c.shards[c.failed].index)
		return
	}
	_ = s.failLease()
}

// goTo makes the transaction's connection to one of its shards the lease.
func (s *session) goTo(shard int) {
	at := s.spread.branchOn(shard)
	if at < 0 {
		return
	}
	s.swap(at)
	s.fresh = false
}

// ending appends what ends the answer.
func (c *scattering) ending(out []byte, e *wire.Error) []byte {
	if e == nil && c.opening != nil {
		out = c.head(out, c.opening.columns)
	}
	out = append(out, c.notices...)
	switch {
	case e == nil:
		out = c.warns(out)
		c.s.recall.confirm()
		switch q := c.opening; {
		case c.into != nil:
			return append(out, c.into.answer...)
		case c.written != nil:
			return append(out, c.written.answer...)
		case q != nil && q.declared:
			return wire.AppendCommandComplete(out, "DECLARE CURSOR")
		case q != nil:
			return out
		}
		if c.explain != "" {
			return wire.AppendCommandComplete(out, "EXPLAIN")
		}
		if c.way.Copy != nil {
			return wire.AppendCommandComplete(out, "COPY "+strconv.FormatInt(c.rows, 10))
		}
		return wire.AppendCommandComplete(out, selectTag(c.rows))
	case e == c.err && c.raw != nil:
		return wire.AppendFrame(c.head(out, nil), wire.MsgErrorResponse, c.raw)
	}
	return e.Append(c.head(out, nil))
}

func selectTag(rows int64) string { return "SELECT " + strconv.FormatInt(rows, 10) }

// head begins the answer, once: what the client's request gets before the rows. columns is
// the body of a RowDescription, nil when there is none for the answer fails.
func (c *scattering) head(out, columns []byte) []byte {
	if c.sentHead || c.into != nil && c.into.reads {
		return out
	}
	c.sentHead, c.headAt = true, len(out)
	declares := c.opening != nil && c.opening.declared
	if c.asks.simple {
		if columns != nil && !declares {
			out = wire.AppendFrame(out, wire.MsgRowDescription, columns)
		}
		return out
	}
	if c.asks.parse {
		out = wire.AppendEmpty(out, wire.MsgParseComplete)
	}
	if columns == nil {
		return out
	}
	out = wire.AppendEmpty(out, wire.MsgBindComplete)
	switch {
	case c.asks.describe && declares:
		out = wire.AppendEmpty(out, wire.MsgNoData)
	case c.asks.describe:
		out = wire.AppendFrame(out, wire.MsgRowDescription, columns)
	}
	return out
}
