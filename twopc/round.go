package twopc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"shardproxy/metadata"
)

const (
	maxDoubts   = 100         // shown of each shard
	logInterval = time.Minute // of doubts that go on
	urgent      = 5           // how much sooner the next round is when something is in doubt
	sweeps      = 12          // in the time that rows are kept
)

// run looks until ctx ends.
func (r *Resolver) run(ctx context.Context, done chan struct{}) {
	defer close(done)
	defer func() {
		for i := range r.sessions {
			r.drop(i)
		}
	}()
	swept := time.Now()
	for {
		wait := r.opts.Interval
		if !r.round(ctx) {
			wait /= urgent
		}
		if time.Since(swept) >= r.opts.Keep/sweeps {
			swept = time.Now()
			r.sweep(ctx)
		}
		// Proxies that began together do not go on in step.
		timer := time.NewTimer(wait - rand.N(wait/8+1))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-r.kick:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// round looks at all shards once and finishes what it can. It reports whether
// all is well: every shard answered, nothing is in doubt or may be soon.
func (r *Resolver) round(ctx context.Context) bool {
	r.forget()
	all, errs := r.look(ctx)
	due, more := r.pick(all)
	r.decide(ctx, due)
	r.carryOut(ctx, due)
	if ctx.Err() != nil {
		return false // what failed says nothing
	}
	return r.publish(all, due, errs) && !more
}

// each calls f for the shards of a list, all at once.
func each(shards []int, f func(shard int)) {
	var group sync.WaitGroup
	for _, i := range shards {
		group.Go(func() { f(i) })
	}
	group.Wait()
}

func (r *Resolver) everyShard() []int {
	all := make([]int, len(r.opts.Shards))
	for i := range all {
		all[i] = i
	}
	return all
}

// look lists the prepared parts on every shard.
func (r *Resolver) look(ctx context.Context) (all [][]*part, errs []error) {
	all, errs = make([][]*part, len(r.opts.Shards)), make([]error, len(r.opts.Shards))
	each(r.everyShard(), func(i int) {
		if r.sessions[i] == nil || !r.sessions[i].usable() {
			r.drop(i)
			if r.sessions[i], errs[i] = r.connect(ctx, i); errs[i] != nil {
				return
			}
		}
		if all[i], errs[i] = r.sessions[i].list(ctx, r.opts.Cluster, i); errs[i] != nil {
			r.drop(i)
		}
	})
	return all, notSpare(errs)
}

// notSpare forgets that shards could not be asked which are none of the cluster: they have prepared nothing.
func notSpare(errs []error) []error {
	for i, err := range errs {
		if errors.Is(err, metadata.ErrSpare) {
			errs[i] = nil
		}
	}
	return errs
}

// drop closes a shard's session.
func (r *Resolver) drop(shard int) {
	if s := r.sessions[shard]; s != nil {
		s.close()
		r.sessions[shard] = nil
	}
}

// pick returns the parts that are recovery's business, and whether there are more that may
// become so.
func (r *Resolver) pick(all [][]*part) (due []*part, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, parts := range all {
		for _, p := range parts {
			_, live := r.live[p.gid]
			_, abandoned := r.abandoned[p.gid]
			if p.due(r.opts.MinAge, live, abandoned) {
				due = append(due, p)
			} else if !live {
				more = true
			}
		}
	}
	return due, more
}

// decide finds out, or settles, what becomes of the parts.
func (r *Resolver) decide(ctx context.Context, due []*part) {
	by := make([][]*part, len(r.opts.Shards)) // deciding shard
	var deciders []int
	for _, p := range due {
		if p.why != "" {
			continue
		}
		decider, known := r.words[p.decider]
		if !known {
			p.why = fmt.Sprintf("shard %q, which decides it, is not among the shards", p.decider)
			continue
		}
		if by[decider] == nil {
			deciders = append(deciders, decider)
		}
		by[decider] = append(by[decider], p)
	}
	each(deciders, func(i int) { r.ask(ctx, i, by[i]) })
}

// ask asks a deciding shard. The connection is new: an older one may lead to a
// server that is the primary no longer, and a wrong answer here breaks a
// transaction in two.
func (r *Resolver) ask(ctx context.Context, decider int, parts []*part) {
	s, err := r.connect(ctx, decider)
	if err != nil {
		for _, p := range parts {
			p.why = fmt.Sprintf("shard %q, which decides it, cannot be asked: %v", r.opts.Shards[decider].Name, err)
		}
		return
	}
	defer s.close()
	rows := map[string]row{}
	for _, p := range parts {
		found, asked := rows[p.gid]
		if !asked && err == nil {
			var buried bool
			if found, buried, err = s.settle(ctx, p.gid); err == nil {
				rows[p.gid] = found
			}
			if buried {
				r.mu.Lock()
				r.stats.Tombstones++
				r.mu.Unlock()
			}
		}
		if err != nil {
			p.why = fmt.Sprintf("shard %q, which decides it, does not answer: %v", r.opts.Shards[decider].Name, err)
			continue
		}
		if p.verdict, p.why = judge(found, p.owner); !found.found {
			p.why = "its coordinator is about to commit it, or its session on the deciding shard has not ended"
		}
	}
}

// carryOut finishes the parts that are decided, those of a shard one after the
// other.
func (r *Resolver) carryOut(ctx context.Context, due []*part) {
	by := make([][]*part, len(r.opts.Shards))
	for _, p := range due {
		if p.verdict != doubtful {
			by[p.shard] = append(by[p.shard], p)
		}
	}
	each(r.everyShard(), func(i int) {
		for _, p := range by[i] {
			if r.sessions[i].conn.IsClosed() {
				p.why = "the connection to the shard was lost"
				continue
			}
			if err := r.sessions[i].finish(ctx, p); err != nil {
				p.why = "it cannot be finished: " + err.Error()
				continue
			}
			r.finished(p)
		}
	})
}

// finished notes a part that is no longer.
func (r *Resolver) finished(p *part) {
	how := "rolled back"
	r.mu.Lock()
	if p.verdict == commitIt {
		how = "committed"
		r.stats.Committed++
	} else {
		r.stats.RolledBack++
	}
	r.mu.Unlock()
	if p.verdict == commitIt && r.opts.Finished != nil {
		r.opts.Finished()
	}
	r.opts.Logger.Info("finished a part of a transaction whose coordinator is gone", "shard", r.opts.Shards[p.shard].Name, "name", p.name, "outcome", how, "age", p.age)
}

// publish makes a round's findings the current ones, and reports whether all is
// well.
func (r *Resolver) publish(all [][]*part, due []*part, errs []error) bool {
	doubts := make([][]*part, len(all))
	for _, p := range due {
		if p.why != "" {
			doubts[p.shard] = append(doubts[p.shard], p)
		}
	}
	well := true
	var shown []Doubt
	r.mu.Lock()
	before := r.stats.Doubts
	for i, err := range errs {
		s := &r.stats.Shards[i]
		if s.Err = err; err != nil {
			s.Failures++
			well = false
			for _, d := range before { // nobody has said that they are gone
				if d.Shard == s.Shard {
					shown = append(shown, d)
				}
			}
			continue
		}
		s.Looked, s.Prepared, s.InDoubt, s.Oldest = time.Now(), len(all[i]), len(doubts[i]), 0
		slices.SortFunc(doubts[i], func(a, b *part) int { return cmp.Compare(b.age, a.age) })
		for n, p := range doubts[i] {
			s.Oldest, well = max(s.Oldest, p.age), false
			if n < maxDoubts {
				shown = append(shown, Doubt{s.Shard, p.name, p.owner, p.age, p.why})
			}
		}
	}
	slices.SortStableFunc(shown, func(a, b Doubt) int { return cmp.Compare(b.Age, a.Age) })
	r.stats.Doubts = shown
	r.stats.Rounds++
	r.mu.Unlock()
	r.log(doubts, errs)
	return well
}

// log says what is new, and each minute what goes on.
func (r *Resolver) log(doubts [][]*part, errs []error) {
	still := map[string]time.Time{}
	say := func(key, message string, args ...any) {
		when, old := r.logged[key]
		if !old || time.Since(when) >= logInterval {
			when = time.Now()
			r.opts.Logger.Warn(message, args...)
		}
		still[key] = when
	}
	for i, err := range errs {
		name := r.opts.Shards[i].Name
		if err != nil {
			say("shard "+name, "cannot look for transactions in doubt on a shard", "shard", name, "error", err)
			continue
		}
		reasons := map[string]int{}
		for _, p := range doubts[i] {
			reasons[p.why]++
		}
		for _, p := range doubts[i] {
			if n := reasons[p.why]; n > 0 {
				say(name+" "+p.why, "transactions are in doubt", "shard", name, "reason", p.why, "count", n, "oldest", p.age, "name", p.name)
				reasons[p.why] = 0
			}
		}
	}
	r.logged = still
}
