package query

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

var kindNames = [...]string{"other", "select", "dml", "explain", "show", "copy-to", "copy-from", "begin", "commit",
	"rollback", "savepoint", "release", "rollback-to", "prepare-tx", "set-transaction", "set", "reset", "prepare",
	"execute", "deallocate", "declare", "fetch", "close", "listen", "unlisten", "notify", "discard", "ddl"}

var effectNames = [...]string{"setting", "temp", "advisory", "hold", "prepared", "listen", "seq-read", "seq-write",
	"unknown", "catalog"}

func (e Effect) describe() string {
	var out []string
	for i, n := range effectNames {
		if e&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return strings.Join(out, "|")
}

func describeNames(names []Name, args bool) string {
	var out []string
	for _, n := range names {
		s := n.Name
		if n.Schema != "" {
			s = n.Schema + "." + s
		}
		if args {
			s += fmt.Sprintf("/%d", n.Args)
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// describe renders all that is known of a text, one line per fact.
func (st *Statement) describe(sql string) string {
	var out strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&out, format+"\n", a...) }
	if st.Hint != RouteUnset {
		line("hint: %s", st.Hint)
	}
	if st.Opaque {
		line("opaque")
	} else if len(st.Commands) == 0 {
		line("empty")
	}
	for _, c := range st.Commands {
		reads := ""
		if c.Reads {
			reads = " reads"
		}
		line("%s%s [%s]", kindNames[c.Kind], reads, c.Effects.describe())
		if len(st.Commands) > 1 {
			line("  text: %s", sql[c.Start:c.End])
		}
		for _, f := range []struct{ name, text string }{
			{"functions", describeNames(c.Functions, true)},
			{"operators", describeNames(c.Operators, true)},
			{"relations", describeNames(c.Relations, false)},
			{"types", describeNames(c.Types, false)},
			{"writes", describeNames(c.Writes, false)},
			{"attributes", strings.Join(c.Attributes, " ")},
		} {
			if f.text != "" {
				line("  %s: %s", f.name, f.text)
			}
		}
		if c.SettingsRead != nil {
			line("  settings read: %q", c.SettingsRead)
		}
		for _, s := range c.Settings {
			line("  setting: %s", s.describe())
		}
		if c.Target != "" || c.All {
			line("  target: %q all=%t text=%q", c.Target, c.All, sql[c.TargetStart:c.TargetEnd])
		}
		if c.Chain {
			line("  chain")
		}
		if c.Tx != (TxModes{}) {
			line("  modes: %+v", c.Tx)
		}
		if c.BodyEnd > 0 {
			line("  body: %q types: %q", sql[c.BodyStart:c.BodyEnd], sql[c.ParamTypesStart:c.ParamTypesEnd])
		}
	}
	return out.String()
}

func (s Setting) describe() string {
	out := fmt.Sprintf("%s value=%q", s.Name, s.Value)
	if s.IsLiteral {
		out += fmt.Sprintf(" literal=%q", s.Literal)
	}
	if s.IsFlat && s.Flat != s.Literal || s.IsFlat && !s.IsLiteral {
		out += fmt.Sprintf(" flat=%q", s.Flat)
	}
	for _, f := range []struct {
		on   bool
		name string
	}{{s.Local, "local"}, {s.Default, "default"}, {s.ResetAll, "reset-all"}} {
		if f.on {
			out += " " + f.name
		}
	}
	return out
}

// TestAnalyze compares what is known of each text with the scripts under
// testdata/analyze.
func TestAnalyze(t *testing.T) {
	datadriven.Walk(t, "testdata/analyze", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd != "sql" {
				t.Fatalf("unknown command %q", d.Cmd)
			}
			opts := Options{BackslashStrings: d.HasArg("backslash"), UnsafeEncoding: d.HasArg("unsafe")}
			return Analyze(d.Input, opts).describe(d.Input)
		})
	})
}
