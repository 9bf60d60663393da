package query

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// respell writes a text of the same form: other literals, other white space.
func respell(sql string, n *Normal) string {
	var out strings.Builder
	b := []byte(sql)
	next := 0
	for t := nextToken(b, 0); t.kind != tokEnd; t = nextToken(b, t.end) {
		out.WriteString(" /* */\n")
		if next < len(n.Literals) && n.Literals[next].Start == t.start {
			out.WriteString(otherLiteral(n.Literals[next].Kind))
			next++
			continue
		}
		out.WriteString(sql[t.start:t.end])
	}
	return out.String()
}

func otherLiteral(k LiteralKind) string {
	switch k {
	case LiteralInt:
		return "45"
	case LiteralFloat:
		return "3.25"
	case LiteralNational:
		return "n'zz'"
	case LiteralBits:
		return "b'101'"
	case LiteralHexBits:
		return "x'ab'"
	}
	return "'another one'"
}

// TestShapeIsOfTheForm checks that a shape holds nothing that belongs to one
// text only: texts with equal keys have equal shapes but for byte positions,
// and Locate finds those.
func TestShapeIsOfTheForm(t *testing.T) {
	compared := 0
	for _, sql := range shapeCorpus(t) {
		var n, m Normal
		if !n.Scan([]byte(sql)) {
			continue
		}
		st, shapes := n.AnalyzeShapes(sql, Options{})
		other := respell(sql, &n)
		if !m.Scan([]byte(other)) || !bytes.Equal(n.Key, m.Key) {
			continue
		}
		st2, others := m.AnalyzeShapes(other, Options{})
		if st.Opaque || st2.Opaque {
			continue
		}
		compared++
		for i := range shapes {
			if shapes[i].Kind != ShapeCopy {
				compareForms(t, sql, other, shapes[i], others[i])
			}
		}
	}
	t.Logf("%d texts compared", compared)
	if compared < 200 {
		t.Errorf("only %d texts compared", compared)
	}
}

func compareForms(t *testing.T, sql, other string, a, b *Shape) {
	t.Helper()
	if x, y := a.String(), b.String(); x != y {
		t.Errorf("%q:\n%s\nin another spelling:\n%s", sql, x, y)
		return
	}
	fa, fb := collect(a), collect(b)
	if len(fa.spans) != len(fb.spans) {
		t.Errorf("%q: %d spans, in another spelling %d", sql, len(fa.spans), len(fb.spans))
		return
	}
	var n Normal
	if !n.Locate([]byte(other), fa.spans) {
		t.Errorf("%q: spans not found", sql)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%q: the shape differs in another spelling", sql)
	}
}

// TestShapeIsDeterministic builds shapes twice.
func TestShapeIsDeterministic(t *testing.T) {
	for i, sql := range shapeCorpus(t) {
		if i%4 != 0 {
			continue
		}
		_, a := AnalyzeShapes(sql, Options{})
		_, b := AnalyzeShapes(sql, Options{})
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%q: two shapes", sql)
		}
	}
}

// FuzzShape checks that nothing panics, that two readings are equal and that
// all spans begin and end with the tokens that they number.
func FuzzShape(f *testing.F) {
	for i, sql := range shapeCorpus(f) {
		if i < 500 {
			f.Add(sql)
		}
	}
	f.Fuzz(func(t *testing.T, sql string) {
		st, shapes := AnalyzeShapes(sql, Options{})
		if st.Opaque {
			if shapes != nil {
				t.Fatalf("%q: opaque with shapes", sql)
			}
			return
		}
		if len(shapes) != len(st.Commands) {
			t.Fatalf("%q: %d shapes of %d commands", sql, len(shapes), len(st.Commands))
		}
		_, again := AnalyzeShapes(sql, Options{})
		if !reflect.DeepEqual(shapes, again) {
			t.Fatalf("%q: two shapes", sql)
		}
		var starts, ends []int32
		for tok := nextToken([]byte(sql), 0); tok.kind != tokEnd; tok = nextToken([]byte(sql), tok.end) {
			starts, ends = append(starts, int32(tok.start)), append(ends, int32(tok.end))
		}
		for i, s := range shapes {
			_ = s.Format(sql)
			for _, span := range collect(s).spans {
				if int(span.Last) >= len(ends) || span.First > span.Last || starts[span.First] != span.Start || ends[span.Last] != span.End {
					t.Fatalf("%q: span %v", sql, *span)
				}
				if c := st.Commands[i]; int(span.Start) < c.Start || int(span.End) > c.End {
					t.Fatalf("%q: span %v outside of %d..%d", sql, *span, c.Start, c.End)
				}
			}
		}
	})
}
