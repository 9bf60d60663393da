package failover

import (
	"context"
	"time"
)

// replicaGrace is how long replicas wait for the primary's answer of the same
// round before they are asked without it.
const replicaGrace = 50 * time.Millisecond

// question is one probe to make.
type question struct {
	// sample is the number of the sample that the answer completes, 0 if the
	// node was not the primary when it was asked.
	sample uint64
	// settles is the count of suspicions that an answer to this question
	// settles: those raised before it was asked.
	settles uint64
	began   time.Time
}

// answer is how a question ended, or that a control connection broke.
type answer struct {
	node   NodeID
	broken error // the control connection broke; no question was asked
	question
	observation Observation
	err         error
	ended       time.Time
}

// asked is the loop's book of one node.
type asked struct {
	questions chan question // capacity 1; the loop sends only while not busy
	busy      bool
	due       time.Time // next probe
	began     time.Time // of the last one
	reported  uint64    // suspicions that State has been told of
	conn      uint64    // control connection of the last answer
}

// loop is the one goroutine that owns State, sample log and schedule.
type loop struct {
	*Monitor
	state   State
	samples sampleLog
	source  source // whose samples they are
	asked   []asked
	answers chan answer
	version uint64
}

// source names one life of one primary.
type source struct {
	node     NodeID
	timeline uint32
	conn     uint64
}

func newLoop(m *Monitor) *loop {
	l := &loop{
		Monitor: m,
		state:   NewState(m.opts.Rules, m.opts.Nodes, m.clock.Now()),
		source:  source{node: NoNode},
		asked:   make([]asked, len(m.opts.Nodes)),
		answers: make(chan answer, len(m.opts.Nodes)),
	}
	for i := range l.asked {
		l.asked[i].questions = make(chan question, 1)
	}
	return l
}

func (l *loop) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := l.clock.Now()
		l.hearSuspicions(now)
		timer.Reset(l.dispatch(now))
		select {
		case <-ctx.Done():
			return
		case a := <-l.answers:
			l.hear(a)
		case <-l.kick:
		case <-timer.C:
		}
	}
}

// dispatch asks every node whose time has come and returns how long to wait
// for the next.
func (l *loop) dispatch(now time.Time) time.Duration {
	fast := l.wanted(now)
	wait := l.opts.Interval
	primary := l.state.verdict.Primary
	for i := range l.asked {
		n := &l.asked[i]
		if n.busy {
			continue
		}
		id := NodeID(i)
		due := n.due
		if fast && id == primary {
			due = earlier(due, n.began.Add(l.opts.FastInterval))
		}
		if gap := n.began.Add(minGap); due.Before(gap) {
			due = gap
		}
		if left := due.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		l.askNode(id, now)
	}
	return wait
}

func (l *loop) askNode(id NodeID, now time.Time) {
	n := &l.asked[id]
	q := question{settles: l.nodes[id].suspected.Load(), began: now}
	if id == l.state.verdict.Primary {
		// Raised before the question leaves: this order is what a mark rests on.
		q.sample = l.started.Add(1)
		for j := range l.asked {
			if r := &l.asked[j]; NodeID(j) != id && r.due.Sub(now) < l.opts.Interval/2 {
				r.due = later(r.due, now.Add(replicaGrace))
			}
		}
	}
	n.busy, n.began, n.due = true, now, now.Add(l.interval(id))
	n.questions <- q
}

// interval is the regular time between two probes of a node now.
func (l *loop) interval(id NodeID) time.Duration {
	n := &l.state.nodes[id]
	flapping := n.up && n.fails > 0 || !n.up && n.oks > 0
	if l.state.verdict.Primary == NoNode || flapping || l.nodes[id].isSuspect() {
		return min(l.opts.RetryInterval, l.opts.Interval)
	}
	return l.opts.Interval
}

