package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"shardproxy/internal/queryset"
)

// corpus runs the statements of testdata/diff/corpus. The files keep what is refused, and
// why, and which errors PostgreSQL gives.
func (b *both) corpus(t *testing.T) {
	equal, refused := 0, 0
	var wrong []string // told at the end: a test that has failed does not rewrite its file
	datadriven.Walk(t, "testdata/diff/corpus", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				st, ok := readLine(t, strings.TrimSpace(line))
				if !ok {
					continue
				}
				lines := b.compareLine(t, &st, d.Cmd == "writes")
				if st.wrong != "" {
					wrong = append(wrong, st.wrong)
					continue // no file shall expect it
				}
				if strings.Contains(lines, "  refused") {
					refused++
				} else {
					equal++
				}
				if d.Cmd == "ties" {
					b.again()
				}
				if lines != "" {
					out.WriteString(st.line + "\n" + lines)
				}
			}
			b.again()
			if d.Cmd == "writes" {
				b.restore()
			}
			if len(b.shards) == 1 {
				if strings.Contains(out.String(), "  refused") {
					t.Errorf("refused with one shard: %s", out.String())
				}
				return d.Expected // which says what several shards refuse
			}
			if len(b.shards) != 2 && withoutReasons(out.String()) == withoutReasons(d.Expected) {
				return d.Expected // which tables are named depends on where the keys lie
			}
			if out.Len() == 0 {
				return "nothing is refused\n"
			}
			return out.String()
		})
	})
	for _, w := range wrong {
		t.Error(w)
	}
	t.Logf("%d statements equal, %d refused", equal, refused)
	if equal < refused/2 {
		t.Error("most is refused")
	}
}

// withoutReasons leaves out why statements are refused.
func withoutReasons(out string) string {
	return regexp.MustCompile(`(?m)^  refused: .*$`).ReplaceAllString(strings.TrimPrefix(out, "nothing is refused\n"), "  refused")
}

// statement is one line of a corpus.
type statement struct {
	line, sql string
	args      []any
	ordered   bool            // rows come in one order only
	by        *queryset.Query // how far they do, otherwise
	code      bool            // of an error only its SQLSTATE is always the same
	varies    bool            // one server has other answers at other times
	wrong     string          // how it was answered that way
}

// readLine reads "text -- args: [...]", and behind it "-- ordered" where rows come in one
// order, or "-- by 2 1" where they are ordered by these columns only; "-- by 2 1 limit"
// says that of rows equal to the last in them some may be left out. "-- code" stands where
// any of several rows gives the error, "-- varies" where rows depend on where they lie: that
// is to be refused.
func readLine(t *testing.T, line string) (st statement, ok bool) {
	if line == "" || strings.HasPrefix(line, "--") {
		return st, false
	}
	st.line = line
	st.sql, st.code = strings.CutSuffix(line, " -- code")
	st.sql, st.varies = strings.CutSuffix(st.sql, " -- varies")
	st.sql, st.ordered = strings.CutSuffix(st.sql, " -- ordered")
	if sql, by, ok := strings.Cut(st.sql, " -- by "); ok {
		st.sql, st.by = sql, &queryset.Query{}
		for word := range strings.FieldsSeq(by) {
			var column int
			if word == "limit" {
				st.by.Limited = true
			} else if _, err := fmt.Sscan(word, &column); err != nil {
				t.Fatalf("%s: %v", line, err)
			} else {
				st.by.Order = append(st.by.Order, column-1)
			}
		}
	}
	sql, args, ok := strings.Cut(st.sql, " -- args: ")
	st.sql = sql
	if !ok {
		return st, true
	}
	d := json.NewDecoder(strings.NewReader(args))
	d.UseNumber()
	var list []any
	if err := d.Decode(&list); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	for _, a := range list {
		st.args = append(st.args, argument(t, a))
	}
	return st, true
}

