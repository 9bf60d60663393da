package rebalance

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"shardproxy/shardmap"
)

// planScript is what a script has said so far.
type planScript struct {
	current *shardmap.Map
	load    *Load
	pinned  map[shardmap.Slot]string
}

// TestPlanScripts runs testdata/plan. A script says what there is, and gets plans:
//
//	cluster s0=0-7 s1=8-15          (who owns which slots)
//	load rows=10 bytes=100          (of each slot; lines below: slots=rows,bytes)
//	pin 3 4                         (slots that cannot move)
//	plan members=s0,s1:2,s2 [by=rows] [threshold=10] [max-slots=n] [max-bytes=n] [step-slots=n] [step-bytes=n]
//	     (lines below: slots to shard)
//
// Behind each move stands how far the farthest shard is from its share then.
func TestPlanScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/plan", func(t *testing.T, path string) {
		s := &planScript{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "cluster":
				s.cluster(t, d)
			case "load":
				s.loads(t, d)
			case "pin":
				s.pinned = map[shardmap.Slot]string{}
				for _, a := range d.CmdArgs {
					for _, slot := range planScriptSlots(t, a.Key) {
						s.pinned[slot] = "a schema lies in it"
					}
				}
			case "plan":
				return s.plan(t, d)
			default:
				t.Fatalf("no command %q", d.Cmd)
			}
			return ""
		})
	})
}

// planScriptSlots reads 3 or 4-9.
func planScriptSlots(t *testing.T, text string) (all []shardmap.Slot) {
	t.Helper()
	from, to, ranged := strings.Cut(text, "-")
	if !ranged {
		to = from
	}
	a, err := strconv.Atoi(from)
	b, err2 := strconv.Atoi(to)
	if err != nil || err2 != nil {
		t.Fatalf("no slots: %q", text)
	}
	for ; a <= b; a++ {
		all = append(all, shardmap.Slot(a))
	}
	return all
}

func (s *planScript) cluster(t *testing.T, d *datadriven.TestData) {
	var names []string
	var rows []shardmap.Row
	for _, a := range d.CmdArgs {
		names = append(names, a.Key)
		for _, v := range a.Vals {
			for _, slot := range planScriptSlots(t, v) {
				rows = append(rows, shardmap.Row{Slot: int64(slot), Shard: a.Key})
			}
		}
	}
	m, err := shardmap.NewMap(1, len(rows), names, rows)
	if err != nil {
		t.Fatal(err)
	}
	*s = planScript{current: m, load: NewLoad(len(rows))}
}

func (s *planScript) loads(t *testing.T, d *datadriven.TestData) {
	var rows, bytes int64
	planScanArg(t, d, "rows", &rows)
	planScanArg(t, d, "bytes", &bytes)
	for i := range s.load.Rows {
		s.load.Rows[i], s.load.Bytes[i] = rows, bytes
	}
	for line := range strings.Lines(d.Input) {
		slots, of, _ := strings.Cut(strings.TrimSpace(line), "=")
		if _, err := fmt.Sscanf(of, "%d,%d", &rows, &bytes); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for _, slot := range planScriptSlots(t, slots) {
			s.load.Rows[slot], s.load.Bytes[slot] = rows, bytes
		}
	}
}

func (s *planScript) plan(t *testing.T, d *datadriven.TestData) string {
	r := PlanRequest{Current: s.current, Load: s.load, Pinned: s.pinned}
	for _, a := range d.CmdArgs {
		if a.Key != "members" {
			continue
		}
		for v := range strings.SplitSeq(a.Vals[0], ",") {
			name, weight, _ := strings.Cut(v, ":")
			n, _ := strconv.Atoi(weight) // none is 0, which is 1
			r.Members = append(r.Members, shardmap.Member{Name: name, Weight: n})
		}
	}
	var by string
	var percent int
	planScanArg(t, d, "by", &by)
	planScanArg(t, d, "threshold", &percent)
	planScanArg(t, d, "max-slots", &r.MaxSlots)
	planScanArg(t, d, "max-bytes", &r.MaxBytes)
	planScanArg(t, d, "step-slots", &r.StepSlots)
	planScanArg(t, d, "step-bytes", &r.StepBytes)
	r.By, r.Threshold = Strategy(by), float64(percent)/100
	for line := range strings.Lines(d.Input) {
		slots, to, _ := strings.Cut(strings.TrimSpace(line), " to ")
		r.Given = append(r.Given, GivenSlots{planScriptSlots(t, slots), to})
	}
	p, err := MakePlan(r)
	if err != nil {
		return "error: " + err.Error()
	}
	return s.transcript(t, &r, p)
}

func (s *planScript) transcript(t *testing.T, r *PlanRequest, p *Plan) string {
	var b strings.Builder
	var names []string
	for _, sh := range p.Shards {
		names = append(names, sh.Name)
	}
	owner := planOwners(s.current)
	goal := planGoal(t, r)
	fmt.Fprintf(&b, "off by %.1f %%\n", 100*p.Before)
	for _, m := range p.Moves {
		for _, slot := range m.Slots {
			owner[slot] = m.To
		}
		fmt.Fprintf(&b, "%s -> %s: %s (%d slots, %d rows, %d bytes), off by %.1f %%\n", m.From, m.To, m.Ranges(), m.Amount.Slots, m.Amount.Rows, m.Amount.Bytes,
			100*planBalanceOf(r, goal, owner, names).worst())
	}
	for _, blocker := range p.Blockers {
		fmt.Fprintf(&b, "blocked: %v\n", blocker)
	}
	if p.Limited {
		b.WriteString("cut short\n")
	}
	for _, sh := range p.Shards {
		state := ""
		if sh.Leaves {
			state = " leaves"
		}
		fmt.Fprintf(&b, "%s%s: %d slots, %d rows, %d bytes (%.1f %%) becomes %d, %d, %d (%.1f %% of %.1f %%)\n", sh.Name, state, sh.Before.Slots, sh.Before.Rows, sh.Before.Bytes,
			100*sh.ShareBefore, sh.After.Slots, sh.After.Rows, sh.After.Bytes, 100*sh.ShareAfter, 100*sh.Fair)
	}
	return b.String()
}

// planScanArg reads an argument, if it is there.
func planScanArg(t *testing.T, d *datadriven.TestData, key string, to any) {
	t.Helper()
	if d.HasArg(key) {
		d.ScanArgs(t, key, to)
	}
}
