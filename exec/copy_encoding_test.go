package exec_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"shardproxy/exec"
	"shardproxy/internal/pgtest"
)

// TestCopyEveryByte loads values of all bytes but zero, in an encoding without rules.
func TestCopyEveryByte(t *testing.T) {
	db := pgtest.Shared(t)
	name := db.Name + "_bytes"
	db.Node.Exec("postgres", "CREATE DATABASE "+name+" ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
	t.Cleanup(func() { db.Node.Exec("postgres", "DROP DATABASE "+name+" WITH (FORCE)") })
	db.Node.Exec(name, "CREATE TABLE t (a text, b text, c text, ord bigserial)")
	s := server{t, pgtest.Connect(t, db.Node.DSN(name, "postgres")).PgConn()}
	if _, err := s.conn.Exec(context.Background(), "SET client_encoding = 'SQL_ASCII'").ReadAll(); err != nil {
		t.Fatal(err)
	}
	bytesSession := exec.CopySession{ClientEncoding: "SQL_ASCII", ServerEncoding: "sql_ascii", Version: 15}
	rng := rand.New(rand.NewPCG(rand.Uint64(), 2))
	for _, options := range []string{"(DELIMITER ';')", "(FORMAT csv)", "(FORMAT csv, QUOTE '''', ESCAPE '\\')"} {
		d := dialectOf(t, "COPY t (a, b, c) FROM STDIN "+options, bytesSession)
		var data bytes.Buffer
		for range 300 {
			for i := range 3 {
				if i > 0 {
					data.WriteByte(d.Delimiter)
				}
				value := make([]byte, rng.IntN(40))
				for k := range value {
					value[k] = byte(1 + rng.IntN(255))
				}
				data.Write(encoded(d, value))
			}
			data.WriteByte('\n')
		}
		whole, failed := s.load("COPY t (a, b, c) FROM STDIN "+options, "t", data.Bytes())
		if failed != nil {
			t.Fatalf("%s: %v", options, failed)
		}
		o := exec.CopyReaderOptions{Dialect: d, Relation: "t", Columns: columns, Wanted: []int{0, 1, 2}}
		rows, err := cut(o, data.Bytes(), pieces(rng, data.Len())...)
		if got := showKept(rows); err != nil || !slices.Equal(got, show(whole)) {
			t.Errorf("%s: %v\n%s\nPostgreSQL:\n%s", options, err, strings.Join(got, "\n"), strings.Join(show(whole), "\n"))
		}
	}
}

// encoded writes a value in a dialect's form.
func encoded(d *exec.CopyDialect, value []byte) (out []byte) {
	if d.Format == exec.CopyCSV {
		out = append(out, d.Quote)
	}
	for _, c := range value {
		switch {
		case d.Format == exec.CopyCSV && (c == d.Quote || c == d.Escape):
			out = append(out, d.Escape)
		case d.Format == exec.CopyText && (c == d.Delimiter || c == '\\' || c == '\n' || c == '\r'):
			out = append(out, '\\')
		}
		out = append(out, c)
	}
	if d.Format == exec.CopyCSV {
		out = append(out, d.Quote)
	}
	return out
}

// TestCopyConverted loads data that the server converts: rows are cut in them, keys are ASCII.
func TestCopyConverted(t *testing.T) {
	db := pgtest.Shared(t)
	db.Exec("CREATE TABLE t (a text, b text, c varchar(9), ord bigserial)")
	s := server{t, db.Connect("postgres").PgConn()}
	for encoding, text := range map[string]string{
		"LATIN1": "\xe9\xff\xa0", "EUC_JP": "\xa4\xa2\x8e\xb1\x8f\xb0\xa1", "WIN1251": "\xcf\xf0", "EUC_KR": "\xb0\xa1",
	} {
		if _, err := s.conn.Exec(context.Background(), "SET client_encoding = "+encoding).ReadAll(); err != nil {
			t.Fatal(err)
		}
		sql := "COPY t (a, b, c) FROM STDIN CSV"
		c := session
		c.ClientEncoding = encoding
		d := dialectOf(t, sql, c)
		o := exec.CopyReaderOptions{Dialect: d, Relation: "t", Columns: columns, Wanted: []int{0}}
		good := "1," + text + ",x\n2,\"\n" + text + "\",\n"
		var out bytes.Buffer
		w := exec.NewCopyWriter(&out, d, nil)
		if err := each(exec.NewCopyReader(o), []byte(good), []int{4, 1, 1, 5}, func(row *exec.CopyRow) {
			if err := w.Write(row); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Error(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		want, failed := s.load(sql, "t", []byte(good))
		got, refused := s.load(sql, "t", unframe(t, out.Bytes()))
		if failed != nil || refused != nil || !slices.Equal(show(got), show(want)) {
			t.Errorf("%s: %v %v\n%s\nwant\n%s", encoding, refused, failed, show(got), show(want))
		}
		bad := good + strings.Repeat(text, 17) + "\n" + "x,y\n"
		_, failed = s.load(sql, "t", []byte(bad))
		o.Wanted = nil
		rows, _ := cut(o, []byte(bad))
		fault := rows[len(rows)-1].Fault
		if failed == nil || fault == nil || fault.Code != failed.Code || fault.Message != failed.Message || lineOf(fault.Where) != lineOf(failed.Where) {
			t.Errorf("%s: we say %s, PostgreSQL %s", encoding, told(fault), toldBy(failed, where(failed)))
		}
	}
}
