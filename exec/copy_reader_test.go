package exec_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"shardproxy/exec"
	"shardproxy/wire"
)

// transcript renders what a reader makes of data.
func transcript(rows []kept, err *wire.Error) string {
	var b strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&b, "%d-%d %q+%d", row.Line, row.LastLine, row.Bytes[:len(row.Bytes)-row.EndBytes], row.EndBytes)
		for _, v := range row.values {
			switch {
			case v.Null:
				b.WriteString(" NULL")
			case v.Default:
				b.WriteString(" DEFAULT")
			case v.Missing:
				b.WriteString(" MISSING")
			default:
				fmt.Fprintf(&b, " %q", v.Bytes)
			}
		}
		if row.Fault != nil {
			b.WriteString(" fault " + told(row.Fault))
		}
		b.WriteByte('\n')
	}
	if err != nil {
		b.WriteString(told(err) + "\n")
	}
	return strings.ReplaceAll(b.String(), "\t", `\t`)
}

func TestCopyReader(t *testing.T) {
	for _, test := range []struct {
		options  string
		versions string // majors, 0 for not known; empty for all
		data     string
		want     string
	}{
		{"", "", "1\ta\n2\tb\n", "1-1 \"1\\ta\"+1 \"1\" \"a\"\n2-2 \"2\\tb\"+1 \"2\" \"b\"\n"},
		{"", "", "1\ta\r\n2\tb", "1-1 \"1\\ta\"+2 \"1\" \"a\"\n2-2 \"2\\tb\"+0 \"2\" \"b\"\n"},
		{"", "", "\\N\t\\x41\\101\\t\\\\\\q\\xq\\8\n", "1-1 \"\\\\N\\t\\\\x41\\\\101\\\\t\\\\\\\\\\\\q\\\\xq\\\\8\"+1 NULL \"AA\\t\\\\qxq8\"\n"},
		{"", "", "a\\\tb\tc\\\nd\n", "1-1 \"a\\\\\\tb\\tc\\\\\\nd\"+1 \"a\\tb\" \"c\\nd\"\n"},
		{"", "", "a\tb\\", "1-1 \"a\\tb\\\\\"+0 \"a\" \"b\"\n"},
		{"", "", "a\t\\N\\", "1-1 \"a\\t\\\\N\\\\\"+0 \"a\" NULL\n"},
		{"", "", "a\n", "1-1 \"a\"+1 \"a\" MISSING fault 22P04 missing data for column \"v\" |  | COPY t, line 1: \"a\"\n"},
		{"", "", "a\tb\n1\t2\t3\n4\t5\n", "1-1 \"a\\tb\"+1 \"a\" \"b\"\n2-2 \"1\\t2\\t3\"+1 \"1\" \"2\" fault 22P04 extra data after last expected column |  | COPY t, line 2: \"1\\t2\\t3\"\n"},
		{"", "", "a\tb\nx\ry\n", "1-1 \"a\\tb\"+1 \"a\" \"b\"\n22P04 literal carriage return found in data | Use \"\\r\" to represent carriage return. | COPY t, line 2\n"},
		{"", "", "a\tb\r\nx\n", "1-1 \"a\\tb\"+2 \"a\" \"b\"\n22P04 literal newline found in data | Use \"\\n\" to represent newline. | COPY t, line 2\n"},
		{"", "", "a\tb\n\\.\nwhat\never", "1-1 \"a\\tb\"+1 \"a\" \"b\"\n"},
		{"", "15 16 17 0", "a\tb\n\\.", "1-1 \"a\\tb\"+1 \"a\" \"b\"\n22P04 end-of-copy marker corrupt |  | COPY t, line 2\n"},
		{"", "18", "a\tb\n\\.", "1-1 \"a\\tb\"+1 \"a\" \"b\"\n22P04 end-of-copy marker is not alone on its line |  | COPY t, line 2\n"},
		{"", "", "a\tb\n\\.\xffx\n", "1-1 \"a\\tb\"+1 \"a\" \"b\"\n22021 invalid byte sequence for encoding \"UTF8\": 0xff |  | COPY t, line 2\n"},
		{"", "15 17", "a\tb\\.\n", "1-1 \"a\\tb\"+0 \"a\" \"b\"\n"},
		{"", "18", "a\tb\\.\n", "22P04 end-of-copy marker is not alone on its line |  | COPY t, line 1\n"},
		{"", "0", "a\tb\\.\n", "0A000 COPY into a sharded table: versions of PostgreSQL differ in what the marker \"\\.\" means here | Send the end of the data as the protocol has it (CopyDone), without the marker. | COPY t, line 1\n"},
		{"(HEADER, NULL '')", "", "k\tv\n\tx\n", "2-2 \"\\tx\"+1 NULL \"x\"\n"},
		{"(HEADER match)", "", "k\tv\n1\t2\n", "2-2 \"1\\t2\"+1 \"1\" \"2\"\n"},
		{"(HEADER match)", "", "k\tw\n1\t2\n", "22P04 column name mismatch in header line field 2: got \"w\", expected \"v\" |  | COPY t, line 1: \"k\\tw\"\n"},
		{"(DEFAULT 'D')", "16 17 18", "D\t\\D\n", "1-1 \"D\\t\\\\D\"+1 DEFAULT \"D\"\n"},

		{"(FORMAT csv)", "", "1,\"a\"\"b,\nc\"\n,\"\"\n", "1-1 \"1,\\\"a\\\"\\\"b,\\nc\\\"\"+1 \"1\" \"a\\\"b,\\nc\"\n2-2 \",\\\"\\\"\"+1 NULL \"\"\n"},
		{"(FORMAT csv)", "", "1,2\n\"a\nb\",c\nd,e\n", "1-1 \"1,2\"+1 \"1\" \"2\"\n2-3 \"\\\"a\\nb\\\",c\"+1 \"a\\nb\" \"c\"\n4-4 \"d,e\"+1 \"d\" \"e\"\n"},
		{"(FORMAT csv, ESCAPE '\\')", "", "\"a\\\"b\\\\\",\"\\x\"\"y\"\n", "1-1 \"\\\"a\\\\\\\"b\\\\\\\\\\\",\\\"\\\\x\\\"\\\"y\\\"\"+1 \"a\\\"b\\\\\" \"\\\\xy\"\n"},
		{"(FORMAT csv, FORCE_NULL (k), FORCE_NOT_NULL (v))", "", "\"\",\n", "1-1 \"\\\"\\\",\"+1 NULL \"\"\n"},
		{"(FORMAT csv, FORCE_NULL *, NULL 'x')", "17 18", "\"x\",x\n", "1-1 \"\\\"x\\\",x\"+1 NULL NULL\n"},
		{"(FORMAT csv)", "", "a,\"b\n", "1-1 \"a,\\\"b\\n\"+0 \"a\" \"b\\n\" fault 22P04 unterminated CSV quoted field |  | COPY t, line 1: \"a,\"b\n\"\n"},
		{"(FORMAT csv)", "", "a,b\r\nc\rd,e\n", "1-1 \"a,b\"+2 \"a\" \"b\"\n22P04 unquoted carriage return found in data | Use quoted CSV field to represent carriage return. | COPY t, line 2\n"},
		{"(FORMAT csv)", "15 16 17", "a,b\n\\.\nc\n", "1-1 \"a,b\"+1 \"a\" \"b\"\n"},
		{"(FORMAT csv)", "15 16 17", "a,b\r\n\\.\r\nc\n", "1-1 \"a,b\"+2 \"a\" \"b\"\n"},
		{"(FORMAT csv)", "15 17", "a,b\n\\.\rc\n", "1-1 \"a,b\"+1 \"a\" \"b\"\n22P04 end-of-copy marker does not match previous newline style |  | COPY t, line 2\n"},
		{"(FORMAT csv)", "18", "\\.\n", "1-1 \"\\\\.\"+1 \"\\\\.\" MISSING fault 22P04 missing data for column \"v\" |  | COPY t, line 1: \"\\.\"\n"},
		{"(FORMAT csv)", "0", "\\.\n", "0A000 COPY into a sharded table: versions of PostgreSQL differ in what the marker \"\\.\" means here | Send the end of the data as the protocol has it (CopyDone), without the marker. | COPY t, line 1\n"},
		{"(FORMAT csv)", "", "\\.,x\n\\.,y", "1-1 \"\\\\.,x\"+1 \"\\\\.\" \"x\"\n2-2 \"\\\\.,y\"+0 \"\\\\.\" \"y\"\n"},
		{"(FORMAT csv)", "", "a,b\nx" + strings.Repeat("é", 51) + "\n", "1-1 \"a,b\"+1 \"a\" \"b\"\n2-2 \"x" + strings.Repeat("é", 51) + "\"+1 \"x" + strings.Repeat("é", 51) +
			"\" MISSING fault 22P04 missing data for column \"v\" |  | COPY t, line 2: \"x" + strings.Repeat("é", 49) + "...\"\n"},
		{"(FORMAT csv)", "", "a,b\n\"c\n\xffd\ne\"\n", "1-1 \"a,b\"+1 \"a\" \"b\"\n2-4 \"\\\"c\\n\\xffd\\ne\\\"\"+1 \"c\\n\\xffd\\ne\" MISSING fault 22021 invalid byte sequence for encoding \"UTF8\": 0xff |  | COPY t, line 3\n"},
		{"(ENCODING 'latin1')", "", "a\t\xe9\n", "0A000 COPY into a sharded table: the key is not ASCII, and the data are in another encoding than the server | Set client_encoding, or COPY's option ENCODING, to the server's encoding. | COPY t, line 1\n"},
		{"(ENCODING 'latin1')", "", "\xe9\n", "0A000 COPY into a sharded table: the key is not ASCII, and the data are in another encoding than the server | Set client_encoding, or COPY's option ENCODING, to the server's encoding. | COPY t, line 1\n"},
	} {
		versions := test.versions
		if versions == "" {
			versions = "0 15 16 17 18"
		}
		for _, version := range strings.Fields(versions) {
			s := session
			s.Version = 0
			_, _ = fmt.Sscan(version, &s.Version)
			o := exec.CopyReaderOptions{Dialect: dialectOf(t, "COPY t FROM STDIN "+test.options, s), Relation: "t", Columns: []string{"k", "v"}, Wanted: []int{0, 1}}
			for _, sizes := range [][]int{nil, slices.Repeat([]int{1}, len(test.data)), slices.Repeat([]int{2}, len(test.data))} {
				if got := transcript(cut(o, []byte(test.data), sizes...)); got != test.want {
					t.Errorf("%s, version %s, %q:\n%swant\n%s", test.options, version, test.data, got, test.want)
				}
			}
		}
	}
}

