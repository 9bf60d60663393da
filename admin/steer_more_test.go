package admin

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestSteeringCommands: what each command orders, what it refuses, and what is logged of it.
func TestSteeringCommands(t *testing.T) {
	s := newSite(t)
	c := connect(t, s, "admin", pgx.QueryExecModeSimpleProtocol)
	for _, test := range []struct{ sql, tag, code, ordered string }{
		{"DISABLE shop", "DISABLE", "", "disable shop true"},
		{"enable \"shop\";", "ENABLE", "", "disable shop false"},
		{"DISABLE", "", "42601", ""},
		{"ENABLE", "", "42601", ""},
		{"DISABLE nobody", "", "3D000", ""},
		{"DISABLE pgbouncer", "", "0A000", ""},
		{"KILL_CLIENT 2", "KILL_CLIENT", "", "kill client 2"},
		{"KILL_CLIENT 9", "", "42704", "kill client 9"},
		{"KILL_CLIENT", "", "42601", ""},
		{"KILL_CLIENT x", "", "42601", ""},
		{"KILL_CLIENT -1", "", "42601", ""},
		{"WAIT_CLOSE \"My-Db.2\"", "WAIT_CLOSE", "", ""},
		{"WAIT_CLOSE nobody", "", "3D000", ""},
		{"BAN NODE '10.0.0.20:5432'", "", "42704", `ban "" 10.0.0.20:5432 true`},
		{"BAN NODE '10.0.0.2:5432'", "BAN", "", `ban "" 10.0.0.2:5432 true`},
		{"unban node \"10.0.0.2:5432\" in shop", "UNBAN", "", `ban "shop" 10.0.0.2:5432 false`},
		{"BAN NODE '10.0.0.1:5432'", "", "55000", `ban "" 10.0.0.1:5432 true`},
		{"BAN NODE '10.0.0.2:5432' IN nobody", "", "3D000", ""},
		{"BLOCK 'SELECT ''secret'';' IN shop", "BLOCK", "", `block shop "select $1" by admin for 0s`},
		{"BLOCK FINGERPRINT '00000000000000FF' IN shop FOR 90s", "BLOCK", "", `block shop "" by admin for 1m30s`},
		{"BLOCK FINGERPRINT 'ff'", "", "22023", ""},
		{"BLOCK 'COMMIT'", "", "0A000", ""},
		{"BLOCK 'SELECT 1; SELECT 2'", "", "42601", ""},
		{"BLOCK 'SELECT 1' IN nobody", "", "3D000", ""},
		{"UNBLOCK FINGERPRINT '00000000000000ff'", "UNBLOCK", "", "unblock shop"},
		{"UNBLOCK FINGERPRINT '00000000000000fe'", "", "55000", ""},
		{"UNBLOCK 'SELECT 1'", "", "42704", ""},
		{"UNBLOCK ALL IN shop", "UNBLOCK", "", "unblock shop"},
		{"SUSPEND", "", "0A000", ""},
		{"SHOW FDS", "", "0A000", ""},
		{"DRAIN", "DRAIN", "", "drain true"},
		{"drain off", "DRAIN", "", "drain false"},
		{"DRAIN soon", "", "42601", ""},
		{"MOVE PAUSE", "MOVE", "", "pause shop []"},
		{"MOVE RESUME IN shop", "MOVE", "", "resume shop []"},
		{"MOVE ROLLBACK 4, 5", "MOVE", "", "rollback shop [4 5]"},
		{"MOVE PLAN", "MOVE", "", "plan false shop"},
		{"move plan add s3, 's4=h:1' by rows threshold '5%' IN shop", "MOVE", "", "plan false shop add 's3' add 's4=h:1' by 'rows' threshold '5%'"},
		{"MOVE PLAN TENANT 'orders.customer_id=it''s' SLOTS 1, 2, '5-9' TO s1 EXACT", "MOVE", "", "plan false shop tenant 'orders.customer_id=it''s' slots '1,2,5-9' to 's1' exact"},
		{"MOVE START REMOVE s1 REVERSIBLE PLAN 'abc'", "MOVE", "", "plan true shop remove 's1' reversible plan 'abc'"},
		{"MOVE START REMOVE s9", "", "22023", "plan true shop remove 's9'"},
		{"MOVE PLAN PLAN 'abc'", "", "42601", ""},
		{"MOVE START PLAN 'a' PLAN 'b'", "", "42601", ""},
		{"MOVE PLAN ADD", "", "42601", ""},
		{"MOVE PLAN SIDEWAYS", "", "42601", ""},
		{"MOVE PLAN ADD s1,", "", "42601", ""},
		{"MOVE START IN \"My-Db.2\"", "", "55000", ""},
		{"MOVE COMPLETE 4", "", "55000", "complete shop [4]"},
		{"MOVE COMPLETE x", "", "42601", ""},
		{"MOVE ABORT IN \"My-Db.2\"", "", "55000", ""},
		{"MOVE ABORT IN nobody", "", "3D000", ""},
	} {
		s.world.mu.Lock()
		s.world.steered = nil
		s.world.mu.Unlock()
		tag, err := c.Exec(t.Context(), test.sql)
		if code(err) != test.code || tag.String() != test.tag || s.world.orders() != test.ordered {
			t.Errorf("%s: %q %v, ordered %q", test.sql, tag, err, s.world.orders())
		}
		last := strings.Split(strings.TrimSpace(s.log.String()), "\n")
		said := last[len(last)-1]
		switch {
		case test.code == "42601" && (strings.HasPrefix(test.sql, "DRAIN") || !strings.Contains(said, "msg=")):
		case test.code != "" && !strings.Contains(said, `msg="console command failed" user=admin`),
			test.code == "" && !strings.Contains(said, `msg="console command done" user=admin`):
			t.Errorf("%s is logged as %s", test.sql, said)
		}
	}
	for _, want := range []string{`command="move start remove 's1' reversible plan 'abc'"`, `wanted=start said="plan abc: 1 moves, 2 slots, about 30 rows"`, `command="move rollback 4, 5"`, `command="move resume in shop"`, `msg="moves ordered" user=admin`, `said="3 moves"`, `command="kill_client 9" error="client not found"`} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, s.log.String())
		}
	}
	s.world.mu.Lock()
	other := s.world.databases[0]
	other.Name = "other"
	s.world.databases = append(s.world.databases, other)
	s.world.mu.Unlock()
	if _, err := c.Exec(t.Context(), "MOVE PAUSE"); code(err) != "42601" || !strings.Contains(err.Error(), "say which") {
		t.Error(err)
	}
	s.world.mu.Lock()
	s.world.databases = s.world.databases[1:2]
	s.world.mu.Unlock()
	if _, err := c.Exec(t.Context(), "MOVE PAUSE"); code(err) != "55000" {
		t.Error(err)
	}
}

// TestWaitClose: it answers when nothing is left that is to be closed, and a cancel request ends it.
func TestWaitClose(t *testing.T) {
	s := newSite(t)
	c := connect(t, s, "admin", pgx.QueryExecModeSimpleProtocol)
	wait := func() <-chan error {
		done := make(chan error, 1)
		from := s.world.serversSeen()
		go func() {
			_, err := c.Exec(t.Context(), "WAIT_CLOSE shop")
			done <- err
		}()
		for s.world.serversSeen() < from+2 {
			select {
			case err := <-done:
				t.Fatalf("WAIT_CLOSE did not wait: %v", err)
			default:
			}
		}
		return done
	}
	done := wait()
	if err := c.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; code(err) != "57014" {
		t.Error(err)
	}
	done = wait()
	s.world.mu.Lock()
	s.world.servers = append([]ServerConn{}, s.world.servers[1:]...)
	s.world.mu.Unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// serversSeen is how often server connections were asked for.
func (w *world) serversSeen() int { w.mu.Lock(); defer w.mu.Unlock(); return w.seen }
