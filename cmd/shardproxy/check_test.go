package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
	"shardproxy/twopc"
)

// direct runs statements on one shard, past the proxy.
func (s *shardedProgram) direct(shard int, sql string) {
	s.t.Helper()
	s.shards[shard].Primary().Exec("app", sql)
}

// checks calls check and compares its exit code and words of what it prints.
func (s *shardedProgram) checks(code int, args []string, words ...string) string {
	s.t.Helper()
	o := call(s.t, "", append([]string{"check", "-c", s.path}, args...)...)
	if o.code != code {
		s.t.Errorf("check %q: exit code %d, want %d\n%s%s", args, o.code, code, o.out, o.err)
	}
	for _, w := range words {
		if !strings.Contains(o.out+o.err, w) {
			s.t.Errorf("check %q does not say %q:\n%s%s", args, w, o.out, o.err)
		}
	}
	return o.out
}

// TestCheckShards compares two shards, while the proxy runs.
func TestCheckShards(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	s.connectLoaded()
	s.checks(0, []string{"--schema"}, "shard s1: like s0", "0 differences")
	s.checks(0, []string{"--reference"}, "table public.products: 10 rows, alike")
	s.checks(0, []string{"--reference", "--repair"}, "nothing to do, nothing was changed")
	checksFlags(s)
	underLoad(t, s)

	s.direct(1, "CREATE INDEX more ON orders (note); ALTER TABLE orders ADD x int; CREATE TABLE notes (n int); INSERT INTO notes VALUES (1)")
	s.direct(0, "CREATE TABLE notes (n int); CREATE INDEX orders_note ON orders (note)")
	s.checks(1, []string{"--schema"}, "table public.orders, column x is here", "index orders_note is missing", "on s1: CREATE INDEX orders_note", "single table public.notes has rows here")
	var schema schemaReport
	if err := json.Unmarshal([]byte(s.checks(1, []string{"--schema", "--json"})), &schema); err != nil || len(schema.Findings) != 4 || schema.Base != "s0" {
		t.Errorf("%v %+v", err, schema)
	}

	s.direct(1, "DELETE FROM products WHERE id = 2; UPDATE products SET name = E'two\nlines' WHERE id = 3; INSERT INTO products VALUES (77, 'extra')")
	s.checks(1, []string{"--reference"}, "public.products on shard s1, compared with s0: 1 rows missing, 1 extra, 1 different", `two\nlines`, `missing ("id") = (2)`, "(77,extra)")
	s.checks(1, []string{"--reference", "--repair", "--dry-run"}, "would insert 1, update 1 and delete 1 rows", "nothing was changed")
	var reference referenceReport
	if err := json.Unmarshal([]byte(s.checks(1, []string{"--reference", "--json", "--table", "products"})), &reference); err != nil || len(reference.Tables) != 1 ||
		len(reference.Tables[0].Shards[0].Rows) != 3 || reference.Source != "s0" {
		t.Errorf("%v %+v", err, reference)
	}
	s.checks(1, []string{"--reference", "--from", "s1"}, "products on shard s0, compared with s1")
	s.checks(0, []string{"--reference", "--repair"}, "inserted 1, updated 1, deleted 1 rows", "repair: done")
	s.checks(0, []string{"--reference"}, "10 rows, alike")

	// What refers to a row keeps it.
	s.direct(1, "INSERT INTO products VALUES (78, 'kept')")
	s.direct(1, "ALTER TABLE order_items DISABLE TRIGGER ALL; INSERT INTO order_items VALUES (1, 1, 78, 1); ALTER TABLE order_items ENABLE TRIGGER ALL")
	s.checks(1, []string{"--reference", "--repair"}, "repair: failed", "shard s1", "order_items_product_id_fkey", "23503")
	s.direct(1, "TRUNCATE order_items")
	s.checks(0, []string{"--reference", "--repair"}, "deleted 1 rows")

	s.shards[1].Primary().Stop()
	s.checks(2, []string{"--schema"}, "shard s1: not compared: node ", "0 differences")
	s.direct(0, "DELETE FROM products WHERE id = 1")
	s.checks(2, []string{"--reference", "--repair"}, "shard s1: not compared", "nothing was changed")
	s.shards[1].Primary().Start()
}

