package proxy

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

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
	s       *session
	way     *router.Scatter
	options router.ScatterOptions
	context router.Context
	text    string
	explain string        // what stands before text: EXPLAIN and its options
	values  router.Values // of its own
	asks    clientAsks
	shards  []*scatterShard
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
	sentHead             bool
	gone                 error       // why the client cannot be reached
	err                  *wire.Error // what the client is told, nil while all is well
	raw                  []byte      // the same as a server said it, nil when none did
	failed               int         // the shard that it failed on, -1 for none
	notices              []byte
	unwanted             atomic.Bool
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
	c := &scattering{s: s, context: s.planContext(), text: string(s.values.Text), failed: -1}
	if o := r.plan.Explain(); o != nil {
		c.explain, c.text = c.text[:o.Start], c.text[o.Start:]
	}
	c.values = router.Values{Text: []byte(c.text), Types: slices.Clone(s.values.Types), Described: s.values.Described, OtherEncoding: !s.serverEncoding()}
	c.asks = clientAsks{simple: bind == nil, parse: !r.parse, formats: []byte{0, 0}}
	if bind != nil {
		executes := 0
		for b := tail; len(b) > 0; b = b[frameSize(b):] {
			switch b[0] {
			case wire.MsgDescribe:
				c.asks.describe = true
			case wire.MsgExecute:
				executes++
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
	if warn {
		c.notices = (&wire.Error{Severity: "WARNING", Code: "01000", Message: "this statement reads rows of several shards"}).AppendNotice(nil)
	}
	r.scatter = c
	if err := c.plan(owners); err != nil {
		return wire.AsError(err)
	}
	if c.way.Copy != nil && !c.asks.simple {
		return wire.Errorf("0A000", "COPY of rows on several shards must be sent as a simple query")
	}
	r.shards = nil
	for _, shard := range c.shards {
		r.shards = append(r.shards, shard.index)
	}
	return nil
}

// plan finds the way, and the shards.
func (c *scattering) plan(owners *router.Owners) (err error) {
	if c.way, err = c.s.db.Planner.Scatter(c.text, c.context, c.options); err != nil {
		return err
	}
	var all []int
	if m := c.way.Merge; m != nil && len(m.Keys) > 0 {
		// What the rows are ordered by may turn out to be of a type that is not compared here.
		other, err := c.s.db.Planner.Scatter(c.text, c.context, router.ScatterOptions{NoMerge: true, NoGroups: c.options.NoGroups})
		if err == nil {
			if all, err = c.inputShards(other, owners); err != nil {
				return err
			}
		}
	}
	add := func(p *router.Plan, proof string) error {
		shards, err := c.shardsOf(p, proof, owners)
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
	if (c.way.Home || len(all) == 0) && !slices.Contains(all, 0) {
		all = append(all, 0)
	}
	slices.Sort(all)
	c.shards = nil
	for _, i := range all {
		c.shards = append(c.shards, &scatterShard{index: i})
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
// query's own: end gets what failed, nil for nothing, and returns what the client is told.
func (s *session) runScatter(r *allRequest, end func(*wire.Error) (*wire.Error, error)) error {
	c := r.scatter
	s.client.Release()
	s.held = false
	s.dropRequest()
	if err := c.execute(r.plan); err != nil {
		return err
	}
	e, err := end(c.err)
	if err != nil {
		return err
	}
	s.forgetPlans()
	if e != nil && e.IsFatal() {
		return e
	}
	s.client.SetOutput(c.ending(s.client.Output(), e))
	if e != nil {
		s.db.stats.errors.Add(1)
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
	s.db.countScatter(c.way.Explain().Way)
	s.setPhase(phaseActive)
	for _, shard := range c.shards {
		shard.lease, _ = s.partOn(shard.index)
		s.task.release(shard.lease.Socket())
	}
	s.task.aside(c.run)
	if c.gone != nil {
		return s.clientError(c.gone)
	}
	for _, shard := range c.shards {
		if isLost(shard.err) {
			s.db.Shards[shard.index].Nodes.Suspect(shard.lease.Node, shard.err)
			return wire.Fatal("08006", "the connection to a server was lost").
				WithDetail("Shard %s, node %s.", s.db.Shards[shard.index].Name, shard.lease.Address()).WithCause(shard.err)
		}
	}
	if c.err != nil && s.tx == 'T' {
		c.failTransaction()
	}
	s.noteAll(p)
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
		if at := s.spread.branchOn(c.shards[c.failed].index); at >= 0 {
			there := s.spread.branches[at]
			s.spread.branches[at] = branch{index: s.index, lease: s.lease, base: s.leaseBase, wrote: s.spread.wrote}
			s.parkLease()
			s.unpark(there)
			s.fresh = false
		}
		return
	}
	s.task.release(s.lease.Socket())
	s.task.aside(func() { _ = s.lease.Exec(s.server.ctx, "EXECUTE "+noStatement) })
}

// ending appends what ends the answer.
func (c *scattering) ending(out []byte, e *wire.Error) []byte {
	out = append(out, c.notices...)
	switch {
	case e == nil:
		c.s.recall.confirm()
		if c.explain != "" {
			return wire.AppendCommandComplete(out, "EXPLAIN")
		}
		if c.way.Copy != nil {
			return wire.AppendCommandComplete(out, "COPY "+strconv.FormatInt(c.rows, 10))
		}
		return wire.AppendCommandComplete(out, "SELECT "+strconv.FormatInt(c.rows, 10))
	case e == c.err && c.raw != nil:
		return wire.AppendFrame(c.head(out, nil), wire.MsgErrorResponse, c.raw)
	}
	return e.Append(c.head(out, nil))
}

// head begins the answer, once: what the client's request gets before the rows. columns is
// the body of a RowDescription, nil when there is none for the answer fails.
func (c *scattering) head(out, columns []byte) []byte {
	if c.sentHead {
		return out
	}
	c.sentHead = true
	if c.asks.simple {
		if columns != nil {
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
	if c.asks.describe {
		out = wire.AppendFrame(out, wire.MsgRowDescription, columns)
	}
	return out
}

// run has it done, up to the end of all answers.
func (c *scattering) run() {
	defer c.watched()()
	client := c.s.client.Socket()
	if c.gone = client.SetNonBlocking(false); c.gone != nil {
		return
	}
	switch {
	case c.explain != "":
		c.explained()
	case c.way.Copy != nil:
		c.copyOut()
	case c.way.Merge != nil:
		c.merge()
	default:
		c.gather()
	}
	c.endStreams()
	if err := client.SetNonBlocking(true); c.gone == nil {
		c.gone = err
	}
}

// fail notes the first failure.
func (c *scattering) fail(e *wire.Error, raw []byte, shard int) {
	if c.err == nil {
		c.err, c.raw, c.failed = e, raw, shard
	}
}

// start sends each shard its frames.
func (c *scattering) start(frames func(shard *scatterShard) []byte) []exec.Source {
	var sources []exec.Source
	for i, shard := range c.shards {
		b := frames(shard)
		if b == nil {
			continue
		}
		shard.stream, shard.err = shard.lease.Stream(b, pool.StreamOptions{})
		if shard.err != nil {
			c.fail(wire.AsError(shard.err), nil, i)
			return nil
		}
		sources = append(sources, shard.stream)
	}
	return sources
}

// endStreams waits for the end of all streams; one that failed has the others cancelled.
func (c *scattering) endStreams() {
	if c.err != nil || c.gone != nil {
		// The request has been taken before anything else runs there.
		var taken sync.WaitGroup
		for _, shard := range c.shards {
			if shard.stream != nil {
				taken.Add(1)
				shard.lease.Cancel(taken.Done)
			}
		}
		defer taken.Wait()
	}
	for i, shard := range c.shards {
		if shard.stream == nil {
			continue
		}
		shard.answer, shard.err = shard.stream.End()
		shard.stream = nil
		if shard.err != nil {
			c.fail(wire.AsError(shard.err), c.told(shard), i)
		} else {
			c.notices = append(c.notices, newNotices(shard.answer.Frames, c.notices)...)
		}
	}
}

// told is a server's error as the client gets it: with the shard, and without a place in a
// text that is not the client's.
func (c *scattering) told(shard *scatterShard) []byte {
	if shard.answer.Error == nil {
		return nil
	}
	return onShard(withoutPosition(shard.answer.Error), c.s.db.Shards[shard.index].Name)
}

// onShard names the shard in the detail of an error.
func onShard(body []byte, name string) (out []byte) {
	detail := "Shard " + name + "."
	seen := false
	for len(body) > 0 && body[0] != 0 {
		value, rest, ok := wire.CString(body[1:])
		if !ok {
			return append(out, body...)
		}
		out = append(append(out, body[0]), value...)
		if body[0] == 'D' {
			seen = true
			out = append(append(out, ' '), detail...)
		}
		out, body = append(out, 0), rest
	}
	if !seen {
		out = append(append(append(out, 'D'), detail...), 0)
	}
	return append(out, 0)
}

// send gives the client frames, and waits until it takes them.
func (c *scattering) send(frames []byte) error {
	client := c.s.client
	client.SetOutput(append(client.Output(), frames...))
	if client.Pending() < clientBatch {
		return nil
	}
	return c.flush()
}

// clientBatch is how much is written to the client at once, in bytes.
const clientBatch = 32 << 10

// errUnwanted says that the client wants no more, or cannot be reached.
var errUnwanted = errors.New("the client wants no more")

func (c *scattering) flush() error {
	if err := c.s.client.Flush(); err != nil {
		c.gone = err
		return errUnwanted
	}
	return nil
}

// watched watches over the query until the function that it returns is called.
func (c *scattering) watched() (end func()) {
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		c.watch(done)
	}()
	return func() {
		close(done)
		<-over
	}
}

// watch cancels the query on the shards when it is not wanted any more.
func (c *scattering) watch(done <-chan struct{}) {
	tick := time.NewTicker(copyPoll)
	defer tick.Stop()
	cancelled := false
	for {
		select {
		case <-done:
			return
		case <-c.s.server.ctx.Done():
			for _, shard := range c.shards {
				_ = shard.lease.Socket().Shutdown() // it is lost either way
			}
			_ = c.s.client.Socket().Shutdown()
			return
		case <-tick.C:
			for _, shard := range c.shards {
				if shard.lease.Abandoned() {
					_ = shard.lease.Socket().Shutdown() // as above
				}
			}
			left := c.s.client.Socket().HungUp()
			if !cancelled && (left || c.s.cancelWanted()) {
				cancelled = true
				c.unwanted.Store(true)
				for _, shard := range c.shards {
					shard.lease.Cancel(nil)
				}
			}
			if c.s.control.Load()&controlKill != 0 || left {
				_ = c.s.client.Socket().Shutdown() // or it would be waited for
			}
		}
	}
}

// appendFormats appends result formats as Bind has them: the client's for its columns, and
// binary for so many behind them.
func appendFormats(dst, client []byte, columns, hidden int) []byte {
	if hidden == 0 {
		return append(dst, client...)
	}
	n := int(binary.BigEndian.Uint16(client))
	dst = binary.BigEndian.AppendUint16(dst, uint16(columns+hidden))
	for i := range columns {
		f := uint16(0)
		switch {
		case n == 1:
			f = binary.BigEndian.Uint16(client[2:])
		case i < n:
			f = binary.BigEndian.Uint16(client[2+2*i:])
		}
		dst = binary.BigEndian.AppendUint16(dst, f)
	}
	for range hidden {
		dst = binary.BigEndian.AppendUint16(dst, 1)
	}
	return dst
}
