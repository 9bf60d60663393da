package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// soakFigure is a figure of what is held at rest, and by how much it may be larger in the last quarter of the samples
// than in the second one: by a share of it, and by so many besides.
type soakFigure struct {
	name         string
	share, slack float64
	none         bool // there is to be nothing in any sample
}

// soakFigures are those of each sample.
//   - Memory: what is resident follows the highest point of the load by and by, and the runtime gives back as it likes; what
//     is alive behind a collection moves with how full the caches happen to be.
//   - Descriptors, goroutines, connections: a probe, a look at the schema, a round of recovery may be under way just then,
//     and the proxy's own pools close what they do not need only after some minutes.
//   - Threads: the runtime ends none, and makes one more whenever more calls than ever block at once.
//   - The rest is exact.
func soakFigures() []soakFigure {
	return []soakFigure{
		{name: "RSS MiB", share: 0.15, slack: 2}, {name: "heap MiB", share: 0.10, slack: 1},
		{name: "descriptors", slack: 4}, {name: "threads", slack: 4}, {name: "goroutines", slack: 8},
		{name: "clients"}, {name: "connections", slack: 4}, {name: "replication slots"},
		{name: "in transaction", none: true}, {name: "prepared", none: true}, {name: "temporary", none: true},
	}
}

// soakJudged is how many samples it takes to tell a trend.
const soakJudged = 8

// soakSample is what was held at one time of rest, in the order of soakFigures.
type soakSample struct {
	at      time.Time
	figures []float64
}

// look takes a sample; the goroutines of a first one are kept to be compared with.
func (s *soak) look(first bool) {
	s.t.Helper()
	// What was put by for reuse is dropped by the second collection only. How much is alive is asked for here, and not of /metrics later:
	// to make such a page takes memory, the more the longer the process has run, for it knows of more places that have allocated.
	heap := 0.0
	for range 2 {
		heap = s.heapAlloc(s.page("/debug/pprof/heap?gc=1&debug=1"))
	}
	if first {
		s.heap = s.alive()
	}
	page := s.page("/metrics")
	sample := soakSample{at: time.Now(), figures: []float64{
		float64(s.ps.memory("VmRSS")) / (1 << 20), heap / (1 << 20),
		float64(len(s.descriptors())), float64(s.threads()), sampleSum(s.t, page, "go_goroutines"), sampleSum(s.t, page, "shardproxy_clients"),
	}}
	onServers := s.onServers()
	// The proxy's own may be at a look at the schema, in a transaction, just then.
	for tries := 0; slices.Max(onServers[2:]) > 0 && tries < 30; tries++ {
		<-time.After(100 * time.Millisecond)
		onServers = s.onServers()
	}
	sample.figures = append(sample.figures, onServers...)
	s.seen = append(s.seen, sample)
	if first {
		s.before = s.goroutines()
	}
}

// heapAlloc reads what was alive when a profile was begun.
func (s *soak) heapAlloc(profile string) float64 {
	s.t.Helper()
	m := regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`).FindStringSubmatch(profile)
	if m == nil {
		s.t.Fatal("the profile does not tell of the heap")
	}
	n, _ := strconv.ParseFloat(m[1], 64)
	return n
}

// alive returns a file with a profile of what is alive.
func (s *soak) alive() string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "heap")
	if err := os.WriteFile(path, []byte(s.page("/debug/pprof/heap?gc=1")), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// grown says what has been made since the first sample that counts and is still alive.
func (s *soak) grown() string {
	s.t.Helper()
	out, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount=25", "-sample_index=inuse_space", "-base", s.heap, s.alive()).CombinedOutput()
	return fmt.Sprintf("%s%v", out, err)
}

// onServers returns the figures of all servers together.
func (s *soak) onServers() []float64 {
	s.t.Helper()
	sum := make([]float64, 5)
	for _, cl := range s.shards {
		for _, n := range cl.Nodes() {
			row := n.Rows("app", `SELECT count(*) FILTER (WHERE pid <> pg_backend_pid()), (SELECT count(*) FROM pg_replication_slots),
				count(*) FILTER (WHERE state LIKE 'idle in%'), (SELECT count(*) FROM pg_prepared_xacts),
				(SELECT count(*) FROM pg_ls_tmpdir()) + (SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relkind = 'r')
				FROM pg_stat_activity WHERE backend_type = 'client backend'`)[0]
			for i, v := range row {
				x, err := strconv.ParseFloat(v, 64)
				if err != nil {
					s.t.Fatal(err)
				}
				sum[i] += x
			}
		}
	}
	return sum
}

// descriptors lists what the process has open.
func (s *soak) descriptors() (all []string) {
	s.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", s.ps.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			all = append(all, to)
		}
	}
	return all
}

func (s *soak) threads() int {
	s.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", s.ps.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(entries)
}

// goroutines says where most of them are.
func (s *soak) goroutines() string {
	s.t.Helper()
	profile := s.page("/debug/pprof/goroutine?debug=1")
	stacks := strings.Split(profile, "\n\n")
	for i, stack := range stacks {
		stacks[i] = regexp.MustCompile(` 0x[0-9a-f ]+|#\t0x[0-9a-f]+`).ReplaceAllString(stack, "")
	}
	return strings.Join(stacks[:min(len(stacks), 12)], "\n")
}

