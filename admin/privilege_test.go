package admin

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/auth"
)

// TestPrivileges: what each command takes stands here a second time, so that a
// command added or changed without a thought fails.
func TestPrivileges(t *testing.T) {
	steers := map[string]bool{"RELOAD": true, "PAUSE": true, "RESUME": true, "KILL": true, "RECONNECT": true, "SHUTDOWN": true, "TWOPC": true,
		"SHOW FDS": true, "DISABLE": true, "ENABLE": true, "KILL_CLIENT": true, "WAIT_CLOSE": true, "SUSPEND": true, "DRAIN": true, "MOVE": true, "BAN": true, "UNBAN": true,
		"RESET QUERIES": true, "RESET CACHE": true, "BLOCK": true, "MOVE PLAN": true, "MOVE START": true, "UNBLOCK": true}
	reads := map[string]bool{"SHOW PREPARED": true, "SHOW HOT_KEYS": true}
	looks := map[string]bool{"EXPLAIN ROUTE": true, "SET": true, "RESET": true, "BEGIN": true, "COMMIT": true, "END": true, "ROLLBACK": true, "ABORT": true,
		"DEALLOCATE": true, "DISCARD": true}
	admin, monitor, nobody := auth.Identity{Admin: true}, auth.Identity{Monitor: true}, auth.Identity{}
	seen := map[string]bool{}
	for key, cmd := range newCommands().byKey {
		seen[cmd.name] = true
		if !steers[cmd.name] && !looks[cmd.name] && !strings.HasPrefix(cmd.name, "SHOW ") {
			t.Errorf("%s: decide who may run it", cmd.name)
		}
		if strings.HasPrefix(key, "show ") != strings.HasPrefix(cmd.name, "SHOW ") {
			t.Errorf("%q runs %s", key, cmd.name)
		}
		if !cmd.needs.heldBy(admin) || cmd.needs.heldBy(nobody) || cmd.needs.heldBy(monitor) == (steers[cmd.name] || reads[cmd.name]) || (cmd.needs == maySteer) != steers[cmd.name] {
			t.Errorf("%s: admin %t, monitor %t, nobody %t", cmd.name, cmd.needs.heldBy(admin), cmd.needs.heldBy(monitor), cmd.needs.heldBy(nobody))
		}
	}
	for name := range steers {
		if !seen[name] {
			t.Errorf("%s is not in the table", name)
		}
	}
}

// TestMonitorCannotSteer sends every command of the table as a monitor user,
// in both protocols.
func TestMonitorCannotSteer(t *testing.T) {
	s := newSite(t)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
		c := connect(t, s, "ops", mode)
		for _, cmd := range newCommands().all {
			if cmd.needs == mayLook {
				continue
			}
			texts := []string{cmd.name, strings.ToLower(cmd.name) + " shop"}
			switch cmd.name {
			case "SHOW PREPARED":
				texts = []string{"SHOW PREPARED", "show prepared limit 1"}
			case "SHOW HOT_KEYS":
				texts = []string{"SHOW HOT_KEYS", "show hot_keys limit 1"}
			case "RESET QUERIES":
				texts = []string{"RESET QUERIES", "reset queries in shop"}
			case "RESET CACHE":
				texts = []string{"RESET CACHE", "reset cache in shop"}
			case "TWOPC":
				texts = []string{"TWOPC COMMIT 'a:1'", "twopc rollback 'a:1' force"}
			case "BAN", "UNBAN":
				texts = []string{cmd.name + " NODE 'a:1'", strings.ToLower(cmd.name) + " node \"a:1\" in shop"}
			case "BLOCK", "UNBLOCK":
				texts = []string{cmd.name + " 'SELECT 1'", strings.ToLower(cmd.name) + " fingerprint '00000000000000ff' in shop"}
			case "MOVE PLAN":
				texts = []string{"MOVE PLAN", "move plan remove s1 in shop"}
			case "MOVE START":
				texts = []string{"MOVE START", "move start slots 1, '2-3' to s1 plan 'abc' in shop"}
			case "MOVE":
				texts = []string{"MOVE PAUSE", "move resume in shop", "MOVE ABORT", "MOVE ROLLBACK 1, 2", "MOVE COMPLETE"}
			}
			for _, sql := range texts {
				if sql == "reload shop" || sql == "suspend shop" || sql == "show fds shop" {
					continue
				}
				_, err := c.Exec(t.Context(), sql)
				if pe := new(pgconn.PgError); !errors.As(err, &pe) || pe.Code != "42501" {
					t.Errorf("%s as a monitor user: %v", sql, err)
				}
			}
		}
	}
	if got := s.world.orders(); got != "" {
		t.Errorf("carried out: %s", got)
	}
	if !strings.Contains(s.log.String(), `msg="console command refused" user=ops`) {
		t.Error("refusals are not logged")
	}
}
