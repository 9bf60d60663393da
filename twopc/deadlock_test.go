package twopc

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

func TestCommitsLock(t *testing.T) {
	if got := committing.Lock(); got != commitsLock {
		t.Errorf("a commit takes %s, looked for is %s", commitsLock, got)
	}
	for range 100 {
		if NewMark() == committing {
			t.Fatal("a mark of 0")
		}
	}
	if got := Mark(1<<32 - 1).Lock(); got != "pg_catalog.pg_advisory_xact_lock_shared(1936744308, -1)" {
		t.Error(got)
	}
}

// TestDeadlockScripts runs testdata/deadlocks. A script says what the shards say, at up to two
// looks, and gets who is to end and why:
//
//	hold   shard=s0 pid=1 mark=a began=5 [commits]
//	wait   shard=s0 pid=2 since=10 by=1,3 [prepared=x]
//	prepared shard=s0 vxid=x mark=a
//	look   now=2000    (milliseconds, on all shards; the first look is kept as the one before)
//	decide
func TestDeadlockScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/deadlocks", func(t *testing.T, path string) {
		looks := map[string]*look{}
		var before *graph
		at := func(d *datadriven.TestData) *look {
			name := one(d, "shard")
			if looks[name] == nil {
				looks[name] = &look{shard: name, timeout: 1_000_000}
			}
			return looks[name]
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "hold":
				l := at(d)
				h := holding{pid: int32(number(t, d, "pid")), mark: markNamed(one(d, "mark")), began: int64(number(t, d, "began"))}
				l.holds = append(l.holds, h)
				if d.HasArg("commits") {
					l.holds = append(l.holds, holding{pid: h.pid, mark: committing})
				}
			case "prepared":
				l := at(d)
				l.holds = append(l.holds, holding{vxid: one(d, "vxid"), mark: markNamed(one(d, "mark"))})
			case "wait":
				l := at(d)
				w := waiting{pid: int32(number(t, d, "pid")), since: int64(number(t, d, "since")) * 1000, mode: "ShareLock", what: "transaction 7"}
				for _, p := range all(d, "by") {
					var pid int32
					if _, err := fmt.Sscan(p, &pid); err != nil {
						t.Fatal(p)
					}
					w.by = append(w.by, blocker{pid: pid})
				}
				for _, x := range all(d, "prepared") {
					w.by = append(w.by, blocker{vxid: x, gid: "gid-" + x})
				}
				l.waits = append(l.waits, w)
			case "look":
				g := graphOf(looks, int64(number(t, d, "now"))*1000)
				before, looks = &g, map[string]*look{}
				return seen(g.deadlocks())
			case "decide":
				g := graphOf(looks, int64(number(t, d, "now"))*1000)
				sure := g.confirmed(before)
				return seen(sure.deadlocks())
			default:
				t.Fatalf("no command %s", d.Cmd)
			}
			return ""
		})
	})
}

func graphOf(looks map[string]*look, now int64) graph {
	var list []look
	for _, l := range looks {
		l.now = now
		list = append(list, *l)
	}
	slices.SortFunc(list, func(a, b look) int { return cmp.Compare(a.shard, b.shard) })
	return newGraph(list)
}

func seen(all []deadlock) string {
	if len(all) == 0 {
		return "none\n"
	}
	var b strings.Builder
	for _, d := range all {
		fmt.Fprintf(&b, "%s ends, after another %d ms\n%s\n", d.victim, max(0, d.remaining()/1000), d.detail())
	}
	return b.String()
}

// markNamed is the mark of a name in scripts.
func markNamed(name string) Mark { return Mark(name[0]) }

func one(d *datadriven.TestData, name string) string {
	if v := all(d, name); len(v) > 0 {
		return v[0]
	}
	return ""
}

func all(d *datadriven.TestData, name string) []string {
	for _, a := range d.CmdArgs {
		if a.Key == name && len(a.Vals) == 1 {
			return strings.Split(a.Vals[0], "+")
		}
	}
	return nil
}

