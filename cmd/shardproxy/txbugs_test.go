package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/listappend"
)

// txBug is a bug of a proxy, as its servers see it: what it does not send, or sends in the
// place of something else.
type txBug struct {
	name  string
	rules []faultproxy.Rule
	finds []listappend.Kind // one of these
}

func txBugs() []txBug {
	say := func(text, other string) faultproxy.Rule {
		return faultproxy.Rule{Kind: 'Q', Text: text, Do: faultproxy.Replace(other), Every: true}
	}
	// For so long a transaction is committed by half.
	slow := faultproxy.Rule{Kind: 'Q', Text: "COMMIT PREPARED", Every: true, Do: faultproxy.Call(func() { <-time.After(20 * time.Millisecond) })}
	return []txBug{
		{"none", nil, nil},
		{"none, and slow", []faultproxy.Rule{slow}, nil},
		{"prepare skipped", []faultproxy.Rule{say("PREPARE TRANSACTION '", "ROLLBACK; SELECT '")}, []listappend.Kind{listappend.LostAppend}},
		{"a part rolled back for committed", []faultproxy.Rule{say("COMMIT PREPARED '", "ROLLBACK PREPARED '")}, []listappend.Kind{listappend.LostAppend}},
		{"decision dropped", []faultproxy.Rule{
			say("shardproxy.decide(", "("),
			// Who comes behind has only the decision to go by.
			{Kind: 'Q', Text: "COMMIT PREPARED", Do: faultproxy.Kill(), Every: true},
		}, []listappend.Kind{listappend.LostAppend}},
		{"committed for prepared", []faultproxy.Rule{
			say("PREPARE TRANSACTION '", "COMMIT; SELECT '"),
			{Kind: 'Q', Text: "shardproxy.decide(", Nth: 5, Do: faultproxy.Kill(), Every: true},
		}, []listappend.Kind{listappend.AbortedRead, listappend.FracturedRead}},
		{"fence skipped", []faultproxy.Rule{say("shardproxy.take_part()", "1"), slow}, []listappend.Kind{listappend.FracturedRead}},
	}
}

// lie puts rules to work on all wires, and returns what ends that.
func (s *txStage) lie(rules []faultproxy.Rule) (end func()) {
	var all []*faultproxy.Trigger
	for _, wires := range s.wires {
		for _, w := range wires {
			for _, r := range rules {
				all = append(all, w.On(r))
			}
		}
	}
	return func() {
		for _, t := range all {
			t.Remove()
		}
	}
}

// TestBugsAreFound has proxies with bugs run the workloads: their judges find each bug, and
// nothing where there is none.
func TestBugsAreFound(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 2)
	for _, bug := range txBugs() {
		t.Run(bug.name, func(t *testing.T) {
			t.Run("lists", func(t *testing.T) { s.findsInLists(t, bug) })
			t.Run("bank", func(t *testing.T) { s.findsInBank(t, bug) })
		})
	}
	t.Run("tombstone skipped", s.tombstones)
}

// buggy runs f with a bug for a second, or until it has done enough.
func (s *txStage) buggy(bug txBug, enough func() bool, f func(context.Context)) {
	end := s.lie(bug.rules)
	defer end()
	ctx, cancel := lasting(s.t, time.Second, 0, enough)
	defer cancel()
	f(ctx)
	s.settled()
}

func (s *txStage) findsInLists(t *testing.T, bug txBug) {
	a := s.newAppending(t, "")
	a.clients = 3
	s.buggy(bug, a.hasDone(40), a.run)
	a.last(s.nodes()...)
	r := a.check(bug.name, a.statements)
	if len(bug.finds) == 0 {
		a.none("no bug", a.statements, r, listappend.SnapshotIsolation)
		a.none("no bug", a.whole, a.check(bug.name, a.whole), listappend.ReadCommitted, listappend.Process, listappend.Realtime)
		return
	}
	if !slices.ContainsFunc(bug.finds, func(k listappend.Kind) bool { return r.Count(k, listappend.Data) > 0 }) {
		t.Error("not found")
	}
}

func (s *txStage) findsInBank(t *testing.T, bug txBug) {
	b := s.openBank(t)
	s.buggy(bug, b.hasDone(20, 5), func(ctx context.Context) { b.run(ctx, 3, 1) })
	bad := append(b.audit(), b.wrong...)
	t.Log(b.told())
	if (len(bad) == 0) != (len(bug.finds) == 0) {
		t.Errorf("found %d: %.3q", len(bad), bad)
	}
}

// tombstones has recovery by one proxy give up a transaction of the other, which is slow:
// when recovery leaves no tombstone, the other commits half of it.
func (s *txStage) tombstones(t *testing.T) {
	for _, lies := range []bool{false, true} {
		t.Run(fmt.Sprintf("lies %t", lies), func(t *testing.T) {
			a := s.newAppending(t, "")
			var decides []*faultproxy.Trigger // either shard may decide
			for _, w := range s.wires[0] {
				decides = append(decides, w.On(faultproxy.Rule{Kind: 'Q', Text: "shardproxy.decide(", Do: faultproxy.Hold()}))
			}
			var rules []faultproxy.Rule
			if lies {
				rules = []faultproxy.Rule{{Kind: 'P', Text: "FROM shardproxy.commits WHERE gid = $1", Every: true,
					Do: faultproxy.Replace("FROM shardproxy.commits WHERE gid = $1 UNION ALL SELECT false, current_user::text LIMIT 1")}}
			}
			end := s.lie(rules)
			defer end()
			w := &appender{appending: a, txClient: txClient{t: t, dsn: s.dsn(0)}}
			defer w.drop()
			if !w.connected(within(t, txBound)) {
				t.Fatal("no connection")
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				w.txn = listappend.Txn{Begin: now()}
				w.txn.Outcome, _ = w.transaction("", func() error {
					if err := w.appendOne(s.keys[0][0]); err != nil {
						return err
					}
					return w.appendOne(s.keys[1][0])
				})
				w.txn.End = now()
			}()
			select {
			case <-decides[0].Fired():
			case <-decides[1].Fired():
			case <-done:
				t.Fatalf("it has ended: %v", w.txn.Outcome)
			}
			eventually(t, "the other part is prepared", func() bool { return s.prepared() > 0 })
			s.settled() // by the other proxy
			for _, d := range decides {
				d.Remove()
			}
			<-done
			s.settled()
			a.whole = append(a.whole, w.txn)
			a.last(s.nodes()...)
			r := a.check("one transaction", a.whole)
			if found := r.Count(listappend.LostAppend, listappend.Data) > 0; found != lies {
				t.Errorf("%v, found %t", w.txn.Outcome, found)
			}
			if !lies {
				a.none("the truth", a.whole, r, listappend.Serializable)
			}
		})
	}
}
