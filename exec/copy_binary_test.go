package exec_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"shardproxy/exec"
	"shardproxy/internal/pgtest"
)

const binaryHead = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// tuple makes a binary tuple of text fields; "-" is NULL.
func tuple(fields ...string) string {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(fields)))
	for _, f := range fields {
		if f == "-" {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return string(b)
}

// TestCopyBinaryOracle compares binary data, right and wrong, with PostgreSQL.
func TestCopyBinaryOracle(t *testing.T) {
	db := pgtest.Shared(t)
	db.Exec(`CREATE TABLE t (a text, b text, c varchar(9), ord bigserial)`)
	s := server{t, db.Connect("postgres").PgConn()}
	const sql = "COPY t (a, b, c) FROM STDIN (FORMAT binary)"
	o := exec.CopyReaderOptions{Dialect: dialectOf(t, sql, session), Relation: "t", Columns: columns, Wanted: []int{2, 0, 1}}
	row := tuple("one", "-", "") + tuple("two", strings.Repeat("long", 100), "x")
	end := "\xff\xff"
	for name, data := range map[string]string{
		"whole":                binaryHead + row + end,
		"no trailer":           binaryHead + row,
		"half a trailer":       binaryHead + row + "\xff",
		"empty":                binaryHead,
		"nothing":              "",
		"half a signature":     binaryHead[:5],
		"no signature":         "1\t2\t3\n4\t5\t6\n789\n",
		"no flags":             binaryHead[:13],
		"no length":            binaryHead[:17],
		"negative length":      binaryHead[:15] + "\xff\xff\xff\xff" + row,
		"extension":            binaryHead[:15] + "\x00\x00\x00\x05abcde" + row + end,
		"extension too short":  binaryHead[:15] + "\x00\x00\x00\x05abc",
		"oids":                 binaryHead[:11] + "\x00\x01\x00\x00" + binaryHead[15:] + row,
		"critical flags":       binaryHead[:11] + "\x80\x00\x00\x00" + binaryHead[15:] + row,
		"other flags":          binaryHead[:11] + "\x00\x00\x12\x34" + binaryHead[15:] + row,
		"behind the trailer":   binaryHead + row + end + "x",
		"too few fields":       binaryHead + row + tuple("a", "b"),
		"too many fields":      binaryHead + row + tuple("a", "b", "c", "d"),
		"negative count":       binaryHead + row + "\xff\xfe" + row,
		"end in a length":      binaryHead + row + tuple("a", "b", "c")[:13],
		"end in a field":       binaryHead + row + tuple("a", "b", "cdef")[:19],
		"end behind the count": binaryHead + row + "\x00\x03",
		"bad length":           binaryHead + row + "\x00\x03\x00\x00\x00\x01a\xff\xff\xff\xfe",
		"bad value":            binaryHead + row + tuple("a\xff", "b", "c") + row + end,
		"long value":           binaryHead + row + tuple("a", "b", "0123456789") + row + end,
	} {
		whole, failed := s.load(sql, "t", []byte(data))
		for _, sizes := range [][]int{nil, slices.Repeat([]int{1}, len(data)), slices.Repeat([]int{3}, len(data))} {
			rows, err := cut(o, []byte(data), sizes...)
			fault := err
			if n := len(rows); n > 0 && rows[n-1].Fault != nil {
				fault = rows[n-1].Fault
			}
			if failed != nil && failed.Code[:3] == "220" {
				continue // of a value: the split below has to show it
			}
			if told(fault) != toldBy(failed, where(failed)) {
				t.Errorf("%s: we say\n%s\nPostgreSQL\n%s", name, told(fault), toldBy(failed, where(failed)))
			}
			for i := range rows {
				v := rows[i].values
				rows[i].values = []exec.CopyValue{v[1], v[2], v[0]}
			}
			if failed == nil && !slices.Equal(showKept(rows), show(whole)) {
				t.Errorf("%s: we\n%q\nPostgreSQL\n%q", name, showKept(rows), show(whole))
			}
		}
		splitBinary(t, s, name, o, []byte(data), toldBy(failed, where(failed)), show(whole))
	}
}

// splitBinary loads the rows of data over two targets.
func splitBinary(t *testing.T, s server, name string, o exec.CopyReaderOptions, data []byte, want string, whole []string) {
	var out [2]bytes.Buffer
	var writers [2]*exec.CopyWriter
	var lines [2]*exec.CopyLines
	for i := range writers {
		lines[i] = exec.NewCopyLines("t")
		writers[i] = exec.NewCopyWriter(&out[i], o.Dialect, lines[i])
	}
	n := 0
	got := told(each(exec.NewCopyReader(o), data, []int{7, 100}, func(row *exec.CopyRow) {
		if err := writers[n%2].Write(row); err != nil {
			t.Error(err)
		}
		n++
	}))
	var all []string
	for i, w := range writers {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		rows, failed := s.load("COPY t (a, b, c) FROM STDIN (FORMAT binary)", "t", unframe(t, out[i].Bytes()))
		if failed != nil && (got == "" || lineOf(lines[i].Where(failed.Where)) < lineOf(got[strings.Index(got, "COPY t"):])) {
			got = toldBy(failed, lines[i].Where(failed.Where))
		}
		all = append(all, show(rows)...)
	}
	slices.Sort(all)
	slices.Sort(whole)
	if got != want || want == "" && !slices.Equal(all, whole) {
		t.Errorf("%s, split: said\n%s\nwant\n%s\nrows\n%q\nwant\n%q", name, got, want, all, whole)
	}
}

func TestCopyBinaryAdded(t *testing.T) {
	d := dialectOf(t, "COPY t FROM STDIN BINARY", session)
	var out bytes.Buffer
	w := exec.NewCopyWriter(&out, d, nil)
	data := binaryHead + tuple("a", "-") + tuple("b", "c") + "\xff\xff"
	rng := rand.New(rand.NewPCG(1, 1))
	n := 0
	err := each(exec.NewCopyReader(exec.CopyReaderOptions{Dialect: d, Relation: "t", Columns: []string{"x", "y"}}), []byte(data), pieces(rng, len(data)), func(row *exec.CopyRow) {
		value := []byte(fmt.Sprint("id", n))
		if n++; n == 2 {
			value = nil
		}
		if err := w.WriteAdded(row, exec.CopyAdded{Name: "id", Value: value}); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := string(unframe(t, out.Bytes())), binaryHead+tuple("a", "-", "id0")+tuple("b", "c", "-")+"\xff\xff"; got != want {
		t.Errorf("%q\nwant\n%q", got, want)
	}
}
