package query

import (
	"slices"
	"strings"
	"sync"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// TestEveryStatementHasItsKind goes through all statements of the grammar: one
// that nobody classified must stand out, for its effects are unknown.
func TestEveryStatementHasItsKind(t *testing.T) {
	unknown := []string{"CallStmt", "DoStmt", "LoadStmt", // may do anything
		"ExplainStmt", "VariableSetStmt", "TransactionStmt", // the empty ones made here mean nothing
		"RawStmt", "SetOperationStmt", "ReturnStmt", "PLAssignStmt"} // no commands
	fields := (&pg.Node{}).ProtoReflect().Descriptor().Fields()
	seen := 0
	for i := range fields.Len() {
		fd := fields.Get(i)
		name := string(fd.Message().Name())
		if !strings.HasSuffix(name, "Stmt") {
			continue
		}
		seen++
		m := (&pg.Node{}).ProtoReflect().NewField(fd).Message().Interface()
		b := builder{c: &Command{}}
		b.command(m)
		if got := b.c.Effects&EffectUnknown != 0; got != slices.Contains(unknown, name) {
			t.Errorf("%s: unknown effects = %t, kind %s", name, got, kindNames[b.c.Kind])
		}
	}
	if seen < 110 {
		t.Errorf("saw only %d statements", seen)
	}
}

// TestCommandSpans checks that each command's span parses to the same command.
func TestCommandSpans(t *testing.T) {
	for _, sql := range corpus(t)[:400] {
		st := Analyze("/* x */ ;"+sql+" -- end\n;; SELECT 1", Options{})
		if st.Opaque {
			continue
		}
		for _, c := range st.Commands {
			alone := Analyze(("/* x */ ;" + sql + " -- end\n;; SELECT 1")[c.Start:c.End], Options{})
			if alone.Opaque || len(alone.Commands) != 1 || alone.Commands[0].Kind != c.Kind {
				t.Fatalf("%q: span %d..%d does not stand alone", sql, c.Start, c.End)
			}
		}
	}
}

// TestAnalyzeBoundsTheParser runs many texts through one slot.
func TestAnalyzeBoundsTheParser(t *testing.T) {
	slots := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if st := Analyze("SELECT f(1) FROM t", Options{Slots: slots}); st.Opaque || !st.Commands[0].Reads {
					t.Error("not understood")
				}
			}
		})
	}
	wg.Wait()
	if len(slots) != 0 {
		t.Error("a slot was not given back")
	}
}

func TestSizeCap(t *testing.T) {
	if !Analyze("SELECT 123", Options{MaxBytes: 9}).Opaque {
		t.Error("a text over the cap was parsed")
	}
	if Analyze("SELECT 12", Options{MaxBytes: 9}).Opaque {
		t.Error("a text within the cap was not parsed")
	}
}

// FuzzAnalyze checks that nothing panics and that all spans lie in the text.
func FuzzAnalyze(f *testing.F) {
	for _, sql := range corpus(f)[:250] {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		st := Analyze(sql, Options{})
		last := 0
		for _, c := range st.Commands {
			spans := [][2]int{{c.Start, c.End}, {c.TargetStart, c.TargetEnd}, {c.BodyStart, c.BodyEnd}, {c.ParamTypesStart, c.ParamTypesEnd}}
			for i, s := range spans {
				if s[0] > s[1] || s[1] > len(sql) || i > 0 && s[1] > 0 && (s[0] < c.Start || s[1] > c.End) {
					t.Fatalf("span %d is %v in %q", i, s, sql)
				}
			}
			if c.Start < last {
				t.Fatalf("commands overlap in %q", sql)
			}
			last = c.End
			if c.Kind == KindPrepare && c.BodyEnd <= c.BodyStart {
				t.Fatalf("no body in %q", sql)
			}
			for _, s := range c.Settings {
				if s.Value == "" && !s.Default && !s.ResetAll {
					t.Fatalf("setting without a value in %q", sql)
				}
			}
		}
	})
}
