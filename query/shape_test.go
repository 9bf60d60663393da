package query

import (
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// formatShapes renders all that the shapes of a text say.
func formatShapes(sql string) string {
	st, shapes := AnalyzeShapes(sql, Options{})
	if st.Opaque {
		return "opaque\n"
	}
	var out strings.Builder
	for _, s := range shapes {
		out.WriteString(s.Format(sql))
	}
	return out.String()
}

// TestShape compares the shape of each text with the scripts under testdata/shape.
func TestShape(t *testing.T) {
	datadriven.Walk(t, "testdata/shape", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd != "sql" {
				t.Fatalf("unknown command %q", d.Cmd)
			}
			return formatShapes(d.Input)
		})
	})
}