// TestCopyReaderFedTwice feeds without asking for rows between.
func TestCopyReaderFedTwice(t *testing.T) {
	r := exec.NewCopyReader(exec.CopyReaderOptions{Dialect: dialectOf(t, "COPY t FROM STDIN", session), Relation: "t", Columns: []string{"k"}})
	for _, piece := range []string{"a\nb", "c\n", "d"} {
		r.Feed([]byte(piece))
	}
	r.Finish()
	for _, want := range []string{"a\n", "bc\n", "d"} {
		if row, err := r.Next(); err != nil || row == nil || string(row.Bytes) != want {
			t.Fatal(row, err)
		}
	}
	if row, err := r.Next(); row != nil || err != nil || !r.Ended() {
		t.Error(row, err)
	}
}

func TestCopyReaderWithoutColumns(t *testing.T) {
	for _, options := range []string{"", "(FORMAT csv)"} {
		o := exec.CopyReaderOptions{Dialect: dialectOf(t, "COPY t FROM STDIN "+options, session), Relation: "t"}
		want := "1-1 \"\"+1\n2-2 \"\"+1\n3-3 \"x\"+1 fault 22P04 extra data after last expected column |  | COPY t, line 3: \"x\"\n"
		if got := transcript(cut(o, []byte("\n\nx\n"))); got != want {
			t.Errorf("%s:\n%s", options, got)
		}
	}
}