// checksFlags calls check wrongly.
func checksFlags(s *shardedProgram) {
	for _, args := range [][]string{{"--repair"}, {"--json"}, {"--schema", "--reference"}, {"--schema", "--repair"}, {"--reference", "--dry-run"}, {"--reference", "--strict"},
		{"--reference", "--chunk-rows", "0"}, {"--schema", "--table", "x"}} {
		s.checks(1, args, "shardproxy: ")
	}
	s.checks(2, []string{"--reference", "--table", "orders"}, `no reference table "orders"`)
	s.checks(2, []string{"--reference", "--from", "s9"}, `"s9"`)
	s.checks(2, []string{"--schema", "-c", s.path + ".none"})
	s.checks(0, nil, "good (databases: 1")
}

// underLoad compares while clients write: what they do is no difference.
func underLoad(t *testing.T, s *shardedProgram) {
	end := time.Now().Add(3 * time.Second)
	var group sync.WaitGroup
	var mu sync.Mutex
	writes, checks := 0, 0
	for w := range 4 {
		conn := s.connect()
		group.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				sql := fmt.Sprintf("UPDATE products SET name = 'w%d %d' WHERE id = %d", w, i, 1+rand.IntN(10))
				if i%10 == 0 {
					sql = fmt.Sprintf("INSERT INTO products VALUES (%d, 'new')", 1000*(w+1)+i)
				}
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					t.Error(sql, err)
					return
				}
				mu.Lock()
				writes++
				mu.Unlock()
			}
		})
	}
	group.Go(func() {
		for time.Now().Before(end) {
			o := call(t, "", "check", "-c", s.path, "--reference", "--chunk-rows", "3", "--hold", "10ms")
			if o.code != 0 {
				t.Errorf("under load: exit code %d\n%s%s", o.code, o.out, o.err)
			}
			checks++
		}
	})
	group.Wait()
	if writes < 50 || checks < 2 {
		t.Errorf("%d writes, %d checks", writes, checks)
	}
	t.Logf("%d writes, %d checks", writes, checks)
	must(t, s.connectLoaded(), "DELETE FROM products WHERE id > 10")
}

// wrongCopies makes two shards' copies differ from the home shard's.
func (s *shardedProgram) wrongCopies() {
	s.t.Helper()
	for i := 1; i < 3; i++ {
		s.direct(i, "DELETE FROM products; INSERT INTO products SELECT i, 'wrong' FROM generate_series(5, 3000) i")
	}
}

// copies says of the shards behind the home shard whether they have what it has.
func (s *shardedProgram) copies() (right int) {
	s.t.Helper()
	all := s.onEach("SELECT md5(string_agg(p::text, ',' ORDER BY id)) FROM products p")
	for _, one := range all[1:] {
		if one == all[0] {
			right++
		}
	}
	return right
}

