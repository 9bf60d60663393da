package exec_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"shardproxy/exec"
	"shardproxy/wire"
)

// frames returns the sizes of frames.
func frames(b []byte) (sizes []int) {
	for len(b) > 0 {
		n := 1 + int(binary.BigEndian.Uint32(b[1:]))
		sizes = append(sizes, n)
		b = b[n:]
	}
	return sizes
}

// TestCopyWriterFrames wants frames of at most 64 KiB that are cut between rows, but where a row is larger.
func TestCopyWriterFrames(t *testing.T) {
	o := exec.CopyReaderOptions{Dialect: dialectOf(t, "COPY t FROM STDIN", session), Relation: "t", Columns: []string{"k"}}
	var data bytes.Buffer
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 3000 {
		n := rng.IntN(200)
		if i == 1500 {
			n = 200_000
		}
		data.WriteString(strings.Repeat("x", n) + "\n")
	}
	var out bytes.Buffer
	w := exec.NewCopyWriter(&out, o.Dialect, nil)
	if err := each(exec.NewCopyReader(o), data.Bytes(), pieces(rng, data.Len()), func(row *exec.CopyRow) {
		if err := w.Write(row); err != nil {
			t.Fatal(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := unframe(t, out.Bytes()); !bytes.Equal(got, data.Bytes()) {
		t.Error("the data are others")
	}
	if w.Rows() != 3000 {
		t.Errorf("%d rows", w.Rows())
	}
	b, cutRows, small := out.Bytes(), 0, 0
	for _, size := range frames(b) {
		if size > exec.FrameBytes {
			t.Errorf("a frame of %d bytes", size)
		}
		if size < exec.FrameBytes-300 {
			small++
		}
		if size > 5 && b[size-1] != '\n' {
			cutRows++
		}
		b = b[size:]
	}
	if cutRows != 3 || small > 4 {
		t.Errorf("%d frames end in a row, %d are small", cutRows, small)
	}
}

func TestCopyWriterAdded(t *testing.T) {
	for _, test := range []struct{ options, row, value, want string }{
		{"", "a\tb\n", "7", "a\tb\t7\n"},
		{"", "a\tb", "x\ty\n\r\\", "a\tb\tx\\\ty\\n\\r\\\\"},
		{"", "a\tb\\", "7", "a\tb\t7"},
		{"", "a\tb\r\n", "NULL", "a\tb\t\\N\r\n"},
		{"(NULL '7')", "a\tb\n", "7", "a\tb\t\\067\n"},
		{"(NULL '7')", "a\tb\n", "NULL", "a\tb\t7\n"},
		{"(NULL '')", "a\tb\n", "", "error"},
		{"(DEFAULT '7')", "a\tb\n", "7", "a\tb\t\\067\n"},
		{"(FORMAT csv)", "a,\"b\n\"\r\n", `x"y,`, "a,\"b\n\",\"x\"\"y,\"\r\n"},
		{"(FORMAT csv, ESCAPE '!')", "a,b\n", `!"`, "a,b,\"!!!\"\"\n"},
		{"(FORMAT csv, NULL '7')", "a,b\n", "7", "a,b,\"7\"\n"},
		{"(FORMAT csv, NULL '7', FORCE_NULL *)", "a,b\n", "7", "error"},
		{"(FORMAT csv, FORCE_NOT_NULL *)", "a,b\n", "NULL", "error"},
		{"(FORMAT csv)", "a,b\n", "NULL", "a,b,\n"},
		{"", "a\n", "7", "error"},
		{"(FORMAT csv)", "a,\"b\n", "7", "error"},
	} {
		o := exec.CopyReaderOptions{Dialect: dialectOf(t, "COPY t FROM STDIN "+test.options, session), Relation: "t", Columns: []string{"k", "v"}}
		var out bytes.Buffer
		w := exec.NewCopyWriter(&out, o.Dialect, nil)
		got := ""
		value := []byte(test.value)
		if test.value == "NULL" {
			value = nil
		}
		if err := each(exec.NewCopyReader(o), []byte(test.row), nil, func(row *exec.CopyRow) {
			if err := w.WriteAdded(row, exec.CopyAdded{Name: "id", Value: value}); err != nil {
				got = "error"
			}
		}); err != nil {
			t.Error(err)
		}
		if got == "" {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			got = string(unframe(t, out.Bytes()))
		}
		if got != test.want {
			t.Errorf("%s %q + %q: %q, want %q", test.options, test.row, test.value, got, test.want)
		}
	}
}

type broken struct{}

var errBroken = errors.New("broken")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func TestCopyWriterEnds(t *testing.T) {
	d := dialectOf(t, "COPY t FROM STDIN BINARY", session)
	var out bytes.Buffer
	if err := exec.NewCopyWriter(&out, d, nil).Close(); err != nil || string(unframe(t, out.Bytes())) != binaryHead+"\xff\xff" {
		t.Errorf("%q, %v", out.Bytes(), err)
	}
	out.Reset()
	if err := exec.NewCopyWriter(&out, d, nil).Fail("no"); err != nil || out.String() != "f\x00\x00\x00\x07no\x00" {
		t.Errorf("%q, %v", out.Bytes(), err)
	}
	w := exec.NewCopyWriter(broken{}, d, nil)
	if err := w.Write(&exec.CopyRow{Bytes: make([]byte, 100_000)}); !errors.Is(err, errBroken) {
		t.Error(err)
	}
}

// TestCopyLines sends rows to three shards and asks for each of their lines.
func TestCopyLines(t *testing.T) {
	o := exec.CopyReaderOptions{Dialect: dialectOf(t, "COPY t FROM STDIN CSV HEADER", session), Relation: "t", Columns: []string{"k"}, Wanted: []int{0}}
	rng := rand.New(rand.NewPCG(5, 6))
	var data bytes.Buffer
	data.WriteString("k\n")
	for i := range 20_000 {
		fmt.Fprintf(&data, "\"%d%s\"\n", i, strings.Repeat("\n", max(0, rng.IntN(9)-6)))
	}
	var lines [3]*exec.CopyLines
	var writers [3]*exec.CopyWriter
	var shard [3]int64
	type place struct{ shard, client int64 }
	var want [3][]place
	for i := range lines {
		lines[i] = exec.NewCopyLines("t")
		writers[i] = exec.NewCopyWriter(&bytes.Buffer{}, o.Dialect, lines[i])
	}
	if err := each(exec.NewCopyReader(o), data.Bytes(), nil, func(row *exec.CopyRow) {
		i := rng.IntN(3)
		if err := writers[i].Write(row); err != nil {
			t.Fatal(err)
		}
		inside := row.LastLine - row.Line
		if shard[i] == 0 {
			inside = 0 // newlines do not count yet
		}
		shard[i] += 1 + inside
		want[i] = append(want[i], place{shard[i], row.LastLine})
	}); err != nil {
		t.Fatal(err)
	}
	for i, l := range lines {
		for _, p := range want[i] {
			if got, ok := l.Line(p.shard, false); !ok || got != p.client {
				t.Fatalf("line %d of shard %d is %d (%v), want %d", p.shard, i, got, ok, p.client)
			}
		}
		if _, ok := l.Line(shard[i]+1, false); ok {
			t.Error("a line that was never sent is known")
		}
	}
}

// TestCopyLinesFirst has as a shard's first row one of two lines, which the shard counts as one.
func TestCopyLinesFirst(t *testing.T) {
	o := exec.CopyReaderOptions{Dialect: dialectOf(t, "COPY t FROM STDIN CSV", session), Relation: "t", Columns: []string{"k"}}
	l := exec.NewCopyLines("t")
	w := exec.NewCopyWriter(discard{}, o.Dialect, l)
	n := 0
	if err := each(exec.NewCopyReader(o), []byte("a\n\"b\n\"\n\"c\n\"\n"), nil, func(row *exec.CopyRow) {
		if n++; n > 1 {
			if err := w.Write(row); err != nil {
				t.Error(err)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	for where, want := range map[string]string{
		"COPY t, line 1":            "COPY t", // in which of the two lines it was reading nobody knows
		"COPY t, line 1, column k":  "COPY t, line 3, column k",
		"COPY t, line 1: \"b\n\"":   "COPY t, line 3: \"b\n\"",
		"COPY t, line 2":            "COPY t, line 4",
		"COPY t, line 3":            "COPY t, line 5",
		"COPY t, line 3, column k:": "COPY t, line 5, column k:",
	} {
		if got := l.Where(where); got != want {
			t.Errorf("%q: %q, want %q", where, got, want)
		}
	}
}

func TestCopyLinesForget(t *testing.T) {
	o := exec.CopyReaderOptions{Dialect: dialectOf(t, "COPY t FROM STDIN", session), Relation: "t", Columns: []string{"k"}}
	l := exec.NewCopyLines("t")
	w := exec.NewCopyWriter(discard{}, o.Dialect, l)
	r := exec.NewCopyReader(o)
	row := []byte(strings.Repeat("x", 16<<10) + "\n")
	for range 20_000 { // 320 MiB
		r.Feed(row)
		got, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(got); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := l.Line(1, false); ok {
		t.Error("the first line is known after 320 MiB")
	}
	for line := int64(20_000); line > 20_000-exec.KeptBytes/int64(len(row)); line-- {
		if got, ok := l.Line(line, false); !ok || got != line {
			t.Fatal(line, got, ok)
		}
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func TestCopyLinesWhere(t *testing.T) {
	l := exec.NewCopyLines("or ders")
	w := exec.NewCopyWriter(discard{}, dialectOf(t, "COPY t FROM STDIN", session), l)
	for _, line := range []int64{5, 9} {
		if err := w.Write(&exec.CopyRow{Bytes: []byte("x\n"), EndBytes: 1, Line: line, LastLine: line}); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ where, want string }{
		{"", ""},
		{"COPY or ders, line 2", "COPY or ders, line 9"},
		{`COPY or ders, line 2, column total: "1"`, `COPY or ders, line 9, column total: "1"`},
		{"COPY or ders, line 1: \"a\nCOPY or ders, line 2\"", "COPY or ders, line 5: \"a\nCOPY or ders, line 2\""},
		{"PL/pgSQL function f() line 2 at RAISE\nCOPY or ders, line 2: \"x\"", "PL/pgSQL function f() line 2 at RAISE\nCOPY or ders, line 9: \"x\""},
		{`COPY or ders, line 3, column total: "1"`, `COPY or ders, column total: "1"`},
		{`COPY or ders, line 3: "1"`, `COPY or ders`},
		{`COPY or ders, Zeile 2, Spalte total: »1«`, `COPY or ders`},
		{"COPY or ders, line 99999999999999999999", "COPY or ders"},
		{"COPY or ders", "COPY or ders"},
		{"PL/pgSQL function f(text) at RAISE\nCOPY others, line 2", "PL/pgSQL function f(text) at RAISE"},
		{"or ders 복사, 2번째 줄", ""},
		{"PL/pgSQL function f() line 2 at RAISE", "PL/pgSQL function f() line 2 at RAISE"},
	} {
		if got := l.Where(test.where); got != test.want {
			t.Errorf("%q: %q, want %q", test.where, got, test.want)
		}
	}
	for where, want := range map[string]int64{"COPY or ders, line 2, column a": 9, "x\nCOPY or ders, line 1": 5, "COPY or ders, line 3": 0, "COPY or ders": 0, "": 0} {
		if got, ok := l.ErrorLine(where); got != want || ok != (want > 0) {
			t.Errorf("%q: line %d, %v", where, got, ok)
		}
	}
	body := append(wire.Errorf("22P02", "m").WithDetail("d").Append(nil)[5:], 'x')
	body = append([]byte("WCOPY or ders, line 1\x00"), body...)
	got := string(l.AppendFields([]byte("+"), body))
	if want := "+WCOPY or ders, line 5\x00SERROR\x00VERROR\x00C22P02\x00Mm\x00Dd\x00\x00"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestCopyAllocations wants no memory for a row that is like those before.
func TestCopyAllocations(t *testing.T) {
	for _, format := range []string{"text", "csv", "csv quoted", "binary"} {
		data, names := benchData(format)
		o := exec.CopyReaderOptions{Dialect: dialectOf(t, "COPY t FROM STDIN (FORMAT "+strings.Fields(format)[0]+")", session), Relation: "t", Columns: names, Wanted: []int{2, 0}}
		r := exec.NewCopyReader(o)
		w := exec.NewCopyWriter(discard{}, o.Dialect, exec.NewCopyLines("t"))
		next := func(n int) {
			for ; n > 0 && len(data) > 0; n-- {
				r.Feed(data[:min(len(data), 1000)])
				data = data[min(len(data), 1000):]
				for {
					row, err := r.Next()
					if err != nil {
						t.Fatal(err)
					}
					if row == nil {
						break
					}
					if err := w.Write(row); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		next(10)
		if n := testing.AllocsPerRun(100, func() { next(8) }); n > 1 { // some 80 rows; the lines' memory grows now and then
			t.Errorf("%s: %v allocations", format, n)
		}
	}
}
