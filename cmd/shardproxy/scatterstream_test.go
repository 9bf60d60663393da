package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/wire"
)

// scatterProcess is the program in a process of its own in front of two shards, whose database orders text by the
// rules of a language.
type scatterProcess struct {
	*process
	direct []*pgx.Conn
	keys   []int
}

// startScatterProcess starts it, with rows of narrow on each shard.
func startScatterProcess(t *testing.T, rows int, more string) *scatterProcess {
	t.Helper()
	s := &scatterProcess{}
	var list strings.Builder
	for i := range 2 {
		cl := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"max_prepared_transactions": "20", "wal_level": "logical"}})
		cl.Primary().Exec("postgres", "CREATE DATABASE texts OWNER app TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'")
		fmt.Fprintf(&list, "      - {name: s%d, nodes: [%q]}\n", i, cl.Primary().Addr())
		s.direct = append(s.direct, pgtest.Connect(t, cl.Primary().DSN("texts", "postgres")))
		must(t, pgtest.Connect(t, cl.Primary().DSN("texts", "app")), "CREATE TABLE narrow (k bigint, id bigint, name text, PRIMARY KEY (k, id))")
		must(t, pgtest.Connect(t, cl.Primary().DSN("texts", "app")), "CREATE TABLE wide (k bigint)")
	}
	text := strings.NewReplacer("%SHARDS%", list.String(), "server: {", `server: {database: "texts", `).Replace(shardsText)
	text = text[:strings.Index(text, "      customers:")] + "      narrow: {key: k}\n      wide: {key: k}\n" + more
	s.process = newProcess(t, "texts", nil, text)
	c := initCommand()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs([]string{"-c", s.path})
	if err := c.ExecuteContext(within(t, time.Minute)); err != nil {
		t.Fatalf("init: %v\n%s", err, out.String())
	}
	s.start(func(cmd *exec.Cmd) { cmd.Path = built(t) })
	s.logged("msg=listening")
	pc := s.connect()
	eventually(t, "the catalog is there", func() bool {
		_, err := pc.Exec(within(t, 10*time.Second), "SELECT * FROM narrow WHERE k = 0")
		return err == nil
	})
	s.keys = keysOn(t, pc, 2)
	for i, direct := range s.direct {
		for from := 0; from < rows; from += 500_000 {
			must(t, direct, "INSERT INTO narrow SELECT $1, 2 * i + $2, CASE WHEN i % 3 = 0 THEN upper(md5(i::text)) ELSE md5(i::text) END FROM generate_series($3::int, $4::int - 1) i",
				s.keys[i], i, from, min(from+500_000, rows))
		}
		must(t, direct, "ANALYZE")
	}
	return s
}

// measured runs a test and returns by how much the process has grown at most, in bytes.
func (s *scatterProcess) measured(t *testing.T, run func()) int64 {
	t.Helper()
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid), "clear_refs"), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	base := s.memory("VmRSS")
	run()
	grown := s.memory("VmHWM") - base
	t.Logf("%.1f MiB at first, at most %.1f MiB more", float64(base)/(1<<20), float64(grown)/(1<<20))
	return grown
}

// rowReader reads the rows of an answer one by one.
type rowReader struct {
	t    *testing.T
	from *bufio.Reader
	tag  string
	err  string
}

// query sends a simple query and reads nothing yet.
func (c *talker) query(sql string) *rowReader {
	c.send(wire.AppendQuery(nil, sql))
	return &rowReader{t: c.t, from: bufio.NewReaderSize(c.nc, 4096)}
}

