package failover

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var scriptStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// script drives a State by the lines of a test file:
//
//	<node> primary|replica [sys=1] [tli=1] [lag=50ms|unknown] [ro] [boot=1]
//	<node> fail|gone|saturated|suspect
//	wait <duration>
//	tick
//
// and prints after each line what changed: the actions, then the nodes whose
// health or reason is new.
type script struct {
	state State
	now   time.Time
	names []string
}

func TestState(t *testing.T) {
	datadriven.Walk(t, "testdata/state", func(t *testing.T, path string) {
		var s script
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "shard":
				s = script{now: scriptStart}
				var nodes []NodeConfig
				for _, a := range d.CmdArgs {
					nodes = append(nodes, NodeConfig{Address: a.Key})
					s.names = append(s.names, a.Key)
				}
				s.state = NewState(Rules{FailAfter: 3, RecoverAfter: 2, MaxLag: time.Second, SwitchoverWait: 10 * time.Second}, nodes, s.now)
				return s.state.verdict.NoPrimary + "\n"
			case "run":
				var out strings.Builder
				for line := range strings.SplitSeq(strings.TrimSpace(d.Input), "\n") {
					s.run(t, &out, line)
				}
				return out.String()
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func (s *script) run(t *testing.T, out *strings.Builder, line string) {
	fmt.Fprintf(out, "> %s\n", line)
	words := strings.Fields(line)
	switch words[0] {
	case "wait":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		s.now = s.now.Add(d)
		return
	case "tick":
		s.step(t, out, Event{Kind: Tick})
		return
	}
	e := Event{Node: NoNode}
	for i, n := range s.names {
		if n == words[0] {
			e.Node = NodeID(i)
		}
	}
	if e.Node == NoNode {
		t.Fatalf("no node %q", words[0])
	}
	kinds := map[string]EventKind{"primary": Answered, "replica": Answered, "fail": Failed, "gone": Gone, "saturated": Saturated, "suspect": Suspected}
	kind, ok := kinds[words[1]]
	if !ok {
		t.Fatalf("no event %q", words[1])
	}
	e.Kind, e.Reason = kind, "it said "+words[1]
	if kind == Answered {
		e.Observation = Observation{InRecovery: words[1] == "replica", SystemID: 1, Timeline: 1, StartedAt: scriptStart}
		e.Lag = Lag{Known: true}
		for _, w := range words[2:] {
			setField(t, &e, w)
		}
	}
	s.step(t, out, e)
}

func setField(t *testing.T, e *Event, word string) {
	key, value, _ := strings.Cut(word, "=")
	n, _ := strconv.Atoi(value)
	switch key {
	case "sys":
		e.Observation.SystemID = uint64(n)
	case "tli":
		e.Observation.Timeline = uint32(n)
	case "boot":
		e.Observation.StartedAt = scriptStart.Add(time.Duration(n) * time.Hour)
	case "ro":
		e.Observation.ReadOnly = true
	case "lag":
		if value == "unknown" {
			e.Lag = Lag{}
			return
		}
		d, err := time.ParseDuration(value)
		if err != nil {
			t.Fatal(err)
		}
		e.Lag = Lag{Known: true, Time: d, Bytes: uint64(d.Milliseconds())}
	default:
		t.Fatalf("no field %q", word)
	}
}

func (s *script) step(t *testing.T, out *strings.Builder, e Event) {
	before := s.state.snapshot(0, s.now)
	state, actions := s.state.Step(s.now, e)
	if after := s.state.snapshot(0, s.now); after.Differs(before) {
		t.Fatal("Step changed its receiver")
	}
	s.state = state
	checkInvariants(t, &s.state)
	for _, a := range actions {
		switch a.Kind {
		case CloseGate:
			fmt.Fprintf(out, "  gate closed: %s\n", a.Reason)
		case OpenGate:
			fmt.Fprintf(out, "  gate open: %s is primary on timeline %d\n", s.names[a.Node], s.state.verdict.Timeline)
		case ProbeNow:
			fmt.Fprintf(out, "  ask %s now\n", s.names[a.Node])
		case ProbeSoon:
			fmt.Fprintf(out, "  ask %s soon\n", s.names[a.Node])
		}
	}
	after := s.state.snapshot(0, s.now)
	for i := range after.Nodes {
		b, a := &before.Nodes[i], &after.Nodes[i]
		if a.Health == b.Health && a.Role == b.Role && a.Reason == b.Reason {
			continue
		}
		fmt.Fprintf(out, "  %s: %s %s", a.Address, a.Role, a.Health)
		if a.Reason != "" {
			fmt.Fprintf(out, " (%s)", a.Reason)
		}
		out.WriteString("\n")
	}
}

// checkInvariants holds what State promises.
func checkInvariants(t interface{ Fatalf(string, ...any) }, s *State) {
	v := s.verdict
	if (v.Primary == NoNode) == s.gateOpen {
		t.Fatalf("gate open is %v with primary %d", s.gateOpen, v.Primary)
	}
	if (v.Primary == NoNode) != (v.NoPrimary != "") {
		t.Fatalf("primary %d, reason %q", v.Primary, v.NoPrimary)
	}
	for i := range s.nodes {
		n := &s.nodes[i]
		if (n.health == Up) != (n.reason == "") {
			t.Fatalf("%s is %v because of %q", n.address, n.health, n.reason)
		}
		if n.health == Up && (!n.up || !s.ours(n) || n.timeline != v.Timeline) {
			t.Fatalf("%v is used", n)
		}
		if s.ours(n) && n.timeline > v.Timeline {
			t.Fatalf("%v is ahead of the verdict's timeline %d", n, v.Timeline)
		}
		if NodeID(i) == v.Primary {
			if n.obs.InRecovery || n.rival || n.health != Up {
				t.Fatalf("%v is primary", n)
			}
			continue
		}
		if v.Primary != NoNode && n.oks > 0 && s.ours(n) && n.claims() && n.timeline == v.Timeline {
			t.Fatalf("%v claims besides the primary", n)
		}
	}
}

// TestStateAtRandom holds the invariants of State over random histories, and
// that a node never takes over from another on the same timeline while that one
// has not been seen to give up and both have claimed at once.
func TestStateAtRandom(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		count := rapid.IntRange(1, 4).Draw(rt, "nodes")
		var nodes []NodeConfig
		for i := range count {
			nodes = append(nodes, NodeConfig{Address: string(rune('a' + i))})
		}
		s := NewState(Rules{FailAfter: 3, RecoverAfter: 2, MaxLag: time.Second, SwitchoverWait: 10 * time.Second}, nodes, scriptStart)
		now := scriptStart
		for range rapid.IntRange(1, 80).Draw(rt, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(rt, "ms")) * time.Millisecond)
			e := Event{
				Kind: rapid.SampledFrom([]EventKind{Tick, Answered, Answered, Answered, Answered, Failed, Gone, Saturated, Suspected}).Draw(rt, "kind"),
				Node: NodeID(rapid.IntRange(0, count-1).Draw(rt, "node")), Reason: "x",
			}
			if e.Kind == Answered {
				e.Observation = Observation{
					InRecovery: rapid.Bool().Draw(rt, "recovery"),
					SystemID:   rapid.SampledFrom([]uint64{1, 1, 1, 1, 2}).Draw(rt, "system"),
					Timeline:   uint32(rapid.IntRange(1, 3).Draw(rt, "timeline")),
					StartedAt:  scriptStart.Add(time.Duration(rapid.IntRange(0, 1).Draw(rt, "boot")) * time.Hour),
					ReadOnly:   rapid.IntRange(0, 9).Draw(rt, "ro") == 0,
				}
				e.Lag = Lag{Known: true, Time: time.Duration(rapid.IntRange(0, 2000).Draw(rt, "lag")) * time.Millisecond}
			}
			was, wasID := s, s.incumbent
			s, _ = s.Step(now, e)
			checkInvariants(rt, &s)
			if p := s.verdict.Primary; p != NoNode && wasID != NoNode && p != wasID && s.systemID == was.systemID {
				old := &s.nodes[wasID]
				gaveUp := !old.claims() || old.timeline != s.verdict.Timeline || !s.ours(old)
				if !gaveUp && (old.oks > 0 || was.nodes[p].rival) {
					rt.Fatalf("%v took over from %v", &s.nodes[p], old)
				}
			}
		}
	})
}