// hearSuspicions passes on what the data path reported.
func (l *loop) hearSuspicions(now time.Time) {
	for i := range l.asked {
		n, count := &l.asked[i], l.nodes[i].suspected.Load()
		if n.reported == count {
			continue
		}
		n.reported = count
		l.step(now, Event{Kind: Suspected, Node: NodeID(i), Reason: "an error on a connection of the data path"})
	}
}

// hear takes in one answer.
func (l *loop) hear(a answer) {
	n, lv := &l.asked[a.node], &l.nodes[a.node]
	if a.broken != nil {
		// The server may be gone, or gone and back with an earlier position.
		lv.suspected.Add(1)
		lv.covers.Store(0)
		n.reported = lv.suspected.Load()
		l.step(l.clock.Now(), Event{Kind: Suspected, Node: a.node, Reason: "control connection lost: " + a.broken.Error()})
		return
	}
	n.busy = false
	l.metrics.probed(a)
	e := Event{Node: a.node, Latency: a.ended.Sub(a.began)}
	if a.err != nil {
		e.Kind, e.Reason, e.Silent = classify(a.err), a.err.Error(), isSilence(a.err)
		l.hearFailure(lv, a, e)
		return
	}
	e.Kind, e.Observation = Answered, a.observation
	if a.observation.InRecovery {
		e.Lag = l.lagOf(a)
	}
	l.step(a.ended, e)
	l.sampled(a)
	// What a node covers is stored before suspicion is lifted: until then it
	// is not picked.
	l.cover(n, lv, a)
	n.conn = a.observation.Connection
	l.clear(lv, a)
}

func (l *loop) hearFailure(lv *live, a answer, e Event) {
	n := &l.asked[a.node]
	// Its connection is gone: nothing proves any more that it has not restarted.
	lv.covers.Store(0)
	n.conn = 0
	l.step(a.ended, e)
	if e.Kind == Saturated {
		l.clear(lv, a) // it lives
		return
	}
	if !l.state.nodes[a.node].up {
		l.clear(lv, a) // down says more than suspected
	}
	n.due = earlier(n.due, a.ended.Add(l.interval(a.node)))
}

// clear settles the suspicions raised before the question was asked.
func (l *loop) clear(lv *live, a answer) {
	if lv.cleared.Load() != a.settles {
		lv.cleared.Store(a.settles)
		l.syncGate()
	}
}

func (l *loop) lagOf(a answer) Lag {
	if p := l.state.verdict.Primary; p != NoNode && p == l.source.node && len(l.samples.samples) > 0 {
		return l.samples.lag(&a.observation, a.ended)
	}
	furthest := max(a.observation.Receive, a.observation.Replay)
	for i := range l.state.nodes {
		n := &l.state.nodes[i]
		if n.up && l.state.ours(n) && n.obs.InRecovery && n.timeline == l.state.verdict.Timeline {
			furthest = max(furthest, n.obs.Receive, n.obs.Replay)
		}
	}
	return orphanLag(&a.observation, furthest)
}

// sampled records the answer to a sample and asks the replicas next.
func (l *loop) sampled(a answer) {
	if l.state.verdict.Primary != a.node {
		return
	}
	src := source{a.node, l.state.verdict.Timeline, a.observation.Connection}
	if src != l.source {
		// Another primary, or another life of the same: nothing sampled before
		// can be compared with what is sampled now.
		l.source = src
		l.samples.reset()
		for i := range l.nodes {
			l.nodes[i].covers.Store(0)
		}
	}
	if a.sample == 0 {
		return // it became primary with this answer
	}
	l.samples.add(a.sample, &a.observation, a.began, a.ended)
	for i := range l.asked {
		if n := &l.state.nodes[i]; NodeID(i) != a.node && n.up {
			l.asked[i].due = earlier(l.asked[i].due, a.ended)
		}
	}
}