// argument makes a parameter: a number is an int8, a list an array of the first
// element's type, {"n": text} a text declared to be of the type number n.
func argument(t *testing.T, a any) any {
	switch a := a.(type) {
	case json.Number:
		n, err := a.Int64()
		if err != nil {
			return a.String()
		}
		return n
	case []any:
		if len(a) > 0 {
			if _, ok := a[0].(string); ok {
				return elements[string](t, a)
			}
		}
		return elements[int64](t, a)
	case map[string]any:
		for oid, text := range a {
			var n uint32
			if _, err := fmt.Sscan(oid, &n); err != nil {
				t.Fatal(err)
			}
			if n == 23 {
				var i int32
				_, _ = fmt.Sscan(text.(string), &i)
				return i
			}
			return typedText{n, text.(string)}
		}
	}
	return a
}

func elements[T any](t *testing.T, list []any) (out []*T) {
	for _, e := range list {
		if e == nil {
			out = append(out, nil)
			continue
		}
		v := argument(t, e).(T)
		out = append(out, &v)
	}
	return out
}

// compareLine runs a line in every mode, and says how it was not answered.
func (b *both) compareLine(t *testing.T, st *statement, writes bool) string {
	by := map[string][]string{}
	var said []string
	for _, m := range modes {
		if len(st.args) == 0 && m.parameters || !m.raw && slices.ContainsFunc(st.args, isTyped) {
			continue
		}
		why := b.compare(t, st, m, writes)
		if why != "" && by[why] == nil {
			said = append(said, why)
		}
		by[why] = append(by[why], m.name)
	}
	// With one shard chance is left to it.
	if writes && len(st.args) == 0 && (len(b.shards) > 1 || !strings.Contains(st.sql, "gen_random_uuid")) {
		if why := b.commit(t, st); why != "" && by[why] == nil {
			said, by[why] = append(said, why), []string{"committed"}
		}
	}
	var out strings.Builder
	for _, why := range said {
		if len(said) > 1 || len(by[""]) > 0 {
			fmt.Fprintf(&out, "  %s (%s)\n", why, strings.Join(by[why], ", "))
		} else {
			fmt.Fprintf(&out, "  %s\n", why)
		}
	}
	return out.String()
}

func isTyped(a any) bool {
	_, ok := a.(typedText)
	return ok
}

// compare runs a statement on both sides, in a transaction that is rolled back if it
// writes. It returns the refusal, or the error that both sides gave.
func (b *both) compare(t *testing.T, st *statement, m mode, writes bool) string {
	t.Helper()
	if writes {
		b.onBoth(t, "BEGIN")
		defer b.onBoth(t, "ROLLBACK")
	}
	got := ask(t, b.proxy, m, st.sql, st.args)
	if why := got.refused(); why != "" {
		return "refused: " + why
	}
	want := ask(t, b.direct, m, st.sql, st.args)
	if d := st.difference(&got, &want); d != "" {
		if st.wrong == "" {
			st.wrong = fmt.Sprintf("%s, sent %s: %s", st.line, m.name, d)
		}
		return ""
	}
	switch {
	case got.err == nil:
		return ""
	case st.code:
		return "error " + got.err.Code
	}
	return "error " + errorText(got.err)
}

// difference compares two answers as far as the line says how rows are ordered.
func (st *statement) difference(got, want *answer) string {
	if st.code && got.err != nil && want.err != nil && got.err.Code == want.err.Code {
		return ""
	}
	if st.by != nil && got.err == nil && want.err == nil {
		return differs(*st.by, got, want)
	}
	return difference(got, want, st.ordered)
}

// commit runs a write once more, to stay, and compares what is stored then.
func (b *both) commit(t *testing.T, st *statement) string {
	t.Helper()
	why := b.compare(t, st, modes[0], false)
	if !b.alike(st.line) {
		t.Errorf("%s: other rows are stored", st.line)
		b.restore()
	}
	return why
}