// soakTrends says what has grown from the second quarter of the samples, behind the warm-up, to the last one.
func soakTrends(samples []soakSample) (bad []string) {
	n := len(samples)
	for i, f := range soakFigures() {
		median := func(part []soakSample) float64 {
			var all []float64
			for _, s := range part {
				all = append(all, s.figures[i])
			}
			slices.Sort(all)
			return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
		}
		before, after := median(samples[n/4:n/2]), median(samples[n*3/4:])
		if bound := before*(1+f.share) + f.slack; after > bound {
			bad = append(bad, fmt.Sprintf("%s: %.1f in the second quarter, %.1f in the last, which may have %.1f", f.name, before, after, bound))
		}
		for j, s := range samples {
			if f.none && s.figures[i] > 0 {
				bad = append(bad, fmt.Sprintf("%s: %.0f in sample %d", f.name, s.figures[i], j+1))
				break
			}
		}
	}
	return bad
}

// soakTable prints samples.
func soakTable(samples []soakSample) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "minute\t")
	for _, f := range soakFigures() {
		fmt.Fprint(w, f.name, "\t")
	}
	fmt.Fprintln(w)
	for _, s := range samples {
		fmt.Fprintf(w, "%.1f\t", s.at.Sub(samples[0].at).Minutes())
		for i, v := range s.figures {
			fmt.Fprintf(w, "%.*f\t", map[bool]int{true: 1}[i < 2], v)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // into memory
	return b.String()
}

// TestSoakTrends: what grows is found, what only moves, fills up at first or becomes less is not.
func TestSoakTrends(t *testing.T) {
	t.Parallel()
	for name, grows := range map[string]struct {
		figure string // "" for none
		by     func(sample int) float64
		found  bool
	}{
		"flat":                {"", nil, false},
		"a goroutine a round": {"goroutines", func(n int) float64 { return float64(n) }, true},
		"one of two rounds":   {"descriptors", func(n int) float64 { return float64(n / 2) }, true},
		"memory":              {"heap MiB", func(n int) float64 { return float64(n) / 5 }, true},
		"resident":            {"RSS MiB", func(n int) float64 { return float64(n) }, true},
		"warms up":            {"heap MiB", func(n int) float64 { return float64(min(n, 8)) }, false},
		"moves":               {"descriptors", func(n int) float64 { return float64(n % 4) }, false},
		"one moment":          {"goroutines", func(n int) float64 { return map[int]float64{30: 50}[n] }, false},
		"less":                {"threads", func(n int) float64 { return -float64(n) / 4 }, false},
		"a client":            {"clients", func(n int) float64 { return float64(n / 30) }, true},
		"prepared once":       {"prepared", func(n int) float64 { return map[int]float64{3: 1}[n] }, true},
	} {
		var samples []soakSample
		for i := range 36 {
			s := soakSample{}
			for _, f := range soakFigures() {
				v := map[string]float64{"RSS MiB": 60, "heap MiB": 20, "goroutines": 60, "descriptors": 40, "threads": 12}[f.name]
				if f.name == grows.figure {
					v += grows.by(i)
				}
				s.figures = append(s.figures, v)
			}
			samples = append(samples, s)
		}
		bad := soakTrends(samples)
		if got := len(bad) == 1 && strings.HasPrefix(bad[0], grows.figure+": "); got != grows.found || len(bad) > 1 {
			t.Errorf("%s: %q", name, bad)
		}
	}
}