// TestCopyReaderLimit wants a row that is too large to be an error before it is all in memory.
func TestCopyReaderLimit(t *testing.T) {
	for _, options := range []string{"", "(FORMAT csv)", "(FORMAT binary)"} {
		o := exec.CopyReaderOptions{Dialect: dialectOf(t, "COPY t FROM STDIN "+options, session), Relation: "t", Columns: []string{"k"}, RowBytes: 1000}
		good, bad := strings.Repeat("x", 999)+"\n", strings.Repeat("x", 2000)
		if options == "(FORMAT binary)" {
			good, bad = binaryHead+tuple(strings.Repeat("x", 994)), "\x00\x01\x00\x00\x07\x00"
		}
		for _, size := range []int{1, 100, 5000} {
			r := exec.NewCopyReader(o)
			rows := 0
			var err *wire.Error
			fed := 0
			for data := []byte(good + bad); len(data) > 0 && err == nil; {
				n := min(size, len(data))
				r.Feed(data[:n])
				fed += n
				data = data[n:]
				for err == nil {
					row, e := r.Next()
					errors.As(e, &err)
					if row == nil {
						break
					}
					rows++
				}
			}
			if rows != 1 || err == nil || err.Code != "54000" || err.Where != "COPY t, line 2" || size < 1000 && fed > len(good)+1000+size {
				t.Errorf("%s in pieces of %d: %d rows, %v, after %d bytes", options, size, rows, err, fed)
			}
		}
	}
}

