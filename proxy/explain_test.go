package proxy_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The proxy's own EXPLAIN, and one that a server answers with the same messages but for
// the rows.
const (
	explainHere  = "EXPLAIN (ROUTE) SELECT 1"
	explainThere = "EXPLAIN (COSTS OFF) SELECT 1"
)

// explainSegment is a request of the extended protocol that asks for routes only.
func explainSegment(r *rand.Rand) (all []frame) {
	name := func() string { return pick(r, "", "e1", "e2") }
	first := name()
	switch r.IntN(3) {
	case 0:
		all = append(all, fParse(first, explainHere))
	case 1:
		all = append(all, fBind("", pick(r, "e1", "e2")))
	case 2:
		all = append(all, fDescribe('S', pick(r, "e1", "e2")))
	}
	bound := all[0].kind == 'B'
	parsed := all[0].kind == 'P' && first == ""
	for range r.IntN(7) {
		switch r.IntN(8) {
		case 0:
			n := name()
			all, parsed = append(all, fParse(n, explainHere)), parsed || n == ""
		case 1, 2:
			n := name()
			if n == "" && !parsed {
				n = "e1" // the unnamed statement may be another's
			}
			all, bound = append(all, fBind("", n)), true
		case 3:
			all = append(all, fDescribe('S', pick(r, "e1", "e2")))
		case 4:
			all = append(all, fClose('S', pick(r, "e1", "e2")))
		case 5:
			all = append(all, fFlush())
		default:
			if bound {
				all = append(all, fDescribe('P', ""), fExecute("", uint32(r.IntN(2))))
			}
		}
	}
	return append(all, fSync())
}

// TestExplainFrames compares what is answered here with a server's answers, in random
// sequences of requests. The rows, and how many there are, are not compared.
func TestExplainFrames(t *testing.T) {
	o := newOracle(t, fixtureOptions{size: 2})
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 11))
		var frames []frame
		for range 12 {
			switch r.IntN(6) {
			case 0:
				frames = append(frames, fQuery(explainHere))
			case 1:
				frames = append(frames, fQuery(pick(r, "BEGIN", "COMMIT", "ROLLBACK", "SELECT 1", "SELECT 1/0", "SAVEPOINT s", "ROLLBACK TO s", "SET extra_float_digits = 2")))
			case 2:
				frames = append(frames, extended("SELECT 2")...)
				frames = append(frames, fSync())
			default:
				frames = append(frames, explainSegment(r)...)
			}
		}
		there := slices.Clone(frames)
		for i, f := range there {
			there[i].body = bytes.Replace(f.body, []byte(explainHere), []byte(explainThere), 1)
		}
		piece := pick(r, 1<<20, 1, 7, 30)
		direct, _ := o.compare(there, piece)
		_, behind := o.compare(frames, piece)
		if a, b := withoutRows(direct), withoutRows(behind); !slices.Equal(a, b) {
			t.Fatalf("seed %d, pieces of %d bytes:\n%s", seed, piece, divergence(frames, a, b))
		}
	}
}

// withoutRows leaves out what the two answers differ in: their rows, whether a limit of
// one row ends them, and what depends on the text.
func withoutRows(transcript []string) (all []string) {
	for _, m := range transcript {
		switch {
		case strings.HasPrefix(m, "D ") && (strings.Contains(m, "Route: ") || strings.Contains(m, "Node: ") || strings.Contains(m, "Result")):
		case strings.HasPrefix(m, "s "), strings.HasPrefix(m, `C "EXPLAIN`):
			all = append(all, "the end of the rows")
		default:
			all = append(all, m)
		}
	}
	return all
}