// cover publishes what the replica has replayed.
func (l *loop) cover(n *asked, lv *live, a answer) {
	st := &l.state.nodes[a.node]
	comparable := st.up && l.state.ours(st) && a.observation.InRecovery && st.timeline == l.source.timeline &&
		l.source.node != NoNode
	if !comparable {
		lv.covers.Store(0)
		return
	}
	s, _ := l.samples.covered(a.observation.Replay)
	if n.conn == a.observation.Connection {
		// The log forgets; a node that has not restarted does not.
		s.number = max(s.number, lv.covers.Load())
	}
	lv.covers.Store(s.number)
}

// step advances the State, publishes the result and carries out the actions.
func (l *loop) step(now time.Time, e Event) {
	was := l.state.verdict.Primary
	state, actions := l.state.Step(now, e)
	l.state = state
	if p := state.verdict.Primary; p != was && p != NoNode {
		l.asked[p].due = now // for its first sample
	}
	for _, a := range actions {
		switch a.Kind {
		case ProbeNow:
			l.asked[a.Node].due = now
		case ProbeSoon:
			l.asked[a.Node].due = earlier(l.asked[a.Node].due, now.Add(l.opts.FastInterval))
		case CloseGate:
			// Before anybody can see that there is no primary.
			l.gateMu.Lock()
			l.gate.Close(a.Reason)
			l.gateMu.Unlock()
		case OpenGate: // by syncGate, after everybody can see the primary
		}
	}
	l.publish(now)
}

func (l *loop) publish(now time.Time) {
	l.version++
	before, after := l.snap.Load(), l.state.snapshot(l.version, now)
	l.snap.Store(after)
	l.syncGate()
	if after.Differs(before) {
		l.report(before, after)
		l.opts.OnChange(before, after)
	}
}

// report logs what has changed.
func (l *loop) report(before, after *Snapshot) {
	l.metrics.changed(before, after)
	for i := range after.Nodes {
		b, a := &before.Nodes[i], &after.Nodes[i]
		if a.Role != b.Role || a.Health != b.Health {
			l.log.Info("node changed", "node", a.Address, "role", a.Role.String(), "was_role", b.Role.String(),
				"health", a.Health.String(), "was_health", b.Health.String(), "timeline", a.Timeline, "reason", a.Reason)
		}
	}
	switch {
	case after.Primary == before.Primary:
	case after.Primary == NoNode:
		l.log.Warn("shard has no primary, writes are held", "reason", after.NoPrimary)
	default:
		l.log.Info("shard has a primary", "node", after.Nodes[after.Primary].Address, "timeline", after.Timeline)
	}
}

// ask is the goroutine of one node: it watches the control connection while
// there is nothing to ask.
func (l *loop) ask(ctx context.Context, id NodeID) {
	questions := l.asked[id].questions
	for {
		q, ok := l.idle(ctx, id, questions)
		if !ok {
			return
		}
		pctx, cancel := context.WithTimeout(ctx, l.opts.ProbeTimeout)
		obs, err := l.prober.Probe(pctx, id)
		cancel()
		select {
		case l.answers <- answer{node: id, question: q, observation: obs, err: err, ended: l.clock.Now()}:
		case <-ctx.Done():
			return
		}
	}
}

// idle waits for the next question.
func (l *loop) idle(ctx context.Context, id NodeID, questions <-chan question) (question, bool) {
	wctx, cancel := context.WithCancel(ctx)
	broken := make(chan error, 1)
	go func() { broken <- l.prober.Watch(wctx, id) }()
	defer func() {
		cancel()
		if broken != nil {
			<-broken
		}
	}()
	select {
	case q := <-questions:
		return q, true
	case <-ctx.Done():
		return question{}, false
	case err := <-broken:
		broken = nil
		if err != nil {
			select {
			case l.answers <- answer{node: id, broken: err}:
			case <-ctx.Done():
				return question{}, false
			}
		}
	}
	select {
	case q := <-questions:
		return q, true
	case <-ctx.Done():
		return question{}, false
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