// TestRepairKilled kills a repair of two copies at any moment: both are mended or
// none.
func TestRepairKilled(t *testing.T) {
	t.Parallel()
	s := startShards(t, 3)
	s.connectLoaded()
	s.direct(0, "INSERT INTO products SELECT i, 'right' FROM generate_series(11, 3000) i")
	s.wrongCopies()
	s.checks(0, []string{"--reference", "--repair", "--rows", "1"}, "repair: done", "products on shard s1", "products on shard s2")
	if s.copies() != 2 {
		t.Fatal("the copies are not mended")
	}

	// Caught for certain between the two phases.
	s.wrongCopies()
	lock := pgtest.Connect(t, s.shards[1].Primary().DSN("app", "postgres"))
	must(t, lock, "BEGIN")
	must(t, lock, "LOCK TABLE shardproxy.commits IN EXCLUSIVE MODE")
	kill := s.repairing()
	eventually(t, "a part is prepared", func() bool { return s.prepared() == 1 })
	kill()
	must(t, lock, "ROLLBACK")
	if s.settled(); s.copies() != 0 {
		t.Error("a repair that was killed before its decision has changed rows")
	}

	whole := 0
	for i := range 8 {
		s.wrongCopies()
		kill := s.repairing()
		<-time.After(time.Duration(100+100*i) * time.Millisecond) // the moment of its death, and nothing waited for
		kill()
		s.settled()
		switch n := s.copies(); n {
		case 1:
			t.Fatal("one copy was mended and the other was not")
		case 2:
			whole++
		}
	}
	t.Logf("%d of 8 repairs were done before they were killed", whole)
	s.checks(0, []string{"--reference", "--repair"})
}

// repairing starts a repair, and returns what kills it.
func (s *shardedProgram) repairing() (kill func()) {
	s.t.Helper()
	cmd := command(s.t, "check", "-c", s.path, "--reference", "--repair")
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	}
}

// prepared counts the prepared transactions on all shards.
func (s *shardedProgram) prepared() (n int) {
	for _, one := range s.onEach("SELECT count(*)::text FROM pg_prepared_xacts") {
		n += int(one[0] - '0')
	}
	return n
}

// settled waits until nothing of a repair that was killed is left; recovery finishes
// it, as one of a proxy does, with less patience.
func (s *shardedProgram) settled() {
	t := s.t
	t.Helper()
	eventually(t, "the sessions have ended", func() bool {
		return strings.Trim(strings.Join(s.onEach("SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'shardproxy check'"), ""), "0") == ""
	})
	o := twopc.ResolverOptions{Database: "app", Interval: 50 * time.Millisecond, MinAge: time.Nanosecond}
	cfg, err := load(s.path)
	if err != nil {
		t.Fatal(err)
	}
	for i, cl := range s.shards {
		o.Cluster = cl.Primary().Value("app", "SELECT id FROM shardproxy.cluster")
		o.Shards = append(o.Shards, twopc.Shard{Name: fmt.Sprintf("s%d", i), Connect: primaryOf(cfg, cfg.Database("app"), i)})
	}
	r, err := twopc.NewResolver(o)
	if err == nil {
		err = r.Open(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	eventually(t, "nothing is prepared", func() bool { return s.prepared() == 0 })
}

// TestRepairInLittleMemory mends a copy of 80 MB, of which every row differs.
func TestRepairInLittleMemory(t *testing.T) {
	s := startShards(t, 2)
	s.connectLoaded()
	s.direct(0, "DELETE FROM products; INSERT INTO products SELECT i, repeat(md5(i::text), 64) FROM generate_series(1, 40000) i")
	s.direct(1, "DELETE FROM products; INSERT INTO products SELECT i, repeat(md5('x' || i), 64) FROM generate_series(2, 40001) i")
	cmd := command(t, "check", "-c", s.path, "--reference", "--repair", "--rows", "1")
	cmd.Path = built(t)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Not what the system reports of a child: that counts what it was forked from.
	ended, peak := make(chan error, 1), 0
	go func() { ended <- cmd.Wait() }()
	var err error
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-time.After(5 * time.Millisecond):
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)) // it may have ended
			if m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status); m != nil && strings.Contains(string(status), "shardproxy") {
				kib, _ := strconv.Atoi(string(m[1]))
				peak = max(peak, kib>>10)
			}
		}
	}
	if err != nil || !strings.Contains(out.String(), "inserted 1, updated 39999, deleted 1 rows") {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if peak == 0 || peak > 80 {
		t.Errorf("it took %d MB", peak)
	} else {
		t.Logf("it took %d MB", peak)
	}
	if s.copies() != 1 {
		t.Error("the copy is not mended")
	}
}