func number(t *testing.T, d *datadriven.TestData, name string) (n int) {
	if v := one(d, name); v != "" {
		if _, err := fmt.Sscan(v, &n); err != nil {
			t.Fatal(d.Pos, name, err)
		}
	}
	return n
}

// TestDeadlockGraphs compares random graphs with what is plain: when all victims have gone no
// circle over several shards is left, every victim was in one, and whoever sees the shards in
// another order chooses the same ones.
func TestDeadlockGraphs(t *testing.T) {
	for seed := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		g := randomGraph(rnd)
		found := g.deadlocks()
		other := g
		other.edges = slices.Clone(g.edges)
		rnd.Shuffle(len(other.edges), func(i, j int) { other.edges[i], other.edges[j] = other.edges[j], other.edges[i] })
		if a, b := victims(found), victims(other.deadlocks()); !slices.Equal(a, b) {
			t.Fatalf("seed %d: victims %v and %v", seed, a, b)
		}
		gone := map[party]bool{}
		for _, d := range found {
			if len(d.cycle) < 2 || d.cycle[0].from != (party{mark: d.victim}) || g.about[d.victim].commits {
				t.Fatalf("seed %d: %s ends a circle of %v", seed, d.victim, d.cycle)
			}
			for i, e := range d.cycle {
				if e.to != d.cycle[(i+1)%len(d.cycle)].from {
					t.Fatalf("seed %d: %v is no circle", seed, d.cycle)
				}
			}
			if !reaches(g.edges, gone, party{mark: d.victim}) {
				t.Fatalf("seed %d: %s is in no circle", seed, d.victim)
			}
			gone[party{mark: d.victim}] = true
		}
		for m, a := range g.about {
			if p := (party{mark: m}); !a.commits && !gone[p] && len(circlesBy(g.edges, gone, p)) > 1 {
				t.Fatalf("seed %d: %s is still in a circle over several shards", seed, m)
			}
		}
	}
}

func victims(all []deadlock) (marks []Mark) {
	for _, d := range all {
		marks = append(marks, d.victim)
	}
	slices.Sort(marks)
	return marks
}

func randomGraph(rnd *rand.Rand) graph {
	g := graph{about: map[Mark]about{}}
	n := 2 + rnd.IntN(7)
	at := func() party {
		if i := rnd.IntN(n + 2); i >= n {
			return party{shard: fmt.Sprint("s", i-n), pid: int32(i)}
		} else {
			return party{mark: Mark(i + 1)}
		}
	}
	for i := range n {
		g.about[Mark(i+1)] = about{began: int64(rnd.IntN(4)), commits: rnd.IntN(6) == 0}
	}
	for range rnd.IntN(3 * n) {
		e := edge{from: at(), to: at(), shard: fmt.Sprint("s", rnd.IntN(3))}
		if e.from.mark == 0 {
			e.shard = e.from.shard
		}
		if e.from != e.to && (e.to.mark != 0 || e.to.shard == e.shard) {
			g.edges = append(g.edges, e)
		}
	}
	return g
}

// reaches reports whether a party waits for itself.
func reaches(edges []edge, gone map[party]bool, p party) bool {
	return len(circlesBy(edges, gone, p)) > 0
}

// circlesBy returns the shards of the waits in which a party waits for itself.
func circlesBy(edges []edge, gone map[party]bool, p party) map[string]bool {
	way := func(from party, back bool) map[party]bool {
		seen := map[party]bool{from: true}
		for grows := true; grows; {
			grows = false
			for _, e := range edges {
				a, b := e.from, e.to
				if back {
					a, b = b, a
				}
				if !gone[e.from] && !gone[e.to] && seen[a] && !seen[b] {
					seen[b], grows = true, true
				}
			}
		}
		return seen
	}
	ahead, behind := way(p, false), way(p, true)
	shards := map[string]bool{}
	for _, e := range edges {
		if !gone[e.from] && !gone[e.to] && ahead[e.from] && behind[e.to] && ahead[e.to] && behind[e.from] {
			shards[e.shard] = true
		}
	}
	return shards
}
