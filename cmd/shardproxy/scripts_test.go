package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/internal/pgtest"
)

// Simple queries of several statements are compared message by message with what one
// PostgreSQL says to the same text.

// scripter speaks the protocol by hand.
type scripter struct {
	t      testing.TB
	conn   *pgconn.HijackedConn
	status byte
}

func speak(t testing.TB, dsn string) *scripter {
	t.Helper()
	c, err := pgconn.Connect(within(t, 10*time.Second), dsn)
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Conn.Close() })
	return &scripter{t: t, conn: h, status: 'I'}
}

// say sends messages and returns what is said up to ReadyForQuery, or up to the
// connection's end.
func (c *scripter) say(messages ...pgproto3.FrontendMessage) (said []string) {
	c.t.Helper()
	_ = c.conn.Conn.SetDeadline(time.Now().Add(30 * time.Second))
	f := c.conn.Frontend
	for _, m := range messages {
		f.Send(m)
	}
	if err := f.Flush(); err != nil {
		return []string{"ended"}
	}
	for {
		m, err := f.Receive()
		if err != nil {
			return append(said, "ended")
		}
		switch m := m.(type) {
		case *pgproto3.RowDescription:
			line := "columns"
			for _, f := range m.Fields {
				line += fmt.Sprintf(" %s:%d:%d:%d", f.Name, f.DataTypeOID, f.TypeModifier, f.Format)
			}
			said = append(said, line)
		case *pgproto3.DataRow:
			line := "row"
			for _, v := range m.Values {
				if v == nil {
					line += " NULL"
				} else {
					line += fmt.Sprintf(" %q", v)
				}
			}
			said = append(said, line)
		case *pgproto3.ErrorResponse:
			said = append(said, "error "+strings.Join([]string{m.Severity, m.Code, m.Message, commitDetail.ReplaceAllString(m.Detail, ""), m.Hint, fmt.Sprint(m.Position)}, "|"))
		case *pgproto3.NoticeResponse:
			said = append(said, "notice "+strings.Join([]string{m.Severity, m.Code, m.Message, m.Detail, m.Hint}, "|"))
		case *pgproto3.CommandComplete:
			said = append(said, "complete "+string(m.CommandTag))
		case *pgproto3.ParameterStatus:
			said = append(said, "parameter "+m.Name+"="+m.Value)
		case *pgproto3.ReadyForQuery:
			c.status = m.TxStatus
			return append(said, "ready "+string(m.TxStatus))
		default:
			said = append(said, strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3."))
			if _, ok := m.(*pgproto3.CopyInResponse); ok {
				return said
			}
		}
	}
}

// commitDetail is what the detail of a failed commit over several shards says besides.
var commitDetail = regexp.MustCompile(`\nShard s[0-9]+\.$`)

// query sends a text. Copy data are sent when they are asked for: "fail" for none.
func (c *scripter) query(text string, data ...string) (said []string) {
	c.t.Helper()
	said = c.say(&pgproto3.Query{String: text})
	for said[len(said)-1] == "CopyInResponse" {
		if len(data) == 0 {
			data = []string{"fail"}
		}
		last := pgproto3.FrontendMessage(&pgproto3.CopyDone{})
		if data[0] == "fail" {
			last = &pgproto3.CopyFail{Message: "no data"}
		}
		said = append(said, c.say(&pgproto3.CopyData{Data: []byte(data[0])}, last)...)
		data = data[1:]
	}
	return said
}

// refusedAs returns where in a transcript the program refuses, and what it says; -1 when
// it does not.
func refusedAs(said []string) (int, string) {
	for i, line := range said {
		message, ok := strings.CutPrefix(line, "error ERROR|0A000|")
		if !ok {
			continue
		}
		for _, begin := range refusals {
			if strings.HasPrefix(message, begin) {
				return i, strings.TrimPrefix(message, refusals[0])
			}
		}
	}
	return -1, ""
}

// scriptCase is a session's texts. refused begins what the last one is refused with, ""
// when it runs; data are what a COPY gets.
type scriptCase struct {
	texts   []string
	data    []string
	refused string
}

// TestScripts compares texts of several statements. SHARDPROXY_TEST_SEED and
// SHARDPROXY_TEST_SEQUENCES are as for TestDiff, with 60 texts a sequence.
func TestScripts(t *testing.T) {
	t.Parallel()
	b := startBoth(t)
	t.Run("written", b.writtenScripts)
	t.Run("tied", b.tiedScripts)
	t.Run("random", func(t *testing.T) {
		b.randomScripts(t, testNumber(t, "SHARDPROXY_TEST_SEQUENCES", 1), testNumber(t, "SHARDPROXY_TEST_SEED", 1))
	})
}

func (b *both) writtenScripts(t *testing.T) {
	for _, c := range writtenScripts {
		proxy, direct := speak(t, b.dsn()), speak(t, b.dsnOfAll)
		name := strings.Join(c.texts, " / ")
		for i, text := range c.texts {
			got := proxy.query(text, c.data...)
			want := direct.query(text, c.data...)
			at, why := refusedAs(got)
			switch {
			case at >= 0 && (i < len(c.texts)-1 || c.refused == "" || !strings.HasPrefix(why, c.refused)):
				t.Errorf("%s\nrefused: %s", name, why)
			case at >= 0:
				if !slices.Equal(got[:at], want[:min(at, len(want))]) {
					t.Errorf("%s\nbefore the refusal:\n%s\nshould be\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			case !slices.Equal(got, want):
				t.Errorf("%s\n%s\nshould be\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
			case i == len(c.texts)-1 && c.refused != "":
				t.Errorf("%s\nis not refused any more", name)
			}
		}
		for _, side := range []*scripter{proxy, direct} {
			_ = side.conn.Conn.Close()
		}
		if strings.Contains(name, "made") || strings.Contains(name, "schema_migrations") {
			b.dropMade(t)
		}
		if c.refused != "" || !b.alike(name) {
			b.restore()
		}
	}
}

// dropMade drops what the texts have made.
func (b *both) dropMade(t testing.TB) {
	t.Helper()
	const drop = `DROP VIEW IF EXISTS made_v; DROP TABLE IF EXISTS made; DROP TABLE IF EXISTS schema_migrations; DROP INDEX IF EXISTS made_i;
		ALTER TABLE orders DROP COLUMN IF EXISTS made; ALTER TABLE products DROP COLUMN IF EXISTS made`
	for _, c := range []*pgx.Conn{b.owner, b.proxy} {
		if _, err := c.PgConn().Exec(within(t, 20*time.Second), drop).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
}

// tiedScripts runs the texts of a migration tool whose session holds an advisory lock.
func (b *both) tiedScripts(t *testing.T) {
	proxy, direct := speak(t, b.dsn()), speak(t, b.dsnOfAll)
	for _, text := range tiedTexts {
		got, want := proxy.query(text), direct.query(text)
		if !slices.Equal(got, want) {
			t.Errorf("%s\n%s\nshould be\n%s", text, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	b.alike("the tied session")
	// It still has its lock, on the home shard.
	var n int
	if err := b.shards[0].QueryRow(within(t, 10*time.Second), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid NOT IN (1936744304, 1936744289)").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d locks, %v", n, err)
	}
	_ = proxy.conn.Conn.Close()
	_ = direct.conn.Conn.Close()
	b.dropMade(t)
}

// randomScripts compares generated texts.
func (b *both) randomScripts(t *testing.T, sequences, seed int) {
	all, refused, failed, commands := 0, 0, 0, 0
	codes := map[string]int{}
	for i := range sequences {
		g := &scriptGenerator{generator: newGenerator(uint64(seed + i))}
		proxy, direct := speak(t, b.dsn()), speak(t, b.dsnOfAll)
		for j := range 60 {
			text := g.text()
			all++
			got := proxy.query(text)
			what := fmt.Sprintf("seed %d, text %d: %s", seed+i, j, text)
			if testing.Verbose() {
				t.Logf("%s\n-> %s", what, strings.Join(got, " / "))
			}
			if at, _ := refusedAs(got); at >= 0 {
				// What the other side would have done is not known any more.
				refused++
				for _, side := range []*scripter{proxy, direct} {
					_ = side.conn.Conn.Close()
				}
				b.dropMade(t)
				b.restore()
				proxy, direct = speak(t, b.dsn()), speak(t, b.dsnOfAll)
				continue
			}
			want := direct.query(text)
			for _, line := range want {
				if code, ok := strings.CutPrefix(line, "error ERROR|"); ok {
					failed++
					codes[code[:5]]++
				}
				if strings.HasPrefix(line, "complete ") {
					commands++
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s\n%s\nshould be\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if t.Failed() {
				return
			}
			if direct.status == 'I' && j%5 == 0 && !b.alike(what) {
				return
			}
			if direct.status != 'I' && g.chance(50) {
				end := pick(g.generator, []string{"ROLLBACK", "COMMIT"})
				if got, want := proxy.query(end), direct.query(end); !slices.Equal(got, want) {
					t.Errorf("%s behind %s:\n%s\nshould be\n%s", end, what, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
		}
		_ = proxy.conn.Conn.Close()
		_ = direct.conn.Conn.Close()
		b.alike(fmt.Sprint("seed ", seed+i))
		b.dropMade(t)
	}
	t.Logf("%d texts, %d refused, %d commands complete, %d errors %v", all, refused, commands, failed, codes)
	if refused > all/3 || commands < all {
		t.Error("too little ran")
	}
}

// TestScriptSettings sets in a transaction that is on all shards what its other
// connections must be known to have: nobody else finds it there.
func TestScriptSettings(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		s := startShards(t, 2, "runtime: {driver: "+driver+"}")
		c := s.connectLoaded()
		var update, ask strings.Builder
		for i := range 6 {
			must(t, c, "INSERT INTO customers VALUES ($1, 'x')", i)
			fmt.Fprintf(&update, "UPDATE customers SET name = 'y' WHERE id = %d;", i)
			fmt.Fprintf(&ask, "SELECT current_setting('work_mem') FROM customers WHERE id = %d;", i)
		}
		asked := func(c *pgx.Conn) (said []string) {
			results, err := c.PgConn().Exec(within(t, 20*time.Second), ask.String()).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				said = append(said, string(r.Rows[0][0]))
			}
			return slices.Compact(said)
		}
		for _, test := range []struct{ end, want string }{{"", "1MB"}, {"; SELECT 1/0", "4MB"}} {
			c := s.connect()
			_, err := c.PgConn().Exec(within(t, 20*time.Second), update.String()+"SET work_mem = '1MB'"+test.end).ReadAll()
			if (err != nil) != (test.end != "") {
				t.Fatal(err)
			}
			if got := asked(s.connect()); !slices.Equal(got, []string{"4MB"}) {
				t.Errorf("%s%s: another client has %q", driver, test.end, got)
			}
			if got := asked(c); !slices.Equal(got, []string{test.want}) {
				t.Errorf("%s%s: %q", driver, test.end, got)
			}
		}
	}
}

// TestScriptLosses takes a server away in the middle of a text: nothing of a transaction
// stays on one shard alone.
func TestScriptLosses(t *testing.T) {
	s := startShards(t, 2)
	c := s.connectLoaded()
	for i := range 10 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'x')", i)
	}
	for victim := range 2 {
		for _, own := range []bool{true, false} {
			name := fmt.Sprintf("shard %d, own transaction %v", victim, own)
			locker := pgtest.Connect(t, s.shards[victim].Primary().DSN("app", "app"))
			must(t, locker, "BEGIN")
			must(t, locker, "UPDATE products SET name = 'mine' WHERE id = 1")
			c := s.connect()
			var text strings.Builder
			if !own {
				text.WriteString("BEGIN;")
			}
			for i := range 10 {
				fmt.Fprintf(&text, "UPDATE customers SET name = 'half' WHERE id = %d;", i)
			}
			text.WriteString("UPDATE products SET name = 'half' WHERE id = 1;UPDATE customers SET name = 'whole' WHERE id = 3")
			if !own {
				text.WriteString(";COMMIT")
			}
			failed := make(chan error, 1)
			go func() {
				_, err := c.PgConn().Exec(within(t, 30*time.Second), text.String()).ReadAll()
				failed <- err
			}()
			admin := pgtest.Connect(t, s.shards[victim].Primary().DSN("app", "postgres"))
			eventually(t, "the text waits for a lock", func() bool {
				var n int
				err := admin.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").Scan(&n)
				return err == nil && n > 0
			})
			must(t, admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
			var pe *pgconn.PgError
			if err := <-failed; err == nil || errors.As(err, &pe) && pe.Code[:2] != "57" && pe.Code[:2] != "08" {
				t.Errorf("%s: %v", name, err)
			}
			must(t, locker, "ROLLBACK")
			_ = c.Close(within(t, 10*time.Second))
			eventually(t, name+": no connection is kept", func() bool { return s.lent() == 0 })
			for i, got := range s.onEach("SELECT count(*)::text FROM customers WHERE name <> 'x'") {
				if got != "0" {
					t.Errorf("%s: %s rows are left on shard %d", name, got, i)
				}
			}
		}
	}
}

// TestScriptDraws asks in a text for what a statement before it in the text has drawn.
func TestScriptDraws(t *testing.T) {
	s := startShards(t, 2, "      accounts: {key: id}")
	c := s.connectLoaded()
	must(t, c, "CREATE TABLE accounts (id serial PRIMARY KEY, name text)")
	for i := range 4 {
		results, err := c.PgConn().Exec(within(t, 20*time.Second), fmt.Sprintf(`INSERT INTO accounts (name) VALUES ('a') RETURNING id; SELECT lastval();
			INSERT INTO customers VALUES (%d, 'x'); INSERT INTO customers VALUES (%d, 'x'); SELECT currval('accounts_id_seq'); SELECT 1`, 100+2*i, 101+2*i)).ReadAll()
		if err != nil || len(results) != 6 {
			t.Fatal(len(results), err)
		}
		id := string(results[0].Rows[0][0])
		if got := string(results[1].Rows[0][0]) + " " + string(results[4].Rows[0][0]); got != id+" "+id {
			t.Errorf("drawn %s, asked for %s", id, got)
		}
	}
}