// next returns the fields of the next row; false at the end, when tag or err is set.
func (r *rowReader) next() (fields []string, ok bool) {
	for {
		var head [5]byte
		if _, err := io.ReadFull(r.from, head[:]); err != nil {
			r.fail(err.Error())
			return nil, false
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(r.from, body); err != nil {
			r.fail(err.Error())
			return nil, false
		}
		switch head[0] {
		case wire.MsgDataRow:
			for at := 2; at < len(body); {
				n := int(binary.BigEndian.Uint32(body[at:]))
				fields = append(fields, string(body[at+4:at+4+n]))
				at += 4 + n
			}
			return fields, true
		case wire.MsgCommandComplete:
			r.tag = string(bytes.TrimRight(body, "\x00"))
		case wire.MsgErrorResponse:
			r.fail(wire.Field(body, 'C'))
		case wire.MsgReadyForQuery:
			return nil, false
		}
	}
}

// fail keeps the first error.
func (r *rowReader) fail(e string) {
	if r.err == "" {
		r.err = e
	}
}

// TestScatterMemory sends a million rows of two shards through the program, with and without an
// order, to a client that stops reading for a while, and watches how much memory the process needs. SHARDPROXY_TEST_ROWS is how many rows
// each shard has.
func TestScatterMemory(t *testing.T) {
	t.Parallel()
	rows := testNumber(t, "SHARDPROXY_TEST_ROWS", 500000)
	const bound = 64 << 20
	s := startScatterProcess(t, rows, "limits: {gather: 16MiB}\n")
	for range 5 {
		c := s.connect()
		must(t, c, "SELECT id, name FROM narrow ORDER BY id LIMIT 1000")
		must(t, c, "SELECT id, name FROM narrow ORDER BY name LIMIT 1000")
	}
	for _, test := range []struct {
		name, sql string
		run       func(*testing.T, *scatterProcess, *rowReader)
	}{
		// 100 MB of each shard: far more than the kernel's buffers take (32 MiB a socket are usual) while nobody reads.
		{"as they come", "SELECT id, repeat(name, 6) FROM narrow", func(t *testing.T, s *scatterProcess, r *rowReader) { streamsAll(t, s, r, 2*rows, false) }},
		{"in order", "SELECT id, repeat(name, 6) FROM narrow ORDER BY id", func(t *testing.T, s *scatterProcess, r *rowReader) { streamsAll(t, s, r, 2*rows, true) }},
		{"in order, downwards, behind an offset", fmt.Sprintf("SELECT %d - id, repeat(name, 6) FROM narrow ORDER BY id DESC OFFSET 1000", 2*rows), func(t *testing.T, s *scatterProcess, r *rowReader) {
			streamsAll(t, s, r, 2*rows-1000, true)
		}},
		{"in order of text", "SELECT name FROM narrow ORDER BY name LIMIT 100000", streamsTexts},
		{"more than may be gathered", "SELECT name FROM narrow ORDER BY name", func(t *testing.T, s *scatterProcess, r *rowReader) {
			if _, ok := r.next(); ok || r.err != "54000" || r.tag != "" {
				t.Errorf("%q %q, want 54000", r.err, r.tag)
			}
		}},
		{"grouped", fmt.Sprintf("SELECT id / %d, count(*) FROM narrow GROUP BY 1 HAVING count(*) <> %[1]d", 2*rows/100_000), func(t *testing.T, s *scatterProcess, r *rowReader) {
			if _, ok := r.next(); ok || r.err != "" || r.tag != "SELECT 0" {
				t.Errorf("%q %q", r.err, r.tag)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := s.talk(t)
			// What is gathered is held in several forms at once: its memory is a multiple of limits.gather.
			if grown := s.measured(t, func() { test.run(t, s, c.query(test.sql)) }); grown > bound && test.name != "in order of text" || grown > 2*bound {
				t.Errorf("%d MiB more", grown>>20)
			}
			if all := s.memory("VmHWM"); all > 2*bound && test.name != "in order of text" {
				t.Errorf("%d MiB in all", all>>20)
			}
		})
	}
}

// waiting counts the shards whose server waits for its client to read.
func (s *scatterProcess) waiting(t *testing.T) (n int) {
	for _, direct := range s.direct {
		var one int
		err := direct.QueryRow(within(t, 10*time.Second), "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'ClientWrite'").Scan(&one)
		if err != nil {
			t.Fatal(err)
		}
		n += one
	}
	return n
}

// streamsAll reads the first row while both shards have not sent all of theirs, stops, and reads the others.
func streamsAll(t *testing.T, s *scatterProcess, r *rowReader, want int, ordered bool) {
	seen := make([]bool, want+2000)
	take := func() bool {
		fields, ok := r.next()
		if !ok {
			return false
		}
		id, err := strconv.Atoi(fields[0])
		if err != nil || seen[id] {
			t.Fatalf("the row %v comes twice or is none", fields)
		}
		seen[id] = true
		return true
	}
	if !take() {
		t.Fatal("no row:", r.err)
	}
	eventually(t, "both shards wait for the client to read", func() bool { return s.waiting(t) == 2 })
	if want%10000 == 0 {
		<-time.After(2 * time.Second) // as long as no client does by chance
		// The kernel may have made more room meanwhile; what the process takes is measured.
		eventually(t, "both shards wait still, for nobody reads", func() bool { return s.waiting(t) == 2 })
	}
	n, last := 1, -1
	for i, there := range seen {
		if there {
			last = i
		}
	}
	for {
		fields, ok := r.next()
		if !ok {
			break
		}
		id, err := strconv.Atoi(fields[0])
		if err != nil || seen[id] {
			t.Fatalf("the row %v comes twice or is none", fields)
		}
		if ordered && id != last+1 {
			t.Fatalf("%d comes behind %d", id, last)
		}
		seen[id], last = true, id
		n++
	}
	if n != want || r.tag != fmt.Sprintf("SELECT %d", want) || r.err != "" {
		t.Errorf("%d rows, %q %q", n, r.tag, r.err)
	}
}

// streamsTexts has one of the servers say whether texts are in the order of its collation, and the first of all.
func streamsTexts(t *testing.T, s *scatterProcess, r *rowReader) {
	var names []string
	for {
		fields, ok := r.next()
		if !ok {
			break
		}
		names = append(names, fields[0])
	}
	if len(names) != 100000 || r.err != "" {
		t.Fatalf("%d rows, %q %q", len(names), r.tag, r.err)
	}
	var wrong, bytewise int
	err := s.direct[0].QueryRow(within(t, 30*time.Second), `SELECT count(*) FILTER (WHERE v < before), count(*) FILTER (WHERE v < before COLLATE "C")
		FROM (SELECT v, lag(v) OVER (ORDER BY n) AS before FROM unnest($1::text[]) WITH ORDINALITY u(v, n)) x`, names).Scan(&wrong, &bytewise)
	if err != nil || wrong != 0 || bytewise == 0 {
		t.Errorf("%d rows are not in order, %d not in that of their bytes: %v", wrong, bytewise, err)
	}
	below, upto := 0, 0
	for _, direct := range s.direct {
		var a, b int
		if err := direct.QueryRow(within(t, 30*time.Second), "SELECT count(*) FILTER (WHERE name < $1), count(*) FILTER (WHERE name <= $1) FROM narrow", names[len(names)-1]).Scan(&a, &b); err != nil {
			t.Fatal(err)
		}
		below, upto = below+a, upto+b
	}
	if below >= 100000 || upto < 100000 {
		t.Errorf("of all %d come before the last, and %d up to it", below, upto)
	}
}

// scatterLeaves has clients go while rows stream, and while shards work.
func scatterLeaves(t *testing.T, s *scattered) {
	for _, sql := range []string{wideRows, wideRows + " ORDER BY id", "BEGIN; " + wideRows + " ORDER BY id DESC"} {
		c := speak(t, s.dsn())
		r := (&talker{t, c.conn.Conn}).query(sql)
		if _, ok := r.next(); !ok {
			t.Fatal(sql, r.err)
		}
		eventually(t, "both shards wait for the client to read", func() bool { return s.onAll(1, "wait_event = 'ClientWrite'") })
		_ = c.conn.Conn.Close()
		s.free(t, "the client has left: "+sql)
	}
	for _, sql := range scatterLong {
		c := speak(t, s.dsn())
		(&talker{t, c.conn.Conn}).query(sql.text)
		eventually(t, "a shard works", func() bool { return s.waitOn(0, sql.works)+s.waitOn(1, sql.works) >= sql.shards })
		_ = c.conn.Conn.Close()
		s.free(t, "the client has left: "+sql.text)
	}
}