func TestCopyValueError(t *testing.T) {
	r := exec.NewCopyReader(exec.CopyReaderOptions{Dialect: dialectOf(t, "COPY t FROM STDIN", session), Relation: "t", Columns: []string{"k", "v"}, Wanted: []int{1, 0}})
	r.Feed([]byte("1\t2\n\\N\t" + strings.Repeat("7", 101) + "\n"))
	for range 2 {
		if row, err := r.Next(); row == nil || err != nil {
			t.Fatal(row, err)
		}
	}
	e := wire.Errorf("22P02", "bad")
	for i, want := range []string{`COPY t, line 2, column v: "` + strings.Repeat("7", 100) + `..."`, "COPY t, line 2, column k: null input"} {
		if got := r.ValueError(e, i).Where; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if got := r.RowError(e).Where; got != "COPY t, line 2: \"\\N\t"+strings.Repeat("7", 97)+`..."` || e.Where != "" {
		t.Error(got)
	}
}

// FuzzCopyReader cuts data anywhere, and wants the same rows as from the data in one piece, all bytes
// in the rows, and no row over the limit.
func FuzzCopyReader(f *testing.F) {
	f.Add(uint8(0), uint8(15), uint16(3), "a\tb\\\n\\N\n\\.\n")
	f.Add(uint8(1), uint8(18), uint16(7), "a,\"b\"\"\n\r\",c\r\n\\.\r\n")
	f.Add(uint8(2), uint8(17), uint16(1), "a;'x!'y'\r\\.\r")
	f.Add(uint8(3), uint8(15), uint16(5), binaryHead+tuple("a", "-")+tuple("b", "c")+"\xff\xff")
	f.Add(uint8(0), uint8(12), uint16(136), "\\.\xe3\xe3\xe3")
	f.Add(uint8(4), uint8(16), uint16(2), "k|v\n1|D\nx|\\|\n")
	options := []string{"", "(FORMAT csv)", "(FORMAT csv, QUOTE '''', ESCAPE '!', DELIMITER ';', FORCE_NULL (k))", "(FORMAT binary)", "(HEADER match, DELIMITER '|', DEFAULT 'D')",
		"(FORMAT csv, ESCAPE '\\', HEADER)"}
	f.Fuzz(func(t *testing.T, dialect, version uint8, step uint16, data string) {
		s := session
		s.Version = int(version) % 20
		o := exec.CopyReaderOptions{Dialect: dialectOf(t, "COPY t FROM STDIN "+options[int(dialect)%len(options)], s),
			Relation: "t", Columns: []string{"k", "v"}, Wanted: []int{1, 0}, RowBytes: 300}
		var sizes []int
		for i := 0; i < len(data) && step > 0; i++ {
			sizes = append(sizes, 1+(int(step)*(i*i+1))%17)
		}
		rows, err := cut(o, []byte(data))
		pieces, cutErr := cut(o, []byte(data), sizes...)
		if err != nil && cutErr != nil && (err.Code == "22021" || cutErr.Code == "22021") {
			// As with a server, bytes that are not in the encoding are told of before what
			// stands in front of them when they have come by then.
			err, cutErr = nil, nil
		}
		got, want := transcript(pieces, cutErr), transcript(rows, err)
		if got != want && !strings.Contains(got+want, "54000") {
			t.Errorf("in pieces:\n%s\nat once:\n%s", got, want)
		}
		rest := data
		for _, row := range rows {
			at := strings.Index(rest, string(row.Bytes))
			if at < 0 || len(row.Bytes) > 300 {
				t.Fatalf("the row %q is not in what is left of the data, or too long", row.Bytes)
			}
			rest = rest[at+len(row.Bytes):]
		}
	})
}
