package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// random compares generated statements: 300 for each seed, each time with the rows as at
// the start.
func (b *both) random(t *testing.T, sequences, seed int) {
	n := counts{fans: &counts{}}
	for i := range sequences {
		if i > 0 {
			b.restore()
			b.again()
		}
		b.sequence(t, uint64(seed+i), &n)
		if n.wrong > 50 {
			t.Fatal("that will do")
		}
	}
	t.Logf("%d statements: %d equal, %d of them errors, %d refused, %d skipped; %d writes accepted, %d with rows; %v",
		n.all, n.equal, n.errors, n.refused, n.skipped, n.writes, n.full, n.codes)
	t.Logf("of them %d over several shards: %d equal, %d of them errors, %d refused, %d skipped", n.fans.all, n.fans.equal, n.fans.errors, n.fans.refused, n.fans.skipped)
	if got, of := n.equal-n.errors-(n.fans.equal-n.fans.errors), n.all-n.fans.all; got < of/3 {
		t.Errorf("of %d statements only %d were accepted without an error", of, got)
	}
}

const perSequence = 300

// counts is what became of generated statements.
type counts struct {
	all, equal, errors, refused, skipped, writes, full, wrong int
	codes                                                     map[string]int
	fans                                                      *counts // of statements over several shards
}

// sequence runs the statements of one seed.
func (b *both) sequence(t *testing.T, seed uint64, n *counts) {
	g := newGenerator(seed)
	for i := range perSequence {
		if n.wrong > 50 {
			return
		}
		n.all++
		st := statement{}
		writes := g.chance(25)
		fans := !writes && g.chance(66)
		switch {
		case writes:
			st.sql = g.write()
		case fans:
			st.sql = g.fans()
		default:
			st.sql = g.selects()
		}
		st.args, st.ordered = g.args, g.ordered && !writes
		commits := writes && g.chance(40)
		st.line = fmt.Sprintf("seed %d, statement %d, args %v: %s", seed, i, st.args, st.sql)
		m := pick(g, modes)
		got := b.one(t, &st, m, writes, commits)
		if st.wrong != "" && !writes && n.wrong < 5 {
			st.wrong += "\ncut down: " + b.shrunk(t, &st, m)
		}
		before := *n
		n.add(t, got, &st, writes)
		if fans {
			n.fans.all++
			n.fans.equal += n.equal - before.equal
			n.fans.errors += n.errors - before.errors
			n.fans.refused += n.refused - before.refused
			n.fans.skipped += n.skipped - before.skipped
		}
	}
}

// one compares one statement. It returns the answer of the program; nil when a side
// took too long for a comparison.
func (b *both) one(t *testing.T, st *statement, m mode, writes, commits bool) *answer {
	t.Helper()
	end := "ROLLBACK"
	if commits {
		end = "COMMIT"
	}
	if writes {
		b.onBoth(t, "BEGIN")
		defer func() {
			if b.proxy.IsClosed() {
				t.Fatal("the session ended by ", st.line)
			}
			b.onBoth(t, end)
			if end == "COMMIT" && !b.alike(st.line) {
				st.wrong = "other rows are stored after " + st.line
				b.restore()
			}
		}()
	}
	got := ask(t, b.proxy, m, st.sql, st.args)
	if got.refused() != "" {
		return &got
	}
	want := ask(t, b.direct, m, st.sql, st.args)
	if slices.Contains([]string{got.code(), want.code()}, "57014") {
		end = "ROLLBACK"
		return nil
	}
	if strings.HasPrefix(got.code(), "22") && strings.HasPrefix(want.code(), "42") {
		return &got // a key's value is read before a server reads the text: both refuse it
	}
	if d := difference(&got, &want, st.ordered); d != "" {
		st.wrong = fmt.Sprintf("%s, sent %s: %s", st.line, m.name, d)
	}
	return &got
}

func (o *answer) code() string {
	if o.err == nil {
		return ""
	}
	return o.err.Code
}

// add counts an answer.
func (n *counts) add(t *testing.T, got *answer, st *statement, writes bool) {
	t.Helper()
	if n.codes == nil {
		n.codes = map[string]int{}
	}
	switch {
	case st.wrong != "":
		n.wrong++
		t.Error(st.wrong)
	case got == nil:
		n.skipped++
	case got.refused() != "":
		n.refused++
	default:
		n.equal++
		if len(got.rows) > 0 {
			n.full++
		}
		if got.err != nil {
			n.errors++
			n.codes[got.err.Code]++
			if testing.Verbose() && n.codes[got.err.Code] <= 3 {
				t.Logf("%s: %s", errorText(got.err), st.line)
			}
		} else if writes {
			n.writes++
		}
	}
}
