package main

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestDemoFailover does what the demo says one can do: the primary dies, a
// replica is promoted, writes go on, and Ctrl-C still leaves nothing.
func TestDemoFailover(t *testing.T) {
	t.Parallel()
	ps, temp := startDemo(t)
	soon(t, time.Minute, "the demo gets ready", func() bool {
		ps.runsStill()
		return strings.Contains(ps.printed(), "Ctrl-C ends everything")
	})
	found := ps.traces()
	for _, node := range []string{"s0 primary", "s0 replica1", "s1 primary", "s1 replica1"} {
		if line := ps.printedAs(node); !strings.Contains(line, "data in "+temp+"/") {
			t.Errorf("no data directory in %q", line)
		}
	}
	c := (&proxied{t: t}).connectTo(ps.printedAs("DSN"))
	var write string // on the shard whose primary dies
	eventually(t, "one is on s1", func() bool {
		for id := 1; id < 20; id++ {
			write = fmt.Sprintf("UPDATE customers SET name = name WHERE id = %d", id)
			rows, err := c.Query(within(t, 10*time.Second), "EXPLAIN (ROUTE) "+write, pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				return false
			}
			if lines, err := pgx.CollectRows(rows, pgx.RowTo[string]); err == nil && strings.Contains(strings.Join(lines, " "), "shard s1") {
				return true
			}
		}
		return false
	})
	must(t, c, write)
	shell := func(line string) {
		t.Helper()
		if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	shell(ps.printedAs("kill the primary"))
	done := make(chan error, 1)
	go func() {
		c, err := pgx.Connect(within(t, 30*time.Second), ps.printedAs("DSN"))
		if err == nil {
			_, err = c.Exec(within(t, 30*time.Second), write)
			_ = c.Close(within(t, time.Second)) // the demo ends soon
		}
		done <- err
	}()
	shell(ps.printedAs("promote a replica"))
	if err := <-done; err != nil {
		t.Errorf("a write during the change: %v", err)
	}
	ctrlC(t, ps)
	ps.endsWithin(20 * time.Second)
	found.gone(t, temp)
}

// TestDemoInterruptedHard: what SIGKILL leaves is removed by those it left.
func TestDemoInterruptedHard(t *testing.T) {
	t.Parallel()
	ps, temp := startDemo(t)
	var found traces
	eventually(t, "a server runs", func() bool { found = ps.traces(); return len(found.processes) > 8 })
	ps.signal(syscall.SIGKILL)
	<-ps.ended
	found.gone(t, temp)
}

// TestDemoWithoutServers says what is wrong with the setting.
func TestDemoWithoutServers(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SHARDPROXY_PG_BINDIR", dir)
	o := call(t, "", "demo", "--listen", freeAddr(t), "--admin", freeAddr(t))
	if o.code != 1 || o.out != "" || !strings.Contains(o.err, "SHARDPROXY_PG_BINDIR is "+dir+": it holds no initdb; set it") {
		t.Errorf("%+v", o)
	}
}
